//! What is on the disk is anybody's format: openssl reads the key files, and verifies and makes signatures with them.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Output},
};

use signer_core::{
    Backend, Digest, HashAlgorithm, ImportRequest, Input, KeyName, KeyOrigin, KeyType, Pin, PrivateKey,
    PublicKey, SignRequest, SignatureAlgorithm,
};
use signer_software::{Kdf, SoftwareBackend};
use support::{PASSPHRASE, Place, config, generate, now, open_key, rotate, works};

mod support;

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = run("openssl", arguments);
    assert!(
        output.status.success(),
        "openssl {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Kinds of keys that this openssl knows: ML-DSA came with 3.5.
fn known_types() -> Vec<KeyType> {
    let has_ml_dsa = run("openssl", &["genpkey", "-algorithm", "ML-DSA-44"]).status.success();
    let is_ml_dsa = |t: &KeyType| matches!(t, KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87);
    KeyType::ALL.into_iter().filter(|t| has_ml_dsa || !is_ml_dsa(t)).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn openssl_reads_every_key_file_and_verifies_every_signature() {
    let place = Place::new();
    let pass = place.folder.path().join("pass");
    std::fs::write(&pass, PASSPHRASE).unwrap();
    let (message_file, digest_file) =
        (place.folder.path().join("message"), place.folder.path().join("digest"));
    let signature_file = place.folder.path().join("signature");
    let message = b"a message that openssl can check";
    std::fs::write(&message_file, message).unwrap();
    for key_type in known_types() {
        let info = generate(&place.backend, key_type.name(), key_type).unwrap();
        let folder = place.directory().join(key_type.name());
        let (private, public) = (folder.join("1.pem"), folder.join("1.pub"));
        let pass = format!("file:{}", pass.display());
        let read = openssl(&["pkey", "-in", path(&private), "-passin", &pass, "-pubout"]);
        assert_eq!(PublicKey::from_pem_or_der(&read).unwrap(), info.public_key, "{key_type}");
        let read = openssl(&["pkey", "-pubin", "-in", path(&public), "-pubout"]);
        assert_eq!(PublicKey::from_pem_or_der(&read).unwrap(), info.public_key, "{key_type}");

        let signer = open_key(&place.backend, key_type.name()).unwrap();
        for algorithm in key_type.algorithms().iter().copied() {
            let signature = now(signer.sign(SignRequest::message(algorithm, &message[..]))).unwrap();
            std::fs::write(&signature_file, signature.as_bytes()).unwrap();
            let mut arguments = vec!["pkeyutl", "-verify", "-pubin", "-inkey", path(&public), "-sigfile"];
            arguments.extend([path(&signature_file), "-in"]);
            let mut options = Vec::new();
            match algorithm.prehash() {
                // openssl 3.0 has no Ed25519ph at its command line; signer-core verifies it with another library.
                _ if algorithm == SignatureAlgorithm::Ed25519ph => continue,
                Some(hash) => {
                    std::fs::write(&digest_file, Digest::of(hash, message).as_bytes()).unwrap();
                    options.push(format!("digest:{hash}"));
                    if matches!(algorithm, SignatureAlgorithm::RsaPss(_)) {
                        options.push("rsa_padding_mode:pss".into());
                        options.push("rsa_pss_saltlen:digest".into());
                    }
                    arguments.push(path(&digest_file));
                }
                None => arguments.extend([path(&message_file), "-rawin"]),
            }
            for option in &options {
                arguments.extend(["-pkeyopt", option]);
            }
            openssl(&arguments);
            if matches!(algorithm, SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::RsaPkcs1(_)) {
                let hash = format!("-{}", algorithm.prehash().unwrap());
                let verify = ["dgst", &hash, "-verify", path(&public), "-signature", path(&signature_file)];
                openssl(&[&verify[..], &[path(&message_file)]].concat());
            }
        }
    }
}

#[test]
fn openssl_reads_files_with_pbkdf2() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), PASSPHRASE);
    config.kdf = Kdf::Pbkdf2Sha256;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let backend = SoftwareBackend::open(config).unwrap();
    let info = generate(&backend, "k", KeyType::EcdsaP256).unwrap();
    let file = folder.path().join("k/1.pem");
    let read = openssl(&["pkey", "-in", path(&file), "-passin", &format!("pass:{PASSPHRASE}"), "-pubout"]);
    assert_eq!(PublicKey::from_pem_or_der(&read).unwrap(), info.public_key);
    let parsed = openssl(&["asn1parse", "-in", path(&file)]);
    let parsed = String::from_utf8(parsed).unwrap();
    assert!(parsed.contains("hmacWithSHA256") && parsed.contains("aes-256-cbc"), "{parsed}");
    // A backend with the other setting goes on with the same files.
    let other = support::open(folder.path());
    works(&other, "k");
    rotate(&other, "k").unwrap();
    works(&other, "k@1");
    works(&support::open(folder.path()), "k@2");
}

