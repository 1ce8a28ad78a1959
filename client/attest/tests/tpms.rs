//! TPM2_Certify: what a TPM would have written, and each way to write it that proves nothing. Real TPMs' statements are tested
//! with swtpm, in hwtests.
#![allow(clippy::unwrap_used)] // tests

mod support;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use signer_attest::{
    AttesterName, Certificate, DeviceKind, Origin, Report, Requirement, Roots, Statement, Verifier,
};
use signer_core::{Digest, Evidence, EvidenceFormat, HashAlgorithm, PublicKey, Result};
use support::{Authority, EcKey, authority, named, now, says, trusting};

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
const KEY: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | SIGN;
const ATTESTER: u32 = KEY | RESTRICTED;

/// Two bytes of length in front.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// `TPMT_PUBLIC` of a P-256 key.
fn public(key: &PublicKey, attributes: u32, policy: &[u8]) -> Vec<u8> {
    let (x, y) = key.key_bytes()[1..].split_at(32);
    [
        &[0x00, 0x23, 0x00, 0x0B][..],
        &attributes.to_be_bytes(),
        &sized(policy),
        &[0x00, 0x10, 0x00, 0x18, 0x00, 0x0B, 0x00, 0x03, 0x00, 0x10],
        &sized(x),
        &sized(y),
    ]
    .concat()
}

fn name(public: &[u8]) -> Vec<u8> {
    [&[0x00, 0x0B][..], Digest::of(HashAlgorithm::Sha256, public).as_bytes()].concat()
}

/// A TPM with a key and an attestation key; what it says can be changed before it is signed.
struct Tpm {
    key: EcKey,
    attester: EcKey,
    key_area: Vec<u8>,
    attester_area: Vec<u8>,
    magic: u32,
    kind: u16,
    nonce: Vec<u8>,
    certified: Vec<u8>,
    certificates: Vec<Certificate>,
}

impl Tpm {
    fn new() -> Self {
        Self::with(KEY, ATTESTER, &[])
    }

    fn with(key_attributes: u32, attester_attributes: u32, policy: &[u8]) -> Self {
        let (key, attester) = (EcKey::make(), EcKey::make());
        let key_area = public(&key.public(), key_attributes, policy);
        let attester_area = public(&attester.public(), attester_attributes, &[]);
        let certified = name(&key_area);
        let (magic, kind) = (0xFF54_4347, 0x8017);
        let (nonce, certificates) = (Vec::new(), Vec::new());
        Self { key, attester, key_area, attester_area, magic, kind, nonce, certified, certificates }
    }

    fn attest(&self) -> Vec<u8> {
        let primary = [&0x4000_000B_u32.to_be_bytes()[..], &name(&self.attester_area)].concat();
        [
            &self.magic.to_be_bytes()[..],
            &self.kind.to_be_bytes(),
            &sized(&name(&primary)),
            &sized(&self.nonce),
            &[0; 17],
            &[0, 1, 0, 2, 0, 3, 0, 4],
            &sized(&self.certified),
            &sized(&[7; 34]),
        ]
        .concat()
    }

    fn signature(&self) -> Vec<u8> {
        let raw = self.attester.sign(&self.attest());
        [&[0x00, 0x18, 0x00, 0x0B][..], &sized(&raw[..32]), &sized(&raw[32..])].concat()
    }

    fn parts(&self) -> Vec<Vec<u8>> {
        let mut parts =
            vec![self.attest(), self.signature(), self.key_area.clone(), self.attester_area.clone()];
        parts.extend(self.certificates.iter().map(|c| c.as_der().to_vec()));
        parts
    }

    fn statement(&self) -> Statement {
        Statement::from_evidence(Evidence { format: EvidenceFormat::TpmCertify, parts: self.parts() })
            .unwrap()
    }

    fn attester_name(&self) -> AttesterName {
        AttesterName::of_public(&self.attester_area).unwrap()
    }

    fn verify(&self, verifier: &Verifier) -> Result<Report> {
        verifier.verify(&self.statement(), &self.key.public())
    }

    /// By whoever enrolled this attestation key.
    fn verify_enrolled(&self) -> Result<Report> {
        self.verify(&Verifier::new(Roots::none(), now()).attester(self.attester_name()))
    }
}

