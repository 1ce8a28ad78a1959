//! Unmodified programs of others read what we made, and we read what they made.
#![allow(clippy::unwrap_used)] // tests may panic

use std::fs;

use hwtests::{
    engines::{Engine, SwTpm},
    programs,
};
use signer_core::{Backend, ErrorKind, ImportRequest, PublicKey};
use signer_core::{
    Evidence, EvidenceFormat, HashAlgorithm, Input, KeyPolicy, KeyType, PinPolicy, SignatureAlgorithm,
};

mod support;
use support::*;

const MESSAGE: &[u8] = b"what others read\n";

#[test]
fn openssl_verifies_every_signature_with_a_salt_as_long_as_the_digest() {
    let tpm = SwTpm::with_options(&[]);
    let backend = backend(&tpm);
    let folder = tpm.folder();
    fs::write(folder.join("message"), MESSAGE).unwrap();
    let mut verified = 0;
    for key_type in now(backend.describe()).unwrap().generates {
        let info = generate(&backend, key_type.name(), key_type, KeyPolicy::default()).unwrap();
        fs::write(folder.join("key.pub"), info.public_key.to_pem()).unwrap();
        let signer = open(&backend, key_type.name()).unwrap();
        for algorithm in info.algorithms {
            fs::write(folder.join("sig"), sign(&*signer, algorithm, MESSAGE).unwrap().as_bytes()).unwrap();
            let hash = format!("-{}", algorithm.prehash().unwrap());
            let mut command = tpm.openssl(&["dgst", &hash, "-verify", "key.pub", "-signature", "sig"]);
            if let SignatureAlgorithm::RsaPss(_) = algorithm {
                command.args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
            }
            programs::must(command.arg("message"));
            verified += 1;
        }
    }
    assert_eq!(verified, 3 * 3 + 2 * 6);
}

/// The ASN.1 of a key file, taken apart by openssl: the public and the private area.
fn areas(tpm: &SwTpm, label: &str) {
    let folder = tpm.folder();
    let file = tpm.state().join(format!("{label}.pem"));
    let text = fs::read_to_string(&file).unwrap();
    let start = text.find("-----BEGIN TSS2 PRIVATE KEY-----").unwrap();
    fs::write(folder.join("block.pem"), &text[start..]).unwrap();
    let parsed = programs::must(&mut tpm.openssl(&["asn1parse", "-in", "block.pem"]));
    assert!(parsed.contains("2.23.133.10.1.3") || parsed.contains("Loadable"), "{parsed}");
    let octets: Vec<&str> = parsed
        .lines()
        .filter(|l| l.contains("d=1") && l.contains("OCTET STRING"))
        .map(|l| l.split(':').next().unwrap().trim())
        .collect();
    for (offset, name) in octets[octets.len() - 2..].iter().zip(["key.public", "key.private"]) {
        programs::must(&mut tpm.openssl(&[
            "asn1parse",
            "-in",
            "block.pem",
            "-strparse",
            offset,
            "-noout",
            "-out",
            name,
        ]));
    }
}

