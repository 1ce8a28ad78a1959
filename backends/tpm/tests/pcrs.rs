//! Keys that are bound to PCR values, and approvals of other values.
#![allow(clippy::unwrap_used)] // tests may panic

use hwtests::{
    engines::{Engine, SwTpm},
    programs,
};
use signer_core::{Backend, ErrorKind, KeyPolicy, KeyType, PinPolicy, PublicKey};

mod support;
use support::*;

fn bound(authority: Option<PublicKey>, pin: PinPolicy) -> KeyPolicy {
    KeyPolicy {
        pin: Some(pin),
        pcrs: Some("7,16".parse().unwrap()),
        pcr_authority: authority,
        ..KeyPolicy::default()
    }
}

fn extend(tpm: &SwTpm, value: u8) {
    programs::must(
        tpm.tool("tpm2_pcrextend").arg(format!("16:sha256={}", format!("{value:02x}").repeat(32))),
    );
}

fn openssl(tpm: &SwTpm, arguments: &[&str]) {
    programs::must(&mut tpm.openssl(arguments));
}

#[test]
fn a_key_signs_while_the_registers_are_what_they_were() {
    let tpm = SwTpm::with_options(&[]);
    extend(&tpm, 1);
    let made = backend(&tpm);
    for pin in [PinPolicy::Never, PinPolicy::Once, PinPolicy::Always] {
        let info = generate(&made, pin.name(), KeyType::EcdsaP256, bound(None, pin)).unwrap();
        assert_eq!(info.policy, bound(None, pin));
        let signer = open(&made, pin.name()).unwrap();
        for _ in 0..5 {
            sign(&*signer, ECDSA, b"x").unwrap();
        }
    }
    generate(&made, "rsa", KeyType::Rsa2048, bound(None, PinPolicy::Never)).unwrap();
    for algorithm in open(&made, "rsa").unwrap().info().algorithms.clone() {
        sign(&*open(&made, "rsa").unwrap(), algorithm, b"x").unwrap();
    }
    drop(made);

    extend(&tpm, 2);
    let pins = TestPins::new(&tpm.pin());
    let backend = backend_with(&tpm, &pins);
    for label in ["never", "once", "always", "rsa"] {
        let signer = open(&backend, label).unwrap();
        let algorithm = signer.info().default_algorithm();
        let error = sign(&*signer, algorithm, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("7,16"), "{error}");
    }
    assert_eq!(pins.refused(), 0);
    now(backend.health()).unwrap();
}

#[test]
fn an_authority_approves_other_values() {
    let kinds: [(&str, &[&str]); 2] = [
        (
            "ec",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "authority.pem"],
        ),
        (
            "rsa",
            &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "authority.pem"],
        ),
    ];
    for (kind, make_authority) in kinds {
        let tpm = SwTpm::with_options(&[]);
        let folder = tpm.folder().to_owned();
        openssl(&tpm, make_authority);
        openssl(&tpm, &["pkey", "-in", "authority.pem", "-pubout", "-out", "authority.pub"]);
        openssl(
            &tpm,
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "other.pem"],
        );
        let authority =
            PublicKey::from_pem(&std::fs::read_to_string(folder.join("authority.pub")).unwrap()).unwrap();

        let made = backend(&tpm);
        for pin in [PinPolicy::Never, PinPolicy::Once] {
            let info =
                generate(&made, pin.name(), KeyType::EcdsaP256, bound(Some(authority.clone()), pin)).unwrap();
            assert_eq!(info.policy.pcr_authority.as_ref(), Some(&authority));
            sign(&*open(&made, pin.name()).unwrap(), ECDSA, b"x").unwrap();
        }
        drop(made);

        // The firmware is updated: without an approval no key signs, and the error says what to approve.
        extend(&tpm, 3);
        programs::must(tpm.tool("tpm2_createpolicy").args([
            "--policy-pcr",
            "-l",
            "sha256:7,16",
            "-L",
            "new.policy",
        ]));
        let digest: String =
            std::fs::read(folder.join("new.policy")).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        let backend = backend(&tpm);
        for label in ["never", "once"] {
            let error = sign(&*open(&backend, label).unwrap(), ECDSA, b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{kind}: {error}");
            assert!(error.to_string().contains(&digest), "{kind}: {error}");
            let approvals = tpm.state().join(format!("{label}.approvals"));
            assert!(error.to_string().contains(approvals.to_str().unwrap()), "{error}");
            std::fs::create_dir(&approvals).unwrap();
            std::fs::copy(folder.join("new.policy"), approvals.join("update.policy")).unwrap();
            // Somebody else's signature approves nothing.
            openssl(&tpm, &["dgst", "-sha256", "-sign", "other.pem", "-out", "new.sig", "new.policy"]);
            std::fs::copy(folder.join("new.sig"), approvals.join("update.sig")).unwrap();
            let error = sign(&*open(&backend, label).unwrap(), ECDSA, b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{kind}: {error}");
            // The authority's does, at once.
            openssl(&tpm, &["dgst", "-sha256", "-sign", "authority.pem", "-out", "new.sig", "new.policy"]);
            std::fs::copy(folder.join("new.sig"), approvals.join("update.sig")).unwrap();
            let signer = open(&backend, label).unwrap();
            for _ in 0..3 {
                sign(&*signer, ECDSA, b"x").unwrap();
            }
        }
        drop(backend);

        // Other values than these are still refused.
        extend(&tpm, 4);
        let backend = support::backend(&tpm);
        assert_eq!(
            sign(&*open(&backend, "never").unwrap(), ECDSA, b"x").unwrap_err().kind(),
            ErrorKind::Denied
        );
        delete(&backend, "never").unwrap();
        assert!(!tpm.state().join("never.approvals").exists());
    }
}

#[test]
fn wishes_that_make_no_sense() {
    let tpm = SwTpm::with_options(&[]);
    let backend = backend(&tpm);
    let key = signer_contract::make_private_key(KeyType::Ed25519).unwrap();
    let ed25519 = key.key(signer_contract::Material::Pkcs8Der).unwrap().public_key().clone();
    let error = generate(&backend, "k", KeyType::EcdsaP256, bound(Some(ed25519.clone()), PinPolicy::Never))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let alone = KeyPolicy { pcr_authority: Some(ed25519), ..KeyPolicy::default() };
    assert_eq!(generate(&backend, "k", KeyType::EcdsaP256, alone).unwrap_err().kind(), ErrorKind::BadRequest);
    assert!(names(&backend).is_empty());
}
