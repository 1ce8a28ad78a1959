//! Statements of real YubiKeys, and of cards that are none.
#![allow(clippy::unwrap_used)] // tests

mod support;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use signer_attest::{Certificate, DeviceKind, Origin, Report, Requirement, Roots, Statement, Verifier, time};
use signer_core::{Evidence, EvidenceFormat, KeyType, PinPolicy, PublicKey, Result, TouchPolicy};
use support::{Authority, authority, extension, named, now, public_of, says, trusting};

const OLD: [&[u8]; 2] = [
    include_bytes!("vectors/yubikey-5.2.7-15938765-9c.pem"),
    include_bytes!("vectors/yubikey-5.2.7-15938765-f9.pem"),
];
const OLD_KEY: &str = include_str!("vectors/yubikey-5.2.7-15938765.pub");
const FIPS: &[u8] = include_bytes!("vectors/yubikey-5.4.3-fips-28751259-9c.pem");
const FIPS_KEY: &str = include_str!("vectors/yubikey-5.4.3-fips-28751259.pub");
const NEW: [&[u8]; 2] =
    [include_bytes!("vectors/yubikey-5.7.4-9c.pem"), include_bytes!("vectors/yubikey-5.7.4-f9.pem")];
const NEW_KEY: &str = include_str!("vectors/yubikey-5.7.4.pub");

fn verify(files: &[&[u8]], key: &str) -> Result<Report> {
    let statement = Statement::read(files)?;
    Verifier::new(Roots::built_in(), now()).verify(&statement, &PublicKey::from_pem(key).unwrap())
}

#[test]
fn a_yubikey_under_the_root_of_2016_is_proven() {
    let report = verify(&OLD, OLD_KEY).unwrap();
    assert_eq!(report.device.kind, DeviceKind::YubiKey);
    assert_eq!(report.device.serial.as_deref(), Some("15938765"));
    assert_eq!(report.device.firmware.as_deref(), Some("5.2.7"));
    assert_eq!(report.device.model.as_deref(), Some("YubiKey 5 series, USB-C keychain"));
    assert_eq!((report.device.fips, report.device.maker.as_deref()), (Some(false), Some("Yubico")));
    assert_eq!(report.key.place.as_deref(), Some("slot 9c"));
    assert_eq!((report.key.origin, report.key.exportable), (Origin::Generated, false));
    assert_eq!((report.key.pin, report.key.touch), (Some(PinPolicy::Always), Some(TouchPolicy::Always)));
    assert_eq!(
        report.chains,
        [["YubiKey PIV Attestation 9c", "Yubico PIV Attestation", "Yubico PIV Root CA Serial 263751"]]
    );
    assert!(report.roots[0].built_in);
    assert_eq!(
        report.proven,
        "YubiKey 15938765 (firmware 5.2.7) generated this key in its slot 9c and cannot give it out; before it signs it \
         wants the PIN each time and a touch each time; Yubico's root \"Yubico PIV Root CA Serial 263751\" vouches for it."
    );
    assert!(report.not_proven.starts_with("Not proven: when the key was made"));
    assert!(report.warnings[0].contains("CVE-2024-45678"), "{:?}", report.warnings);
}

#[test]
fn a_yubikey_of_the_fips_series_is_proven_from_one_file() {
    let report = verify(&[FIPS], FIPS_KEY).unwrap();
    assert_eq!(report.device.model.as_deref(), Some("YubiKey 5 series FIPS, USB-C keychain"));
    assert_eq!((report.device.fips, report.key.touch), (Some(true), Some(TouchPolicy::Never)));
    assert_eq!(report.key.key_type, KeyType::EcdsaP384);
    for (requirement, met) in [
        ("generated-inside", true),
        ("not-exportable", true),
        ("fips", true),
        ("pin=once", true),
        ("pin=always", true),
        ("touch=never", true),
        ("touch=cached", false),
        ("device=yubikey", true),
        ("device=tpm", false),
        ("serial=1,28751259", true),
        ("serial=1", false),
        ("firmware=5.4", true),
        ("firmware=5.4.3", true),
        ("firmware=5.7", false),
        ("policy=00", false),
    ] {
        let result = requirement.parse::<Requirement>().unwrap().check(&report);
        assert_eq!(result.is_ok(), met, "{requirement}: {result:?}");
    }
    let requirement: Requirement = "touch=always".parse().unwrap();
    says(requirement.check(&report), "NOT proven: touch=always is required, and it is never");
}

