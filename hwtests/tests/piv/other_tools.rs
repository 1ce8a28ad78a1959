//! What we make, others use, and the other way round.

use std::process::Command;

use hwtests::{
    engines::{DEFAULT_MANAGEMENT_KEY, Engine, Piv},
    programs,
};
use signer_contract::{Material, PinSetup, make_private_key, self_signed};
use signer_core::{
    Backend, Digest, EvidenceFormat, HashAlgorithm, ImportRequest, Input, KeyInfo, KeyOrigin, KeySelector,
    KeyType, SignatureAlgorithm,
};

use crate::support::{generate, open, serve, sign, slot};

const MESSAGE: &[u8] = b"what is signed";

fn opensc() -> std::path::PathBuf {
    let places = [
        "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
        "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
        "/usr/lib64/opensc-pkcs11.so",
    ];
    programs::module(&places, "opensc-pkcs11")
}

async fn certify(backend: &dyn Backend, key: &KeyInfo) {
    let signer = open(backend, key.name.as_label().unwrap()).await;
    let certificate = self_signed(&*signer, "made by us").await.unwrap();
    let selector = KeySelector::Name(key.name.clone());
    backend.store_certificate().unwrap().store_certificate(&selector, &certificate).await.unwrap();
}

/// yubico-piv-tool and OpenSC sign with keys that were made here.
#[tokio::test(flavor = "multi_thread")]
async fn others_sign_with_our_keys() {
    let card = Piv::with_firmware("5.4.3");
    let backend = serve(&card, PinSetup::Right).await;
    let file = |name: &str| card.folder().join(name);
    std::fs::write(file("message"), MESSAGE).unwrap();
    let digest = Digest::of(HashAlgorithm::Sha256, MESSAGE);
    std::fs::write(file("digest"), digest.as_bytes()).unwrap();
    let ec = generate(&*backend, "9c", KeyType::EcdsaP256).await;
    let rsa = generate(&*backend, "9a", KeyType::Rsa2048).await;
    for (key, name, algorithm) in [(&ec, "9c", "ECCP256"), (&rsa, "9a", "RSA2048")] {
        certify(&*backend, key).await;
        let mut tool = card.tool();
        tool.args([
            "-s",
            name,
            "-a",
            "verify-pin",
            "-P",
            &card.pin(),
            "--sign",
            "-A",
            algorithm,
            "-H",
            "SHA256",
        ]);
        programs::must(tool.arg("-i").arg(file("message")).arg("-o").arg(file("signature")));
        let signature = std::fs::read(file("signature")).unwrap();
        let way = match key.public_key.key_type() {
            KeyType::EcdsaP256 => SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
            _ => SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256),
        };
        key.public_key.verify(way, &Input::Message(MESSAGE.into()), &signature).unwrap();
    }
    let mut tool = card.pcscd().command(programs::system("pkcs11-tool", "opensc"));
    tool.arg("--module").arg(opensc()).args([
        "--login",
        "--pin",
        &card.pin(),
        "--sign",
        "-m",
        "ECDSA",
        "--id",
        "02",
    ]);
    tool.args(["--signature-format", "openssl"]);
    programs::must(tool.arg("-i").arg(file("digest")).arg("-o").arg(file("signature")));
    let signature = std::fs::read(file("signature")).unwrap();
    let way = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    ec.public_key.verify(way, &Input::Message(MESSAGE.into()), &signature).unwrap();
    // And we still do, after all of them.
    sign(&*open(&*backend, "9c").await, "ours").await.unwrap();
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}

/// Keys that other tools made, with and without certificates, are found and sign.
#[tokio::test(flavor = "multi_thread")]
async fn we_sign_with_the_keys_of_others() {
    let card = Piv::with_firmware("5.4.3");
    let public = card.folder().join("public");
    for (name, algorithm) in [("9a", "ECCP384"), ("82", "RSA2048"), ("95", "ECCP256"), ("83", "RSA1024")] {
        programs::must(card.tool().args(["-s", name, "-A", algorithm, "-a", "generate", "-o"]).arg(&public));
    }
    let backend = serve(&card, PinSetup::Right).await;
    let listed = backend.list(signer_core::ListRequest::default()).await.unwrap().keys;
    let names: Vec<_> = listed.iter().map(|k| k.name.to_string()).collect();
    assert_eq!(names, ["82", "95", "9a"], "RSA-1024 does not sign here");
    for key in &listed {
        assert_eq!(key.origin, KeyOrigin::Generated);
        sign(&*open(&*backend, &key.name.to_string()).await, "theirs").await.unwrap();
    }
}

