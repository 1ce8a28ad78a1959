//! Calls that need a PIN: who waits, who answers, and how it ends.

use std::time::{Duration, Instant};

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv, SoftHsm, SwTpm},
    load::input,
};
use signer_contract::PinSetup;
use signer_core::{
    ErrorKind, GenerateRequest, KeyName, KeyPolicy, KeyType, PinPolicy, SignRequest, UnlockRequest,
};
use signerd_api::{Happening, PinEnd, Prompts};

use crate::support::{Answerer, P256, SOON, card_without_pin, name, pin, sign, signing, wrong_pin};

/// A script does not hang: where nobody answers, the error comes at once, and says what to do. Whoever only looks on, or
/// answers for itself alone, is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_and_nobody_waits() {
    let (card, daemon) = card_without_pin().await;
    let client = daemon.client();
    let looker_on = daemon.client();
    let mut events = looker_on.watch(None).await.unwrap();
    let another = daemon.client();
    let _own = another.watch_with(None, Prompts::Own).await.unwrap();
    let began = Instant::now();
    let error = sign(&client, "yubikey/9a").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::PinRequired);
    assert!(error.to_string().contains("signer keys unlock yubikey"), "{error}");
    // The one that answers for itself waits for itself.
    let waits = signing(&another, "yubikey/9a");
    loop {
        let event = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap().unwrap();
        if let Happening::PinRequest(request) = event.happening {
            assert!(!event.yours && !request.askers[0].yours, "it is another's");
            assert_eq!(request.askers[0].key.as_deref(), Some("yubikey/9a"));
            break;
        }
    }
    looker_on.unlock(&name("yubikey"), pin(&card.pin())).await.unwrap();
    waits.await.unwrap().unwrap();
}

/// "PIN asked every time": two who wait at once are one question, whatever their keys demand, and both go on.
#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_are_answered_by_one_pin() {
    let (card, daemon) = card_without_pin().await;
    let mut person = Answerer::listen(&daemon).await;
    let (one, two) = (daemon.client().label("release.tar.gz"), daemon.client());
    let first = signing(&one, "yubikey/9a");
    let request = person.request(1).await;
    assert_eq!(request.device, "YubiKey 5.7.1 serial 12345678");
    assert_eq!(request.tries_left, Some(3));
    assert!(request.timeout > Duration::from_secs(20), "{:?}", request.timeout);
    let asker = &request.askers[0];
    assert!(asker.caller.contains("uid"), "{}", asker.caller);
    assert_eq!((asker.operation.as_str(), asker.key.as_deref()), ("sign", Some("yubikey/9a")));
    assert_eq!(asker.label.as_deref(), Some("release.tar.gz"));
    assert!(asker.purpose.starts_with("ecdsa-sha256 of the digest sha256:"), "{}", asker.purpose);
    let second = signing(&two, "yubikey/9c");
    let both = person.request(2).await;
    assert_eq!(both.number, request.number, "it is asked once");
    person.answer(&both, &card.pin()).await.unwrap();
    assert_eq!(person.end().await, (request.number, PinEnd::Given));
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    sign(&two, "yubikey/9c").await.unwrap();
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}

/// Whoever goes away is not waited for, and the question goes with the last of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_withdraws_its_wait() {
    let (card, daemon) = card_without_pin().await;
    let mut person = Answerer::listen(&daemon).await;
    let (one, two) = (daemon.client(), daemon.client());
    let first = signing(&one, "yubikey/9a");
    let request = person.request(1).await;
    let second = signing(&two, "yubikey/9a");
    person.request(2).await;
    first.abort();
    assert_eq!(person.request(1).await.number, request.number);
    second.abort();
    assert_eq!(person.end().await, (request.number, PinEnd::Withdrawn));
    // Too late: nothing is tried.
    let before = card.card().state().counters.verifies;
    let error = person.answer(&request, &card.pin()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(card.card().state().counters.verifies, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_in_time() {
    let (card, daemon) = card_without_pin().await;
    let mut person = Answerer::listen(&daemon).await;
    let patient = daemon.client();
    let hasty = daemon.client().timeout(Duration::from_millis(900));
    let waits = signing(&patient, "yubikey/9c");
    let request = person.request(1).await;
    let began = Instant::now();
    let error = sign(&hasty, "yubikey/9a").await.unwrap_err();
    assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::PinRequired);
    assert!(error.what().contains("in time"), "{error}");
    assert!(!waits.is_finished(), "the other one has time");
    waits.abort();
    assert_eq!(person.end().await, (request.number, PinEnd::Withdrawn));
    assert!(sign(&hasty, "yubikey/9a").await.is_err());
    assert_eq!(person.end().await.1, PinEnd::TimedOut);
    assert_eq!(card.card().state().counters.verifies, 0, "a try was burnt");
}

/// "never a second try with a wrong PIN": it costs one try, whoever gives it again, and the right one is still welcome.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_and_then_the_right_one() {
    let (card, daemon) = card_without_pin().await;
    let mut person = Answerer::listen(&daemon).await;
    let client = daemon.client();
    let waits = signing(&client, "yubikey/9a");
    let request = person.request(1).await;
    let wrong = wrong_pin(&card);
    let error = person.answer(&request, &wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: Some(2) });
    let told = person.request(1).await;
    assert_eq!((told.number, told.tries_left), (request.number, Some(2)));
    assert!(told.refused.as_ref().unwrap().contains("refused"), "{told:?}");
    // The same again, by whomever: not tried.
    let error = person.answer(&request, &wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: Some(2) });
    assert!(error.what().contains("not tried"), "{error}");
    // Somebody else who comes now is asked for it, too, and not told that the device is locked.
    let late = signing(&daemon.client(), "yubikey/9c");
    assert_eq!(person.request(2).await.number, request.number);
    assert_eq!(card.card().state().pin_tries, 2);
    person.answer(&request, &card.pin()).await.unwrap();
    waits.await.unwrap().unwrap();
    late.await.unwrap().unwrap();
    let state = card.card().state();
    assert_eq!((state.counters.failed_verifies, state.pin_tries), (1, 3));
}

