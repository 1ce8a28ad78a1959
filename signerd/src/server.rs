//! Accepting connections and serving HTTP/2 on them, with the limits that keep one caller from hurting the others.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{Request, Response, body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use signerd_api::{pb::signer_service_server::SignerServiceServer, status_from_error};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};
use tonic::{Status, body::Body, codegen::Service as _};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::v1::ServerReflectionServer;

use crate::{
    call::{Call, Counted},
    compose::{Timely, timed_out},
    identity::Identity,
    service::{HealthService, Service},
    state::Daemon,
};

/// A connection on which no HTTP/2 has begun for so long is closed.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The other end is asked whether it is still there so often, and closed when it does not answer for so long.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Bytes of a call's headers.
const MAX_HEADERS: u32 = 16 * 1024;
/// Bytes that a caller may send on one call, and on one connection, before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What stands around a message that is signed.
const AROUND_MESSAGE: usize = 64 * 1024;
/// How long calls that are in flight may take to end when the daemon stops.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// The least time between two complaints about too many connections.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Serves until the daemon is asked to stop and all calls have ended, or the grace time is over.
/// `drain` says whether connections that wait in the listener belong to this daemon alone.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: UnixListener, drain: bool) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut stopping = daemon.stopping.subscribe();
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let limit = daemon.state().config.limits.max_connections;
                if connections.len() < limit {
                    connections.spawn(connection(daemon.clone(), stream));
                    continue;
                }
                daemon.metrics.refused.inc();
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN) {
                    complained = Some(Instant::now());
                    tracing::warn!(limit, "too many connections: new ones are closed");
                }
            }
            // Out of file descriptors, most likely: others end, and then it goes on.
            Err(error) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    if drain {
        // Whoever has connected already is told properly.
        while let Some(Ok((stream, _))) = futures_util::FutureExt::now_or_never(listener.accept()) {
            connections.spawn(connection(daemon.clone(), stream));
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("calls that have not ended in {} s are broken off", GRACE.as_secs());
    }
    Ok(())
}

async fn connection(daemon: Arc<Daemon>, stream: UnixStream) {
    let caller = match Identity::of_peer(&stream) {
        Ok(caller) if daemon.audit.is_some() => Arc::new(caller.with_names().await),
        Ok(caller) => Arc::new(caller),
        Err(error) => {
            tracing::warn!("a connection is closed because nobody knows whose it is: {error}");
            return;
        }
    };
    daemon.metrics.connections.inc();
    let began = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Greeting { stream, received: 0, began: began.clone() });
    let served = http2(&daemon).serve_connection(io, Dispatch::new(&daemon, caller.clone()));
    let mut served = std::pin::pin!(served);
    let mut stopping = daemon.stopping.subscribe();
    let (mut told, mut greeted) = (false, false);
    let mut handshake = std::pin::pin!(tokio::time::sleep(HANDSHAKE));
    let result = loop {
        tokio::select! {
            result = &mut served => break result,
            _ = stopping.wait_for(|stopping| *stopping), if !told => {
                told = true;
                served.as_mut().graceful_shutdown();
            }
            () = &mut handshake, if !greeted => {
                // A guard of select! is looked at once, when the wait begins: only now is it known.
                greeted = true;
                if !began.load(Relaxed) {
                    tracing::debug!(%caller, "closed: it has not begun to speak HTTP/2");
                    break Ok(());
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%caller, "a connection has ended with an error: {error}");
    }
    daemon.metrics.connections.dec();
}

fn http2(daemon: &Daemon) -> http2::Builder<TokioExecutor> {
    let limits = &daemon.state().config.limits;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_calls)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}

/// A connection that notes when HTTP/2 has begun on it.
struct Greeting {
    stream: UnixStream,
    received: usize,
    began: Arc<AtomicBool>,
}

/// The client's preface (RFC 9113 section 3.4) and the header of its settings.
const PREFACE: usize = 24 + 9;

impl AsyncRead for Greeting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.received < PREFACE {
            self.received += buf.filled().len() - before;
            self.began.store(self.received >= PREFACE, Relaxed);
        }
        result
    }
}

impl AsyncWrite for Greeting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Hands the calls of one connection to the service that they are for.
struct Dispatch {
    daemon: Arc<Daemon>,
    caller: Arc<Identity>,
    signer: SignerServiceServer<Service>,
    health: HealthServer<HealthService>,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Dispatch {
    fn new(daemon: &Arc<Daemon>, caller: Arc<Identity>) -> Self {
        let max = daemon.state().config.limits.max_message + AROUND_MESSAGE;
        Self {
            signer: SignerServiceServer::new(Service { daemon: daemon.clone() })
                .max_decoding_message_size(max),
            health: HealthServer::new(HealthService { daemon: daemon.clone() })
                .max_decoding_message_size(AROUND_MESSAGE),
            daemon: daemon.clone(),
            caller,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let limits = &self.daemon.state().config.limits;
        let call = Call::new(&self.caller, request.headers(), limits, &self.daemon.memory);
        let (deadline, held) = (call.deadline, call.held.clone());
        request.extensions_mut().insert(call);
        let request = request.map(|body| Counted::new(body, held.clone()));
        let path = request.uri().path();
        let changes = is_change(path);
        let answering: Answering = match path.split('/').nth(1) {
            Some("signerd.v1.SignerService") => self.signer.clone().call(request),
            Some("grpc.health.v1.Health") => self.health.clone().call(request),
            Some("grpc.reflection.v1.ServerReflection") => match reflection() {
                Some(mut reflection) => reflection.call(request),
                None => refuse(Status::unimplemented("this daemon has no reflection")),
            },
            _ => refuse(Status::unimplemented("there is no such service here")),
        };
        // Inner deadlines say more, so they come first.
        let timely = Timely::new(answering, deadline + Duration::from_millis(5));
        Box::pin(async move {
            let answer = timely.await;
            drop(held);
            answer.unwrap_or_else(|| {
                let error = if changes { timed_out().may_have_happened() } else { timed_out() };
                Ok(status_from_error(&error).into_http())
            })
        })
    }
}

/// Whether a call changes something, so that nobody knows how it ended when its time is over.
fn is_change(path: &str) -> bool {
    const CHANGES: [&str; 6] =
        ["CreateKey", "ImportKey", "DeleteKey", "RotateKey", "StoreCertificate", "Unlock"];
    path.rsplit('/').next().is_some_and(|method| CHANGES.contains(&method))
}

fn refuse(status: Status) -> Answering {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// Server reflection. Few ask for it, and seldom: it is made for each call.
fn reflection() -> Option<ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(signerd_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .inspect_err(|e| tracing::error!("server reflection cannot be offered: {e}"))
        .ok()
}
