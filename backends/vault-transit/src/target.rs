//! Where the server is: the configuration, and what it leaves to the environment.

use std::{path::PathBuf, time::Duration};

use signer_core::{Error, Result};

use crate::VaultConfig;

/// Where the server is and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `http://HOST:PORT` or `https://HOST:PORT`, without a slash at the end.
    pub(crate) base: String,
    /// The Unix socket that is connected to instead of the host.
    pub(crate) socket: Option<PathBuf>,
    /// As people know it, for errors.
    pub(crate) shown: String,
    pub(crate) mount: String,
    pub(crate) namespace: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_identity: Option<(PathBuf, PathBuf)>,
    /// For a request that has no deadline.
    pub(crate) timeout: Duration,
}

const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";
const DEFAULT_TIMEOUT: u64 = 10;

impl Target {
    /// Puts it together. `variable` looks into the environment.
    pub(crate) fn new<S>(config: &VaultConfig<S>, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| vault_variable(&variable, name);
        let address = config
            .address
            .clone()
            .or_else(|| variable("AGENT_ADDR"))
            .or_else(|| variable("ADDR"))
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let (base, socket) = read_address(&address)?;
        let path = |configured: &Option<PathBuf>, name: &str| {
            configured.clone().or_else(|| variable(name).map(PathBuf::from))
        };
        let client_identity =
            match (path(&config.client_certificate, "CLIENT_CERT"), path(&config.client_key, "CLIENT_KEY")) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                _ => {
                    return Err(Error::bad_request(
                        "a client certificate needs its key, and a key its certificate",
                    )
                    .next("set client_certificate and client_key both, or neither"));
                }
            };
        // cosign's users name the engine with a variable of its own.
        let mount = config
            .mount
            .clone()
            .or_else(|| variable("TRANSIT_SECRET_ENGINE_PATH"))
            .unwrap_or("transit".into());
        Ok(Self {
            base,
            socket,
            shown: address.trim_end_matches('/').to_owned(),
            mount: path_of(&mount, "the mount of a transit engine")?,
            namespace: config
                .namespace
                .clone()
                .or_else(|| variable("NAMESPACE"))
                .map(|n| path_of(&n, "a namespace"))
                .transpose()?,
            ca_file: path(&config.ca_file, "CACERT"),
            client_identity,
            timeout: Duration::from_secs(config.timeout.unwrap_or(DEFAULT_TIMEOUT).clamp(1, 600)),
        })
    }
}

/// `VAULT_NAME`, or `BAO_NAME`; cosign's variable has neither prefix.
pub(crate) fn vault_variable(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    let given = |name: String| variable(&name).filter(|v| !v.is_empty());
    if name == "TRANSIT_SECRET_ENGINE_PATH" {
        return given(name.to_owned());
    }
    given(format!("VAULT_{name}")).or_else(|| given(format!("BAO_{name}")))
}

fn read_address(address: &str) -> Result<(String, Option<PathBuf>)> {
    let wrong = || {
        Error::bad_request(format!("{address:?} is not the address of a Vault server"))
            .next("write https://HOST:PORT, http://HOST:PORT or unix:///PATH")
    };
    if let Some(path) = address.strip_prefix("unix://") {
        // The host is not looked at; it must be there.
        return if path.starts_with('/') {
            Ok(("http://localhost".into(), Some(path.into())))
        } else {
            Err(wrong())
        };
    }
    let trimmed = address.trim_end_matches('/');
    let url = reqwest::Url::parse(trimmed).map_err(|_| wrong())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    if !plain || !["http", "https"].contains(&url.scheme()) {
        // Not repeated: there may be a password in it.
        return Err(Error::bad_request("the address of a Vault server is scheme, host and port")
            .next("write https://HOST:PORT, http://HOST:PORT or unix:///PATH"));
    }
    Ok((trimmed.to_owned(), None))
}

/// A path of plain segments.
pub(crate) fn path_of(text: &str, what: &str) -> Result<String> {
    let path = text.trim_matches('/');
    let segment = |s: &str| {
        !s.is_empty()
            && s != "."
            && s != ".."
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "-._~@+=,".contains(c))
    };
    if path.split('/').all(segment) {
        Ok(path.to_owned())
    } else {
        Err(Error::bad_request(format!("{text:?} is not {what}"))
            .next("use letters, digits and -._~@+=, with / between parts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(config: &VaultConfig<()>, environment: &[(&str, &str)]) -> Result<Target> {
        Target::new(config, |name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_configuration_comes_before_the_environment() {
        let nothing = VaultConfig::default();
        let made = target(&nothing, &[]).unwrap();
        assert_eq!((made.base.as_str(), made.mount.as_str()), ("https://127.0.0.1:8200", "transit"));
        let environment = [
            ("VAULT_ADDR", "https://v:1/"),
            ("BAO_ADDR", "https://b:1"),
            ("BAO_NAMESPACE", "a/b/"),
            ("VAULT_CACERT", "/ca.pem"),
            ("TRANSIT_SECRET_ENGINE_PATH", "signing/transit"),
        ];
        let made = target(&nothing, &environment).unwrap();
        assert_eq!((made.base.as_str(), made.mount.as_str()), ("https://v:1", "signing/transit"));
        assert_eq!(made.namespace.as_deref(), Some("a/b"));
        assert_eq!(made.ca_file, Some("/ca.pem".into()));
        let config = VaultConfig { address: Some("unix:///run/vault.sock".into()), ..VaultConfig::default() };
        let made = target(&config, &environment).unwrap();
        assert_eq!(made.socket, Some("/run/vault.sock".into()));
    }

    #[test]
    fn what_is_no_address_is_refused_and_no_secret_repeated() {
        for bad in [
            "",
            "vault:8200",
            "ftp://v",
            "unix://relative",
            "https://",
            "https://v?x=1",
            "https://u:hunter2@v",
        ] {
            let config = VaultConfig { address: Some(bad.into()), ..VaultConfig::default() };
            let error = target(&config, &[]).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        for bad in ["", "/", "a//b", "../sys", "a b", "a%2fb", "a?b"] {
            let config = VaultConfig { mount: Some(bad.into()), ..VaultConfig::default() };
            assert!(target(&config, &[]).is_err(), "{bad}");
        }
        assert!(
            target(&VaultConfig { client_key: Some("k".into()), ..VaultConfig::default() }, &[]).is_err()
        );
    }
}
