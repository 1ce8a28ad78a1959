//! Grants, as other users meet them. (As root, a thread of the test becomes another user; otherwise the grants are for
//! somebody else.)

#![allow(clippy::unwrap_used)]

mod support;

use signer_core::{ErrorKind, GenerateRequest, Input, KeyType, ListRequest, SignatureAlgorithm};
use signerd_api::Client;
use support::{Daemon, SOFT, all_for_me};

const OTHER: u32 = 65_432;

/// Does something as another user, with a runtime of its own.
fn as_other<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        let (uid, gid) = (rustix::process::Uid::from_raw(OTHER), rustix::process::Gid::from_raw(OTHER));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
    })
    .join()
    .unwrap()
}

/// A daemon with the keys `a` and `b`, where the other user may do what `grant` says.
async fn daemon(grant: &str) -> Option<Daemon> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let daemon = Daemon::with(&format!(
        "{SOFT}[[key]]\nname = \"release\"\nmembers = [\"soft/a\"]\n{}{grant}",
        all_for_me()
    ))
    .await;
    for name in ["a", "b"] {
        let request = GenerateRequest::new(name.parse().unwrap(), KeyType::EcdsaP256);
        daemon.client().create(&"soft".parse().unwrap(), request).await.unwrap();
    }
    Some(daemon)
}

fn grant(keys: &str, operations: &str) -> String {
    format!("[[grant]]\ncallers = [\"uid:{OTHER}\"]\nkeys = [{keys}]\noperations = [{operations}]\n")
}

async fn sign(client: &Client, key: &str) -> Result<String, signer_core::Error> {
    client.sign(key, None, Input::Message("x".into())).await.map(|s| s.key)
}

#[tokio::test]
async fn whoever_has_no_grant_is_denied_and_learns_nothing() {
    let configuration =
        format!("{SOFT}[[grant]]\ncallers = [\"uid:{OTHER}\"]\nkeys = [\"*\"]\noperations = [\"*\"]\n");
    let daemon = Daemon::with(&configuration).await;
    let client = daemon.client();
    let there = sign(&client, "soft/a").await.unwrap_err();
    assert_eq!(there.kind(), ErrorKind::Denied);
    assert!(client.backends().await.unwrap().is_empty());
    assert!(client.keys(None, ListRequest::default()).await.unwrap().keys.is_empty());
    assert_eq!(client.watch(None).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_grant_for_one_key_is_for_that_key() {
    let Some(daemon) = daemon(&grant("\"release\"", "\"sign\"")).await else { return };
    // Both are used before, so that the daemon has them at hand.
    for key in ["soft/a", "soft/b"] {
        sign(&daemon.client(), key).await.unwrap();
    }
    let socket = daemon.socket();
    as_other(async move || {
        let client = Client::new(socket);
        for key in ["release", "soft/a", "soft/a@1"] {
            assert_eq!(sign(&client, key).await.unwrap(), "soft/a@1");
        }
        let text = |e: signer_core::Error, key: &str| format!("{e:?}").replace(key, "KEY");
        let there = text(sign(&client, "soft/b").await.unwrap_err(), "soft/b");
        let not_there = text(sign(&client, "soft/nothing").await.unwrap_err(), "soft/nothing");
        assert_eq!(there, not_there);
        assert!(there.starts_with("DENIED"), "{there}");
        assert!(there.contains("\"sign\"") && there.contains(&OTHER.to_string()), "{there}");
        for key in ["pkcs11:object=b", "soft/id:00", "hsm/x", "nothing"] {
            assert_eq!(sign(&client, key).await.unwrap_err().kind(), ErrorKind::Denied, "{key}");
        }
        assert_eq!(client.delete("soft/a").await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(client.rotate("soft/a").await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(client.key_info("soft/b").await.unwrap_err().kind(), ErrorKind::Denied);
        client.key_info("release").await.unwrap();
        let keys = client.keys(None, ListRequest::default()).await.unwrap().keys;
        assert_eq!(keys.iter().map(|(_, k)| k.name.to_string()).collect::<Vec<_>>(), ["a@1"]);
        let request = GenerateRequest::new("c".parse().unwrap(), KeyType::EcdsaP256);
        let error = client.create(&"soft".parse().unwrap(), request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(client.watch(None).await.unwrap_err().kind(), ErrorKind::Denied);
        let pin = signer_core::Pin::new("1".into()).unwrap();
        let unlock = signer_core::UnlockRequest { pin, use_last_try: false };
        assert_eq!(
            client.unlock(&"soft".parse().unwrap(), unlock).await.unwrap_err().kind(),
            ErrorKind::Denied
        );
    });
}

#[tokio::test]
async fn algorithms_can_be_limited() {
    let limited = format!("{}algorithms = [\"ecdsa-sha384\"]\n", grant("\"soft/*\"", "\"sign\""));
    let Some(daemon) = daemon(&limited).await else { return };
    let socket = daemon.socket();
    as_other(async move || {
        let client = Client::new(socket);
        let ask = async |algorithm: Option<&str>| {
            let algorithm = algorithm.map(|a| a.parse::<SignatureAlgorithm>().unwrap());
            client.sign("soft/a", algorithm, Input::Message("x".into())).await
        };
        ask(Some("ecdsa-sha384")).await.unwrap();
        for denied in [None, Some("ecdsa-sha256"), Some("ed25519")] {
            let error = ask(denied).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        }
    });
}

#[tokio::test]
async fn a_reload_takes_a_grant_back_even_from_an_open_stream() {
    let Some(daemon) = daemon(&grant("\"soft/a\"", "\"sign\"")).await else { return };
    let socket = daemon.socket();
    let (told, tell) = std::sync::mpsc::channel();
    let (go, gone) = tokio::sync::oneshot::channel();
    let other = std::thread::spawn(move || {
        as_other(async move || {
            let client = Client::new(socket);
            let algorithm: SignatureAlgorithm = "ecdsa-sha256".parse().unwrap();
            let stream = client.sign_stream("soft/a", algorithm, 4);
            let request = signer_core::SignRequest::message(algorithm, "x");
            stream.sign(request.clone()).await.unwrap();
            sign(&client, "soft/a").await.unwrap();
            told.send(()).unwrap();
            gone.await.unwrap();
            for _ in 0..3 {
                let error = stream.sign(request.clone()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            }
            assert_eq!(sign(&client, "soft/a").await.unwrap_err().kind(), ErrorKind::Denied);
        });
    });
    tell.recv().unwrap();
    daemon.reload(&format!("{SOFT}{}", all_for_me())).await;
    go.send(()).unwrap();
    tokio::task::spawn_blocking(|| other.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn watchers_see_only_what_they_may() {
    use signerd_api::Happening;
    let Some(daemon) = daemon(&grant("\"soft/seen*\"", "\"watch\"")).await else { return };
    let socket = daemon.socket();
    let (told, tell) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        as_other(async move || {
            let client = Client::new(socket);
            let mut events = client.watch(None).await.unwrap();
            told.send(()).unwrap();
            loop {
                if let Happening::KeyCreated(key) = events.next().await.unwrap().unwrap().happening {
                    return key;
                }
            }
        })
    });
    tell.recv().unwrap();
    let client = daemon.client();
    for name in ["hidden", "seen-1"] {
        let request = GenerateRequest::new(name.parse().unwrap(), KeyType::EcdsaP256);
        client.create(&"soft".parse().unwrap(), request).await.unwrap();
    }
    let key = tokio::task::spawn_blocking(|| other.join().unwrap()).await.unwrap();
    assert_eq!(key, "soft/seen-1@1");
}