#[test]
fn an_enrolled_attestation_key_proves() {
    let tpm = Tpm::new();
    let report = tpm.verify_enrolled().unwrap();
    assert_eq!(report.device.kind, DeviceKind::Tpm);
    assert_eq!(report.device.firmware.as_deref(), Some("1.2.3.4"));
    assert_eq!((report.key.origin, report.key.exportable, report.key.pin), (Origin::Generated, false, None));
    assert!(
        report
            .proven
            .starts_with("A TPM generated this key and never gives it out; it signs for whoever knows")
    );
    assert!(report.proven.ends_with("is one that you enrolled."), "{}", report.proven);
    assert!(report.not_proven.contains("no nonce"), "{}", report.not_proven);
    assert!(report.key.more.contains(&("attester made under", "the endorsement hierarchy".to_owned())));
    // The Name in hexadecimal digits is the same.
    let named: AttesterName = tpm.attester_name().to_string().parse().unwrap();
    tpm.verify(&Verifier::new(Roots::none(), now()).attester(named)).unwrap();
}

#[test]
fn without_activation_or_a_certificate_nothing_is_proven() {
    let tpm = Tpm::new();
    let verifier = Verifier::new(Roots::none(), now());
    says(tpm.verify(&verifier), "nothing shows that the attestation key is in a TPM");
    says(tpm.verify(&verifier), &format!("--attester {}", tpm.attester_name()));
    says(
        tpm.verify(&verifier.attester(Tpm::new().attester_name())),
        "the attestation key is another one than --attester names",
    );
}

#[test]
fn what_the_key_may_do_is_told() {
    let imported = Tpm::with(KEY & !SENSITIVE_DATA_ORIGIN, ATTESTER, &[]).verify_enrolled().unwrap();
    assert_eq!(imported.key.origin, Origin::Imported);
    assert!(imported.proven.contains("was imported"));
    for movable in [FIXED_TPM, FIXED_PARENT] {
        let report = Tpm::with(KEY & !movable, ATTESTER, &[]).verify_enrolled().unwrap();
        assert!(report.key.exportable && report.proven.contains("may give it out"));
        says("not-exportable".parse::<Requirement>().unwrap().check(&report), "the device may give it out");
    }
    // A policy counts when nothing but the policy lets the key sign.
    let either = Tpm::with(KEY, ATTESTER, &[9; 32]).verify_enrolled().unwrap();
    assert_eq!(either.key.policy, None);
    let bound = Tpm::with(KEY & !USER_WITH_AUTH, ATTESTER, &[9; 32]).verify_enrolled().unwrap();
    assert_eq!(bound.key.policy, Some(vec![9; 32]));
    let requirement: Requirement = format!("policy={}", "09".repeat(32)).parse().unwrap();
    requirement.check(&bound).unwrap();
    says(requirement.check(&either), "no policy is enforced");
    says("touch=cached".parse::<Requirement>().unwrap().check(&bound), "the statement does not say");
}

#[test]
fn each_thing_that_does_not_fit_has_its_own_sentence() {
    let mut tpm = Tpm::new();
    tpm.magic = 0xFF54_4348;
    says(tpm.verify_enrolled(), "does not begin as what a TPM makes itself");
    let mut tpm = Tpm::new();
    tpm.kind = 0x8018;
    says(tpm.verify_enrolled(), "something else than TPM2_Certify");
    let mut tpm = Tpm::new();
    tpm.certified = name(b"another area");
    says(tpm.verify_enrolled(), "about other attributes of the key");
    let mut tpm = Tpm::new();
    tpm.attester = EcKey::make();
    says(tpm.verify_enrolled(), "the signature of the statement is not by the attestation key");
    let tpm = Tpm::new();
    let other = EcKey::make().public();
    let verifier = Verifier::new(Roots::none(), now()).attester(tpm.attester_name());
    says(verifier.verify(&tpm.statement(), &other), "the statement is about another key");
    // A key that signs anything can sign what looks like a statement.
    for attributes in
        [ATTESTER & !RESTRICTED, ATTESTER | DECRYPT, ATTESTER & !FIXED_TPM, ATTESTER & !SENSITIVE_DATA_ORIGIN]
    {
        says(Tpm::with(KEY, attributes, &[]).verify_enrolled(), "anybody can have written it");
    }
}

#[test]
fn the_nonce_must_be_the_one_that_was_given() {
    let mut tpm = Tpm::new();
    tpm.nonce = vec![5, 6];
    let verifier = Verifier::new(Roots::none(), now()).attester(tpm.attester_name());
    let report = tpm.verify(&verifier.clone().nonce(vec![5, 6])).unwrap();
    assert!(report.key.more.contains(&("nonce", "0506".to_owned())));
    assert!(report.not_proven.contains("since the nonce was given"));
    says(tpm.verify(&verifier.clone().nonce(vec![5])), "was not made for this nonce");
    says(tpm.verify(&verifier.nonce(Vec::new())), "was not made for this nonce");
}

