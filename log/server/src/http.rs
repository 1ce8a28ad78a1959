//! HTTP around the log: connections and bodies that are bounded before anything is done for them.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
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
    let (room, connections) = (Arc::new(Semaphore::new(CONNECTIONS)), GracefulShutdown::new());
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
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
        let (handle, watcher) = (handle.clone(), connections.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            let Some(protocol) = protocol(&stream).await else { return };
            let service = service_fn(move |request| handle(peer, request).never_error());
            let stream = TokioIo::new(stream);
            // What a caller does to its connection is its own affair.
            match protocol {
                Protocol::Http1 => {
                    let mut builder = http1::Builder::new();
                    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 << 10);
                    let _ = watcher.watch(builder.serve_connection(stream, service)).await;
                }
                Protocol::Http2 => {
                    let mut builder = http2::Builder::new(TokioExecutor::new());
                    builder
                        .timer(TokioTimer::new())
                        .max_concurrent_streams(4096)
                        .keep_alive_interval(Some(HEADERS));
                    // Few have one, and many requests each.
                    let _ = Box::pin(watcher.watch(builder.serve_connection(stream, service))).await;
                }
            }
        });
    }
    let _ = tokio::time::timeout(Duration::from_secs(10), connections.shutdown()).await;
}

/// What a connection speaks.
enum Protocol {
    Http1,
    Http2,
}

/// Tells by the first bytes, which stay where they are: whoever reads them away and gives them back makes hyper's buffer twice as
/// large for as long as the connection is there. `None` when it ends, or says nothing for too long.
async fn protocol(stream: &TcpStream) -> Option<Protocol> {
    // How HTTP/2 begins, and no method of HTTP/1.1 does.
    const PREFACE: &[u8] = b"PRI";
    let look = async {
        let mut begin = [0; PREFACE.len()];
        let mut pause = Duration::from_millis(5);
        loop {
            match stream.peek(&mut begin).await {
                Ok(0) | Err(_) => return None,
                Ok(read) if !PREFACE.starts_with(&begin[..read]) => return Some(Protocol::Http1),
                Ok(read) if read == PREFACE.len() => return Some(Protocol::Http2),
                // What is there stays readable, so nothing tells when there is more. It is looked for less and less often: thousands
                // of connections may be left at a letter.
                Ok(_) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    };
    tokio::time::timeout(HEADERS, look).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (ours.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn the_protocol_is_told_by_bytes_that_stay() {
        for (sent, is_http2) in [(&b"GET / "[..], false), (b"PUT", false), (b"P", false), (b"PRI * ", true)] {
            let (mut ours, mut accepted) = pair().await;
            ours.write_all(sent).await.unwrap();
            let told = tokio::time::timeout(Duration::from_millis(200), protocol(&accepted)).await;
            // One letter may become either.
            assert_eq!(told.is_err(), sent == b"P");
            if let Ok(told) = told {
                assert_eq!(matches!(told, Some(Protocol::Http2)), is_http2, "{sent:?}");
            }
            let mut there = vec![0; sent.len()];
            accepted.read_exact(&mut there).await.unwrap();
            assert_eq!(there, sent);
        }
    }

    #[tokio::test]
    async fn a_preface_in_pieces_is_one_and_a_connection_that_ends_is_none() {
        let (mut ours, accepted) = pair().await;
        ours.write_all(b"PR").await.unwrap();
        let rest = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            ours.write_all(b"I").await.unwrap();
        };
        let (told, ()) = tokio::join!(protocol(&accepted), rest);
        assert!(matches!(told, Some(Protocol::Http2)));

        let (ours, accepted) = pair().await;
        drop(ours);
        assert!(protocol(&accepted).await.is_none());
    }
}