#[test]
fn a_key_that_openssl_encrypted_signs_when_it_is_put_into_the_folder() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::EcdsaP256).unwrap();
    let folder = place.directory().join("k");
    let plain = place.folder.path().join("plain.pem");
    std::fs::write(&plain, openssl(&["genpkey", "-algorithm", "ed25519"])).unwrap();
    let pass = format!("pass:{PASSPHRASE}");
    for (version, cipher) in [
        (2, &["-v2", "aes256", "-v2prf", "hmacWithSHA256", "-iter", "10000"][..]),
        (3, &["-v2", "aes256", "-scrypt"]),
        (4, &["-v2", "aes128", "-scrypt"]),
    ] {
        let convert = ["pkcs8", "-topk8", "-in", path(&plain), "-passout", &pass];
        let file = folder.join(format!("{version}.pem"));
        std::fs::write(&file, openssl(&[&convert[..], cipher].concat())).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let name = format!("k@{version}");
        let error = open_key(&place.backend, &name).err().unwrap();
        assert!(error.advice().unwrap().contains("openssl pkey -in"), "{error}");
        let public = openssl(&["pkey", "-in", path(&plain), "-pubout"]);
        std::fs::write(folder.join(format!("{version}.pub")), public).unwrap();
        let signer = open_key(&place.backend, &name).unwrap();
        assert_eq!(signer.info().origin, KeyOrigin::Unknown);
        assert!(signer.info().created.is_some());
        works(&place.backend, &name);
    }
}

#[test]
fn openssl_verifies_what_an_imported_key_signs() {
    let place = Place::new();
    for (name, arguments) in [
        ("p521", &["ecparam", "-name", "secp521r1", "-genkey"][..]),
        ("rsa", &["genrsa", "-traditional", "3072"]),
        ("ed", &["genpkey", "-algorithm", "ed25519"]),
    ] {
        let key = PrivateKey::read(&openssl(arguments), None).unwrap();
        let public = key.public_key().clone();
        let request = ImportRequest::new(KeyName::label(name).unwrap(), key);
        let info = now(Backend::import(&place.backend).unwrap().import(request)).unwrap();
        assert_eq!((&info.public_key, info.origin), (&public, KeyOrigin::Imported));
        let again = place.started_again();
        assert_eq!(open_key(&again, name).unwrap().info(), &info);
        works(&again, name);
        let file = place.directory().join(name).join("1.pem");
        let text = std::fs::read(&file).unwrap();
        let read = PrivateKey::read(&text, Some(&Pin::new(PASSPHRASE.into()).unwrap())).unwrap();
        assert_eq!(read.public_key(), &public);
        openssl(&["pkey", "-in", path(&file), "-passin", &format!("pass:{PASSPHRASE}"), "-check", "-noout"]);
    }
    let digest = Digest::of(HashAlgorithm::Sha256, b"m");
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    let signer = open_key(&place.backend, "p521").unwrap();
    let signature = now(signer.sign(SignRequest::digest(algorithm, digest).unwrap())).unwrap();
    signer.info().public_key.verify(algorithm, &Input::Digest(digest), signature.as_bytes()).unwrap();
}
