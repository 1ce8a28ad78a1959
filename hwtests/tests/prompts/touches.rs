//! Touches: who asks, with which key, to sign what, until when.

use std::time::Duration;

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv},
    pty::Terminal,
};
use signer_contract::PinSetup;
use signer_core::{Event, KeyPolicy, TouchPolicy};
use signerd_api::{Happening, Prompts};

use crate::support::{SOON, make, sign};

async fn card_with_touch() -> (Piv, Daemon) {
    let card = Piv::start();
    let daemon = Daemon::start(&[card.toml("yubikey", PinSetup::Right)]).await;
    make(&daemon, "9c", KeyPolicy { touch: Some(TouchPolicy::Always), ..KeyPolicy::default() }).await;
    (card, daemon)
}

/// The event says it all, to whoever asks and to whoever watches.
#[tokio::test(flavor = "multi_thread")]
async fn a_touch_says_who_asks_and_for_what() {
    let (card, daemon) = card_with_touch().await;
    let (looker_on, client) = (daemon.client(), daemon.client().label("release.tar.gz"));
    let mut all = looker_on.watch(None).await.unwrap();
    let mut own = client.watch_with(None, Prompts::Own).await.unwrap();
    let signing = {
        let client = client.clone();
        tokio::spawn(async move { sign(&client, "yubikey/9c").await })
    };
    assert!(card.card().wait_for_touch_request(SOON));
    for (events, yours) in [(&mut all, false), (&mut own, true)] {
        let found = tokio::time::timeout(SOON, async {
            loop {
                let event = events.next().await.unwrap().unwrap();
                if let Happening::Backend(Event::TouchRequired { prompt, caller, purpose, label }) =
                    event.happening
                {
                    assert_eq!(event.yours, yours);
                    assert_eq!(event.backend.as_deref(), Some("yubikey"));
                    return (prompt, caller, purpose, label);
                }
            }
        });
        let (prompt, caller, purpose, label) = found.await.unwrap();
        assert_eq!(
            (prompt.device.as_str(), prompt.key.as_str()),
            ("YubiKey 5.7.1 serial 12345678", "yubikey/9c")
        );
        assert_eq!(prompt.timeout, Duration::from_secs(15));
        assert!(caller.contains("uid"), "{caller}");
        assert!(purpose.starts_with("ecdsa-sha256 of the digest sha256:"), "{purpose}");
        assert_eq!(label.as_deref(), Some("release.tar.gz"));
    }
    card.card().touch();
    signing.await.unwrap().unwrap();
    let ended = tokio::time::timeout(SOON, own.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(ended.happening, Happening::Backend(Event::TouchEnded { .. })), "{ended:?}");
}

/// Who may only sign is told of the own touch, without a grant to watch.
#[tokio::test(flavor = "multi_thread")]
async fn the_own_touch_needs_no_grant_to_watch() {
    let (card, daemon) = card_with_touch().await;
    daemon.kill();
    daemon.configure(&format!(
        "{}\n[[grant]]\ncallers = [\"uid:UID\"]\nkeys = [\"yubikey/*\"]\noperations = [\"sign\"]\n",
        card.toml("yubikey", PinSetup::Right)
    ));
    daemon.start_again().await;
    daemon.backend("yubikey").await;
    let client = daemon.client();
    let mut own = client.watch_with(None, Prompts::Own).await.unwrap();
    let mut others = daemon.client().watch_with(None, Prompts::Own).await.unwrap();
    card.card().touch_by_itself(Some(Duration::from_millis(100)));
    sign(&client, "yubikey/9c").await.unwrap();
    let event = tokio::time::timeout(SOON, own.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event.happening, Happening::Backend(Event::TouchRequired { .. })), "{event:?}");
    let quiet = tokio::time::timeout(Duration::from_millis(300), others.next()).await;
    assert!(quiet.is_err(), "another connection is told: {quiet:?}");
}

/// At the terminal: a line with the time that is left, which goes when the card was touched.
#[tokio::test(flavor = "multi_thread")]
async fn signing_says_that_a_touch_is_waited_for() {
    let (card, daemon) = card_with_touch().await;
    std::fs::write(daemon.folder().join("release.tar.gz"), "x").unwrap();
    let mut command = daemon.signer();
    command.args(["sign", "release.tar.gz", "--key", "yubikey/9c"]);
    let mut terminal = Terminal::start(&command);
    terminal.sees("Touch YubiKey 5.7.1 serial 12345678 now: sign release.tar.gz with yubikey/9c, for ");
    terminal.sees("15 s left");
    terminal.sees("14 s left");
    assert!(card.card().wait_for_touch_request(SOON));
    card.card().touch();
    terminal.sees("\r\u{1b}[K");
    terminal.sees("signed release.tar.gz with yubikey/9c");
    let (status, screen) = terminal.end();
    assert!(status.success(), "{screen}");
}