/// Mistyped outside of any request: the next who needs the PIN is asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_unlock_is_asked_for_again() {
    let (card, daemon) = card_without_pin().await;
    let mut person = Answerer::listen(&daemon).await;
    person.client.unlock(&name("yubikey"), pin(&wrong_pin(&card))).await.unwrap_err();
    let waits = signing(&daemon.client(), "yubikey/9a");
    let request = person.request(1).await;
    assert_eq!(request.tries_left, Some(2));
    person.answer(&request, &card.pin()).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(card.card().state().counters.failed_verifies, 1);
}

/// The last try is nobody's by accident, in a prompt neither.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_try_needs_a_word() {
    let (card, daemon) = card_without_pin().await;
    card.card().set_tries_left(Some(1), None);
    let mut person = Answerer::listen(&daemon).await;
    let waits = signing(&daemon.client(), "yubikey/9a");
    let request = person.request(1).await;
    let error = person.answer(&request, &card.pin()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("--use-last-try"), "{error}");
    assert_eq!(card.card().state().pin_tries, 1);
    assert!(!waits.is_finished());
    let sure = UnlockRequest { use_last_try: true, ..pin(&card.pin()) };
    person.client.answer_pin(&name("yubikey"), request.number, sure).await.unwrap();
    waits.await.unwrap().unwrap();
}

/// The device is blocked by the last wrong one: all who wait are told, and nobody waits for what cannot come.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_blocks_ends_the_request() {
    let (card, daemon) = card_without_pin().await;
    card.card().set_tries_left(Some(1), None);
    let mut person = Answerer::listen(&daemon).await;
    let waits = signing(&daemon.client(), "yubikey/9a");
    let request = person.request(1).await;
    let sure = UnlockRequest { use_last_try: true, ..pin(&wrong_pin(&card)) };
    let error = person.client.answer_pin(&name("yubikey"), request.number, sure).await.unwrap_err();
    let blocked = matches!(error.kind(), ErrorKind::WrongPin { tries_left: Some(0) } | ErrorKind::Locked);
    assert!(blocked, "{error:?}");
    assert!(person.end().await == (request.number, PinEnd::Failed), "it goes on");
    assert!(waits.await.unwrap().is_err());
    // And the next one does not wait at all.
    let began = Instant::now();
    let error = sign(&daemon.client(), "yubikey/9a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_asked_may_say_no() {
    let (_card, daemon) = card_without_pin().await;
    let mut person = Answerer::listen(&daemon).await;
    let waits = [signing(&daemon.client(), "yubikey/9a"), signing(&daemon.client(), "yubikey/9c")];
    let request = person.request(2).await;
    person.client.refuse_pin(&name("yubikey"), request.number).await.unwrap();
    assert_eq!(person.end().await, (request.number, PinEnd::Refused));
    for wait in waits {
        let error = wait.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PinRequired);
        assert!(error.what().contains("refused"), "{error}");
    }
    let error = person.client.refuse_pin(&name("yubikey"), request.number).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// A watcher that comes late hears what is open; when the last one who could answer goes, nobody is left waiting.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_come_and_go() {
    let (_card, daemon) = card_without_pin().await;
    let mut first = Answerer::listen(&daemon).await;
    let client = daemon.client();
    let waits = signing(&client, "yubikey/9a");
    let request = first.request(1).await;
    let mut late = Answerer::listen(&daemon).await;
    assert_eq!(late.request(1).await.number, request.number);
    drop(first);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished(), "there is another one who answers");
    drop(late);
    let error = tokio::time::timeout(SOON, waits).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRequired);
    assert!(error.to_string().contains("signer keys unlock yubikey"), "{error}");
}

