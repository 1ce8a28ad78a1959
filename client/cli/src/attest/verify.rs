//! `signer attest verify`

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use serde_json::json;
use signer_attest::{AttesterName, Certificate, Origin, Report, Requirement, Roots, Statement, Verifier};
use signer_core::{PinPolicy, TouchPolicy};

use crate::{
    content,
    context::Context,
    failure::{Exit, Failure},
    key_argument,
};

/// The longest file of a statement: they have a few kilobytes.
const MAX_LEN: u64 = 1 << 20;

/// Verify that a device vouches for a key
///
/// Checks the statement in FILE up to the maker's root, and that it is about one public key. Says in one sentence what is
/// proven, and in one what is not. Needs no daemon when the key is a file. FILE is what `signer keys attest` wrote, or what
/// ykman, yubico-piv-tool, tpm2_certify or gcloud did.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer attest verify release.attestation.json --key release.pem
  signer attest verify att.pem --with f9.pem --key release.pem --require touch=always --require pin=once
  signer attest verify tpm.json --key tpm.pem --root vendor.pem --attester 000b5c1e…
  signer attest verify attest.bin --with sig.bin --with key.pub --with ak.pub --key key.pem --nonce 5a17 --attester ak.pub
  signer attest verify attestation.dat --with chains.pem --key kms.pem --require generated-inside

What can be required:
  generated-inside, not-exportable, pin=once, touch=cached (or more), device=yubikey|tpm|google-hsm,
  serial=NUMBER[,NUMBER], firmware=5.7 (or later), fips, policy=HEX (TPM)

Exit codes: 0 proven   1 not proven   2 wrong usage   3, 4 the daemon that was asked for the key, as always")]
pub(super) struct Verify {
    /// The statement; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public key: a PEM or DER file, or the reference of a key that the daemon has
    #[arg(short, long, value_name = "PEM-OR-REF")]
    key: String,
    /// A file that belongs to the statement: a YubiKey's certificate of slot f9, certificate chains, a TPM's signature and
    /// public areas. May be given several times
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Certificates to trust as roots, besides the makers' own. May be given several times
    #[arg(long, value_name = "FILE")]
    root: Vec<PathBuf>,
    /// Trust only the roots that --root gives
    #[arg(long, requires = "root")]
    only_given_roots: bool,
    /// A TPM's attestation key that you found out to be one: its Name, or its public area in a file. May be given several
    /// times
    #[arg(long, value_name = "NAME-OR-FILE")]
    attester: Vec<String>,
    /// What the TPM must have been given for this statement, in hexadecimal digits
    #[arg(long, value_name = "HEX")]
    nonce: Option<Nonce>,
    /// When the certificates must have been valid, instead of now: 2025-06-30 or 2025-06-30T12:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Instant>,
    /// What must be so besides. May be given several times
    #[arg(long, value_name = "WHAT")]
    require: Vec<Requirement>,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        // 1. The key, which the caller names.
        let key = key_argument::public_key(&self.key, context).await?;
        context.step(format_args!("1. key {}: {}, {:?}", self.key, key.key_type(), key.fingerprint()));

        // 2. The statement.
        let mut files = vec![read(&self.file)?];
        for path in &self.with {
            files.push(read(path)?);
        }
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let name = content::name(&self.file);
        let statement = Statement::read(&files).map_err(|e| Failure::failed(e.device(&name)))?;
        context.step(format_args!("2. {name} is a statement as of device={}", statement.kind().name()));

        // 3. What it proves.
        let report =
            self.verifier()?.verify(&statement, &key).map_err(|e| Failure::failed(e.key(&self.key)))?;
        context.step(format_args!("3. {}", report.proven));

        // 4. What is demanded besides.
        for requirement in &self.require {
            requirement.check(&report).map_err(|e| Failure::failed(e.key(&self.key)))?;
            context.step(format_args!("4. {requirement}"));
        }
        context.result(text(&report).trim_end(), &object(&name, &report));
        Ok(Exit::Done)
    }

    fn verifier(&self) -> Result<Verifier, Failure> {
        let mut given = Vec::new();
        for path in &self.root {
            let bytes = read(path)?;
            let certificates = Certificate::all_from_pem_or_der(&bytes);
            given.extend(certificates.map_err(|e| Failure::failed(e.device(path.display())))?);
        }
        let roots = if self.only_given_roots { Roots::none() } else { Roots::built_in() };
        let at = self.at.map_or_else(SystemTime::now, |at| at.0);
        let mut verifier = Verifier::new(roots.with(given), at);
        for attester in &self.attester {
            verifier = verifier.attester(self::attester(attester)?);
        }
        if let Some(nonce) = &self.nonce {
            verifier = verifier.nonce(nonce.0.clone());
        }
        Ok(verifier)
    }
}

