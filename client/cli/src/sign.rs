//! `signer sign`: a signature of a file, as a Sigstore bundle beside it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use signer_core::{Digest, Error, ErrorKind, HashAlgorithm, Input, KeyInfo, PublicKey, SignatureAlgorithm};
use signerd_api::{Client, Signed};

use crate::{
    atomic,
    bundle::{self, Bundle, SUFFIX},
    content::{self, Content, Wanted},
    context::{Context, print},
    failure::{Exit, Failure},
    key_argument::Reference,
};

/// Sign files
///
/// Writes FILE.sigstore.json beside each file: a Sigstore bundle, which cosign and `signer verify` check. A bundle that
/// is already there is replaced in one step. Files of any size are hashed here, and only the digest goes to the daemon.
///
/// Ed25519 and ML-DSA keys sign the file itself, up to 128 MiB; a longer file is signed as Ed25519ph by an Ed25519 key
/// whose device has that. Of ECDSA P-384 and P-521 keys cosign 3.1 verifies signatures over SHA-256 only: add
/// --algorithm ecdsa-sha256 for it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer sign app.tar.gz --key hsm/release
  signer sign dist/*.deb --key release
  git archive HEAD | signer sign - --key yubikey/9c --bundle head.sigstore.json
  signer sign app.bin --key hsm/release --output-signature app.sig     for openssl")]
pub(crate) struct Sign {
    /// Files to sign; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The key: backend/key, a configured name, or an address such as pkcs11:token=…;object=…
    #[arg(short, long, value_name = "REF")]
    key: Reference,
    /// How to sign, instead of the key's default: ecdsa-sha256, rsa-pss-sha256, ed25519ph, …
    #[arg(long, value_name = "NAME")]
    algorithm: Option<SignatureAlgorithm>,
    /// Where to write the bundle, instead of FILE.sigstore.json; - for standard output
    #[arg(long, value_name = "PATH")]
    bundle: Option<PathBuf>,
    /// Where to write the bare signature (DER for ECDSA); then no bundle is written unless --bundle is given too
    #[arg(long, value_name = "PATH")]
    output_signature: Option<PathBuf>,
}

impl Sign {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        self.check()?;
        let client = context.client();
        let key = self.key.get()?.to_string();
        let (_, info) = client.key_info(&key).await?;
        let algorithm = self.algorithm(&info)?;
        context.step(format_args!("key {key}: {}, signing with {algorithm}", info.public_key.key_type()));
        let mut exit = Exit::Done;
        for file in &self.files {
            match self.sign(file, &key, &info, algorithm, &client, context).await {
                Ok(()) => {}
                Err(failure) if failure.is_final() || self.files.len() == 1 => return Err(failure),
                // The other files can still be signed.
                Err(failure) => {
                    context.report(&failure);
                    exit = failure.exit();
                }
            }
        }
        Ok(exit)
    }

    fn check(&self) -> Result<(), Failure> {
        let one_output = self.bundle.is_some() || self.output_signature.is_some();
        if self.files.len() > 1 && one_output {
            return Err(Failure::usage(
                "--bundle and --output-signature name one file each, and there are several to sign",
            )
            .next("sign them one by one"));
        }
        if self.files.iter().any(|f| content::is_stdin(f)) && !one_output {
            return Err(Failure::usage("standard input has no name that a bundle could be put beside")
                .next("say where with --bundle PATH, or --bundle - for standard output"));
        }
        Ok(())
    }

    /// The algorithm that was asked for, if the key has it; else the key's default. Of an Ed25519 key that is always pure
    /// Ed25519: a bundle does not say which of the two it was, and cosign takes it for pure.
    fn algorithm(&self, info: &KeyInfo) -> Result<SignatureAlgorithm, Failure> {
        if let Some(wanted) = self.algorithm {
            info.check(wanted)?;
            return Ok(wanted);
        }
        let pure = info.algorithms.contains(&SignatureAlgorithm::Ed25519);
        Ok(if pure { SignatureAlgorithm::Ed25519 } else { info.default_algorithm() })
    }

    async fn sign(
        &self,
        file: &Path,
        key: &str,
        info: &KeyInfo,
        algorithm: SignatureAlgorithm,
        client: &Client,
        context: &Context,
    ) -> Result<(), Failure> {
        let hash = algorithm.prehash().unwrap_or(HashAlgorithm::Sha512);
        let message = algorithm.prehash().is_none().then_some(MAX_WHOLE);
        let content = Content::read(file, Wanted { hashes: vec![hash], message }, context).await?;
        let digest = content.digest(hash).ok_or_else(|| Error::internal("the file was not hashed"))?;
        let name = content::name(file);
        context.step(format_args!("{name}: {} bytes, {digest:?}", content.len));
        let (algorithm, input) = match content.message {
            Some(message) => (algorithm, Input::Message(message.into())),
            None if algorithm.prehash().is_some() => (algorithm, Input::Digest(digest)),
            None if self.algorithm.is_none() && info.algorithms.contains(&SignatureAlgorithm::Ed25519ph) => {
                context.step(format_args!(
                    "{name} is longer than {} MiB: signing with ed25519ph",
                    MAX_WHOLE >> 20
                ));
                (SignatureAlgorithm::Ed25519ph, Input::Digest(digest))
            }
            None => return Err(too_long(&name, algorithm)),
        };
        let signed = client.clone().label(&name).sign(key, Some(algorithm), input.clone()).await?;
        context.settle();
        let public_key = signing_key(info, &signed, &input, client).await?;
        let bundle = self.write(file, &public_key, digest, &signed, context)?;
        let place = bundle.as_ref().or(self.output_signature.as_ref()).filter(|p| !content::is_stdin(p));
        if let Some(place) = place {
            context.result(
                format_args!("signed {name} with {} ({algorithm}): {}", signed.key, place.display()),
                &json!({
                    "file": name,
                    "key": signed.key,
                    "algorithm": algorithm.name(),
                    "digest": format!("{digest:?}"),
                    "bundle": bundle,
                    "signature": self.output_signature,
                    "fingerprint": format!("{:?}", public_key.fingerprint()),
                }),
            );
        }
        Ok(())
    }

    /// Writes what was asked for, and says where the bundle is, if there is one.
    fn write(
        &self,
        file: &Path,
        public_key: &PublicKey,
        digest: Digest,
        signed: &Signed,
        context: &Context,
    ) -> Result<Option<PathBuf>, Failure> {
        if let Some(path) = &self.output_signature {
            if content::is_stdin(path) {
                return Err(Failure::usage("a bare signature is not text: --output-signature needs a path"));
            }
            atomic::write(path, signed.signature.as_bytes())?;
            context.step(format_args!("wrote the bare signature {}", path.display()));
        }
        let path = match &self.bundle {
            Some(path) => path.clone(),
            None if self.output_signature.is_some() => return Ok(None),
            None => beside(file),
        };
        let bundle = Bundle {
            digest: Some(digest),
            signature: signed.signature.clone(),
            hint: bundle::hint(public_key),
        };
        let json = bundle.to_json()?;
        if content::is_stdin(&path) {
            print(String::from_utf8_lossy(&json));
        } else {
            atomic::write(&path, &json)?;
        }
        Ok(Some(path))
    }
}

/// The public key of what has signed. No signature leaves that does not verify: neither one by a faulty device, nor one by
/// a version that was made after the key was looked up.
async fn signing_key(
    info: &KeyInfo,
    signed: &Signed,
    input: &Input,
    client: &Client,
) -> Result<PublicKey, Failure> {
    let fits = |key: &PublicKey| key.verify(signed.algorithm, input, signed.signature.as_bytes());
    if fits(&info.public_key).is_ok() {
        return Ok(info.public_key.clone());
    }
    let (_, now) = client.key_info(&signed.key).await?;
    fits(&now.public_key).map_err(|_| {
        Failure::failed(
            Error::internal("the device gave a signature that does not verify, which was thrown away")
                .key(&signed.key)
                .next("check the device; try again"),
        )
    })?;
    Ok(now.public_key)
}

/// Where a file's bundle is by default.
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

fn too_long(name: &str, algorithm: SignatureAlgorithm) -> Failure {
    let limit = MAX_WHOLE >> 20;
    let what =
        format!("{name} is too long for {algorithm}, which signs the message itself: at most {limit} MiB");
    Failure::failed(
        Error::new(ErrorKind::Unsupported, what)
            .next("use a key that signs a digest (ecdsa, rsa, ed25519ph)"),
    )
}

/// The longest message that is sent whole.
pub(crate) const MAX_WHOLE: usize = 128 << 20;
