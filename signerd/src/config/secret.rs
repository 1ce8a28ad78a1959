//! Where secrets come from: never from the configuration itself.

use std::{
    fmt,
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de};
use signer_core::{Error, Pin, Result};
use zeroize::Zeroizing;

/// Where a PIN or passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// `{ file = "…" }`: the file's first line. Nobody but the daemon and root may read it.
    File(PathBuf),
    /// `{ credential = "…" }`: a credential that systemd hands to the service (`LoadCredential=`).
    Credential(String),
    /// `{ env = "…" }`: a variable of the daemon's environment.
    Env(String),
    /// `"prompt"`: somebody gives it with `signer keys unlock`.
    Prompt,
}

/// The most bytes that are read of a secret's file.
const MAX_LEN: u64 = 8192;

impl SecretSource {
    /// Reads the secret afresh; `None` when it is left to a person.
    pub fn load(&self) -> Result<Option<Pin>> {
        match self {
            Self::File(path) => {
                check_permissions(path)?;
                read(path).map(Some)
            }
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    Error::bad_request(format!("there is no credential {name}: systemd gave none")).next(format!(
                        "write LoadCredential={name}:FILE in the [Service] section of signerd.service, or use {{ file = … }}"
                    ))
                })?;
                read(&Path::new(&folder).join(name)).map(Some)
            }
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|_| {
                    Error::bad_request(format!("the environment variable {name} is not set, or is no text"))
                        .next("set it for the daemon, or use { file = … }")
                })?;
                Pin::new(text).map(Some)
            }
            Self::Prompt => Ok(None),
        }
    }

    /// The same, with a relative file beginning at `folder`.
    pub(super) fn resolved(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            other => other,
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Prompt => f.write_str("`signer keys unlock`"),
        }
    }
}

fn read(path: &Path) -> Result<Pin> {
    let failed = |e: std::io::Error| {
        Error::bad_request(format!("the secret in {} cannot be read", path.display())).vendor(e)
    };
    let mut text = Zeroizing::new(String::with_capacity(MAX_LEN as usize));
    File::open(path).map_err(failed)?.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    // Pin::new wipes what it takes.
    Pin::new(std::mem::take(&mut *text)).map_err(|e| {
        Error::bad_request(format!("the secret in {} cannot be used: {}", path.display(), e.what()))
            .next("the file holds the secret, and one line end at most")
    })
}

/// A secret's file is for its owner, and for the daemon's group where root owns it.
fn check_permissions(path: &Path) -> Result<()> {
    let meta = std::fs::metadata(path).map_err(|e| {
        Error::bad_request(format!("the secret in {} cannot be read", path.display())).vendor(e)
    })?;
    let group_reads = meta.uid() == 0 && meta.gid() == rustix::process::getegid().as_raw();
    let (forbidden, wanted) = if group_reads { (0o037, "640") } else { (0o077, "600") };
    if meta.mode() & forbidden == 0 {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "others than its owner may open the secret in {} (its mode is {:03o})",
        path.display(),
        meta.mode() & 0o777
    ))
    .next(format!("chmod {wanted} {}", path.display())))
}

const EXPECTED: &str = "{ file = … }, { credential = … }, { env = … } or \"prompt\"; never the secret itself";

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Nothing that stands in the wrong place is repeated: it is likely to be the secret.
struct SecretVisitor;

fn literal<T, E: de::Error>() -> Result<T, E> {
    Err(E::custom(format!("a secret does not belong into the configuration: write {EXPECTED}")))
}

impl<'de> de::Visitor<'de> for SecretVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretSource, E> {
        if text == "prompt" { Ok(SecretSource::Prompt) } else { literal() }
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretSource, E> {
        literal()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretSource, E> {
        literal()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretSource, E> {
        literal()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretSource, E> {
        literal()
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<SecretSource, A::Error> {
        literal()
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        let mut source = None;
        while let Some(key) = map.next_key::<String>()? {
            let found = match key.as_str() {
                "file" => SecretSource::File(map.next_value()?),
                "credential" => SecretSource::Credential(map.next_value()?),
                "env" => SecretSource::Env(map.next_value()?),
                // Its value is not repeated, and its name may be a secret too: { "1234" = "" }.
                _ => return literal(),
            };
            if source.replace(found).is_some() {
                return Err(de::Error::custom(format!("a secret has one source: {EXPECTED}")));
            }
        }
        let Some(source) = source else { return literal() };
        if let SecretSource::Credential(name) = &source
            && (name.is_empty() || name.contains('/') || name.starts_with('.'))
        {
            return Err(de::Error::custom("a credential's name is a file name without a folder"));
        }
        Ok(source)
    }
}
