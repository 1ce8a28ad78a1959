//! `signer verify`: whether a file is what was signed.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use signer_core::{
    Digest, Error, ErrorKind, HashAlgorithm, Input, KeyType, PublicKey, Signature, SignatureAlgorithm,
};

use crate::{
    bundle::{self, Bundle},
    content::{self, Content, Wanted},
    context::Context,
    failure::{Exit, Failure},
    key_argument,
    sign::{MAX_WHOLE, beside},
};

/// Verify a file's signature
///
/// Checks FILE against FILE.sigstore.json and one public key. Needs no daemon when the key is a file.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer verify app.tar.gz --key release.pem
  signer verify app.tar.gz --key hsm/release --bundle downloads/app.sigstore.json
  signer verify app.bin --key release.pem --signature app.sig --algorithm ecdsa-sha256")]
pub(crate) struct Verify {
    /// The file that was signed; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public key: a PEM or DER file, or the reference of a key that the daemon has
    #[arg(short, long, value_name = "PEM-OR-REF")]
    key: String,
    /// The bundle, instead of FILE.sigstore.json
    #[arg(long, value_name = "PATH", conflicts_with = "signature")]
    bundle: Option<PathBuf>,
    /// A bare signature (DER for ECDSA) instead of a bundle
    #[arg(long, value_name = "PATH")]
    signature: Option<PathBuf>,
    /// How it must have been signed, instead of what the bundle or the key's type says
    #[arg(long, value_name = "NAME")]
    algorithm: Option<SignatureAlgorithm>,
}

/// The signature that is to be verified, from a bundle or bare.
struct Claim {
    signature: Signature,
    /// From the bundle.
    bundle: Option<Bundle>,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        // 1. The key, which the caller trusts.
        let key = key_argument::public_key(&self.key, context).await?;
        let fingerprint = hex::encode(key.fingerprint().as_bytes());
        context.step(format_args!("1. key {}: {}, SHA-256 {fingerprint}", self.key, key.key_type()));

        // 2. What is claimed: a bundle that holds a signature of a file, or a bare signature.
        let claim = self.claim()?;
        let candidates = self.candidates(&key, &claim)?;
        context.step(format_args!("2. {}", claim.describe()));

        // 3. The file, hashed as the claim asks.
        let content = Content::read(&self.file, wanted(&candidates, &claim), context).await?;
        let name = content::name(&self.file);
        match claim.digest() {
            Some(digest) => check_digest(&name, &content, digest)?,
            None => context.step("   no digest of the file is claimed"),
        }
        context.step(format_args!("3. {name} has {} bytes", content.len));

        // 4. The signature, by this key over this file.
        let algorithm = self.check_signature(&key, &candidates, &claim, &content)?;
        context.step(format_args!("4. the {algorithm} signature is by this key"));

