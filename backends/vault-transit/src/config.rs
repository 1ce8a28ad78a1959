//! What is configured.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;
use signer_core::{Pin, Result};

/// Reads a secret afresh; `None` when there is none.
pub type SecretLoader = Arc<dyn Fn() -> Result<Option<Pin>> + Send + Sync>;

/// Where the transit engine is, and how to log in. `S` says where a secret comes from: a file, a variable, a credential,
/// never the secret itself.
///
/// What is left out is taken from the environment as Vault's own programs take it: `VAULT_ADDR`, `VAULT_TOKEN`,
/// `VAULT_NAMESPACE`, `VAULT_CACERT` and so on, or the same with `BAO_`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "S: Deserialize<'de>"))]
pub struct VaultConfig<S> {
    /// `https://HOST:PORT`, `http://HOST:PORT` or `unix:///PATH`.
    pub address: Option<String>,
    /// Where the transit engine is mounted; `transit` by default.
    pub mount: Option<String>,
    /// The namespace, in Vault Enterprise and OpenBao.
    pub namespace: Option<String>,
    /// The certificate authorities that the server's certificate is checked against, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A client certificate for mutual TLS, PEM.
    pub client_certificate: Option<PathBuf>,
    /// The client certificate's private key, PEM.
    pub client_key: Option<PathBuf>,
    /// How to log in; by default with the token in `VAULT_TOKEN`, then the one in `~/.vault-token`.
    pub login: Option<Login<S>>,
    /// Whether a key that is to be deleted is first made deletable (`deletion_allowed`), which Vault wants.
    #[serde(default)]
    pub allow_deletion: bool,
    /// Seconds after which a public key that is in use is read again; an hour by default.
    pub public_key_lifetime: Option<u64>,
    /// Seconds that a request without a deadline of its own may take; 10 by default.
    pub timeout: Option<u64>,
    /// Bytes of the longest message that the server takes where the message itself is signed (Ed25519, ML-DSA). By default
    /// what a server with the default limits takes: 786432.
    pub max_message: Option<u64>,
}

/// A way to log in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub enum Login<S> {
    /// A token that somebody else keeps fresh, as Vault's agent does. It is renewed here while it can be.
    Token {
        /// The token.
        token: S,
    },
    /// AppRole.
    Approle {
        /// Where it is mounted; `approle` by default.
        mount: Option<String>,
        /// The role's identifier, which is no secret.
        role_id: String,
        /// The secret identifier; left out for a role that is bound to addresses instead.
        secret_id: Option<S>,
    },
    /// A Kubernetes service account.
    Kubernetes {
        /// Where it is mounted; `kubernetes` by default.
        mount: Option<String>,
        /// The role in Vault.
        role: String,
        /// The service account's token; where Kubernetes puts it by default. It is read again at each login.
        token_file: Option<PathBuf>,
    },
    /// A user's name and password.
    Userpass {
        /// Where it is mounted; `userpass` by default.
        mount: Option<String>,
        /// The user's name.
        username: String,
        /// The password.
        password: S,
    },
}

impl<S> Default for VaultConfig<S> {
    fn default() -> Self {
        Self {
            address: None,
            mount: None,
            namespace: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            login: None,
            allow_deletion: false,
            public_key_lifetime: None,
            timeout: None,
            max_message: None,
        }
    }
}

impl<S> VaultConfig<S> {
    /// The same with each source of a secret turned into another: from what was configured to what reads it.
    pub fn map_secrets<T>(self, mut with: impl FnMut(S) -> T) -> VaultConfig<T> {
        let login = self.login.map(|login| match login {
            Login::Token { token } => Login::Token { token: with(token) },
            Login::Approle { mount, role_id, secret_id } => {
                Login::Approle { mount, role_id, secret_id: secret_id.map(&mut with) }
            }
            Login::Kubernetes { mount, role, token_file } => Login::Kubernetes { mount, role, token_file },
            Login::Userpass { mount, username, password } => {
                Login::Userpass { mount, username, password: with(password) }
            }
        });
        VaultConfig {
            login,
            address: self.address,
            mount: self.mount,
            namespace: self.namespace,
            ca_file: self.ca_file,
            client_certificate: self.client_certificate,
            client_key: self.client_key,
            allow_deletion: self.allow_deletion,
            public_key_lifetime: self.public_key_lifetime,
            timeout: self.timeout,
            max_message: self.max_message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_and_an_unknown_one_is_refused() {
        let text = r#"{
            "address": "https://vault.example:8200", "mount": "transit", "namespace": "team", "ca_file": "ca.pem",
            "client_certificate": "c.pem", "client_key": "k.pem",
            "login": { "method": "approle", "role_id": "r", "secret_id": "S" },
            "allow_deletion": true, "public_key_lifetime": 60, "timeout": 5, "max_message": 1000
        }"#;
        let config: VaultConfig<String> = serde_json::from_str(text).unwrap();
        let config = config.map_secrets(|s| s.len());
        assert_eq!(
            config.login,
            Some(Login::Approle { mount: None, role_id: "r".into(), secret_id: Some(1) })
        );
        for bad in [
            r#"{ "colour": "red" }"#,
            r#"{ "login": { "method": "approle", "role_id": "r", "colour": "red" } }"#,
            r#"{ "login": { "method": "ldap" } }"#,
            r#"{ "login": { "method": "userpass", "username": "u" } }"#,
        ] {
            assert!(serde_json::from_str::<VaultConfig<String>>(bad).is_err(), "{bad}");
        }
        assert_eq!(
            serde_json::from_str::<VaultConfig<String>>("{}").unwrap(),
            VaultConfig::<String>::default()
        );
    }
}
