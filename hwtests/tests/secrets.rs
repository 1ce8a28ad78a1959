//! A secret never shows up in argv, the environment of children, logs, errors or core dumps.
#![allow(clippy::unwrap_used)] // tests

use std::{os::unix::process::ExitStatusExt, process::Command, time::Duration};

use hwtests::{
    daemon::{Daemon, GRANT_ALL},
    engines::{Engine, SoftHsm, Software},
    load::input,
    process::{self, Signal},
    programs, random_secret,
};
use signer_contract::{Material, PinSetup, make_private_key};
use signer_core::{
    Backend, HashAlgorithm, ImportRequest, KeyName, KeySelector, KeyType, Pin, PrivateKey, SignRequest,
    SignatureAlgorithm, UnlockRequest,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// Whether `bytes` hold the secret as it is, in hexadecimal or in base64 (whatever stands before it).
fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    let find = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    let hexadecimal = hex::encode(secret);
    find(secret) || find(hexadecimal.as_bytes()) || find(hexadecimal.to_uppercase().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_to_be_found() {
    let (hsm, soft) = (SoftHsm::start(), Software::start());
    let wrong = random_secret();
    // The token's PIN comes by the daemon's environment, the passphrase from a file.
    let token = hsm.toml("hsm", PinSetup::Missing).replace("pin = \"prompt\"", "pin = { env = \"HSM_PIN\" }");
    assert!(token.contains("HSM_PIN"));
    let log = "[log]\nlevel = \"trace\"\n";
    let daemon =
        Daemon::prepare(&format!("{log}{token}\n{}\n{GRANT_ALL}", soft.toml("soft", PinSetup::Right)))
            .environment("HSM_PIN", &hsm.pin());
    daemon.start_again().await;

    let mut errors = Vec::new();
    let (hsm_backend, soft_backend) = (daemon.backend("hsm").await, daemon.backend("soft").await);
    daemon.make_key("hsm", "release").await;
    daemon.make_key("soft", "release").await;
    // Something confidential to sign, and a private key to import.
    let payload = format!("confidential {}", random_secret());
    for (backend, key) in [(&hsm_backend, "hsm/release"), (&soft_backend, "soft/release")] {
        daemon
            .client()
            .sign(key, Some(P256), signer_core::Input::Message(payload.clone().into()))
            .await
            .unwrap();
        let signer = backend.open(&KeySelector::Name(KeyName::label("release").unwrap())).await.unwrap();
        let unfit = SignRequest::message(SignatureAlgorithm::MlDsa, payload.clone());
        errors.push(signer.sign(unfit).await.unwrap_err());
    }
    let new_key = make_private_key(KeyType::EcdsaP256).unwrap();
    let pkcs8 = new_key.file(Material::Pkcs8Der).unwrap();
    // The scalar alone: it would be found in any encoding of the key.
    let scalar = pkcs8[36..68].to_vec();
    let import = async |backend: &signerd_api::RemoteBackend, name: &str| {
        let key = PrivateKey::from_pkcs8(&pkcs8).unwrap();
        let request = ImportRequest::new(KeyName::label(name).unwrap(), key);
        backend.import().unwrap().import(request).await
    };
    for backend in [&hsm_backend, &soft_backend] {
        import(backend, "imported").await.unwrap();
        errors.push(import(backend, "imported").await.unwrap_err());
    }
    // A wrong PIN that reaches the device, because new drivers have to log in; and a reference that holds one.
    for driver in daemon.drivers() {
        process::signal(driver, Signal::KILL);
    }
    let unlock = UnlockRequest { pin: Pin::new(wrong.clone()).unwrap(), use_last_try: false };
    errors.push(hsm_backend.unlock().unwrap().unlock(unlock).await.unwrap_err());
    let with_pin = format!("pkcs11:token=x;object=y?pin-value={wrong}");
    errors.push(daemon.client().sign(&with_pin, None, input(P256, "x")).await.unwrap_err());
    let right = UnlockRequest { pin: Pin::new(hsm.pin()).unwrap(), use_last_try: false };
    hsm_backend.unlock().unwrap().unlock(right).await.unwrap();
    daemon.client().sign("hsm/release", Some(P256), input(P256, "x")).await.unwrap();

    let errors: Vec<_> = errors.iter().map(|e| format!("{e:?}")).collect();
    let errors = errors.join("\n");
    let family = process::family(daemon.pid());
    assert!(family.len() > 1, "the daemon has no driver");
    let secrets: Vec<(&str, Vec<u8>)> = vec![
        ("the token's PIN", hsm.pin().into_bytes()),
        ("the passphrase", soft.pin().into_bytes()),
        ("a wrong PIN", wrong.into_bytes()),
        ("what was signed", payload.into_bytes()),
        ("a private key", scalar),
    ];
    for (what, secret) in &secrets {
        for pid in &family {
            assert!(
                !holds(&process::read(*pid, "cmdline"), secret),
                "{what} is in the arguments of process {pid}"
            );
            if *pid != daemon.pid() {
                assert!(
                    !holds(&process::read(*pid, "environ"), secret),
                    "{what} is in the environment of process {pid}"
                );
            }
        }
        assert!(!holds(daemon.log().as_bytes(), secret), "{what} is in the log");
        assert!(!holds(errors.as_bytes(), secret), "{what} is in an error:\n{errors}");
        for folder in [soft.keys(), daemon.state()] {
            for file in files(&folder) {
                let bytes = std::fs::read(&file).unwrap();
                assert!(!holds(&bytes, secret), "{what} is in {}", file.display());
            }
        }
    }
    assert!(daemon.log().len() > 100, "the log that was looked at is empty");

    // Keys and state are nobody else's to read.
    for folder in [soft.keys(), daemon.state()] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&folder).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", folder.display());
    }
}

