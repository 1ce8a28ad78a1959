//! All kinds of backends behind one daemon, as people use them.
#![allow(clippy::unwrap_used)] // tests

use std::time::Duration;

use hwtests::{
    daemon::{Daemon, GRANT_ALL},
    engines::EveryKind,
    eventually, programs,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_list_one_way_to_sign_and_one_that_is_away_hurts_nobody() {
    let mut engines = EveryKind::start();
    let daemon = Daemon::start_with(&format!("{}\n{GRANT_ALL}", engines.toml())).await;
    EveryKind::make_keys(&daemon).await;
    let listed = programs::must(daemon.signer().args(["keys", "list"]));
    let file = daemon.folder().join("release");
    std::fs::write(&file, "the same file").unwrap();
    for (backend, key) in EveryKind::KEYS {
        let reference = format!("{backend}/{key}");
        assert!(listed.contains(&reference), "{reference} is not in the list:\n{listed}");
        // The same command and the same bundle, whatever holds the key; verified with the public key alone.
        programs::must(daemon.signer().args(["sign", "--key", &reference]).arg(&file));
        let pem = daemon.folder().join(format!("{backend}.pem"));
        std::fs::write(&pem, programs::must(daemon.signer().args(["keys", "show", "--pem", &reference])))
            .unwrap();
        programs::must(daemon.signer().arg("verify").arg(&file).arg("--key").arg(&pem));
    }

    engines.take_vault_away();
    let status = || {
        let output = programs::output(daemon.signer().args(["status", "--output", "json"]));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), value)
    };
    let noticed = eventually(Duration::from_mins(1), async || status().0 == Some(1));
    assert!(noticed.await, "{:?}", status());
    let (_, value) = status();
    for backend in value["backends"].as_array().unwrap() {
        let is_well = backend["healthy"] == true;
        assert_eq!(is_well, backend["name"] != "vault", "{backend}");
    }
    for (backend, key) in EveryKind::KEYS {
        let signed =
            programs::output(daemon.signer().args(["sign", "--key", &format!("{backend}/{key}")]).arg(&file));
        assert_eq!(signed.status.success(), backend != "vault", "{}", programs::text(&signed));
    }
}
