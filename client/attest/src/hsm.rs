//! The attestation of a Google Cloud HSM: what a Marvell LiquidSecurity card states on a key, signed by one of its
//! partitions, whose key Marvell and Google both certify ("Verifying attestations", Cloud KMS; "Software key attestation",
//! Marvell).

use signer_core::{Error, Input, KeyType, PublicKey, Result, SignatureAlgorithm};

use crate::{
    Certificate, Device, DeviceKind, KeyFacts, Origin, Report,
    chain::{Anchor, Chain, Rules},
    refused,
    roots::Maker,
    verifier::Verifier,
};

mod response;

pub(crate) use response::{LOCAL, Object, Response, decompressed};

/// A statement as it came, not yet judged.
#[derive(Clone, Debug)]
pub(crate) struct HsmStatement {
    /// What the HSM wrote, with its signature behind, mostly compressed.
    pub(crate) content: Vec<u8>,
    /// Every certificate that came with it, in whatever order.
    pub(crate) certificates: Vec<Certificate>,
}

pub(crate) fn verify(verifier: &Verifier, hsm: &HsmStatement, key: &PublicKey) -> Result<Report> {
    let content = decompressed(&hsm.content)?;
    let response = Response::parse(&content)?;

    // 1. A partition signed it.
    let partitions = signers(hsm, &response)?;
    // 2. and 3. The card's maker certifies that partition, through the card; Google certifies the same partition and the same
    // card, under a root of its own.
    let (by_maker, by_owner) = chains(verifier, hsm, &partitions)?;
    // 4. It is about this key.
    let private = response.private_key()?;
    check_key(private, response.public_key(), key)?;
    // 5. What it says.
    let facts = facts(private, key)?;
    Ok(report(facts, &by_maker, &by_owner))
}

/// The certificates of the key that signed.
fn signers<'a>(hsm: &'a HsmStatement, response: &Response<'_>) -> Result<Vec<&'a Certificate>> {
    const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::RsaPkcs1(signer_core::HashAlgorithm::Sha256);
    let input = Input::Message(response.signed.to_vec().into());
    let signed = |certificate: &&Certificate| {
        certificate.public_key().is_ok_and(|key| {
            matches!(key.key_type(), KeyType::Rsa2048)
                && key.verify(ALGORITHM, &input, response.signature).is_ok()
        })
    };
    let signers: Vec<_> = hsm.certificates.iter().filter(signed).collect();
    if signers.is_empty() {
        let why = if hsm.certificates.is_empty() {
            refused("no certificate came with the statement").next(
                "give the chains with --with: `gcloud kms keys versions get-certificate-chain` writes them",
            )
        } else {
            refused("the statement is signed by none of the certificates that came with it")
        };
        return Err(why);
    }
    Ok(signers)
}

/// The chain to a root of the maker, and that to a root of Google's. Roots that were given may be either, so each pair of roots
/// is tried; what got furthest says why not.
fn chains(verifier: &Verifier, hsm: &HsmStatement, partitions: &[&Certificate]) -> Result<(Chain, Chain)> {
    let build = |certificate: &Certificate, anchor: &Anchor| {
        let anchors = std::slice::from_ref(anchor);
        Chain::build(certificate, &hsm.certificates, anchors, verifier.at, Rules::Hsm)
    };
    let mut why_not = (0, not_certified("the maker of the HSM (Marvell)", "there is no root of it"));
    let mut note = |rank: u8, error: Error| {
        if rank > why_not.0 {
            why_not = (rank, error);
        }
    };
    let owners = verifier.roots.anchors(Maker::HsmOwner);
    for maker in verifier.roots.anchors(Maker::Hsm) {
        for partition in partitions {
            let by_maker = match build(partition, &maker) {
                Ok(chain) => chain,
                Err(e) => {
                    note(1, not_certified("the maker of the HSM (Marvell)", e.what()));
                    continue;
                }
            };
            let Some(card) = by_maker.certificates.get(1) else {
                note(2, refused("the maker's chain has no card between the partition and the root"));
                continue;
            };
            note(3, refused("there is no second root, of Google: the maker's alone does not count"));
            for owner in owners.iter().filter(|owner| owner.certificate != maker.certificate) {
                note(4, not_certified("Google", "it has no other certificate"));
                for other in partitions.iter().filter(|other| *other != partition) {
                    match build(other, owner) {
                        Err(e) => note(5, not_certified("Google", e.what())),
                        Ok(by_owner) if owns_card(hsm, card, |c| build(c, owner).is_ok()) => {
                            return Ok((by_maker, by_owner));
                        }
                        Ok(_) => {
                            note(
                                6,
                                refused(
                                    "Google does not certify the card that the maker's chain goes through",
                                ),
                            );
                        }
                    }
                }
            }
        }
    }
    Err(why_not.1.next("give the roots with --root if you trust them"))
}