        context.result(
            format_args!("verified {name}: {algorithm} by {} key SHA256:{fingerprint}", key.key_type()),
            &json!({
                "verified": true,
                "file": name,
                "algorithm": algorithm.name(),
                "key_type": key.key_type().name(),
                "fingerprint": format!("sha256:{fingerprint}"),
            }),
        );
        Ok(Exit::Done)
    }

    fn claim(&self) -> Result<Claim, Failure> {
        if let Some(path) = &self.signature {
            let bytes = read_limited(path, 64 << 10, "signature")?;
            return Ok(Claim { signature: Signature::new(bytes), bundle: None });
        }
        if content::is_stdin(&self.file) && self.bundle.is_none() {
            return Err(
                Failure::usage("standard input has no bundle beside it").next("name it with --bundle PATH")
            );
        }
        let path = self.bundle.clone().unwrap_or_else(|| beside(&self.file));
        let json = read_limited(&path, bundle::MAX_LEN, "bundle")?;
        let bundle = Bundle::from_json(&json).map_err(|e| Failure::failed(e.device(path.display())))?;
        Ok(Claim { signature: bundle.signature.clone(), bundle: Some(bundle) })
    }

    /// The algorithms that the signature may have been made with: a bundle does not name the scheme, only the hash.
    fn candidates(&self, key: &PublicKey, claim: &Claim) -> Result<Vec<SignatureAlgorithm>, Failure> {
        let all = key.key_type().algorithms();
        if let Some(wanted) = self.algorithm {
            if !all.contains(&wanted) {
                return Err(Failure::usage(format!("a {} key does not verify {wanted}", key.key_type())));
            }
            return Ok(vec![wanted]);
        }
        let fits = |a: &SignatureAlgorithm| match (&claim.bundle, a.prehash()) {
            (Some(_), Some(hash)) => {
                let claimed = claim.digest().map(|d| d.algorithm());
                claimed.is_none_or(|h| h == hash) || *a == SignatureAlgorithm::Ed25519ph
            }
            (None, Some(_)) => key.key_type() == KeyType::Ed25519 || *a == key.key_type().default_algorithm(),
            (_, None) => true,
        };
        Ok(all.iter().copied().filter(fits).collect())
    }

    fn check_signature(
        &self,
        key: &PublicKey,
        candidates: &[SignatureAlgorithm],
        claim: &Claim,
        content: &Content,
    ) -> Result<SignatureAlgorithm, Failure> {
        let mut too_long = None;
        for algorithm in candidates {
            let digest = algorithm.prehash().and_then(|hash| content.digest(hash));
            let whole = content.message.as_ref().filter(|_| digest.is_none());
            let input = digest.map(Input::Digest).or_else(|| Some(Input::Message(whole?.clone().into())));
            let Some(input) = input else {
                too_long = Some(*algorithm);
                continue;
            };
            match key.verify(*algorithm, &input, claim.signature.as_bytes()) {
                Ok(()) => return Ok(*algorithm),
                Err(e) if e.kind() == ErrorKind::Denied => {}
                Err(e) => return Err(Failure::failed(e)),
            }
        }
        Err(self.refusal(key, claim, too_long))
    }

    fn refusal(&self, key: &PublicKey, claim: &Claim, too_long: Option<SignatureAlgorithm>) -> Failure {
        let name = content::name(&self.file);
        if let Some(algorithm) = too_long {
            return Failure::failed(Error::new(
                ErrorKind::Unsupported,
                format!("{name} is too long to verify {algorithm} over it: at most {} MiB", MAX_WHOLE >> 20),
            ));
        }
        let other_key =
            claim.bundle.as_ref().is_some_and(|b| !b.hint.is_empty() && b.hint != bundle::hint(key));
        let error = Error::new(
            ErrorKind::Denied,
            format!("NOT verified: the signature of {name} is not by this key"),
        )
        .key(&self.key);
        Failure::failed(if other_key {
            error.next("the bundle names another key: check --key")
        } else if claim.bundle.is_none() && self.algorithm.is_none() {
            error.next("say how it was signed with --algorithm if it was not the key's default")
        } else {
            error.next("do not use the file")
        })
    }
}

impl Claim {
    fn digest(&self) -> Option<Digest> {
        self.bundle.as_ref().and_then(|b| b.digest)
    }

    fn describe(&self) -> String {
        match &self.bundle {
            Some(bundle) => match bundle.digest {
                Some(digest) => format!("a bundle for {digest:?}, key hint {:?}", bundle.hint),
                None => format!("a bundle without a digest, key hint {:?}", bundle.hint),
            },
            None => format!("a bare signature of {} bytes", self.signature.as_bytes().len()),
        }
    }
}

/// What one pass over the file has to give so that every candidate can be tried.
fn wanted(candidates: &[SignatureAlgorithm], claim: &Claim) -> Wanted {
    let mut hashes: Vec<HashAlgorithm> = candidates.iter().filter_map(|a| a.prehash()).collect();
    hashes.extend(claim.digest().map(|d| d.algorithm()));
    hashes.sort();
    hashes.dedup();
    let whole = candidates.iter().any(|a| a.prehash().is_none());
    Wanted { hashes, message: whole.then_some(MAX_WHOLE) }
}

fn check_digest(name: &str, content: &Content, claimed: Digest) -> Result<(), Failure> {
    if content.digest(claimed.algorithm()) == Some(claimed) {
        return Ok(());
    }
    let what =
        format!("NOT verified: {name} is not the file that was signed, its {} differs", claimed.algorithm());
    Err(Failure::failed(Error::new(ErrorKind::Denied, what).next("do not use the file")))
}

fn read_limited(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|e| {
        let failure = Failure::io(format!("the {what} {} cannot be read", path.display()), &e);
        failure.next("name it with --bundle or --signature")
    })?;
    if bytes.len() as u64 > limit {
        return Err(Failure::failed(Error::bad_request(format!(
            "{} is too long for a {what}",
            path.display()
        ))));
    }
    Ok(bytes)
}
