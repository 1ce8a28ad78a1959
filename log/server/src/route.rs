//! From a request to an answer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use signer_core::{Error, ErrorKind};
use signer_log_engine::Log;
use tower::Service;

use crate::{
    certificate::CertificateLog,
    http::{Answer, Bodies, answer, is_json},
    limits::Rate,
    metrics::Metrics,
    page::Page,
    signature::{self, Refusal, SignatureLog},
    tiles::{self, Found},
};

/// What the server is made of. Each connection has room for the future of a request, so the common one is kept small, and the
/// rarer ones are elsewhere.
pub(crate) struct App {
    pub(crate) log: Log,
    pub(crate) personality: Personality,
    /// What people look at, unless it was switched off.
    pub(crate) page: Option<Page>,
    pub(crate) rate: Rate,
    pub(crate) bodies: Bodies,
    pub(crate) metrics: Arc<Metrics>,
}

/// Which of the two logs it is.
pub(crate) enum Personality {
    /// With its gRPC service.
    Signature(SignatureLog, tonic::service::Routes),
    Certificate(CertificateLog),
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl App {
    /// Answers one request.
    pub(crate) async fn handle(self: Arc<Self>, peer: SocketAddr, request: Request<Incoming>) -> Answer {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|k| k.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && let Personality::Signature(_, grpc) = &self.personality {
            if let Err(wait) = self.rate.take(peer.ip()) {
                let status = tonic::Status::resource_exhausted(format!(
                    "too many requests; try again in {} s",
                    seconds(wait)
                ));
                return status.into_http::<tonic::body::Body>().map(boxed);
            }
            return match Box::pin(grpc.clone().call(request)).await {
                Ok(response) => response.map(boxed),
                Err(never) => match never {},
            };
        }
        let head = request.method() == Method::HEAD;
        let mut answer = match *request.method() {
            Method::POST => self.submit(peer, request).await,
            Method::GET | Method::HEAD => match &self.page {
                Some(page) if Page::has(request.uri().path()) => {
                    Box::pin(self.show(page, peer, request.uri())).await
                }
                _ => Box::pin(self.read(request.uri().path())).await,
            },
            Method::OPTIONS => preflight(),
            _ => answer(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET, HEAD, POST and OPTIONS are known here\n",
            ),
        };
        if head {
            *answer.body_mut() = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        answer
    }

    /// A page for people. Making one takes more than reading a file, so it counts for the caller's rate.
    async fn show(&self, page: &Page, peer: SocketAddr, uri: &hyper::Uri) -> Answer {
        if let Err(wait) = self.rate.take(peer.ip()) {
            let mut answer =
                answer(StatusCode::TOO_MANY_REQUESTS, TEXT, "too many requests by this address\n");
            retry_after(&mut answer, wait);
            return answer;
        }
        page.answer(uri.path(), uri.query()).await
    }

    async fn submit(&self, peer: SocketAddr, request: Request<Incoming>) -> Answer {
        let began = Instant::now();
        let answer = match self.admit(peer, &request) {
            Ok(precertificate) => self.submission(precertificate, request.into_body()).await,
            Err(refused) => *refused,
        };
        self.metrics.answered(answer.status().as_u16(), began.elapsed());
        answer
    }

    /// Whether a submission is read, and if it says that it is a precertificate.
    fn admit(&self, peer: SocketAddr, request: &Request<Incoming>) -> Result<bool, Box<Answer>> {
        let path = request.uri().path();
        let known = match &self.personality {
            Personality::Signature(..) => path == "/api/v2/log/entries",
            Personality::Certificate(_) => matches!(path, "/ct/v1/add-chain" | "/ct/v1/add-pre-chain"),
        };
        if !known {
            return Err(self.failure(StatusCode::NOT_FOUND, 5, "nothing is here to post to").into());
        }
        if let Err(wait) = self.rate.take(peer.ip()) {
            let mut answer =
                self.failure(StatusCode::TOO_MANY_REQUESTS, 8, "too many requests by this address");
            retry_after(&mut answer, wait);
            return Err(answer.into());
        }
        if !is_json(request.headers()) {
            let why = "the content type is not application/json";
            return Err(self.failure(StatusCode::BAD_REQUEST, 3, why).into());
        }
        Ok(path.ends_with("add-pre-chain"))
    }

    async fn submission(&self, precertificate: bool, body: Incoming) -> Answer {
        let body = match Box::pin(self.bodies.read(body)).await {
            Ok(body) => body,
            Err((status, why)) => {
                let mut answer = self.failure(status, if status.is_server_error() { 14 } else { 3 }, &why);
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    retry_after(&mut answer, Duration::from_secs(1));
                }
                return answer;
            }
        };
        match &self.personality {
            Personality::Signature(log, _) => match log.create_from_json(body).await {
                Ok(created) => answer(StatusCode::CREATED, JSON, created.to_json()),
                Err(Refusal::Duplicate(index)) => self.duplicate(index),
                Err(Refusal::Error(e)) => self.error(&e),
            },
            Personality::Certificate(log) => match Box::pin(log.add(body, precertificate)).await {
                Ok(json) => answer(StatusCode::OK, JSON, json),
                Err(e) => self.error(&e),
            },
        }
    }

    fn duplicate(&self, index: u64) -> Answer {
        let why = format!("an equivalent entry already exists in the log with index {index}");
        let mut answer = self.failure(StatusCode::CONFLICT, 6, &why);
        answer.headers_mut().insert(HeaderName::from_static("x-log-index"), HeaderValue::from(index));
        answer
    }

    fn error(&self, e: &Error) -> Answer {
        let (status, message) = match e.kind() {
            ErrorKind::BadRequest | ErrorKind::Unsupported => (StatusCode::BAD_REQUEST, e.to_string()),
            ErrorKind::Denied if self.log.is_frozen() => (
                StatusCode::METHOD_NOT_ALLOWED,
                "This log has been frozen, please switch to the latest log.".to_owned(),
            ),
            ErrorKind::Busy { .. }
            | ErrorKind::Throttled { .. }
            | ErrorKind::DeviceGone
            | ErrorKind::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
            // Not the caller's fault: what it is about is in our own log.
            _ => {
                tracing::error!("a submission failed: {e:?}");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the log has a problem; its operator can read what it is".to_owned(),
                )
            }
        };
        let mut answer = self.failure(status, signature::grpc_code(e.kind()) as i32, &message);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            retry_after(&mut answer, e.kind().retry_after().unwrap_or(Duration::from_secs(1)));
        }
        answer
    }

    /// A refusal in the form of the API.
    fn failure(&self, status: StatusCode, code: i32, why: &str) -> Answer {
        match &self.personality {
            Personality::Signature(..) => {
                let message = serde_json::to_string(why).unwrap_or_default();
                answer(status, JSON, format!(r#"{{"code":{code},"message":{message},"details":[]}}"#))
            }
            Personality::Certificate(_) => answer(status, TEXT, format!("{why}\n")),
        }
    }

    async fn read(&self, path: &str) -> Answer {
        match (path, &self.personality) {
            ("/healthz" | "/ping", _) => return self.health(),
            ("/openapi.json" | "/api/v2/openapi.json", Personality::Signature(..)) => {
                return answer(StatusCode::OK, JSON, signature::DOCUMENT);
            }
            ("/ct/v1/get-roots", Personality::Certificate(log)) => {
                return answer(StatusCode::OK, JSON, log.roots_as_json());
            }
            _ => {}
        }
        // Rekor has its tiles under /api/v2, C2SP at the log's own prefix.
        let name = match &self.personality {
            Personality::Signature(..) => path.strip_prefix("/api/v2/").or_else(|| path.strip_prefix('/')),
            Personality::Certificate(_) => path.strip_prefix('/'),
        };
        match tiles::find(&self.log, name.unwrap_or_default()).await {
            Ok(Some(Found { bytes, kind, immutable })) => {
                let caching = if immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
                let mut answer = answer(StatusCode::OK, kind, bytes);
                answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
                answer
            }
            Ok(None) => {
                let mut answer = answer(StatusCode::NOT_FOUND, TEXT, "not found\n");
                // A tile that is not here now may be soon.
                answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                answer
            }
            Err(e) => {
                tracing::error!("{path} cannot be served: {e}");
                answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    "the log has a problem; its operator can read what it is\n",
                )
            }
        }
    }

    fn health(&self) -> Answer {
        match self.log.health() {
            Ok(()) => answer(StatusCode::OK, JSON, r#"{"status":"SERVING"}"#),
            Err(e) => {
                let why = serde_json::to_string(&e.to_string()).unwrap_or_default();
                answer(
                    StatusCode::SERVICE_UNAVAILABLE,
                    JSON,
                    format!(r#"{{"status":"NOT_SERVING","why":{why}}}"#),
                )
            }
        }
    }
}

fn boxed(body: tonic::body::Body) -> crate::http::Body {
    body.map_err(Into::into).boxed_unsync()
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

fn retry_after(answer: &mut Answer, wait: Duration) {
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
}

/// What a browser asks before it posts from another origin.
fn preflight() -> Answer {
    let mut answer = answer(StatusCode::NO_CONTENT, TEXT, "");
    let headers = answer.headers_mut();
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}
