//! Without permission: the answer says which grant is missing, and nothing about keys that the caller may not see.
#![allow(clippy::unwrap_used)] // tests

use std::process::Command;

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Software},
    load::input,
    programs,
};
use signer_contract::PinSetup;
use signer_core::{
    Backend, ErrorKind, HashAlgorithm, KeyName, KeySelector, KeyType, ListRequest, SignatureAlgorithm,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// A daemon with keys `soft/mine`, `soft/secret-project` and `vault/hidden`; afterwards the user of this process may
/// only sign with `soft/mine`.
async fn a_guarded_daemon(soft: &Software, vault: &Software) -> Daemon {
    let backends = [soft.toml("soft", PinSetup::Right), vault.toml("vault", PinSetup::Right)];
    let daemon = Daemon::start(&backends).await;
    for name in ["mine", "secret-project"] {
        daemon.make_key("soft", name).await;
    }
    daemon.make_key("vault", "hidden").await;
    daemon.kill();
    daemon.configure(&format!(
        "{}\n[[grant]]\ncallers = [\"uid:UID\"]\nkeys = [\"soft/mine\"]\noperations = [\"sign\"]\n\
         algorithms = [\"ecdsa-sha256\"]\n\n\
         [[grant]]\ncallers = [\"uid:4242424\"]\nkeys = [\"*\"]\noperations = [\"*\"]\n",
        backends.join("\n")
    ));
    daemon.start_again().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_missing_grant_and_no_key() {
    let (soft, vault) = (Software::start(), Software::start());
    let daemon = a_guarded_daemon(&soft, &vault).await;
    let client = daemon.client();
    client.sign("soft/mine", Some(P256), input(P256, "x")).await.unwrap();

    // A key that is there and one that is not look alike.
    let mut answers = Vec::new();
    for key in ["soft/secret-project", "soft/never-there-was", "vault/hidden", "vault/never-was"] {
        let error = client.sign(key, Some(P256), input(P256, "x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{key}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("sign"), "{key}: it does not say which operation: {text}");
        assert!(text.contains("grant"), "{key}: it does not say that a grant is missing: {text}");
        let others = ["secret-project", "hidden", "mine", "4242424"];
        for other in others.into_iter().filter(|o| !key.contains(o)) {
            assert!(!text.contains(other), "{key}: the answer tells of {other}: {text}");
        }
        let key_info = client.key_info(key).await.unwrap_err();
        assert_eq!(key_info.kind(), ErrorKind::Denied, "{key}: {key_info:?}");
        answers.push(text.replace(key, "KEY"));
    }
    assert_eq!(answers[0], answers[1], "an answer tells whether a key is there");
    assert_eq!(answers[2], answers[3], "an answer tells whether a key is there");
    let nowhere = client.sign("nowhere/x", Some(P256), input(P256, "x")).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Denied, "it tells which backends there are: {nowhere:?}");

    // Another algorithm, another operation.
    let sha384 = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha384);
    let error = client.sign("soft/mine", Some(sha384), input(sha384, "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("ecdsa-sha384"), "{error}");
    for (operation, error) in [
        ("delete", client.delete("soft/mine").await.unwrap_err()),
        ("rotate", client.rotate("soft/mine").await.map(drop).unwrap_err()),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{operation}: {error:?}");
        assert!(error.to_string().contains(operation), "{operation}: {error}");
    }

    // The list has what the caller may use, and counts nothing else.
    let list = client.keys(None, ListRequest::default()).await.unwrap();
    let names: Vec<_> =
        list.keys.iter().map(|(b, k)| format!("{b}/{}", k.name.clone().without_version())).collect();
    assert_eq!(names, ["soft/mine"]);
    assert!(list.unavailable.is_empty());
    let backends = client.backends().await.unwrap();
    assert_eq!(backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["soft"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_command_ends_with_4() {
    let (soft, vault) = (Software::start(), Software::start());
    let daemon = a_guarded_daemon(&soft, &vault).await;
    std::fs::write(daemon.folder().join("file"), "a file").unwrap();
    let sign = async |key: &str| {
        let mut command = daemon.signer();
        command.args(["sign", "file", "--key", key]);
        tokio::task::spawn_blocking(move || programs::output(&mut command)).await.unwrap()
    };
    let allowed = sign("soft/mine").await;
    assert!(allowed.status.success(), "{}", programs::text(&allowed));
    let denied = sign("soft/secret-project").await;
    assert_eq!(denied.status.code(), Some(4), "{}", programs::text(&denied));
}

/// The kernel says who calls, whatever the caller says.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_another_caller() {
    if !rustix::process::getuid().is_root() {
        // Without root nobody can become another user; the tests above have a stranger's grants all the same.
        return;
    }
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "release").await;
    std::fs::write(daemon.folder().join("file"), "a file").unwrap();
    // So that the socket itself does not keep the stranger out.
    for (path, mode) in [(daemon.folder().to_owned(), 0o777), (daemon.socket(), 0o666)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    // A copy, because a checkout may be where the stranger cannot go.
    let signer = daemon.folder().join("signer");
    std::fs::copy(programs::ours("signer"), &signer).unwrap();
    let mut command = Command::new(programs::system("setpriv", "util-linux"));
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(signer);
    command.args(["sign", "file", "--key", "soft/release"]);
    command.env_clear().env("HOME", "/").env("SIGNERD_SOCKET", daemon.socket()).current_dir(daemon.folder());
    let output = tokio::task::spawn_blocking(move || programs::output(&mut command)).await.unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", programs::text(&output));

    let backend = daemon.backend("soft").await;
    let key = KeySelector::Name(KeyName::label("release").unwrap());
    assert_eq!(backend.open(&key).await.unwrap().info().public_key.key_type(), KeyType::EcdsaP256);
}