#[test]
fn no_bit_of_a_statement_can_be_changed() {
    let tpm = Tpm::new();
    let verifier = Verifier::new(Roots::none(), now()).attester(tpm.attester_name());
    let parts = tpm.parts();
    for part in 0..parts.len() {
        for byte in 0..parts[part].len() {
            let mut changed = parts.clone();
            changed[part][byte] ^= 1 << (byte % 8);
            let evidence = Evidence { format: EvidenceFormat::TpmCertify, parts: changed };
            let result = verifier.verify(&Statement::from_evidence(evidence).unwrap(), &tpm.key.public());
            assert!(result.is_err(), "part {part}, byte {byte}");
        }
    }
}

fn with_usage(name: &str, last: u64) -> CertificateParams {
    let mut params = named(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, last])];
    params
}

#[test]
fn the_certificate_of_an_attestation_key_proves() {
    let root = Authority::root("attestation CA");
    let mut tpm = Tpm::new();
    let own = root.certify(&with_usage("attestation key", 3), &tpm.attester.for_certificate());
    tpm.certificates = vec![own];
    let report = tpm.verify(&trusting(&root)).unwrap();
    assert!(
        report.proven.ends_with("the root \"attestation CA\" that you gave vouches for it."),
        "{}",
        report.proven
    );
    assert_eq!(report.chains, [["attestation key", "attestation CA"]]);
    says(tpm.verify(&Verifier::new(Roots::built_in(), now())), "is neither a root nor in the statement");

    // One for another use, or of another key, is none.
    tpm.certificates = vec![root.certify(&with_usage("server", 9), &tpm.attester.for_certificate())];
    says(tpm.verify(&trusting(&root)), "not one of an attestation key");
    tpm.certificates =
        vec![root.certify(&with_usage("attestation key", 3), &EcKey::make().for_certificate())];
    says(tpm.verify(&trusting(&root)), "nothing shows that the attestation key is in a TPM");
}

/// The certificate of an endorsement key is public: who shows it need not have the TPM.
#[test]
fn the_certificate_of_an_endorsement_key_alone_proves_nothing() {
    let root = Authority::root("TPM maker");
    let between = root.below(authority("TPM maker 1"));
    let mut tpm = Tpm::new();
    let own = between.certify(&with_usage("endorsement key", 1), &EcKey::make().for_certificate());
    tpm.certificates = vec![own.clone(), between.certificate.clone()];
    says(tpm.verify(&trusting(&root)), "the certificate of an endorsement key beside it does not");
    // With an enrolled attestation key it is checked, and told.
    let report = tpm.verify(&trusting(&root).attester(tpm.attester_name())).unwrap();
    assert_eq!(report.chains, [["endorsement key", "TPM maker 1", "TPM maker"]]);
    let verifier = Verifier::new(Roots::built_in(), now()).attester(tpm.attester_name());
    says(tpm.verify(&verifier), "whose issuer \"TPM maker\" is neither a root nor in the statement");
    tpm.certificates.pop();
    says(tpm.verify(&trusting(&root).attester(tpm.attester_name())), "whose issuer \"TPM maker 1\"");
}

/// As tpm2-tools write them, in whatever order.
#[test]
fn files_of_tpm2_tools_are_read() {
    let tpm = Tpm::new();
    let (attest, signature) = (tpm.attest(), tpm.signature());
    let verifier = Verifier::new(Roots::none(), now()).attester(tpm.attester_name());
    let with_len = (sized(&tpm.key_area), sized(&tpm.attester_area));
    for (key, attester) in [(&tpm.key_area, &tpm.attester_area), (&with_len.0, &with_len.1)] {
        let statement = Statement::read(&[attester, &attest, key, &signature]).unwrap();
        verifier.verify(&statement, &tpm.key.public()).unwrap();
    }
    says(
        Statement::read(&[&attest, &tpm.key_area, &tpm.attester_area]),
        "the signature (tpm2_certify -s) is missing",
    );
    says(Statement::read(&[&attest, &signature, &tpm.attester_area]), "the public area of the key");
    says(Statement::read(&[&attest, &signature, &tpm.key_area]), "the public area of the attestation key");
    says(AttesterName::of_public(b"-----BEGIN PUBLIC KEY-----"), "tpm2_readpublic -f tss");
}
