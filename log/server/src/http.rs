//! HTTP around the log: connections and bodies that are bounded before anything is done for them.

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

/// The longest body of a request, as upstream's servers take it.
pub(crate) const MAX_BODY: usize = 4 << 20;
/// Bytes of bodies that are held at a time, beyond a small part that each request may always have.
const BODIES: usize = 64 << 20;
const ALWAYS: usize = 16 << 10;
/// Connections at a time.
const CONNECTIONS: usize = 16_384;
/// How long headers, a body, and a quiet connection may take.
const HEADERS: Duration = Duration::from_secs(30);
const BODY: Duration = Duration::from_secs(20);

/// A body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// An answer.
pub(crate) type Answer = Response<Body>;

/// An answer with a text.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Why a body was not read: status and sentence.
pub(crate) type BodyRefusal = (StatusCode, String);

/// Reads bodies, all together within a budget.
#[derive(Debug)]
pub(crate) struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(BODIES))
    }
}

impl Bodies {
    /// Reads a whole body.
    pub(crate) async fn read(&self, body: Incoming) -> Result<Bytes, BodyRefusal> {
        let read = tokio::time::timeout(BODY, self.read_slowly(body)).await;
        read.unwrap_or_else(|_| {
            Err((StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly".into()))
        })
    }

    async fn read_slowly(&self, mut body: Incoming) -> Result<Bytes, BodyRefusal> {
        let too_long =
            || (StatusCode::PAYLOAD_TOO_LARGE, format!("the request's body has more than {MAX_BODY} bytes"));
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_long());
        }
        let mut read = BytesMut::new();
        let mut held = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|e| (StatusCode::BAD_REQUEST, format!("the request's body broke off: {e}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            if read.len() + piece.len() > MAX_BODY {
                return Err(too_long());
            }
            if read.len() + piece.len() > ALWAYS {
                let permit = self.0.try_acquire_many(piece.len() as u32).map_err(|_| {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "too many long requests at a time; try again".to_owned(),
                    )
                })?;
                held.push(permit);
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.freeze())
    }
}

/// Whether a body may be what is expected: JSON, or nothing said about it.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|kind| {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

/// Serves connections until `stop` changes, and then waits a while for those that are at work.
pub(crate) async fn accept<F, R>(listener: TcpListener, mut stop: watch::Receiver<bool>, handle: F)
where
    F: Fn(SocketAddr, Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit,
            _ = stop.changed() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, for one: others may end soon.
                tracing::warn!("a connection cannot be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let handle = handle.clone();
        let mut stop = stop.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = handle(peer, request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 << 10);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(4096)
                .keep_alive_interval(Some(HEADERS));
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            let mut stopping = false;
            loop {
                tokio::select! {
                    // What a caller does to its connection is its own affair.
                    _ = &mut connection => return,
                    _ = stop.changed(), if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }
    let all = connections.acquire_many(CONNECTIONS as u32);
    let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
}
