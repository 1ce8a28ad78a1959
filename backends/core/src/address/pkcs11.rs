//! PKCS#11 URIs (RFC 7512).

use std::fmt;

use super::{Error, Result, percent};

/// A PKCS#11 URI, as far as it says which token and which object are meant.
///
/// A `pin-value` is refused because a reference never holds a secret, a `slot-id` because slot numbers change.
/// `module-path`, `module-name` and `pin-source` are accepted and left to the configuration, which decides them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `manufacturer` of the token.
    pub manufacturer: Option<String>,
    /// `serial` number of the token.
    pub serial: Option<String>,
    /// `model` of the token.
    pub model: Option<String>,
    /// `object`: the key's label (`CKA_LABEL`).
    pub object: Option<String>,
    /// `id`: the key's identifier (`CKA_ID`).
    pub id: Option<Vec<u8>>,
    /// `type`: `private`, `public`, `cert` or `secret-key`; which of a key's objects is meant makes no difference here.
    pub object_type: Option<String>,
}

impl Pkcs11Uri {
    /// Reads what follows `pkcs11:`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|a| !a.is_empty()) {
            let (name, value) = pair(attribute)?;
            let slot = match name {
                "token" => &mut uri.token,
                "manufacturer" => &mut uri.manufacturer,
                "serial" => &mut uri.serial,
                "model" => &mut uri.model,
                "object" => &mut uri.object,
                "type" => &mut uri.object_type,
                "id" => {
                    set(&mut uri.id, percent::decode_bytes(value)?, name)?;
                    continue;
                }
                "slot-id" | "slot-description" | "slot-manufacturer" => {
                    return Err(Error::bad_request("a slot does not identify a token: slot numbers change")
                        .next("name the token by token= or serial="));
                }
                // Which library it is: the configuration says that.
                "library-description" | "library-manufacturer" | "library-version" => continue,
                _ => {
                    return Err(Error::bad_request(format!("a PKCS#11 URI has no attribute {name:?}")));
                }
            };
            set(slot, percent::decode_text(value)?, name)?;
        }
        if let Some(kind) = &uri.object_type
            && !["private", "public", "cert", "secret-key", "data"].contains(&kind.as_str())
        {
            return Err(Error::bad_request(format!("{kind:?} is not an object type of PKCS#11 URIs")));
        }
        for attribute in query.split('&').filter(|a| !a.is_empty()) {
            match pair(attribute)?.0 {
                "pin-value" => {
                    return Err(Error::bad_request("a key reference must not hold a PIN")
                        .next("take pin-value out; the daemon's configuration says where the PIN is"));
                }
                "pin-source" | "module-name" | "module-path" => {}
                other => {
                    return Err(Error::bad_request(format!(
                        "a PKCS#11 URI has no query attribute {other:?}"
                    )));
                }
            }
        }
        Ok(uri)
    }
}

fn pair(attribute: &str) -> Result<(&str, &str)> {
    // The attribute itself is not repeated: it may hold a PIN.
    attribute.split_once('=').ok_or_else(|| Error::bad_request("an attribute of the PKCS#11 URI lacks its ="))
}

fn set<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::bad_request(format!("the PKCS#11 URI has {name:?} twice"))),
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("serial", &self.serial),
            ("model", &self.model),
            ("object", &self.object),
        ];
        let mut written: Vec<String> = texts
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", plain(value.as_ref()?.as_bytes()))))
            .collect();
        if let Some(id) = &self.id {
            // RFC 7512 section 2.3: every byte of an id is written as %XX.
            written.push(format!("id={}", id.iter().map(|b| format!("%{b:02X}")).collect::<String>()));
        }
        if let Some(kind) = &self.object_type {
            written.push(format!("type={}", plain(kind.as_bytes())));
        }
        f.write_str(&written.join(";"))
    }
}

fn plain(value: &[u8]) -> String {
    percent::encode(value, b":[]@!$'()*+,=&")
}
