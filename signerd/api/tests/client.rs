//! The client against a peer whose behaviour each test chooses: one that is slow, busy, gone or back again. (That it
//! works with the real daemon is what the tests of `signer` and the contract suite show.)

#![allow(clippy::unwrap_used)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use signer_core::{
    Backend, Digest, Error, ErrorKind, HashAlgorithm, Input, KeyInfo, KeyOrigin, KeyType, PublicKey,
    SignRequest, SignatureAlgorithm, Signer,
};
use signerd_api::{Client, key_to_pb, pb, status_from_error};
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the peer does with its n-th sign request, counted from 0 over its whole life.
type Script = Arc<dyn Fn(usize) -> Step + Send + Sync>;

#[derive(Clone)]
enum Step {
    /// Answers with what was to be signed.
    Echo,
    Fail(Error),
    Sleep(Duration),
}

#[derive(Clone)]
struct Peer {
    script: Script,
    signs: Arc<AtomicUsize>,
}

fn key() -> KeyInfo {
    // RFC 8410 section 10.1.
    let raw = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    let raw: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&raw[2 * i..2 * i + 2], 16).unwrap()).collect();
    KeyInfo {
        name: "release@1".parse().unwrap(),
        public_key: PublicKey::from_raw(KeyType::Ed25519, &raw).unwrap(),
        algorithms: vec![ALGORITHM],
        origin: KeyOrigin::Generated,
        extractable: Some(false),
        created: None,
        id: None,
        address: None,
        certificate: None,
        policy: signer_core::KeyPolicy::default(),
    }
}

#[tonic::async_trait]
impl pb::signer_service_server::SignerService for Peer {
    async fn sign(&self, request: Request<pb::SignRequest>) -> Answer<pb::SignResponse> {
        assert!(request.metadata().get("grpc-timeout").is_some(), "the daemon is told the deadline");
        match (self.script)(self.signs.fetch_add(1, Ordering::SeqCst)) {
            Step::Fail(error) => return Err(status_from_error(&error)),
            Step::Sleep(time) => tokio::time::sleep(time).await,
            Step::Echo => {}
        }
        let request = request.into_inner();
        let Some(pb::sign_request::Input::Digest(digest)) = request.input else { panic!("not hashed") };
        Ok(Response::new(pb::SignResponse {
            signature: digest,
            algorithm: ALGORITHM.name().to_owned(),
            key: request.key,
        }))
    }

    type SignStreamStream = Answers<pb::SignStreamResponse>;