/// Who may not unlock hears nothing, and answers for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_grant_no_prompt_is_seen() {
    let card = Piv::start();
    let tables = |operations: &str| {
        format!(
            "{}\n[[grant]]\ncallers = [\"uid:UID\"]\nkeys = [\"yubikey/*\"]\noperations = [{operations}]\n",
            card.toml("yubikey", PinSetup::Missing)
        )
    };
    let daemon = Daemon::start_with(&tables("\"*\"")).await;
    crate::support::make(&daemon, "9a", KeyPolicy { pin: Some(PinPolicy::Once), ..KeyPolicy::default() })
        .await;
    daemon.kill();
    daemon.configure(&tables("\"sign\", \"watch\""));
    daemon.start_again().await;
    daemon.backend("yubikey").await;
    let client = daemon.client();
    let mut events = client.watch_with(None, Prompts::All).await.unwrap();
    let own = client.watch_with(None, Prompts::Own).await.unwrap();
    let error = sign(&client, "yubikey/9a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRequired, "it waits for somebody who may not answer: {error:?}");
    for refused in [
        client.answer_pin(&name("yubikey"), 1, pin(&card.pin())).await,
        client.refuse_pin(&name("yubikey"), 1).await,
        client.lock(&name("yubikey")).await,
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    }
    let quiet = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            assert!(!matches!(event.happening, Happening::PinRequest(_)), "{event:?}");
        }
    });
    assert!(quiet.await.is_err());
    drop(own);

    // Not even to watch: then own prompts only, and nobody else's.
    daemon.kill();
    daemon.configure(&tables("\"sign\""));
    daemon.start_again().await;
    let client = daemon.client();
    for prompts in [Prompts::None, Prompts::All] {
        let error = client.watch_with(None, prompts).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{prompts:?}");
    }
    client.watch_with(None, Prompts::Own).await.unwrap();
}

/// A token that shows no private key before its PIN: looking a key up waits for it, and making one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_when_a_key_is_looked_up() {
    let hsm = SoftHsm::spied();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Missing)]).await;
    daemon.backend("hsm").await;
    let mut person = Answerer::listen(&daemon).await;
    let client = daemon.client();
    let making = {
        let (client, key) = (client.clone(), KeyName::label("release").unwrap());
        tokio::spawn(async move {
            client.create(&name("hsm"), GenerateRequest::new(key, KeyType::EcdsaP256)).await
        })
    };
    let looking = {
        let client = daemon.client();
        tokio::spawn(async move { client.key_info("hsm/release").await })
    };
    let request = person.request(2).await;
    let mut operations: Vec<_> = request.askers.iter().map(|a| a.operation.as_str()).collect();
    operations.sort_unstable();
    assert_eq!(operations, ["create", "list"]);
    let before = hsm.logins().unwrap();
    person.client.answer_pin(&name("hsm"), request.number, pin(&hsm.pin())).await.unwrap();
    making.await.unwrap().unwrap();
    // The key was there, or was not yet.
    if let Err(error) = looking.await.unwrap() {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    sign(&client, "hsm/release").await.unwrap();
    assert!(hsm.logins().unwrap() - before <= 2, "one login for each driver process:\n{}", hsm.calls());
}

/// A TPM's key, and a stream of requests: each waits, none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_for_a_tpms_pin() {
    let tpm = SwTpm::start();
    let made = Daemon::start(&[tpm.toml("tpm", PinSetup::Right)]).await;
    made.make_key("tpm", "release").await;
    drop(made);
    let daemon = Daemon::start(&[tpm.toml("tpm", PinSetup::Missing)]).await;
    daemon.backend("tpm").await;
    let mut person = Answerer::listen(&daemon).await;
    let client = daemon.client();
    let stream = client.sign_stream("tpm/release", P256, 4);
    let signatures: Vec<_> = (0..4)
        .map(|n| {
            let stream = stream.clone();
            let request = SignRequest::new(P256, input(P256, &format!("{n}"))).unwrap();
            tokio::spawn(async move { stream.sign(request).await })
        })
        .collect();
    let request = person.request(1).await;
    let asker = &request.askers[0];
    assert_eq!((asker.operation.as_str(), asker.key.as_deref()), ("sign", Some("tpm/release")));
    person.client.answer_pin(&name("tpm"), request.number, pin(&tpm.pin())).await.unwrap();
    for signature in signatures {
        signature.await.unwrap().unwrap();
    }
}