/// Through the intermediate certificates that are built in, for the card has only its own.
#[test]
fn a_yubikey_under_the_root_of_2024_is_proven() {
    let report = verify(&NEW, NEW_KEY).unwrap();
    assert_eq!(report.device.firmware.as_deref(), Some("5.7.4"));
    assert_eq!(report.roots[0].name, "Yubico Attestation Root 1");
    assert_eq!(
        report.chains[0][2..4],
        ["Yubico PIV Attestation B 1".to_owned(), "Yubico Attestation Intermediate B 1".to_owned()]
    );
    assert!(report.warnings.is_empty());
    // The order of the files does not matter.
    assert_eq!(verify(&[NEW[1], NEW[0]], NEW_KEY).unwrap(), report);
}

#[test]
fn each_thing_that_does_not_fit_has_its_own_sentence() {
    says(verify(&OLD, NEW_KEY), "NOT proven: the statement is about another key");
    says(
        verify(&OLD[..1], OLD_KEY),
        "whose issuer \"Yubico PIV Attestation\" is neither a root nor in the statement",
    );
    says(verify(&[OLD[0], NEW[1]], OLD_KEY), "is not signed by \"Yubico PIV Attestation\", whom it names");
    says(verify(&OLD[1..], OLD_KEY), "no device's statement on a key is in what was given");
    says(verify(&[OLD[0], NEW[0]], OLD_KEY), "more than one key");

    let statement = Statement::read(&OLD).unwrap();
    let key = PublicKey::from_pem(OLD_KEY).unwrap();
    let at = |when| Verifier::new(Roots::built_in(), time(when).unwrap()).verify(&statement, &key);
    says(at("2016-03-13"), "it is not valid before 2016-03-14T00:00:00Z");
    at("2016-03-14").unwrap();
    at("2052-04-17").unwrap();
    says(at("2052-04-18"), "it expired on 2052-04-17T00:00:00Z");
    says(
        Verifier::new(Roots::none(), now()).verify(&statement, &key),
        "is neither a root nor in the statement",
    );
    says(
        Verifier::new(Roots::built_in(), now()).nonce(vec![1]).verify(&statement, &key),
        "a YubiKey takes none into its statement",
    );
}

/// Whatever bit is changed, in the statement or in the card's certificate: nothing is proven.
#[test]
fn no_bit_of_a_statement_can_be_changed() {
    let key = PublicKey::from_pem(OLD_KEY).unwrap();
    let parts: Vec<Vec<u8>> = OLD
        .iter()
        .flat_map(|pem| Certificate::all_from_pem_or_der(pem).unwrap())
        .map(|c| c.as_der().to_vec())
        .collect();
    let verifier = Verifier::new(Roots::built_in(), now());
    let verify = |parts: &[Vec<u8>]| {
        let evidence = Evidence { format: EvidenceFormat::PivAttestation, parts: parts.to_vec() };
        verifier.verify(&Statement::from_evidence(evidence)?, &key)
    };
    verify(&parts).unwrap();
    for part in 0..parts.len() {
        for byte in 0..parts[part].len() {
            let mut changed = parts.clone();
            changed[part][byte] ^= 1 << (byte % 8);
            assert!(verify(&changed).is_err(), "part {part}, byte {byte}");
        }
    }
}

const YUBICO: [u64; 8] = [1, 3, 6, 1, 4, 1, 41482, 3];

fn yubico(number: u64, content: &[u8]) -> rcgen::CustomExtension {
    extension(&[&YUBICO[..], &[number]].concat(), content)
}

