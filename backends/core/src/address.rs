//! Addresses that other programs know keys by: RFC 7512 PKCS#11 URIs, cosign's cloud KMS URIs, PIV slots.

use std::{fmt, str::FromStr};

use crate::{Error, Result, percent};

mod cloud;
mod piv;
mod pkcs11;

pub use cloud::{AwsKmsAddress, AzureKmsAddress, GcpKmsAddress, HashiVaultAddress};
pub use piv::PivAddress;
pub use pkcs11::Pkcs11Uri;

/// An address of a key, in the form that its own world uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `pkcs11:token=…;object=…` (RFC 7512).
    Pkcs11(Pkcs11Uri),
    /// `awskms://[ENDPOINT]/ID`.
    AwsKms(AwsKmsAddress),
    /// `gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K[/versions/N]`.
    GcpKms(GcpKmsAddress),
    /// `azurekms://VAULT/KEY[/VERSION]`.
    AzureKms(AzureKmsAddress),
    /// `hashivault://KEY`, or `openbao://KEY`.
    HashiVault(HashiVaultAddress),
    /// `piv:SERIAL/SLOT`.
    Piv(PivAddress),
}

impl Address {
    /// Whether `text` is meant as an address at all: it has a scheme of those known here, or any `name://`.
    pub fn is_address(text: &str) -> bool {
        let scheme = text.split(':').next().unwrap_or_default();
        text.contains("://") || (text.contains(':') && ["pkcs11", "piv"].contains(&scheme))
    }

    /// The kind of backend that it points into, as configured: `pkcs11`, `piv`, `aws-kms`, …
    pub fn backend_kind(&self) -> &'static str {
        match self {
            Self::Pkcs11(_) => "pkcs11",
            Self::AwsKms(_) => "aws-kms",
            Self::GcpKms(_) => "google-kms",
            Self::AzureKms(_) => "azure-key-vault",
            Self::HashiVault(_) => "vault-transit",
            Self::Piv(_) => "piv",
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) =
            text.split_once(':').ok_or_else(|| Error::bad_request(format!("{text:?} is not an address")))?;
        let hierarchical = || {
            rest.strip_prefix("//")
                .ok_or_else(|| Error::bad_request(format!("{text:?} lacks // after {scheme}:")))
        };
        Ok(match scheme {
            "pkcs11" => Self::Pkcs11(Pkcs11Uri::parse(rest)?),
            "piv" => Self::Piv(PivAddress::parse(rest)?),
            "awskms" => Self::AwsKms(AwsKmsAddress::parse(hierarchical()?)?),
            "gcpkms" => Self::GcpKms(GcpKmsAddress::parse(hierarchical()?)?),
            "azurekms" => Self::AzureKms(AzureKmsAddress::parse(hierarchical()?)?),
            "hashivault" | "openbao" => Self::HashiVault(HashiVaultAddress::parse(hierarchical()?)?),
            _ => {
                return Err(Error::bad_request(format!("no kind of key has the scheme {scheme:?}"))
                    .next("use pkcs11:, piv:, awskms://, gcpkms://, azurekms:// or hashivault://"));
            }
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkcs11(a) => write!(f, "pkcs11:{a}"),
            Self::AwsKms(a) => write!(f, "awskms://{a}"),
            Self::GcpKms(a) => write!(f, "gcpkms://{a}"),
            Self::AzureKms(a) => write!(f, "azurekms://{a}"),
            Self::HashiVault(a) => write!(f, "hashivault://{a}"),
            Self::Piv(a) => write!(f, "piv:{a}"),
        }
    }
}

/// One segment of a path: not empty, no control characters or blanks, none of `/?#`.
fn segment(text: &str, what: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:@+=,".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        return Err(Error::bad_request(format!("{text:?} is not {what}")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_every_world_are_read_and_written_back() {
        for text in [
            "pkcs11:token=My%20token;object=root;type=private",
            "pkcs11:serial=DECC0401648;id=%01%02",
            "piv:5437251/9c",
            "awskms:///alias/release",
            "awskms:///1234abcd-12ab-34cd-56ef-1234567890ab",
            "awskms:///arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "awskms://localhost:4566/alias/release",
            "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k",
            "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/versions/3",
            "azurekms://v.vault.azure.net/k",
            "azurekms://v.vault.azure.net/k/0123456789abcdef0123456789abcdef",
            "hashivault://release",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let long = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/3";
        assert!(long.parse::<Address>().unwrap().to_string().ends_with("/versions/3"));
        assert_eq!("openbao://k".parse::<Address>().unwrap().to_string(), "hashivault://k");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("pkcs11:token=t;object=k?pin-value=1234", "PIN"),
            ("pkcs11:slot-id=3;object=k", "slot"),
            ("pkcs11:token=t;token=u", "twice"),
            ("pkcs11:colour=red", "colour"),
            ("pkcs11:type=car", "type"),
            ("awskms://", "awskms"),
            ("gcpkms://projects/p", "gcpkms"),
            ("gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/versions/x", "version"),
            ("azurekms://vault", "azurekms"),
            ("azurekms://v/k/v/more", "azurekms"),
            ("hashivault://a/b", "name"),
            ("k8s://ns/name", "scheme"),
            ("piv:x/9c", "serial"),
            ("piv:1/9f", "slot"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("1234"), "a PIN is never repeated: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(
            scheme in "pkcs11:|piv:|awskms://|gcpkms://|azurekms://|hashivault://",
            rest in "\\PC{0,60}",
        ) {
            if let Ok(address) = format!("{scheme}{rest}").parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }

        #[test]
        fn every_pkcs11_attribute_value_can_be_written(
            token in "[^\\x00]{1,32}", object in "[^\\x00]{1,64}", id in proptest::collection::vec(any::<u8>(), 1..32),
        ) {
            let uri = Pkcs11Uri { token: Some(token), object: Some(object), id: Some(id), ..Pkcs11Uri::default() };
            let address = Address::Pkcs11(uri);
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }
}
