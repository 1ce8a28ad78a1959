//! Cloud KMS addresses, as cosign's users write them.

use std::fmt;

use super::{Error, Result, segment};

/// A key of AWS KMS: `[ENDPOINT]/ID`, where ID is a key id, `alias/NAME` or an ARN of either.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsKmsAddress {
    /// Host and port of another endpoint than AWS's own.
    pub endpoint: Option<String>,
    /// Key id, `alias/NAME` or ARN: what the service's API takes as `KeyId`.
    pub key_id: String,
}

impl AwsKmsAddress {
    /// Reads what follows `awskms://`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (endpoint, key_id) = text
            .split_once('/')
            .filter(|(_, id)| !id.is_empty())
            .ok_or_else(|| Error::bad_request(format!("awskms://{text} names no key")).next(AWS))?;
        let wrong =
            || Error::bad_request(format!("{key_id:?} is not a key id, alias or ARN of AWS KMS")).next(AWS);
        let name =
            |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c));
        let id_or_alias =
            |t: &str| t.strip_prefix("alias/").map_or_else(|| name(t) && !t.contains('/'), name);
        let valid = match key_id.strip_prefix("arn:") {
            Some(arn) => {
                let parts: Vec<_> = arn.splitn(5, ':').collect();
                parts.len() == 5
                    && parts[1] == "kms"
                    && parts.iter().take(4).all(|p| segment(p, "").is_ok())
                    && (id_or_alias(parts[4]) || parts[4].strip_prefix("key/").is_some_and(name))
            }
            None => id_or_alias(key_id),
        };
        if !valid {
            return Err(wrong());
        }
        let endpoint = match endpoint {
            "" => None,
            host => Some(segment(host, "a host of awskms://")?),
        };
        Ok(Self { endpoint, key_id: key_id.to_owned() })
    }
}

const AWS: &str = "write awskms://[ENDPOINT]/ID, as in awskms:///alias/release";

impl fmt::Display for AwsKmsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.endpoint.as_deref().unwrap_or_default(), self.key_id)
    }
}

/// A key of Google Cloud KMS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GcpKmsAddress {
    /// Project.
    pub project: String,
    /// Location, as in `global` or `europe-west1`.
    pub location: String,
    /// Key ring.
    pub key_ring: String,
    /// Key.
    pub key: String,
    /// Key version, counted from 1; `None` for the newest enabled one.
    pub version: Option<u64>,
}

impl GcpKmsAddress {
    /// Reads what follows `gcpkms://`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let (project, location, key_ring, key, version) = match parts[..] {
            ["projects", p, "locations", l, "keyRings", r, "cryptoKeys", k] => (p, l, r, k, None),
            [
                "projects",
                p,
                "locations",
                l,
                "keyRings",
                r,
                "cryptoKeys",
                k,
                "versions" | "cryptoKeyVersions",
                v,
            ] => (p, l, r, k, Some(v)),
            _ => {
                return Err(Error::bad_request(format!("gcpkms://{text} names no key"))
                    .next("write gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K[/versions/N]"));
            }
        };
        let version = version
            .map(|v| {
                v.parse().ok().filter(|n| *n > 0 && v.bytes().all(|b| b.is_ascii_digit())).ok_or_else(|| {
                    Error::bad_request(format!("{v:?} is not a key version of Google Cloud KMS: 1, 2, …"))
                })
            })
            .transpose()?;
        Ok(Self {
            project: segment(project, "a project of gcpkms://")?,
            location: segment(location, "a location of gcpkms://")?,
            key_ring: segment(key_ring, "a key ring of gcpkms://")?,
            key: segment(key, "a key of gcpkms://")?,
            version,
        })
    }
}

impl fmt::Display for GcpKmsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project, location, key_ring, key, version } = self;
        write!(f, "projects/{project}/locations/{location}/keyRings/{key_ring}/cryptoKeys/{key}")?;
        version.map_or(Ok(()), |v| write!(f, "/versions/{v}"))
    }
}

/// A key of Azure Key Vault or Managed HSM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AzureKmsAddress {
    /// Host of the vault, as in `myvault.vault.azure.net`.
    pub vault: String,
    /// Key.
    pub key: String,
    /// Key version; `None` for the newest.
    pub version: Option<String>,
}

impl AzureKmsAddress {
    /// Reads what follows `azurekms://`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let (vault, key, version) = match parts[..] {
            [vault, key] => (vault, key, None),
            [vault, key, version] => (vault, key, Some(version)),
            _ => {
                return Err(Error::bad_request(format!("azurekms://{text} names no key"))
                    .next("write azurekms://VAULT.vault.azure.net/KEY[/VERSION]"));
            }
        };
        Ok(Self {
            vault: segment(vault, "a vault of azurekms://")?,
            key: segment(key, "a key of azurekms://")?,
            version: version.map(|v| segment(v, "a version of azurekms://")).transpose()?,
        })
    }
}

impl fmt::Display for AzureKmsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vault, self.key)?;
        self.version.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

/// A transit key of HashiCorp Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HashiVaultAddress {
    /// The key's name in the transit engine.
    pub key: String,
}

impl HashiVaultAddress {
    /// Reads what follows `hashivault://`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(Self { key: segment(text, "the name of a transit key")? })
    }
}

impl fmt::Display for HashiVaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}
