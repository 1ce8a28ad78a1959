//! Attestations of Cloud HSMs, by a maker and an owner of the tests' own. The same through the service's API is in hwtests.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::io::Write;

use signer_attest::{Certificate, DeviceKind, Origin, Report, Requirement, Roots, Statement, Verifier, time};
use signer_core::{KeyType, PublicKey, Result};
use support::{Authority, EcKey, RsaKey, authority, named, now, says};

type Attributes = Vec<(u32, Vec<u8>)>;

fn object(attributes: &Attributes) -> Vec<u8> {
    let word = |n: usize| (n as u32).to_be_bytes();
    let mut values = Vec::new();
    for (number, value) in attributes {
        values.extend([&number.to_be_bytes()[..], &word(value.len()), value].concat());
    }
    [&word(7)[..], &word(attributes.len()), &word(values.len()), &values].concat()
}

/// What the private key of `key` has.
fn private(key: &PublicKey) -> Attributes {
    vec![
        (0x0000, vec![3]),
        (0x0100, vec![3]),
        (0x0102, b"key version 1\0\0".to_vec()),
        (0x0103, vec![1]),
        (0x0162, vec![0]),
        (0x0163, vec![1]),
        (0x0164, vec![1]),
        (0x1003, key.fingerprint().as_bytes().to_vec()),
    ]
}

fn public(key: &PublicKey) -> Attributes {
    vec![(0x0000, vec![2]), (0x0120, key.key_bytes().to_vec()), (0x0162, vec![1])]
}

/// Firmware 3: two objects.
fn response_v2(first: &Attributes, second: &Attributes) -> Vec<u8> {
    let (first, second) = (object(first), object(second));
    let offsets = [1, 3, 8, 8 + first.len() as u16];
    let information: Vec<u8> =
        offsets.into_iter().flat_map(u16::to_be_bytes).chain(first).chain(second).collect();
    let total = 32 + information.len() + 256;
    let header = [0, 3, total as u32, information.len() as u32].into_iter().flat_map(u32::to_be_bytes);
    header.chain([0; 16]).chain(information).collect()
}

/// Firmware 2: one object.
fn response_v1(only: &Attributes) -> Vec<u8> {
    [&[0xEE; 20][..], &object(only)].concat()
}

struct Hsm {
    key: PublicKey,
    maker: Authority,
    owner: Authority,
    partition: RsaKey,
    certificates: Vec<Certificate>,
}

impl Hsm {
    fn new() -> Self {
        let (maker, owner) = (Authority::root("maker"), Authority::root("owner"));
        let (card_key, partition) = (RsaKey::make(), RsaKey::make());
        let card = maker.below_with(named("HSM:1"), card_key.for_certificate());
        let certificates = vec![
            card.certify(&named("HSM:1:PARTN:2"), &partition.for_certificate()),
            card.certificate,
            owner.certify(&named("HSM:1"), &card_key.for_certificate()),
            owner.certify(&named("HSM:1:PARTN:2"), &partition.for_certificate()),
        ];
        Self { key: EcKey::make().public(), maker, owner, partition, certificates }
    }

    fn good(&self) -> Vec<u8> {
        response_v2(&public(&self.key), &private(&self.key))
    }

    /// The files that Google's tools write: the statement, and all certificates.
    fn files(&self, response: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let signed = [response, &self.partition.sign(response)].concat();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&signed).unwrap();
        (gz.finish().unwrap(), pem(&self.certificates))
    }

    fn verifier(&self) -> Verifier {
        let roots = [self.maker.certificate.clone(), self.owner.certificate.clone()];
        Verifier::new(Roots::none().with(roots), now())
    }

    fn verify(&self, response: &[u8]) -> Result<Report> {
        let (statement, chains) = self.files(response);
        self.verifier().verify(&Statement::read(&[&statement, &chains])?, &self.key)
    }
}

fn pem(certificates: &[Certificate]) -> Vec<u8> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let one = |c: &Certificate| {
        let text = BASE64_STANDARD.encode(c.as_der());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(one).collect::<String>().into_bytes()
}

#[test]
fn an_hsm_that_its_maker_and_google_vouch_for_proves() {
    let hsm = Hsm::new();
    let report = hsm.verify(&hsm.good()).unwrap();
    assert_eq!(report.device.kind, DeviceKind::GoogleHsm);
    assert_eq!(report.device.serial.as_deref(), Some("HSM:1"));
    assert_eq!((report.key.origin, report.key.exportable), (Origin::Generated, false));
    assert_eq!(report.chains, [vec!["HSM:1:PARTN:2", "HSM:1", "maker"], vec!["HSM:1:PARTN:2", "owner"]]);
    assert!(report.key.more.contains(&("id in the HSM", "key version 1".to_owned())));
    assert_eq!(
        report.proven,
        "The HSM partition \"HSM:1:PARTN:2\" generated this key and never gives it out; the roots \"maker\" that you gave \
         of the maker and \"owner\" that you gave of Google vouch for that HSM."
    );
    // The card is certified twice under one name: the order of the certificates does not matter.
    let (statement, _) = hsm.files(&hsm.good());
    let reversed: Vec<_> = hsm.certificates.iter().rev().cloned().collect();
    let read = Statement::read(&[&pem(&reversed), &statement]).unwrap();
    assert_eq!(hsm.verifier().verify(&read, &hsm.key).unwrap().roots.len(), 2);
    // The same uncompressed, and as firmware 2 words it.
    let (_, chains) = hsm.files(&hsm.good());
    let plain = [hsm.good(), hsm.partition.sign(&hsm.good())].concat();
    hsm.verifier().verify(&Statement::read(&[&plain, &chains]).unwrap(), &hsm.key).unwrap();
    hsm.verify(&response_v1(&private(&hsm.key))).unwrap();
}