    /// Answers pairs of requests, the second first; fails those of the digest ff…ff.
    async fn sign_stream(
        &self,
        request: Request<Streaming<pb::SignStreamRequest>>,
    ) -> Answer<Self::SignStreamStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        assert_eq!((first.key.as_str(), first.algorithm.as_str()), ("soft/release", ALGORITHM.name()));
        let answers = async_stream(move |sender| async move {
            let mut held = vec![first];
            loop {
                while held.len() < 2 {
                    match requests.message().await {
                        Ok(Some(request)) => {
                            assert!(request.key.is_empty(), "only the first message names the key");
                            held.push(request);
                        }
                        _ => break,
                    }
                }
                if held.is_empty() {
                    return;
                }
                while let Some(request) = held.pop() {
                    let Some(pb::sign_stream_request::Input::Digest(digest)) = request.input else {
                        panic!()
                    };
                    let outcome = if digest == [0xff; 32] {
                        pb::sign_stream_response::Outcome::Error(signerd_api::error_to_pb(
                            &Error::bad_request("ff"),
                        ))
                    } else {
                        pb::sign_stream_response::Outcome::Signature(digest)
                    };
                    let answer = pb::SignStreamResponse { id: request.id, outcome: Some(outcome) };
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(answers))
    }

    async fn list_backends(&self, _: Request<pb::ListBackendsRequest>) -> Answer<pb::ListBackendsResponse> {
        let backend = pb::Backend {
            name: "soft".into(),
            kind: "software".into(),
            abilities: vec!["generate".into(), "delete".into()],
            ..pb::Backend::default()
        };
        let (named_keys, audit) = (Vec::new(), None);
        Ok(Response::new(pb::ListBackendsResponse { backends: vec![backend], audit, named_keys }))
    }

    async fn list_keys(&self, _: Request<pb::ListKeysRequest>) -> Answer<pb::ListKeysResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_key(&self, _: Request<pb::GetKeyRequest>) -> Answer<pb::Key> {
        Ok(Response::new(key_to_pb("soft", &key())))
    }

    async fn create_key(&self, _: Request<pb::CreateKeyRequest>) -> Answer<pb::Key> {
        tokio::time::sleep(Duration::from_mins(1)).await;
        Err(Status::internal(""))
    }

    async fn import_key(&self, _: Request<pb::ImportKeyRequest>) -> Answer<pb::Key> {
        Err(Status::unimplemented(""))
    }

    async fn delete_key(&self, _: Request<pb::DeleteKeyRequest>) -> Answer<pb::DeleteKeyResponse> {
        Err(Status::unimplemented(""))
    }

    async fn rotate_key(&self, _: Request<pb::RotateKeyRequest>) -> Answer<pb::Key> {
        Err(Status::unimplemented(""))
    }

    async fn store_certificate(&self, _: Request<pb::StoreCertificateRequest>) -> Answer<pb::Key> {
        Err(Status::unimplemented(""))
    }

    async fn attest(&self, _: Request<pb::AttestRequest>) -> Answer<pb::Evidence> {
        Err(Status::unimplemented("not here"))
    }
    async fn unlock(&self, _: Request<pb::UnlockRequest>) -> Answer<pb::UnlockResponse> {
        Err(Status::unimplemented(""))
    }

    async fn refuse_pin(&self, _: Request<pb::RefusePinRequest>) -> Answer<pb::RefusePinResponse> {
        Err(Status::unimplemented(""))
    }

    async fn lock(&self, _: Request<pb::LockRequest>) -> Answer<pb::LockResponse> {
        Err(Status::unimplemented(""))
    }

    type WatchStream = Answers<pb::Event>;

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Answer<Self::WatchStream> {
        let what = Some(pb::event::What::KeyCreated("soft/release@1".into()));
        let event = pb::Event { time_unix_us: 1, backend: "soft".into(), what, lost: 3, yours: false };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(event)]))))
    }
}

fn async_stream<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    work: impl FnOnce(tokio::sync::mpsc::Sender<Result<T, Status>>) -> F,
) -> Answers<T> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(work(sender));
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

/// A folder with a socket, and who listens there.
struct Place {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    peer: Peer,
}

impl Place {
    fn new(script: impl Fn(usize) -> Step + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        Self { socket, _folder: folder, peer: Peer { script: Arc::new(script), signs: Arc::default() } }
    }

    /// Starts to listen. Aborting the task cuts every connection, as the end of a process would.
    fn serve(&self) -> JoinHandle<()> {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let service = pb::signer_service_server::SignerServiceServer::new(self.peer.clone());
        let (cut, is_cut) = tokio::sync::watch::channel(());
        tokio::spawn(async move {
            let _cut = cut;
            let connections = UnixListenerStream::new(listener).map(move |stream| {
                stream.map(|inner| Cuttable { inner, is_cut: is_cut.clone(), gone: None })
            });
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(connections)
                .await
                .unwrap();
        })
    }

    fn signs(&self) -> usize {
        self.peer.signs.load(Ordering::SeqCst)
    }
}

