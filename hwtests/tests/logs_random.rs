//! Random requests: the short form of `signer-log-bench random`.
#![allow(clippy::unwrap_used)] // tests

use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    log::LogServer,
    programs,
    random_requests::{Report, still_serves, storm},
};
use signer_contract::PinSetup;
use signer_core::KeyType;

const REQUESTS: u64 = 30_000;

async fn unharmed(log: &mut LogServer, seed: u64) -> Report {
    let report = storm(log.address(), log.pid(), REQUESTS, seed).await;
    println!("seed {seed}: {report:?}");
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(!log.output().contains("panicked"), "{}", log.output());
    // A debug build is larger than what is shipped; what counts is that it does not grow.
    assert!(report.memory.1 < report.memory.0 + 40 * 1024, "it grows: {:?} KiB", report.memory);
    assert!(still_serves(log.address()).await);
    assert!(log.stop().success());
    assert_eq!(log.check().0, Vec::<String>::new());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_log_is_not_harmed_by_random_requests() {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "log").await;
    let mut log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let report = unharmed(&mut log, u64::from(std::process::id())).await;
    assert!(report.answers.get(&201).is_some_and(|n| *n > 50), "{report:?}");
    assert!(report.answers.get(&400).is_some_and(|n| *n > 500), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_log_is_not_harmed_by_random_requests() {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    daemon.make_key_of("soft", "log", KeyType::EcdsaP256).await;
    let roots = daemon.folder().join("roots.pem");
    programs::must(
        std::process::Command::new(programs::system("openssl", "openssl"))
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=root",
            ])
            .arg("-keyout")
            .arg(daemon.folder().join("root.key"))
            .arg("-out")
            .arg(&roots),
    );
    let arguments = ["--roots", roots.to_str().unwrap()];
    let mut log = LogServer::start(&daemon, "log", "certificate", "soft/log", &arguments).await;
    let report = unharmed(&mut log, u64::from(std::process::id())).await;
    assert!(report.answers.get(&400).is_some_and(|n| *n > 100), "{report:?}");
}
