//! Names of vaults, keys and versions.

use std::fmt;

use azure_core::http::Url;
use signer_core::{Address, AzureKmsAddress, Error, ErrorKind, KeyName, KeySelector, Result};

/// A vault.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    url: Url,
    /// Host and port, as an address has it.
    authority: String,
}

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
}

impl Vault {
    /// Reads a URL or a host.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::bad_request(format!("{text:?} is not the address of a vault: {what}"))
                .next("write https://NAME.vault.azure.net or https://NAME.managedhsm.azure.net")
        };
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&url).map_err(|e| wrong("it cannot be read").vendor(e))?;
        if url.scheme() != "https" {
            return Err(wrong("it must begin with https://"));
        }
        let plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty();
        let host = url.host_str().filter(|_| plain && url.password().is_none());
        let host = host.ok_or_else(|| wrong("it has more than a host"))?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { url, authority })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Whether it is a Managed HSM: everything in it is hardware.
    pub(crate) fn is_managed_hsm(&self) -> bool {
        self.host().contains(".managedhsm.")
    }

    /// What a token must be good for: `https://vault.azure.net/.default`, or the same of another cloud.
    pub(crate) fn scope(&self) -> String {
        let service = self.host().split_once('.').map_or("vault.azure.net", |(_, service)| service);
        format!("https://{service}/.default")
    }

    /// What opens a version, whatever the backend is called.
    pub(crate) fn address(&self, version: &Version) -> Address {
        let Version { key, id } = version.clone();
        Address::AzureKms(AzureKmsAddress { vault: self.authority.clone(), key, version: Some(id) })
    }

    /// The version that an identifier means, `https://VAULT/keys/KEY/VERSION`; `None` if it is not of this vault.
    pub(crate) fn read_kid(&self, kid: &str) -> Option<Version> {
        let (key, id) = self.read_key_id(kid)?;
        Some(Version { key, id: id? })
    }

    /// The same where the version may be missing.
    pub(crate) fn read_key_id(&self, kid: &str) -> Option<(String, Option<String>)> {
        let url = Url::parse(kid).ok()?;
        let here = url.scheme() == "https"
            && url.host_str().is_some_and(|h| h.eq_ignore_ascii_case(self.host()))
            && url.port() == self.url.port();
        let parts: Vec<_> = url.path_segments()?.collect();
        match parts[..] {
            ["keys", key] if here && is_key(key) => Some((key.to_owned(), None)),
            ["keys", key, id] if here && is_key(key) && is_version(id) => {
                Some((key.to_owned(), Some(id.to_owned())))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority)
    }
}

impl Version {
    pub(crate) fn key_name(&self) -> Result<KeyName> {
        KeyName::label(self.key.as_str())?.with_version(self.id.as_str())
    }

    /// Whether it is the same version: a vault does not tell cases apart.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.key.eq_ignore_ascii_case(&other.key) && self.id.eq_ignore_ascii_case(&other.id)
    }
}

impl fmt::Display for Version {
    /// Equal for equal versions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.key.to_ascii_lowercase(), self.id.to_ascii_lowercase())
    }
}

/// Whether a key may be called that: 1 to 127 letters, digits and `-`.
pub(crate) fn is_key(name: &str) -> bool {
    (1..=127).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// 32 hexadecimal digits today; the service only promises letters and digits.
fn is_version(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The key that a selector means, and the version where it names one.
pub(crate) fn find(selector: &KeySelector, vault: &Vault) -> Result<(String, Option<String>)> {
    let found = match selector {
        KeySelector::Address(Address::AzureKms(address))
            if address.vault.eq_ignore_ascii_case(&vault.authority) =>
        {
            Some((address.key.as_str(), address.version.as_deref()))
        }
        KeySelector::Address(_) => None,
        KeySelector::Name(name) => name.as_label().map(|label| (label, name.version())),
    };
    let (key, version) = found
        .filter(|(key, version)| is_key(key) && version.is_none_or(is_version))
        .ok_or_else(no_such_key)?;
    Ok((key.to_owned(), version.map(str::to_owned)))
}

pub(crate) fn no_such_key() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key")
        .next("`signer keys list` shows the keys that there are")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_keys_and_back() {
        let vault = Vault::parse("https://Mine.vault.azure.net/").unwrap();
        assert_eq!(
            (vault.to_string().as_str(), vault.scope().as_str()),
            ("https://mine.vault.azure.net", "https://vault.azure.net/.default")
        );
        let id = "0123456789abcdef0123456789abcdef";
        let version = vault.read_kid(&format!("https://mine.vault.azure.net/keys/release/{id}")).unwrap();
        assert_eq!(version.key_name().unwrap().to_string(), format!("release@{id}"));
        let find = |text: &str| find(&text.parse().unwrap(), &vault);
        let expected = ("release".to_owned(), Some(id.to_owned()));
        assert_eq!(find(&format!("release@{id}")).unwrap(), expected);
        assert_eq!(find(&vault.address(&version).to_string()).unwrap(), expected);
        for bad in [
            "a/b",
            "a b",
            "a_b",
            "id:0a",
            "azurekms://other.vault.azure.net/release",
            "awskms:///alias/release",
        ] {
            assert_eq!(find(bad).unwrap_err().kind(), ErrorKind::NotFound, "{bad}");
        }
    }

    #[test]
    fn other_vaults_keys_are_not_ours() {
        let vault = Vault::parse("mine.vault.azure.net").unwrap();
        for kid in [
            "https://other.vault.azure.net/keys/k/1",
            "http://mine.vault.azure.net/keys/k/1",
            "https://mine.vault.azure.net:444/keys/k/1",
            "https://mine.vault.azure.net/secrets/k/1",
            "https://mine.vault.azure.net/keys/k/1/2",
            "https://mine.vault.azure.net/keys/../1",
            "",
        ] {
            assert!(vault.read_kid(kid).is_none(), "{kid}");
        }
        for bad in [
            "http://mine.vault.azure.net",
            "https://mine.vault.azure.net/keys",
            "https://user@v/",
            "",
            "https://",
        ] {
            assert!(Vault::parse(bad).is_err(), "{bad}");
        }
    }
}
