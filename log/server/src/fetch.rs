//! Logs and witnesses as others see them: over HTTP and https. The one HTTP client of this program.

use std::{io::Read, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, Response, StatusCode, Url, header, redirect::Policy};
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::Objects;
use tokio::runtime::Handle;

/// The longest object: 256 entries of the greatest length.
const MAX_OBJECT: usize = 20 << 20;
/// How long a connection, and an answer, may take.
const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is read at most, and the pauses between if the server names none.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An HTTP client: connections are kept and shared between its clones.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client);

/// What a server answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Http {
    /// A client that trusts the system's certificate authorities, or those of a PEM file and no others.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self> {
        let mut builder = Client::builder()
            .user_agent(concat!("signer-log/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .redirect(Policy::custom(|attempt| {
                // Nobody is led away from TLS.
                let secure = attempt.previous().first().is_some_and(|url| url.scheme() == "https");
                let safe = !secure || attempt.url().scheme() == "https";
                if safe && attempt.previous().len() <= 3 { attempt.follow() } else { attempt.stop() }
            }));
        if let Some(path) = ca_file {
            builder = builder.tls_certs_only(authorities(path)?);
        }
        let client = builder.build().map_err(|e| {
            Error::new(ErrorKind::DeviceGone, "no connection can be made from here")
                .vendor(causes(&e))
                .next("install the system's certificate authorities (ca-certificates), or give --ca-file")
        })?;
        Ok(Self(client))
    }

    /// Reads what is at a URL; `None` when nothing is. Tried again when the server asks for it, or a connection breaks.
    pub(crate) async fn get(&self, url: Url) -> Result<Option<Bytes>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.0.get(url.clone()).header(header::ACCEPT_ENCODING, "gzip").timeout(PATIENCE);
            let (error, pause) = match request.send().await {
                Ok(response) => match (response.status(), retry_after(&response)) {
                    (StatusCode::OK, _) => match body(response, &url).await {
                        Ok(body) => return Ok(Some(body)),
                        Err(e) => (e, None),
                    },
                    (StatusCode::NOT_FOUND | StatusCode::GONE, _) => return Ok(None),
                    (status, pause) => {
                        let error = Error::new(refusal(status), format!("{url} cannot be read: {status}"));
                        if !worth_another_try(status) {
                            return Err(error);
                        }
                        (error, pause)
                    }
                },
                Err(e) => (unreachable(&url, &e), None),
            };
            if tries == TRIES || error.kind() == ErrorKind::BadRequest {
                return Err(error);
            }
            tokio::time::sleep(pause.unwrap_or(PAUSE * tries).min(LONGEST_PAUSE)).await;
        }
    }

    /// Posts something, once; gives whatever is answered within the time.
    pub(crate) async fn post(
        &self,
        url: Url,
        content_type: &str,
        content: impl Into<Bytes>,
        patience: Duration,
    ) -> Result<Reply> {
        let request = self
            .0
            .post(url.clone())
            .header(header::CONTENT_TYPE, content_type)
            .body(content.into())
            .timeout(patience);
        let response = request.send().await.map_err(|e| unreachable(&url, &e))?;
        Ok(Reply { status: response.status(), body: body(response, &url).await? })
    }
}

/// Reads a URL as people write it.
pub(crate) fn url(text: &str) -> Result<Url> {
    let wrong =
        |what: &str| Error::bad_request(format!("{text} {what}")).next("write https://host:port/prefix");
    let url: Url = text.trim_end_matches('/').parse().map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("cannot be read: only http and https are spoken here"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a query, and the names of objects must go behind it"));
    }
    Ok(url)
}

/// The URL of something below another one.
pub(crate) fn below(base: &Url, name: &str) -> Result<Url> {
    format!("{}/{name}", base.as_str().trim_end_matches('/'))
        .parse()
        .map_err(|_| Error::bad_request(format!("{name} makes no URL")))
}

fn authorities(path: &Path) -> Result<Vec<Certificate>> {
    let pem = std::fs::read(path)
        .map_err(|e| Error::bad_request(format!("{} cannot be read", path.display())).vendor(e))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(bundle) if !bundle.is_empty() => Ok(bundle),
        Ok(_) => Err(Error::bad_request(format!("{} holds no certificates", path.display()))
            .next("it must be PEM, with BEGIN CERTIFICATE")),
        Err(e) => Err(Error::bad_request(format!("{} holds no certificates", path.display())).vendor(e)),
    }
}

async fn body(mut response: Response, url: &Url) -> Result<Bytes> {
    let too_long = || Error::bad_request(format!("{url} has more than {MAX_OBJECT} bytes: this is no log"));
    let compressed = response.headers().get(header::CONTENT_ENCODING).is_some_and(|e| e == "gzip");
    let mut read = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|e| unreachable(url, &e))? {
        if read.len() + piece.len() > MAX_OBJECT {
            return Err(too_long());
        }
        read.extend_from_slice(&piece);
    }
    if compressed {
        // Tiles of static-ct logs lie compressed in their buckets (C2SP static-ct-api), whatever was asked for.
        let mut plain = Vec::new();
        let most = MAX_OBJECT as u64 + 1;
        flate2::read::MultiGzDecoder::new(&read[..]).take(most).read_to_end(&mut plain).map_err(|e| {
            Error::new(ErrorKind::DeviceGone, format!("{url} cannot be decompressed")).vendor(e)
        })?;
        return if plain.len() > MAX_OBJECT { Err(too_long()) } else { Ok(plain.into()) };
    }
    Ok(read.freeze())
}

fn worth_another_try(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn refusal(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        _ => ErrorKind::DeviceGone,
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn unreachable(url: &Url, e: &reqwest::Error) -> Error {
    let host = url.host_str().unwrap_or_default();
    let kind = if e.is_timeout() { ErrorKind::TimedOut } else { ErrorKind::DeviceGone };
    let causes = causes(e);
    // rustls says it so, whoever verified.
    let untrusted = causes.contains("UnknownIssuer") || causes.contains("certificate");
    let error = Error::new(kind, format!("{host} cannot be reached")).vendor(&causes);
    if untrusted {
        error.next("if its certificate is of an authority of your own, give --ca-file")
    } else {
        error
    }
}

/// An error with all that is behind it: the outer ones say little.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The objects of a log under a URL. Read from threads that may block, never from the runtime's own.
pub(crate) struct Remote {
    base: Url,
    http: Http,
    runtime: Handle,
}

impl Remote {
    /// The log whose checkpoint is at `URL/checkpoint`.
    pub(crate) fn new(base: &str, http: Http) -> Result<Self> {
        Ok(Self { base: url(base)?, http, runtime: Handle::current() })
    }
}

impl Objects for Remote {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let url = below(&self.base, name)?;
        Ok(self.runtime.block_on(self.http.get(url))?.map(Into::into))
    }
}