fn not_certified(who: &str, because: &str) -> Error {
    let because = because.trim_start_matches("NOT proven: ");
    refused(format_args!("the partition that signed is not certified by {who}: {because}"))
}

/// Whether there is another certificate of the card's key that is certified.
fn owns_card(hsm: &HsmStatement, card: &Certificate, is_certified: impl Fn(&Certificate) -> bool) -> bool {
    let Ok(key) = card.spki() else { return false };
    let same_key = |c: &&Certificate| *c != card && c.spki().is_ok_and(|k| k == key);
    hsm.certificates.iter().filter(same_key).any(is_certified)
}

/// The statement holds the public key, or a digest of it, in the private key's attributes or in those of the public key
/// that was made with it. All that is there must fit.
fn check_key(private: &Object<'_>, public: Option<&Object<'_>>, key: &PublicKey) -> Result<()> {
    let mut fits = None;
    for object in [Some(private), public].into_iter().flatten() {
        for fit in [object.digest_fits(key), object.material_fits(key)].into_iter().flatten() {
            fits = Some(fits.unwrap_or(true) && fit);
        }
    }
    match fits {
        Some(true) => Ok(()),
        Some(false) => {
            Err(refused("the statement is about another key").next("check --key, and its version"))
        }
        None => Err(refused("the statement holds nothing that ties it to a public key")),
    }
}

struct Facts {
    key: KeyFacts,
    never_extractable: bool,
}

fn facts(private: &Object<'_>, key: &PublicKey) -> Result<Facts> {
    let flag = |attribute: u32, name: &str| {
        private.flag(attribute).ok_or_else(|| {
            Error::bad_request(format!("the HSM's statement does not say {name} as it should"))
        })
    };
    let extractable = flag(response::EXTRACTABLE, "EXTRACTABLE")?;
    let never_extractable = flag(response::NEVER_EXTRACTABLE, "NEVER_EXTRACTABLE")?;
    let local = flag(LOCAL, "LOCAL")?;
    let mut more = vec![("never extractable", yes(never_extractable).to_owned())];
    if let Some(sensitive) = private.flag(response::SENSITIVE) {
        more.push(("sensitive", yes(sensitive).to_owned()));
    }
    if let Some(id) = private.text(response::ID) {
        more.push(("id in the HSM", id));
    }
    Ok(Facts {
        key: KeyFacts {
            key_type: key.key_type(),
            fingerprint: key.fingerprint(),
            place: None,
            origin: if local { Origin::Generated } else { Origin::Imported },
            exportable: extractable || !never_extractable,
            pin: None,
            touch: None,
            policy: None,
            more,
        },
        never_extractable,
    })
}

fn report(facts: Facts, by_maker: &Chain, by_owner: &Chain) -> Report {
    let origin = match facts.key.origin {
        Origin::Generated => "generated this key",
        Origin::Imported => "holds this key, which was imported,",
    };
    let export = match (facts.key.exportable, facts.never_extractable) {
        (false, _) => "and never gives it out",
        (true, true) => "but may give it out",
        (true, false) => "but gives it out or has been able to",
    };
    let (maker, owner) = (by_maker.root(), by_owner.root());
    let words = |built_in: bool, name: &str| {
        if built_in { format!("{name:?}") } else { format!("{name:?} that you gave") }
    };
    Report {
        proven: format!(
            "The HSM partition {:?} {origin} {export}; the roots {} of the maker and {} of Google vouch for that HSM.",
            by_maker.certificates[0].subject_name(),
            words(maker.built_in, &maker.name),
            words(owner.built_in, &owner.name),
        ),
        not_proven: "Not proven: who in the cloud project may use the key, when it was made, that it is there still, and \
                     that the name of the key version is the one that you know."
            .to_owned(),
        device: Device {
            kind: DeviceKind::GoogleHsm,
            maker: Some("Marvell".to_owned()).filter(|_| maker.built_in),
            model: Some("LiquidSecurity".to_owned()).filter(|_| maker.built_in),
            firmware: None,
            serial: by_maker.certificates.get(1).map(Certificate::subject_name),
            fips: None,
        },
        key: facts.key,
        chains: vec![by_maker.names(), by_owner.names()],
        roots: vec![maker, owner],
        warnings: Vec::new(),
    }
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}