/// A Name, unless there is a file of that name.
fn attester(argument: &str) -> Result<AttesterName, Failure> {
    let path = Path::new(argument);
    if !path.exists() {
        return Ok(argument.parse::<AttesterName>()?);
    }
    AttesterName::of_public(&read(path)?).map_err(|e| Failure::failed(e.device(path.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if content::is_stdin(path) {
        io::stdin().take(MAX_LEN + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|f| f.take(MAX_LEN + 1).read_to_end(&mut bytes))
    };
    read.map_err(|e| Failure::io(format!("{} cannot be read", path.display()), &e))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(Failure::failed(signer_core::Error::bad_request(format!(
            "{} is too long for a part of a statement",
            path.display()
        ))));
    }
    Ok(bytes)
}

/// Hexadecimal digits.
#[derive(Clone, Debug)]
struct Nonce(Vec<u8>);

impl std::str::FromStr for Nonce {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        hex::decode(text).map(Self).map_err(|_| "write pairs of hexadecimal digits".to_owned())
    }
}

/// A date, which begins at midnight in UTC, or a time in UTC.
#[derive(Clone, Copy, Debug)]
struct Instant(SystemTime);

impl std::str::FromStr for Instant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = signer_attest::time(text);
        time.map(Self).ok_or_else(|| "write 2025-06-30 or 2025-06-30T12:00:00Z, in UTC".to_owned())
    }
}

/// What people read: the two sentences, then the facts behind them.
fn text(report: &Report) -> String {
    let Report { device, key, .. } = report;
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let mut lines = vec![("device", device.kind.name().to_owned())];
    let mut some = |name: &'static str, value: Option<String>| lines.extend(value.map(|v| (name, v)));
    some("maker", device.maker.clone());
    some("model", device.model.clone());
    some("firmware", device.firmware.clone());
    some("serial", device.serial.clone());
    some("FIPS series", device.fips.map(|f| yes_no(f).to_owned()));
    let fingerprint = hex::encode(key.fingerprint.as_bytes());
    some("key", Some(format!("{} SHA256:{fingerprint}", key.key_type)));
    some("place", key.place.clone());
    some("generated inside", Some(yes_no(key.origin == Origin::Generated).to_owned()));
    some("exportable", Some(yes_no(key.exportable).to_owned()));
    some("PIN", key.pin.map(|p| p.to_string()));
    some("touch", key.touch.map(|t| t.to_string()));
    some("policy", key.policy.as_ref().map(hex::encode));
    for (name, value) in &key.more {
        some(name, Some(value.clone()));
    }
    for chain in &report.chains {
        some("chain", Some(chain.join(" < ")));
    }
    for root in &report.roots {
        let from = if root.built_in { "built in" } else { "given" };
        some("root", Some(format!("{from}, SHA256:{}", hex::encode(root.fingerprint.as_bytes()))));
    }
    let facts: String = lines.into_iter().map(|(name, value)| format!("{name:24}  {value}\n")).collect();
    let warnings: String = report.warnings.iter().map(|w| format!("Warning: {w}\n")).collect();
    format!("{}\n{}\n{warnings}\n{facts}", report.proven, report.not_proven)
}

/// What programs read.
fn object(file: &str, report: &Report) -> serde_json::Value {
    let Report { device, key, .. } = report;
    let roots = report.roots.iter().map(|root| {
        json!({
            "name": root.name,
            "fingerprint": format!("sha256:{}", hex::encode(root.fingerprint.as_bytes())),
            "built_in": root.built_in,
        })
    });
    let more: serde_json::Map<_, _> =
        key.more.iter().map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect();
    json!({
        "proven": true,
        "file": file,
        "says": report.proven,
        "does_not_say": report.not_proven,
        "warnings": report.warnings,
        "device": {
            "kind": device.kind.name(),
            "maker": device.maker,
            "model": device.model,
            "firmware": device.firmware,
            "serial": device.serial,
            "fips": device.fips,
        },
        "key": {
            "type": key.key_type.name(),
            "fingerprint": format!("sha256:{}", hex::encode(key.fingerprint.as_bytes())),
            "place": key.place,
            "origin": key.origin.name(),
            "exportable": key.exportable,
            "pin_policy": key.pin.map(PinPolicy::name),
            "touch_policy": key.touch.map(TouchPolicy::name),
            "policy": key.policy.as_ref().map(hex::encode),
            "more": more,
        },
        "chains": report.chains,
        "roots": roots.collect::<Vec<_>>(),
    })
}
