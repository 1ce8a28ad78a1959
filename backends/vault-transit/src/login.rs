//! How a token is come by.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use signer_core::{Digest, Error, ErrorKind, HashAlgorithm, Pin, Result};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Login, SecretLoader,
    fault::{Asked, Fault},
    http::{Answer, Http, Request},
    target::{path_of, vault_variable},
};

/// Where tokens come from.
pub(crate) enum Source {
    /// Somebody else makes them, and this reads the newest.
    Given(SecretLoader),
    /// Vault gives one for a proof of who asks.
    Login(Login<SecretLoader>),
}

/// What is sent to log in, read afresh.
pub(crate) struct Proof {
    path: String,
    body: Bytes,
    /// Of the secret: tells whether it has changed.
    pub(crate) fingerprint: Digest,
}

/// A token that Vault knows.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) token: Pin,
    /// How long it is good for; `None` for ever.
    pub(crate) lasts: Option<Duration>,
    pub(crate) renewable: bool,
}

const KUBERNETES_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl Source {
    /// What is configured, or what the environment says. Nothing is read yet.
    pub(crate) fn new(login: Option<Login<SecretLoader>>) -> Result<Self> {
        match login {
            None => Ok(Self::Given(std::sync::Arc::new(from_environment))),
            Some(Login::Token { token }) => Ok(Self::Given(token)),
            Some(login) => {
                // A wrong mount shows now, not at the first signature.
                mount(&login)?;
                Ok(Self::Login(login))
            }
        }
    }
}

/// `VAULT_TOKEN`, or what `vault login` has left.
fn from_environment() -> Result<Option<Pin>> {
    if let Some(token) = vault_variable(|name| std::env::var(name).ok(), "TOKEN") {
        return Pin::new(token).map(Some);
    }
    let Some(home) = std::env::var_os("HOME") else { return Ok(None) };
    let path = PathBuf::from(home).join(".vault-token");
    match std::fs::read_to_string(&path) {
        Ok(text) => Pin::new(text.trim().to_owned()).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::bad_request(format!("{} cannot be read", path.display())).vendor(e)),
    }
}

/// Reads a token or other secret, on another thread: it may be in a file.
pub(crate) async fn load(secret: &SecretLoader, what: &str) -> Result<Pin> {
    let secret = secret.clone();
    tokio::task::spawn_blocking(move || secret())
        .await
        .map_err(|e| Error::internal("a secret could not be read").vendor(e))??
        .ok_or_else(|| {
            Error::new(ErrorKind::Denied, format!("there is no {what} for Vault"))
                .next("set login in the [[backend]] table, or VAULT_TOKEN for the daemon")
        })
}

impl Proof {
    /// Reads what a login needs.
    pub(crate) async fn read(login: &Login<SecretLoader>) -> Result<Self> {
        let mount = mount(login)?;
        let (path, body, secret) = match login {
            Login::Token { .. } => return Err(Error::internal("a token is no proof")),
            Login::Approle { role_id, secret_id, .. } => {
                let secret = match secret_id {
                    Some(secret) => Some(load(secret, "secret_id").await?),
                    None => None,
                };
                let body = match &secret {
                    Some(secret) => json!({ "role_id": role_id, "secret_id": secret.expose() }),
                    None => json!({ "role_id": role_id }),
                };
                (format!("auth/{mount}/login"), body, secret)
            }
            Login::Kubernetes { role, token_file, .. } => {
                let path = token_file.clone().unwrap_or_else(|| KUBERNETES_TOKEN.into());
                let file: SecretLoader = std::sync::Arc::new(move || {
                    let text = std::fs::read_to_string(&path).map_err(|e| {
                        Error::bad_request(format!(
                            "the service account's token {} cannot be read",
                            path.display()
                        ))
                        .vendor(e)
                    })?;
                    Pin::new(text.trim().to_owned()).map(Some)
                });
                let jwt = load(&file, "service account token").await?;
                (format!("auth/{mount}/login"), json!({ "role": role, "jwt": jwt.expose() }), Some(jwt))
            }
            Login::Userpass { username, password, .. } => {
                let user = path_of(username, "the name of a user in Vault")?;
                let password = load(password, "password").await?;
                let body = json!({ "password": password.expose() });
                (format!("auth/{mount}/login/{user}"), body, Some(password))
            }
        };
        let secret = secret.as_ref().map_or("", Pin::expose);
        Ok(Self {
            path,
            body: wiped(body),
            fingerprint: Digest::of(HashAlgorithm::Sha256, secret.as_bytes()),
        })
    }

    /// Logs in, once.
    pub(crate) async fn send(&self, http: &Http) -> Result<Lease, Fault> {
        let asked = Asked { path: &self.path, capability: "create", repeatable: true };
        let request =
            Request { method: Method::POST, asked, query: "", body: Some(self.body.clone()), token: None };
        Ok(Lease::of_login(&http.send(request).await?)?)
    }
}

fn mount(login: &Login<SecretLoader>) -> Result<String> {
    let (mount, default) = match login {
        Login::Token { .. } => (&None, "token"),
        Login::Approle { mount, .. } => (mount, "approle"),
        Login::Kubernetes { mount, .. } => (mount, "kubernetes"),
        Login::Userpass { mount, .. } => (mount, "userpass"),
    };
    path_of(mount.as_deref().unwrap_or(default), "the mount of a way to log in")
}

/// A body that is wiped when it was sent.
fn wiped(mut body: Value) -> Bytes {
    let bytes = Zeroizing::new(body.to_string().into_bytes());
    for value in body.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        if let Value::String(text) = value {
            text.zeroize();
        }
    }
    Bytes::from_owner(bytes)
}

impl Lease {
    /// Of a login or a renewal.
    pub(crate) fn of_login(answer: &Answer) -> Result<Self> {
        #[derive(Deserialize)]
        struct Body {
            auth: Auth,
        }
        #[derive(Deserialize)]
        struct Auth {
            client_token: String,
            lease_duration: u64,
            #[serde(default)]
            renewable: bool,
        }
        let Auth { client_token, lease_duration, renewable } = answer.read::<Body>()?.auth;
        Ok(Self { token: Pin::new(client_token)?, lasts: lasts(lease_duration), renewable })
    }

    /// Of a token that was given, as Vault describes it.
    pub(crate) fn of_lookup(answer: &Answer, token: Pin) -> Result<Self> {
        #[derive(Deserialize)]
        struct Body {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            ttl: u64,
            #[serde(default)]
            renewable: bool,
        }
        let Data { ttl, renewable } = answer.read::<Body>()?.data;
        Ok(Self { token, lasts: lasts(ttl), renewable })
    }
}

fn lasts(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