/// Every file under a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_core_is_ever_dumped() {
    let hsm = SoftHsm::start();
    let daemon = Daemon::prepare(&format!("{}\n{GRANT_ALL}", hsm.toml("hsm", PinSetup::Right))).wrapped(&[
        "prlimit",
        "--core=unlimited",
        "--",
    ]);
    daemon.start_again().await;
    daemon.make_key("hsm", "release").await;

    // The same limit lets another program dump its core, so what follows shows something.
    let folder = tempfile::tempdir().unwrap();
    let mut sleeper = Command::new("prlimit");
    sleeper.args(["--core=unlimited", "--", "sleep", "60"]).current_dir(folder.path());
    let mut sleeper = sleeper.spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    process::signal(sleeper.id(), Signal::ABORT);
    let would_dump = sleeper.wait().unwrap().core_dumped();

    for pid in process::family(daemon.pid()) {
        let limits = String::from_utf8_lossy(&process::read(pid, "limits")).into_owned();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap().to_owned();
        let none = core.split_whitespace().filter(|w| *w == "0").count() == 2;
        assert!(none, "process {pid} may dump its core: {core}");
    }
    let pid = daemon.pid();
    process::signal(pid, Signal::ABORT);
    let status = daemon.ended(Duration::from_secs(5)).await.expect("the daemon ends by the signal");
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped(), "the daemon dumped its core (others do: {would_dump})");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "release").await;
    daemon.kill();
    let key_files = files(&soft.keys());
    assert!(!key_files.is_empty());
    for file in &key_files {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap();
    }
    daemon.start_again().await;
    let error = daemon.client().sign("soft/release", Some(P256), input(P256, "x")).await.unwrap_err();
    assert!(error.to_string().contains("chmod"), "it does not say the fix: {error:?}");
    for file in &key_files {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    daemon.client().sign("soft/release", Some(P256), input(P256, "x")).await.unwrap();
}

#[test]
fn programs_of_the_system_are_there() {
    for (program, package) in
        [("prlimit", "util-linux"), ("unshare", "util-linux"), ("setpriv", "util-linux")]
    {
        programs::system(program, package);
    }
}