/// A statement as a card words it.
fn statement(pin: u8, touch: u8) -> CertificateParams {
    let mut params = named("YubiKey PIV Attestation 9a");
    params.custom_extensions =
        vec![yubico(3, &[5, 7, 4]), yubico(7, &[2, 1, 9]), yubico(8, &[pin, touch]), yubico(9, &[1])];
    params
}

fn card() -> CertificateParams {
    let mut params = named("Yubico PIV Attestation");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.custom_extensions = vec![yubico(3, &[5, 7, 4])];
    params
}

fn evidence(statement: &Certificate, others: &[&Certificate]) -> Statement {
    let all = [&[statement][..], others].concat();
    let parts = all.iter().map(|c| c.as_der().to_vec()).collect();
    Statement::from_evidence(Evidence { format: EvidenceFormat::PivAttestation, parts }).unwrap()
}

#[test]
fn a_root_that_is_given_is_said_to_be_given() {
    let root = Authority::root("a root of ours");
    let card = root.below(card());
    let key = KeyPair::generate().unwrap();
    let leaf = card.certify(&statement(2, 3), &key);
    let report = trusting(&root).verify(&evidence(&leaf, &[&card.certificate]), &public_of(&key)).unwrap();
    assert!(
        report.proven.ends_with("the root \"a root of ours\" that you gave vouches for it."),
        "{}",
        report.proven
    );
    assert_eq!((report.key.pin, report.key.touch), (Some(PinPolicy::Once), Some(TouchPolicy::Cached)));
    assert_eq!((report.device.maker, report.roots[0].built_in), (None, false));
}

#[test]
fn words_that_no_card_uses_are_refused() {
    let root = Authority::root("root");
    let card = root.below(card());
    let key = KeyPair::generate().unwrap();
    let verify = |params: &CertificateParams| {
        let leaf = card.certify(params, &key);
        trusting(&root).verify(&evidence(&leaf, &[&card.certificate]), &public_of(&key))
    };
    says(verify(&statement(0, 1)), "no PIN policy that can be read");
    says(verify(&statement(1, 4)), "no touch policy that can be read");
    let without = |number: usize| {
        let mut params = statement(1, 1);
        params.custom_extensions.remove(number);
        params
    };
    says(verify(&without(0)), "no firmware version that can be read");
    says(verify(&without(2)), "no PIN and touch policy that can be read");
    let report = verify(&without(1)).unwrap();
    assert_eq!(report.device.serial, None);
    assert!(report.proven.starts_with("a YubiKey (firmware 5.7.4)"));
    let biometric = verify(&statement(5, 1)).unwrap();
    assert_eq!((biometric.key.pin, &biometric.key.more[0].0), (Some(PinPolicy::Always), &"biometric"));
}

/// A real card signs with its keys whatever it is asked to: also something that looks like a statement.
#[test]
fn a_key_of_a_card_cannot_vouch_for_another_key() {
    let root = Authority::root("root");
    let unconstrained = {
        let mut params = card();
        params.is_ca = IsCa::NoCa;
        params
    };
    for card_params in [card(), unconstrained] {
        let card = root.below(card_params);
        let key_in_the_card = card.below(statement(2, 1));
        let software_key = KeyPair::generate().unwrap();
        let forged = key_in_the_card.certify(&statement(3, 2), &software_key);
        let evidence = evidence(&forged, &[&key_in_the_card.certificate, &card.certificate]);
        says(
            trusting(&root).verify(&evidence, &public_of(&software_key)),
            "the certificate of \"YubiKey PIV Attestation 9a\" does not count: it does not say that it may issue",
        );
    }
}