#[test]
fn tpm2_tools_load_our_key_and_sign() {
    let tpm = SwTpm::with_options(&[]);
    let backend = backend(&tpm);
    let plain = generate(&backend, "plain", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    let guarded = generate(&backend, "guarded", KeyType::EcdsaP256, policy(PinPolicy::Once)).unwrap();
    let rsa = generate(&backend, "rsa", KeyType::Rsa2048, KeyPolicy::default()).unwrap();
    drop(backend);
    fs::write(tpm.folder().join("message"), MESSAGE).unwrap();
    let pin = tpm.pin();
    for (info, label, auth, scheme) in [
        (plain, "plain", "", "ecdsa"),
        (guarded, "guarded", pin.as_str(), "ecdsa"),
        (rsa, "rsa", "", "rsassa"),
    ] {
        areas(&tpm, label);
        let load = ["-C", "0x81000001", "-u", "key.public", "-r", "key.private", "-c", "key.ctx"];
        programs::must(tpm.tool("tpm2_load").args(load));
        let mut command = tpm.tool("tpm2_sign");
        command.args(["-c", "key.ctx", "-g", "sha256", "-s", scheme, "-f", "plain", "-o", "sig", "message"]);
        if !auth.is_empty() {
            command.args(["-p", auth]);
        }
        programs::must(&mut command);
        let signature = fs::read(tpm.folder().join("sig")).unwrap();
        let algorithm = info.default_algorithm();
        info.public_key.verify(algorithm, &Input::Message(MESSAGE.into()), &signature).unwrap();
        programs::must(tpm.tool("tpm2_flushcontext").arg("-t"));
    }
}

/// tpm2-openssl reads the PEM file itself.
#[test]
fn the_openssl_provider_for_tpms_signs_with_our_file() {
    programs::module(
        &[
            "/usr/lib/x86_64-linux-gnu/ossl-modules/tpm2.so",
            "/usr/lib/aarch64-linux-gnu/ossl-modules/tpm2.so",
        ],
        "tpm2-openssl",
    );
    let tpm = SwTpm::with_options(&[]);
    let backend = backend(&tpm);
    let made = generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    let bound = KeyPolicy { pcrs: Some("16".parse().unwrap()), ..KeyPolicy::default() };
    generate(&backend, "bound", KeyType::EcdsaP256, bound).unwrap();
    drop(backend);
    fs::write(tpm.folder().join("message"), MESSAGE).unwrap();
    let file = tpm.state().join("k.pem");
    programs::must(
        tpm.openssl(&["pkeyutl", "-provider", "tpm2", "-provider", "default"])
            .args(["-sign", "-rawin", "-digest", "sha256", "-in", "message", "-out", "sig", "-inkey"])
            .arg(&file),
    );
    let signature = fs::read(tpm.folder().join("sig")).unwrap();
    made.public_key.verify(ECDSA, &Input::Message(MESSAGE.into()), &signature).unwrap();
}

/// Files that tpm2-openssl and tpm2-tools wrote, in our folder: under the owner's storage root key, and under our parent.
#[test]
fn we_sign_with_files_that_others_made() {
    let tpm = SwTpm::with_options(&[]);
    let backend = backend(&tpm);
    generate(&backend, "ours", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    drop(backend);
    let theirs = tpm.state().join("provider.pem");
    programs::must(
        tpm.openssl(&[
            "genpkey",
            "-provider",
            "tpm2",
            "-provider",
            "default",
            "-propquery",
            "?provider=tpm2",
        ])
        .args(["-algorithm", "EC", "-pkeyopt", "group:P-256", "-pkeyopt", "parent:0x81000001", "-out"])
        .arg(&theirs),
    );
    let tool = |name: &str, arguments: &[&str]| programs::must(tpm.tool(name).args(arguments));
    tool(
        "tpm2_create",
        &[
            "-C",
            "0x81000001",
            "-G",
            "ecc",
            "-u",
            "k.pub",
            "-r",
            "k.priv",
            "-a",
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda",
        ],
    );
    tool("tpm2_encodeobject", &["-C", "0x81000001", "-u", "k.pub", "-r", "k.priv", "-o", "tools.pem"]);
    // That tool says of every key that it has an authorisation: a line before the block knows better.
    let text = fs::read_to_string(tpm.folder().join("tools.pem")).unwrap();
    fs::write(tpm.state().join("tools.pem"), format!("Pin: never\n{text}")).unwrap();
    let backend = support::backend(&tpm);
    assert_eq!(names(&backend), ["ours", "provider", "tools"]);
    for label in ["ours", "provider", "tools"] {
        sign(&*open(&backend, label).unwrap(), ECDSA, MESSAGE).unwrap();
    }
}

#[test]
fn the_tpm_certifies_its_keys() {
    let tpm = SwTpm::with_certificates();
    let pins = TestPins::new(&tpm.pin());
    let backend = backend_with(&tpm, &pins);
    let attest = |label: &str| now(backend.attest().unwrap().attest(&selector(label)));
    let bound =
        KeyPolicy { pcrs: Some("16".parse().unwrap()), pin: Some(PinPolicy::Once), ..KeyPolicy::default() };
    for (label, key_type, policy) in [
        ("ec", KeyType::EcdsaP256, KeyPolicy::default()),
        ("rsa", KeyType::Rsa2048, KeyPolicy::default()),
        ("pin", KeyType::EcdsaP384, policy(PinPolicy::Always)),
        ("bound", KeyType::EcdsaP256, bound),
    ] {
        generate(&backend, label, key_type, policy).unwrap();
        let Evidence { format, parts } = attest(label).unwrap();
        assert_eq!(format, EvidenceFormat::TpmCertify);
        let [statement, signature, certified, attester, certificates @ ..] = &parts[..] else {
            panic!("{parts:?}")
        };
        // TPM_GENERATED, TPM_ST_ATTEST_CERTIFY, and in it the Name of the certified key.
        assert_eq!(statement[..6], [0xFF, 0x54, 0x43, 0x47, 0x80, 0x17]);
        let digest = signer_core::Digest::of(HashAlgorithm::Sha256, certified);
        let name = [&[0x00, 0x0B][..], digest.as_bytes()].concat();
        assert!(statement.windows(name.len()).any(|w| w == name), "the statement is about another key");
        // ECDSA with SHA-256 by the attestation key, whose point ends its public area.
        assert_eq!(signature[..4], [0x00, 0x18, 0x00, 0x0B]);
        let (x, y) = (&attester[attester.len() - 66..attester.len() - 34], &attester[attester.len() - 32..]);
        let key = PublicKey::from_ec_point(KeyType::EcdsaP256, &[&[4][..], x, y].concat()).unwrap();
        let r_len = usize::from(u16::from_be_bytes([signature[4], signature[5]]));
        let (r, s) = (&signature[6..6 + r_len], &signature[8 + r_len..]);
        let padded = |n: &[u8]| [&vec![0; 32 - n.len()], n].concat();
        let der = signer_core::Signature::from_ecdsa_raw(&[padded(r), padded(s)].concat()).unwrap();
        key.verify(ECDSA, &Input::Message(statement.clone().into()), der.as_bytes()).unwrap();
        // The endorsement key's certificate, as openssl reads it.
        assert_eq!(certificates.len(), 1);
        fs::write(tpm.folder().join("ek.der"), &certificates[0]).unwrap();
        let text = programs::must(
            &mut tpm.openssl(&["x509", "-inform", "DER", "-in", "ek.der", "-noout", "-issuer"]),
        );
        assert!(text.contains("swtpm-localca"), "{text}");
    }
    let key = signer_contract::make_private_key(KeyType::EcdsaP256).unwrap();
    let key = key.key(signer_contract::Material::Pkcs8Der).unwrap();
    now(backend.import().unwrap().import(ImportRequest::new(name("imported"), key))).unwrap();
    assert_eq!(attest("imported").unwrap_err().kind(), ErrorKind::Unsupported);
}