/// A connection that ends when the server's task does.
struct Cuttable {
    inner: tokio::net::UnixStream,
    is_cut: tokio::sync::watch::Receiver<()>,
    gone: Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Cuttable {
    fn is_gone(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let mut is_cut = self.is_cut.clone();
        let gone =
            self.gone.get_or_insert_with(|| Box::pin(async move { while is_cut.changed().await.is_ok() {} }));
        gone.as_mut().poll(cx).is_ready()
    }
}

impl tokio::io::AsyncRead for Cuttable {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.is_gone(cx) {
            return std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        std::pin::Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Cuttable {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for Cuttable {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

fn digest(of: &[u8]) -> Input {
    Input::Digest(Digest::of(HashAlgorithm::Sha256, of))
}

#[tokio::test]
async fn a_message_is_hashed_before_it_is_sent() {
    let place = Place::new(|_| Step::Echo);
    let _server = place.serve();
    let signer = Client::connect(&place.socket).await.unwrap().key("soft/release").await.unwrap();
    assert_eq!(signer.reference(), "soft/release@1");
    let signature = signer.sign(SignRequest::message(ALGORITHM, "hello")).await.unwrap();
    assert_eq!(signature.as_bytes(), Digest::of(HashAlgorithm::Sha256, b"hello").as_bytes());
    signer.health().await.unwrap();
}

#[tokio::test]
async fn an_error_comes_back_as_it_was() {
    let error =
        Error::new(ErrorKind::WrongPin { tries_left: Some(2) }, "no").key("k").device("hsm").next("stop");
    let sent = error.clone();
    let place = Place::new(move |_| Step::Fail(sent.clone()));
    let _server = place.serve();
    let client = Client::new(&place.socket).retrying();
    assert_eq!(client.sign("soft/release", None, digest(b"")).await.unwrap_err(), error);
    assert_eq!(place.signs(), 1, "a wrong PIN is never tried again");
    let error = client.delete("soft/release").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "the call of another version: {error}");
}

#[tokio::test]
async fn no_daemon_is_said_at_once_and_names_the_socket() {
    let place = Place::new(|_| Step::Echo);
    let begin = Instant::now();
    for client in [Client::new(&place.socket), Client::new(&place.socket).retrying()] {
        let error = client.sign("soft/release", None, digest(b"")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        assert!(error.to_string().contains(place.socket.to_str().unwrap()), "{error}");
        assert!(error.advice().unwrap().contains("is signerd running?"));
        assert!(!error.is_uncertain());
    }
    assert_eq!(Client::connect(&place.socket).await.unwrap_err().kind(), ErrorKind::DeviceGone);
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_daemon_that_is_killed_and_started_again_costs_time_only() {
    let place = Place::new(|n| if n == 0 { Step::Sleep(Duration::from_mins(1)) } else { Step::Echo });
    let server = place.serve();
    let plain = Client::connect(&place.socket).await.unwrap();
    let patient = Client::new(&place.socket).retrying();
    let call = tokio::spawn(async move { patient.sign("soft/release", None, digest(b"x")).await });
    while place.signs() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.abort();
    let lost =
        tokio::time::timeout(Duration::from_secs(1), plain.sign("soft/release", None, digest(b"x"))).await;
    let lost = lost.expect("no caller hangs").unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::DeviceGone);
    assert!(lost.is_retryable());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _server = place.serve();
    assert!(call.await.unwrap().is_ok());
    assert!(plain.sign("soft/release", None, digest(b"x")).await.is_ok(), "the same client connects again");
}

#[tokio::test]
async fn busy_is_tried_again_when_the_daemon_says_so_and_not_after_the_deadline() {
    let busy = |ms| {
        Step::Fail(Error::new(
            ErrorKind::Busy { retry_after: Duration::from_millis(ms) },
            "the queue is full",
        ))
    };
    let place = Place::new(move |n| if n < 3 { busy(20) } else { Step::Echo });
    let _server = place.serve();
    let begin = Instant::now();
    Client::new(&place.socket).retrying().sign("soft/release", None, digest(b"x")).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(60));
    assert_eq!(place.signs(), 4);

    let place = Place::new(move |_| busy(60_000));
    let _server = place.serve();
    let client = Client::new(&place.socket).retrying().timeout(Duration::from_millis(500));
    let error = client.sign("soft/release", None, digest(b"x")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Busy { .. }));
    assert_eq!(place.signs(), 1);
}

#[tokio::test]
async fn nobody_waits_longer_than_the_deadline() {
    let place = Place::new(|_| Step::Sleep(Duration::from_mins(1)));
    let _server = place.serve();
    let client = Client::new(&place.socket).retrying().timeout(Duration::from_millis(200));
    let begin = Instant::now();
    let error = client.sign("soft/release", None, digest(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(begin.elapsed() < Duration::from_secs(2));
    let signer = client.key("soft/release").await.unwrap();
    let soon = Some(Instant::now() + Duration::from_millis(50));
    let begin = Instant::now();
    let error = signer.sign(SignRequest::message(ALGORITHM, "x").deadline(soon)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(begin.elapsed() < Duration::from_millis(190), "the request's own deadline counts");
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_may_have_happened() {
    let place = Place::new(|_| Step::Echo);
    let request = || signer_core::GenerateRequest::new("new".parse().unwrap(), KeyType::EcdsaP256);
    let soft = "soft".parse().unwrap();
    let client = Client::new(&place.socket).retrying();
    assert!(!client.create(&soft, request()).await.unwrap_err().is_uncertain(), "it was never sent");
    let server = place.serve();
    client.key("soft/release").await.unwrap();
    let call = {
        let (client, soft) = (client.clone(), soft.clone());
        tokio::spawn(async move { client.create(&soft, request()).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.abort();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone);
    assert!(error.is_uncertain() && !error.is_retryable());
}

#[tokio::test]
async fn a_stream_answers_out_of_order_within_its_window() {
    let place = Place::new(|_| Step::Echo);
    let _server = place.serve();
    let stream = Client::new(&place.socket).sign_stream("soft/release", ALGORITHM, 4);
    let calls: Vec<_> = (0..100_u8)
        .map(|i| {
            let stream = stream.clone();
            tokio::spawn(async move {
                stream.sign(SignRequest::message(ALGORITHM, vec![i])).await.map(|s| (i, s))
            })
        })
        .collect();
    for call in calls {
        let (i, signature) = call.await.unwrap().unwrap();
        assert_eq!(signature.as_bytes(), Digest::of(HashAlgorithm::Sha256, &[i]).as_bytes());
    }
    let bad = Digest::new(HashAlgorithm::Sha256, &[0xff; 32]).unwrap();
    let requests =
        [bad, Digest::of(HashAlgorithm::Sha256, b"y")].map(|d| SignRequest::digest(ALGORITHM, d).unwrap());
    let [a, b] = requests.map(|r| stream.sign(r));
    let (a, b) = futures_util::join!(a, b);
    assert_eq!(a.unwrap_err().kind(), ErrorKind::BadRequest, "one bad request");
    assert!(b.is_ok(), "does not end the stream");
    let other = SignRequest::message(SignatureAlgorithm::Ed25519, "x");
    assert_eq!(stream.sign(other).await.unwrap_err().kind(), ErrorKind::BadRequest);
}

#[tokio::test]
async fn a_stream_that_breaks_fails_everybody_on_it() {
    let place = Place::new(|_| Step::Echo);
    let server = place.serve();
    let stream = Client::new(&place.socket).sign_stream("soft/release", ALGORITHM, 4);
    // The peer answers pairs only: this one waits.
    let waiting = tokio::spawn({
        let stream = stream.clone();
        async move { stream.sign(SignRequest::message(ALGORITHM, "x")).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.abort();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::DeviceGone);
    let later = stream.sign(SignRequest::message(ALGORITHM, "x")).await.unwrap_err();
    assert!(later.is_retryable());
}

#[tokio::test]
async fn a_backend_has_the_abilities_that_the_daemon_reports() {
    let place = Place::new(|_| Step::Echo);
    let _server = place.serve();
    let client = Client::new(&place.socket);
    let backend = client.backend(&"soft".parse().unwrap()).await.unwrap();
    assert!(backend.generate().is_some() && backend.delete().is_some());
    assert!(backend.rotate().is_none() && backend.unlock().is_none());
    assert_eq!(backend.describe().await.unwrap().kind, "software");
    let there = backend.open(&"release".parse().unwrap()).await.unwrap();
    assert_eq!(there.info().name.to_string(), "release@1");
    let missing = client.backend(&"hsm".parse().unwrap()).await.map(drop).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn events_come_and_end_with_the_daemon() {
    let place = Place::new(|_| Step::Echo);
    let _server = place.serve();
    let mut events = Client::new(&place.socket).watch(None).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (event.backend.as_deref(), event.happening.name(), event.lost),
        (Some("soft"), "key-created", 3)
    );
    assert!(events.next().await.is_none());
}
