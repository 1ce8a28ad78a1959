//! One request and its answer over HTTP.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Identity, Method, header::HeaderValue, redirect::Policy};
use serde::de::DeserializeOwned;
use signer_core::{Error, ErrorKind, Pin, Result};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::{
    fault::{self, Asked, Fault},
    target::Target,
};

/// The way to the server: connections are made when they are first needed, and kept.
pub(crate) struct Http {
    target: Target,
    client: OnceCell<reqwest::Client>,
}

/// What to ask.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) asked: Asked<'a>,
    /// What follows the path after a question mark.
    pub(crate) query: &'static str,
    pub(crate) body: Option<Bytes>,
    pub(crate) token: Option<&'a Pin>,
}

/// A successful answer, wiped from memory when dropped: some hold a token.
pub(crate) struct Answer(Zeroizing<Vec<u8>>);

/// A connection that takes longer cannot be made.
const CONNECT: Duration = Duration::from_secs(3);
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(4);
/// No answer is longer than the list of a hundred thousand keys.
const MAX_ANSWER: usize = 16 << 20;

impl Http {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, client: OnceCell::new() }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request once and reads the whole answer, within the patience of this client.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer, Fault> {
        let client = self.client.get_or_try_init(|| connect(&self.target)).await?;
        match tokio::time::timeout(PATIENCE, self.exchange(client, request)).await {
            Ok(result) => result,
            Err(_) => Err(fault::of_silence(PATIENCE)),
        }
    }

    async fn exchange(&self, client: &reqwest::Client, request: Request<'_>) -> Result<Answer, Fault> {
        let Request { method, asked, query, body, token } = request;
        let url = format!("{}/v1/{}{query}", self.target.base, asked.path);
        let mut call = client.request(method, url).header("X-Vault-Request", "true");
        if let Some(namespace) = &self.target.namespace {
            call = call.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| Error::bad_request("the Vault token has characters that no token has"))?;
            value.set_sensitive(true);
            call = call.header("X-Vault-Token", value);
        }
        if let Some(body) = body {
            call = call.header("Content-Type", "application/json").body(body);
        }
        let mut response = call.send().await.map_err(|e| fault::of_transport(&e))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let mut body = Zeroizing::new(Vec::new());
        while let Some(piece) = response.chunk().await.map_err(|e| fault::of_transport(&e))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(fault::of_nonsense("Vault gave an answer of more than 16 MiB").into());
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            Ok(Answer(body))
        } else {
            Err(fault::of_answer(asked, status.as_u16(), &body, retry_after))
        }
    }
}

impl Answer {
    /// Whether there is no body.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the JSON; fields that nobody asks for are not looked at.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        // Serde's texts may repeat what is in the body.
        serde_json::from_slice(&self.0).map_err(|e| {
            fault::of_nonsense("Vault gave an answer that is not the JSON that belongs here")
                .vendor(format_args!("line {} column {}", e.line(), e.column()))
        })
    }
}

/// Makes the client, on another thread: certificates are read from files.
async fn connect(target: &Target) -> Result<reqwest::Client> {
    let target = target.clone();
    tokio::task::spawn_blocking(move || build(&target))
        .await
        .map_err(|e| Error::internal("the Vault client could not be made").vendor(e))?
}

fn build(target: &Target) -> Result<reqwest::Client> {
    let secure = target.base.starts_with("https:");
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(Duration::from_mins(1))
        .tcp_nodelay(true)
        .redirect(Policy::custom(move |attempt| {
            // A standby node names the active one, once; nobody is led away from TLS.
            let safe = !secure || attempt.url().scheme() == "https";
            if safe && attempt.previous().len() == 1 { attempt.follow() } else { attempt.stop() }
        }));
    if let Some(path) = &target.socket {
        builder = builder.unix_socket(path.as_path());
    }
    if secure {
        if let Some(path) = &target.ca_file {
            let bundle = Certificate::from_pem_bundle(&read(path)?).map_err(|e| {
                Error::bad_request(format!("{} holds no certificates", path.display())).vendor(e)
            })?;
            builder = builder.tls_certs_only(bundle);
        }
        if let Some((certificate, key)) = &target.client_identity {
            let mut pem = Zeroizing::new(read(certificate)?);
            pem.push(b'\n');
            pem.extend_from_slice(&Zeroizing::new(read(key)?));
            let identity = Identity::from_pem(&pem).map_err(|e| {
                Error::bad_request(format!(
                    "{} and {} are no certificate and key",
                    certificate.display(),
                    key.display()
                ))
                .vendor(e)
            })?;
            builder = builder.identity(identity);
        }
    } else {
        // The system's certificates are of no use then, and cost memory.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|e| {
        Error::new(ErrorKind::DeviceGone, "no connection to Vault can be made from here")
            .vendor(e)
            .next("install the system's certificate authorities (ca-certificates), or set ca_file")
    })
}

fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|e| Error::bad_request(format!("{} cannot be read", path.display())).vendor(e))
}
