//! A log as others see it: over HTTP.

use std::{sync::Mutex, sync::PoisonError, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::Objects;
use tokio::{net::TcpStream, runtime::Handle};

/// The longest object: 256 entries of the greatest length.
const MAX_OBJECT: usize = 20 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// The objects of a log under a URL. Read from threads that may block, never from the runtime's own.
pub(crate) struct Remote {
    prefix: String,
    authority: String,
    runtime: Handle,
    /// Connections that nobody uses at the moment.
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Remote {
    /// The log whose checkpoint is at `URL/checkpoint`.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let wrong =
            |what: &str| Error::bad_request(format!("{url} {what}")).next("write http://host:port/prefix");
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong("is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong(
                "cannot be read: only http:// is spoken here, put a local TLS proxy before https",
            ));
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?.to_string();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { prefix, authority, runtime: Handle::current(), idle: Mutex::new(Vec::new()) })
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>> {
        let gone = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::DeviceGone, format!("the log at {} cannot be reached", self.authority))
                .vendor(e)
        };
        let address = if self.authority.contains(':') {
            self.authority.clone()
        } else {
            format!("{}:80", self.authority)
        };
        let stream = TcpStream::connect(address).await.map_err(|e| gone(&e))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| gone(&e))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn fetch(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::DeviceGone,
                format!("{name} of the log at {} cannot be read", self.authority),
            )
            .vendor(e)
        };
        let request = || {
            Request::get(format!("{}/{name}", self.prefix))
                .header("host", &self.authority)
                .body(Empty::new())
                .map_err(|e| failed(&e))
        };
        let idle =
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().filter(SendRequest::is_ready);
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = if let Ok(response) = sender.send_request(request()?).await {
            response
        } else {
            // A connection that was closed while it was idle.
            sender = self.connect().await?;
            sender.send_request(request()?).await.map_err(|e| failed(&e))?
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_OBJECT)
            .collect()
            .await
            .map_err(|e| failed(&e))?
            .to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        match status {
            StatusCode::OK => Ok(Some(body.to_vec())),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(failed(&other)),
        }
    }
}

impl Objects for Remote {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let late =
            || Error::new(ErrorKind::TimedOut, format!("the log at {} does not answer", self.authority));
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.fetch(name)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
