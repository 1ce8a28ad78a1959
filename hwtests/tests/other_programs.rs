//! Unmodified programs of others, and the commands that people type.
#![allow(clippy::unwrap_used)] // tests

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Kryoptic, SoftHsm, Software},
    openssl::openssl_verifies,
    programs,
};
use signer_contract::PinSetup;
use signer_core::{Input, KeyType};

const MESSAGE: &[u8] = b"what openssl reads\n";

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_every_algorithm_that_it_knows() {
    let (hsm, soft, kryoptic) = (SoftHsm::start(), Software::start(), Kryoptic::start());
    let engines: [(&str, &dyn Engine); 3] = [("hsm", &hsm), ("soft", &soft), ("kryoptic", &kryoptic)];
    let tables: Vec<_> = engines.iter().map(|(name, engine)| engine.toml(name, PinSetup::Right)).collect();
    let daemon = Daemon::start(&tables).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("message"), MESSAGE).unwrap();
    let mut verified = 0;
    for (backend, engine) in engines {
        for key_type in engine.profile().generates {
            let key = daemon.make_key_of(backend, key_type.name(), key_type).await;
            for algorithm in key.algorithms.iter().copied() {
                let reference = format!("{backend}/{}", key.name);
                let client = daemon.client();
                let signed =
                    client.sign(&reference, Some(algorithm), Input::Message(MESSAGE.into())).await.unwrap();
                let mut bytes = signed.signature.into_bytes();
                let Some(good) = openssl_verifies(folder.path(), &key, algorithm, &bytes) else { continue };
                assert!(good, "openssl refuses {reference}, {algorithm}");
                *bytes.last_mut().unwrap() ^= 1;
                let bad = openssl_verifies(folder.path(), &key, algorithm, &bytes);
                assert_eq!(bad, Some(false), "openssl accepts anything for {algorithm}");
                verified += 1;
            }
        }
    }
    // Three curves with three hashes, three sizes of RSA with six algorithms, Ed25519: in each of three engines.
    assert_eq!(verified, 3 * (9 + 18 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_what_the_command_writes() {
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    std::fs::write(daemon.folder().join("message"), MESSAGE).unwrap();
    for key_type in
        [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521, KeyType::Rsa2048, KeyType::Ed25519]
    {
        let key = daemon.make_key_of("soft", key_type.name(), key_type).await;
        let mut sign = daemon.signer();
        sign.args(["sign", "message", "--output-signature", "message.sig", "--key"])
            .arg(format!("soft/{key_type}"));
        let signature = daemon.folder().join("message.sig");
        tokio::task::spawn_blocking(move || programs::must(&mut sign)).await.unwrap();
        let signature = std::fs::read(signature).unwrap();
        let good = openssl_verifies(daemon.folder(), &key, key_type.default_algorithm(), &signature);
        assert_eq!(good, Some(true), "openssl refuses the bare signature by {key_type}");
        std::fs::remove_file(daemon.folder().join("message.sig")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_reads_the_key_files() {
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    let key = daemon.make_key("soft", "release").await;
    let file =
        files_ending_in(&soft.keys(), &["pem", "key", "p8"]).into_iter().next().expect("there is a key file");
    let output = programs::must(
        Command::new(programs::system("openssl", "openssl"))
            .args(["pkey", "-pubout", "-passin", "env:PASSPHRASE", "-in"])
            .arg(file)
            .env("PASSPHRASE", soft.pin()),
    );
    assert_eq!(output.trim(), key.public_key.to_pem().trim());
}

fn files_ending_in(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_ending_in(&path, endings));
        } else if path.extension().is_some_and(|e| endings.iter().any(|x| e == *x)) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn cosign_accepts_the_bundle_and_refuses_it_after_a_change() {
    let cosign = tokio::task::spawn_blocking(programs::cosign).await.unwrap();
    let hsm = SoftHsm::start();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    let key = daemon.make_key("hsm", "release").await;
    let file = daemon.folder().join("release.tar.gz");
    let content: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    std::fs::write(daemon.folder().join("key.pem"), key.public_key.to_pem()).unwrap();
    let mut sign = daemon.signer();
    sign.args(["sign", "release.tar.gz", "--key", "hsm/release"]);
    tokio::task::spawn_blocking(move || programs::must(&mut sign)).await.unwrap();

    let verify = || {
        let mut command = Command::new(&cosign);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", daemon.folder())
            .current_dir(daemon.folder())
            .args(["verify-blob", "--key", "key.pem", "--bundle", "release.tar.gz.sigstore.json"])
            .args(["--insecure-ignore-tlog", "release.tar.gz"]);
        programs::output(&mut command)
    };
    let accepted = verify();
    assert!(accepted.status.success(), "cosign refuses the bundle: {}", programs::text(&accepted));
    for at in [0, content.len() / 2, content.len() - 1] {
        let mut changed = content.clone();
        changed[at] ^= 1;
        std::fs::write(&file, changed).unwrap();
        let refused = verify();
        assert!(!refused.status.success(), "cosign accepts a file whose byte {at} was changed");
    }
    std::fs::write(&file, &content).unwrap();
    assert!(verify().status.success(), "cosign refuses the file that was put back");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_softhsm_script_makes_a_token_that_signs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_owned();
    tokio::task::spawn_blocking(move || {
        let setup = programs::source("softhsm/setup.sh");
        let script = || {
            let mut command = Command::new(&setup);
            // By number: a user need not have a name.
            let uid = rustix::process::getuid().as_raw();
            command.arg("--dir").arg(&folder).args(["--caller", &format!("uid:{uid}")]);
            command
        };
        programs::must(&mut script());
        // Once more: nothing changes.
        let before = std::fs::read(folder.join("signerd.toml")).unwrap();
        programs::must(&mut script());
        assert_eq!(std::fs::read(folder.join("signerd.toml")).unwrap(), before);

        let mut daemon = Command::new(programs::system("setpriv", "util-linux"));
        daemon.args(["--pdeathsig", "KILL", "--"]).arg(programs::ours("signerd"));
        daemon.arg("--config").arg(folder.join("signerd.toml")).stdin(Stdio::null());
        let mut daemon = Killed(daemon.spawn().unwrap());
        let socket = folder.join("signerd.sock");
        for _ in 0..500 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                break;
            }
            assert!(daemon.0.try_wait().unwrap().is_none(), "signerd ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::write(folder.join("file"), "a file").unwrap();
        let signer = |arguments: &[&str]| {
            let mut command = Command::new(programs::ours("signer"));
            command.args(arguments).current_dir(&folder).env("SIGNERD_SOCKET", &socket).env("HOME", &folder);
            programs::output(&mut command)
        };
        let list = signer(&["keys", "list"]);
        assert!(list.status.success(), "{}", programs::text(&list));
        for key in ["p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "ed25519"] {
            let reference = format!("hsm/{key}");
            assert!(String::from_utf8_lossy(&list.stdout).contains(&reference), "{}", programs::text(&list));
            for command in ["sign", "verify"] {
                let output = signer(&[command, "file", "--key", &reference]);
                assert!(output.status.success(), "{command} with {reference}: {}", programs::text(&output));
            }
            std::fs::remove_file(folder.join("file.sigstore.json")).unwrap();
        }
    })
    .await
    .unwrap();
}

/// A child that ends with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