#[test]
fn what_the_key_may_do_is_told() {
    let hsm = Hsm::new();
    let with = |attribute: u32, value: Vec<u8>| {
        let mut attributes = private(&hsm.key);
        attributes.iter_mut().find(|(a, _)| *a == attribute).unwrap().1 = value;
        hsm.verify(&response_v2(&public(&hsm.key), &attributes))
    };
    let imported = with(0x0163, vec![0]).unwrap();
    assert_eq!(imported.key.origin, Origin::Imported);
    says("generated-inside".parse::<Requirement>().unwrap().check(&imported), "it was imported");
    assert!(with(0x0162, vec![1]).unwrap().key.exportable);
    let once = with(0x0164, vec![0]).unwrap();
    assert!(once.key.exportable && once.proven.contains("has been able to"));
    for attribute in [0x0162, 0x0163, 0x0164] {
        says(with(attribute, vec![2]), "as it should");
        says(with(attribute, vec![]), "as it should");
    }
    says(with(0x0000, vec![4]), "not about a private key");
}

#[test]
fn the_statement_is_tied_to_the_key() {
    let hsm = Hsm::new();
    let other = EcKey::make().public();
    says(hsm.verify(&response_v2(&public(&other), &private(&hsm.key))), "the statement is about another key");
    says(hsm.verify(&response_v2(&public(&hsm.key), &private(&other))), "the statement is about another key");
    let mut bare = private(&hsm.key);
    bare.pop();
    says(hsm.verify(&response_v1(&bare)), "nothing that ties it to a public key");
    hsm.verify(&response_v2(&public(&hsm.key), &bare)).unwrap();

    let mut rsa = Hsm::new();
    rsa.key = PublicKey::from_pem(&RsaKey::make().for_certificate().public_key_pem()).unwrap();
    assert_eq!(rsa.key.key_type(), KeyType::Rsa2048);
    let modulus = rsa.key.key_bytes()[9..9 + 256].to_vec();
    bare.extend([(0x0120, modulus.clone()), (0x0122, vec![1, 0, 1])]);
    rsa.verify(&response_v1(&bare)).unwrap();
    bare.last_mut().unwrap().1 = vec![3];
    says(rsa.verify(&response_v1(&bare)), "the statement is about another key");
}

#[test]
fn each_thing_that_does_not_fit_has_its_own_sentence() {
    let hsm = Hsm::new();
    let (statement, chains) = hsm.files(&hsm.good());
    let only = |certificates: &[usize]| {
        let some: Vec<_> = certificates.iter().map(|i| hsm.certificates[*i].clone()).collect();
        hsm.verifier().verify(&Statement::read(&[&statement, &pem(&some)]).unwrap(), &hsm.key)
    };
    says(
        hsm.verifier().verify(&Statement::read(&[&statement]).unwrap(), &hsm.key),
        "no certificate came with the statement",
    );
    says(only(&[1, 2]), "signed by none of the certificates");
    // The root that is given for Google would do for the maker, but then there is nobody for Google.
    says(only(&[0, 2, 3]), "not certified by Google");
    says(only(&[0, 1, 2]), "not certified by Google: it has no other certificate");
    says(only(&[0, 1, 3]), "Google does not certify the card");

    let read = Statement::read(&[&statement, &chains]).unwrap();
    let maker_only = Verifier::new(Roots::none().with([hsm.maker.certificate.clone()]), now());
    says(maker_only.verify(&read, &hsm.key), "there is no second root, of Google");
    let owner_only = Verifier::new(Roots::none().with([hsm.owner.certificate.clone()]), now());
    says(owner_only.verify(&read, &hsm.key), "there is no second root, of Google");
    says(Verifier::new(Roots::none(), now()).verify(&read, &hsm.key), "there is no root of it");
    says(only(&[2, 3]), "has no card between");
    says(Verifier::new(Roots::built_in(), now()).verify(&read, &hsm.key), "Marvell");
    let roots = [hsm.maker.certificate.clone(), hsm.owner.certificate.clone()];
    let later = Verifier::new(Roots::none().with(roots), time("2051-01-01").unwrap());
    says(later.verify(&read, &hsm.key), "expired");

    let mut cut = statement.clone();
    cut.truncate(statement.len() / 2);
    let result = Statement::read(&[&cut, &chains]).and_then(|s| hsm.verifier().verify(&s, &hsm.key));
    says(result, "cannot be decompressed");
}

/// One of the maker's customers cannot pose as Google with a card of his own.
#[test]
fn one_root_cannot_stand_for_both() {
    let mut hsm = Hsm::new();
    let card_key = RsaKey::make();
    let card = hsm.maker.below_with(authority("HSM:9"), card_key.for_certificate());
    hsm.certificates = vec![
        card.certify(&named("HSM:9:PARTN:1"), &hsm.partition.for_certificate()),
        card.certificate,
        hsm.maker.certify(&named("again"), &card_key.for_certificate()),
        hsm.maker.certify(&named("again"), &hsm.partition.for_certificate()),
    ];
    says(hsm.verify(&hsm.good()), "not certified by Google");
}

#[test]
fn no_bit_of_a_statement_can_be_changed() {
    let hsm = Hsm::new();
    let chains = pem(&hsm.certificates);
    let good = hsm.good();
    let signed = [&good[..], &hsm.partition.sign(&good)].concat();
    // The container does not matter: what is in it does.
    for byte in 0..signed.len() {
        let mut changed = signed.clone();
        changed[byte] ^= 1 << (byte % 8);
        let result = Statement::read(&[&changed, &chains]).and_then(|s| hsm.verifier().verify(&s, &hsm.key));
        assert!(result.is_err(), "byte {byte}");
    }
}
