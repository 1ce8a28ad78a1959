//! The connection of a client: HTTP/2 over the daemon's socket, made again when it has ended. In each tokio runtime that
//! the client is used in it has one of its own: a request then stays in the thread that waits for it.
//!
//! It hands requests to hyper directly, without the queue and its task that stand in front of tonic's own channel: they
//! cost a lone caller a wake-up each way.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use signer_core::{BoxFuture, Error, ErrorKind};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    runtime::{self, Handle},
};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response, Uri},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection to the daemon. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    socket: PathBuf,
    /// The connections in use, one in each runtime. Held for moments only.
    senders: Mutex<Vec<(runtime::Id, SendRequest<Body>)>>,
    /// Held while a connection is made, so that only one is.
    connecting: tokio::sync::Mutex<()>,
    was_connected: AtomicBool,
}

/// What the daemon is called in requests: it does not matter over a Unix socket.
pub(super) fn origin() -> Uri {
    Uri::from_static("http://signerd")
}

impl Connection {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self(Arc::new(Shared {
            socket,
            senders: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
            was_connected: AtomicBool::new(false),
        }))
    }

    pub(super) fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// Whether there was a connection at any time.
    pub(super) fn was_connected(&self) -> bool {
        self.0.was_connected.load(Ordering::Relaxed)
    }

    /// Connects if there is no connection.
    pub(super) async fn connect(&self) -> Result<(), Error> {
        self.sender().await.map(drop).map_err(|e| e.error)
    }

    fn senders(&self) -> MutexGuard<'_, Vec<(runtime::Id, SendRequest<Body>)>> {
        self.0.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_sender(&self) -> Option<SendRequest<Body>> {
        let here = Handle::try_current().ok()?.id();
        self.senders().iter().find(|(there, s)| *there == here && !s.is_closed()).map(|(_, s)| s.clone())
    }

    async fn sender(&self) -> Result<SendRequest<Body>, ConnectError> {
        let _connecting = self.0.connecting.lock().await;
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let sender = handshake(open(&self.0.socket).await?, &self.0.socket).await?;
        self.0.was_connected.store(true, Ordering::Relaxed);
        let mut senders = self.senders();
        senders.retain(|(_, sender)| !sender.is_closed());
        senders.push((Handle::current().id(), sender.clone()));
        Ok(sender)
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(mut sender) = self.open_sender() {
            let answer = sender.send_request(request);
            return Box::pin(async move { answer.await.map_err(BoxError::from) });
        }
        let this = self.clone();
        Box::pin(async move {
            let mut sender = this.sender().await?;
            sender.send_request(request).await.map_err(BoxError::from)
        })
    }
}

async fn handshake(stream: UnixStream, socket: &Path) -> Result<SendRequest<Body>, ConnectError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        // Long messages (Ed25519, ML-DSA) and long lists should not wait for window updates.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_header_list_size(64 * 1024)
        .handshake(TokioIo::new(Coalescing { stream, yielded: false }))
        .await
        .map_err(|e| ConnectError {
            error: Error::new(ErrorKind::DeviceGone, format!("nobody speaks gRPC at {}", socket.display()))
                .vendor(e)
                .next("check that it is signerd's socket"),
            refused: false,
        })?;
    // Ends with the connection, whose failure every request on it learns by itself.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// A stream whose short writes wait for one turn of the runtime. h2 writes the headers of a request before the task that
/// holds its message has had its turn; a turn later both are written at once, which saves a system call here and a
/// wake-up in the daemon.
struct Coalescing {
    stream: UnixStream,
    yielded: bool,
}

impl Coalescing {
    const SHORT: usize = 4096;

    /// Whether to write now; else the task is woken again behind those that are ready.
    fn turn(&mut self, len: usize, cx: &Context<'_>) -> Poll<()> {
        self.yielded = !self.yielded && len < Self::SHORT;
        if self.yielded {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl AsyncWrite for Coalescing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.turn(bytes.len(), cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.turn(pieces.iter().map(|p| p.len()).sum(), cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Coalescing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// Opens the socket. A full backlog (`EAGAIN`, seen when very many connect at once) is waited for.
async fn open(socket: &Path) -> Result<UnixStream, ConnectError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let begin = Instant::now();
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(e) => return Err(ConnectError::new(&e, socket)),
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug)]
struct ConnectError {
    error: Error,
    refused: bool,
}

impl ConnectError {
    fn new(e: &io::Error, socket: &Path) -> Self {
        let at = socket.display();
        let gone = |what: String| Error::new(ErrorKind::DeviceGone, what);
        let error = match e.kind() {
            io::ErrorKind::NotFound => gone(format!("no daemon can be reached: there is no socket at {at}"))
                .next("is signerd running? start it, or name its socket with --socket or SIGNERD_SOCKET"),
            io::ErrorKind::ConnectionRefused => gone(format!("no daemon listens on the socket {at}"))
                .next("is signerd running? `systemctl status signerd` or its log says why it ended"),
            io::ErrorKind::PermissionDenied => {
                Error::new(ErrorKind::Denied, format!("you may not open the daemon's socket {at}"))
                    .next("join the group that owns the socket, or ask its administrator")
            }
            _ => gone(format!("the daemon's socket {at} cannot be opened")).next("run `signer doctor`"),
        };
        Self { error: error.vendor(e), refused: e.kind() == io::ErrorKind::ConnectionRefused }
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

fn connect_error(status: &Status) -> Option<&ConnectError> {
    crate::status::sources(status).find_map(|e| e.downcast_ref())
}

/// Whether the request was never sent, because there was no connection.
pub(super) fn is_connect_error(status: &Status) -> bool {
    connect_error(status).is_some()
}

/// Whether the socket was there and nobody listened.
pub(super) fn is_refused(status: &Status) -> bool {
    connect_error(status).is_some_and(|e| e.refused)
}