/// YubiKeys of firmware 4 have a certificate without basic constraints, directly under the root.
#[test]
fn only_a_card_under_the_root_may_lack_constraints() {
    let root = Authority::root("root");
    let mut params = card();
    params.is_ca = IsCa::NoCa;
    let key = KeyPair::generate().unwrap();
    let card = root.below(params.clone());
    let leaf = card.certify(&statement(1, 1), &key);
    trusting(&root).verify(&evidence(&leaf, &[&card.certificate]), &public_of(&key)).unwrap();

    let between = root.below(authority("between"));
    let card = between.below(params.clone());
    let leaf = card.certify(&statement(1, 1), &key);
    let verify =
        |leaf, others: &[&Certificate]| trusting(&root).verify(&evidence(leaf, others), &public_of(&key));
    says(verify(&leaf, &[&card.certificate, &between.certificate]), "it does not say that it may issue");

    params.is_ca = IsCa::ExplicitNoCa;
    let card = root.below(params);
    let leaf = card.certify(&statement(1, 1), &key);
    says(verify(&leaf, &[&card.certificate]), "it is not the certificate of an authority");
}

#[test]
fn authorities_do_no_more_than_they_may() {
    let key = KeyPair::generate().unwrap();
    let short = {
        let mut params = authority("short");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
    };
    let root = Authority::root_with(short);
    let card_below = root.below(card());
    let leaf = card_below.certify(&statement(1, 1), &key);
    says(
        trusting(&root).verify(&evidence(&leaf, &[&card_below.certificate]), &public_of(&key)),
        "the chain below it is longer than it allows",
    );

    let root = Authority::root("root");
    let mut params = card();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let card_below = root.below(params);
    let leaf = card_below.certify(&statement(1, 1), &key);
    says(
        trusting(&root).verify(&evidence(&leaf, &[&card_below.certificate]), &public_of(&key)),
        "its key is not for signing certificates",
    );

    let mut params = card();
    let mut unknown = extension(&[1, 2, 3, 4], &[5, 0]);
    unknown.set_criticality(true);
    params.custom_extensions.push(unknown);
    let card_below = root.below(params);
    let leaf = card_below.certify(&statement(1, 1), &key);
    says(
        trusting(&root).verify(&evidence(&leaf, &[&card_below.certificate]), &public_of(&key)),
        "critical extension that is not known here (1.2.3.4)",
    );
}

/// Names can be anybody's; the root's key cannot.
#[test]
fn a_chain_with_yubicos_names_is_not_yubicos() {
    for root_name in ["Yubico PIV Root CA Serial 263751", "Yubico Attestation Root 1"] {
        let root = Authority::root(root_name);
        let card = root.below(card());
        let key = KeyPair::generate().unwrap();
        let leaf = card.certify(&statement(3, 2), &key);
        let evidence = evidence(&leaf, &[&card.certificate, &root.certificate]);
        let result = Verifier::new(Roots::built_in(), now()).verify(&evidence, &public_of(&key));
        says(result, "NOT proven");
    }
}

/// ROCA: RSA keys of these versions can be computed.
#[test]
fn weak_rsa_keys_are_refused() {
    let root = Authority::root("root");
    let card = root.below(card());
    let key = support::RsaKey::make().for_certificate();
    for (firmware, weak) in [([4, 2, 5], false), ([4, 2, 6], true), ([4, 3, 4], true), ([4, 3, 5], false)] {
        let mut params = statement(1, 1);
        params.custom_extensions[0] = yubico(3, &firmware);
        let leaf = card.certify(&params, &key);
        let result = trusting(&root).verify(&evidence(&leaf, &[&card.certificate]), &public_of(&key));
        assert_eq!(result.is_err(), weak, "{firmware:?}");
        if weak {
            says(result, "CVE-2017-15361");
        }
    }
}

/// Whoever makes a statement cannot keep us busy with it.
#[test]
fn many_certificates_of_one_name_are_refused() {
    let name = "round and round";
    let key = KeyPair::generate().unwrap();
    let first = Authority::root(name);
    let others: Vec<_> = (0..150).map(|_| first.certify(&authority(name), &key)).collect();
    let others: Vec<_> = others.iter().collect();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = first.certify(&statement(1, 1), &leaf_key);
    let verifier = Verifier::new(Roots::built_in(), now());
    says(
        verifier.verify(&evidence(&leaf, &others), &public_of(&leaf_key)),
        "too many certificates of the same name",
    );
}