/// Every signature is openssl's to verify.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_what_we_sign() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    let file = |name: &str| card.folder().join(name);
    std::fs::write(file("message"), MESSAGE).unwrap();
    for (name, key_type) in [("9a", KeyType::EcdsaP384), ("9c", KeyType::Rsa2048)] {
        let made = generate(&*backend, name, key_type).await;
        std::fs::write(file("public"), made.public_key.to_pem()).unwrap();
        let signer = open(&*backend, name).await;
        for algorithm in made.algorithms {
            let request = signer_core::SignRequest::message(algorithm, MESSAGE);
            std::fs::write(file("signature"), signer.sign(request).await.unwrap().as_bytes()).unwrap();
            let hash = algorithm.prehash().unwrap().name();
            let mut openssl = Command::new(programs::system("openssl", "openssl"));
            openssl.args(["dgst", &format!("-{hash}"), "-verify"]).arg(file("public"));
            if let SignatureAlgorithm::RsaPss(_) = algorithm {
                openssl.args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
            }
            programs::must(openssl.arg("-signature").arg(file("signature")).arg(file("message")));
        }
    }
}

/// Keys made in the card are vouched for by it, under the root of its maker; imported ones are not.
#[tokio::test(flavor = "multi_thread")]
async fn the_card_vouches_for_its_keys() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    let made = generate(&*backend, "9c", KeyType::EcdsaP256).await;
    let attest = backend.attest().unwrap();
    let evidence = attest.attest(&KeySelector::Name(made.name)).await.unwrap();
    assert_eq!((evidence.format, evidence.parts.len()), (EvidenceFormat::PivAttestation, 2));
    let file = |name: &str| card.folder().join(name);
    std::fs::write(file("root.pem"), hwtests_piv_card::attestation_root_pem()).unwrap();
    for (part, name) in evidence.parts.iter().zip(["statement", "issuer"]) {
        std::fs::write(file("der"), part).unwrap();
        let mut openssl = Command::new(programs::system("openssl", "openssl"));
        openssl.args(["x509", "-inform", "DER", "-in"]).arg(file("der")).arg("-out").arg(file(name));
        programs::must(&mut openssl);
    }
    let mut openssl = Command::new(programs::system("openssl", "openssl"));
    openssl.arg("verify").arg("-ignore_critical").arg("-CAfile").arg(file("root.pem"));
    programs::must(openssl.arg("-untrusted").arg(file("issuer")).arg(file("statement")));

    let key = make_private_key(KeyType::EcdsaP256).unwrap().key(Material::Pkcs8Der).unwrap();
    backend.import().unwrap().import(ImportRequest::new(slot("9a"), key)).await.unwrap();
    let error = attest.attest(&KeySelector::Name(slot("9a"))).await.unwrap_err();
    assert_eq!(error.kind(), signer_core::ErrorKind::Unsupported);
    assert!(error.to_string().contains("imported"), "{error}");
    let error = attest.attest(&KeySelector::Name(slot("9d"))).await.unwrap_err();
    assert_eq!(error.kind(), signer_core::ErrorKind::NotFound);
}

/// The management key as `ykman` keeps it, behind the PIN: nothing but the PIN is needed to change the card.
#[tokio::test(flavor = "multi_thread")]
async fn ykman_keeps_the_management_key_behind_the_pin() {
    let card = Piv::start();
    let ykman = programs::ykman();
    for algorithm in ["tdes", "aes128", "aes192", "aes256"] {
        let mut change = card.pcscd().command(&ykman);
        change.args([
            "--device",
            &card.serial().to_string(),
            "piv",
            "access",
            "change-management-key",
            "--force",
        ]);
        change.args(["--generate", "--protect", "-P", &card.pin(), "-a", algorithm]);
        if algorithm == "tdes" {
            change.args(["-m", DEFAULT_MANAGEMENT_KEY]);
        }
        programs::must(&mut change);
        let options = serde_json::json!({ "serial": card.serial() });
        let backend = crate::support::serve_with(&card, options, PinSetup::Right).await;
        let made = generate(&*backend, "9a", KeyType::EcdsaP256).await;
        certify(&*backend, &made).await;
        sign(&*open(&*backend, "9a").await, algorithm).await.unwrap();
        backend.delete().unwrap().delete(&KeySelector::Name(made.name)).await.unwrap();
    }
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}
