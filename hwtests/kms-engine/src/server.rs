//! HTTP: connections, faults, and which face answers.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
};

use crate::{
    aws, azure,
    call::{Call, Reply, decode, parse_query},
    engine::Shared,
    fault::{Fault, FaultKind},
    google, tokens,
};

type Body = UnsyncBoxBody<Bytes, Cut>;

/// A connection ends here, on purpose.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on command")
    }
}

impl std::error::Error for Cut {}

/// Serves until told to stop.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    plain: std::net::TcpListener,
    tls: std::net::TcpListener,
    mut stopped: watch::Receiver<bool>,
) {
    let (Ok(plain), Ok(tls)) = (TcpListener::from_std(plain), TcpListener::from_std(tls)) else { return };
    let acceptor = tokio_rustls::TlsAcceptor::from(shared.certificates.server_config());
    loop {
        tokio::select! {
            accepted = plain.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(shared.clone(), stream, false, stopped.clone()));
            }
            accepted = tls.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (shared, acceptor, stopped) = (shared.clone(), acceptor.clone(), stopped.clone());
                tokio::spawn(async move {
                    let patience = Duration::from_secs(5);
                    if let Ok(Ok(stream)) = tokio::time::timeout(patience, acceptor.accept(stream)).await {
                        connection(shared, stream, true, stopped).await;
                    }
                });
            }
            _ = stopped.changed() => return,
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    tls: bool,
    mut stopped: watch::Receiver<bool>,
) {
    shared.seen.connection();
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { answer(&shared, request, tls).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    tokio::select! {
        _ = http.serve_connection(TokioIo::new(stream), service) => {}
        _ = stopped.changed() => {}
    }
}

/// Answers one request, or cuts the connection.
async fn answer(shared: &Shared, request: Request<Incoming>, tls: bool) -> Result<Response<Body>, Cut> {
    let mut call = read(request, tls).await?;
    if let Some(reply) = control(shared, &call) {
        return Ok(whole(&reply));
    }
    let face = Face::of(&call);
    let operation = face.operation(&call);
    shared.seen.operation(&operation);
    let fault = shared.faults.take(&operation);
    let kind = fault.as_ref().map(|f| f.kind);
    if let Some(fault) = &fault {
        match fault.kind {
            FaultKind::Slow => tokio::time::sleep(Duration::from_millis(fault.ms)).await,
            FaultKind::Hang => std::future::pending::<()>().await,
            FaultKind::Close => return Err(Cut),
            FaultKind::Garbage => return Ok(whole(&Reply::text(200, "text/html", PAGE))),
            FaultKind::Gateway => return Ok(whole(&Reply::text(502, "text/html", PAGE))),
            FaultKind::NotJson => return Ok(whole(&Reply::text(200, face.media_type(), "{\"keys\": [1, 2"))),
            _ => {}
        }
        if let Some(reply) = face.fails(&call, fault) {
            return Ok(whole(&reply));
        }
    }
    call.twist = kind;
    let reply = face.answer(shared, &call).await;
    Ok(match (kind, fault) {
        (Some(FaultKind::Truncate), _) => truncated(reply),
        (Some(FaultKind::SlowBytes), Some(fault)) => slowly(reply, Duration::from_millis(fault.ms.max(1))),
        _ => whole(&reply),
    })
}

const PAGE: &str = "<html><body>Please log in to the network.</body></html>";

/// Bytes of the longest request.
const MAX_BODY: usize = 4 << 20;

async fn read(request: Request<Incoming>, tls: bool) -> Result<Call, Cut> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Cut)?.to_bytes();
    let text = |v: &hyper::header::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    Ok(Call {
        method: head.method.to_string(),
        path: decode(head.uri.path()),
        query: parse_query(head.uri.query().unwrap_or_default()),
        headers: head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect(),
        body,
        tls,
        twist: None,
    })
}

/// What tests ask of the engine itself.
fn control(shared: &Shared, call: &Call) -> Option<Reply> {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/_seen") => Some(Reply::json(200, "application/json", &shared.seen.to_json())),
        ("GET", "/_ca.pem") => Some(Reply::text(200, "application/x-pem-file", shared.certificates.ca_pem())),
        ("GET", "/_hsm_roots.pem") => {
            Some(Reply::text(200, "application/x-pem-file", google::attestation::roots()))
        }
        ("GET", "/_google.json") => {
            Some(Reply::text(200, "application/json", &shared.tokens.google_service_account()))
        }
        ("POST", "/_fault") => Some(match serde_json::from_slice::<Option<Fault>>(&call.body) {
            Ok(fault) => {
                shared.faults.set(fault);
                Reply::json(200, "application/json", &shared.seen.to_json())
            }
            Err(e) => Reply::json(400, "application/json", &json!({"error": e.to_string()})),
        }),
        _ => None,
    }
}

/// Whose API a request is for.
#[derive(Clone, Copy)]
enum Face {
    Aws,
    Google,
    Azure,
    Tokens,
}

impl Face {
    fn of(call: &Call) -> Self {
        if call.header("x-amz-target").is_some() || call.path == "/" {
            Self::Aws
        } else if call.path.starts_with("/v1/") {
            Self::Google
        } else if tokens::is_for_tokens(&call.path) {
            Self::Tokens
        } else {
            Self::Azure
        }
    }

    fn operation(self, call: &Call) -> String {
        match self {
            Self::Aws => aws::operation(call),
            Self::Google => google::operation(call),
            Self::Azure => azure::operation(call),
            Self::Tokens => tokens::operation(call),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Aws => aws::MEDIA_TYPE,
            _ => "application/json; charset=UTF-8",
        }
    }

    /// The face's own words for a fault, where it has some.
    fn fails(self, call: &Call, fault: &Fault) -> Option<Reply> {
        match self {
            Self::Aws => aws::fails(call, fault),
            Self::Google => google::fails(call, fault),
            Self::Azure => azure::fails(call, fault),
            Self::Tokens => tokens::fails(call, fault),
        }
    }

    async fn answer(self, shared: &Shared, call: &Call) -> Reply {
        match self {
            Self::Aws => aws::answer(shared, call).await,
            Self::Google => google::answer(shared, call),
            Self::Azure => azure::answer(shared, call).await,
            Self::Tokens => tokens::answer(shared, call),
        }
    }
}

fn respond(reply: &Reply, body: Body) -> Response<Body> {
    let mut builder = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        builder = builder.header(*name, value);
    }
    builder.body(body).expect("the engine's own headers are well formed")
}

fn whole(reply: &Reply) -> Response<Body> {
    let body = Full::new(reply.body.clone()).map_err(|never: Infallible| match never {});
    respond(reply, body.boxed_unsync())
}

/// Says how long it is, and ends in the middle.
fn truncated(reply: Reply) -> Response<Body> {
    let half = reply.body.slice(..reply.body.len() / 2);
    let length = reply.body.len().to_string();
    let parts = stream::iter([Ok(Frame::data(half)), Err(Cut)]);
    respond(&reply.header("content-length", length), BodyExt::boxed_unsync(StreamBody::new(parts)))
}

fn slowly(reply: Reply, pause: Duration) -> Response<Body> {
    let length = reply.body.len().to_string();
    let bytes = stream::iter(reply.body.clone()).then(move |byte| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(Bytes::copy_from_slice(&[byte])))
    });
    respond(&reply.header("content-length", length), BodyExt::boxed_unsync(StreamBody::new(bytes)))
}
