//! The daemon seen from outside: every call in the types of signer-core.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use signer_core::{
    Ability, BackendInfo, BackendName, Error, ErrorKind, Evidence, GenerateRequest, ImportRequest, Input,
    KeyInfo, ListRequest, Result, Signature, SignatureAlgorithm, UnlockRequest,
};
use tonic::{Request, Response, Status};

use crate::{
    backend_from_pb,
    convert::{evidence_from_pb, members_from_pb, named_key_from_pb, policy_to_pb},
    error_from_pb, error_from_status, key_from_pb, label, pb,
    status::{is_connection_loss, late},
};
use connection::Connection;
use pb::signer_service_client::SignerServiceClient;

mod backend;
mod connection;
mod events;
mod sign_stream;
mod signer;

pub use backend::RemoteBackend;
pub use events::{DaemonEvent, EventStream, Happening, PinAsker, PinEnd, PinRequest, Prompts};
pub use sign_stream::SignStream;
pub use signer::RemoteSigner;

type Rpc = SignerServiceClient<Connection>;

/// A client of one daemon. Cheap to clone: all clones share one connection, which is made when it is first needed and
/// again when it was lost. In each tokio runtime that they are used in they have one of its own.
///
/// Every call has a deadline, and the daemon is told it.
#[derive(Clone)]
pub struct Client {
    rpc: Rpc,
    connection: Connection,
    timeout: Duration,
    retrying: bool,
    label: Option<std::sync::Arc<str>>,
}

/// A signature, and what made it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The signature, in the encoding of its algorithm.
    pub signature: Signature,
    /// How it was made.
    pub algorithm: SignatureAlgorithm,
    /// The very key that signed: backend/key, version included.
    pub key: String,
}

/// A backend as the daemon sees it now.
#[derive(Clone, Debug)]
pub struct BackendStatus {
    /// Its configured name.
    pub name: BackendName,
    /// What it says of itself; empty texts where it could not be asked.
    pub info: BackendInfo,
    /// What it can do.
    pub abilities: Vec<Ability>,
    /// What is wrong with it; `None` when it is healthy.
    pub health: Option<Error>,
}

/// A configured name of a key that several places hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// The name.
    pub name: String,
    /// Which member is asked first: `first` or `round-robin`.
    pub order: String,
    /// The places, in the configured order.
    pub members: Vec<MemberStatus>,
}

/// One of the places that hold a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// As configured.
    pub reference: String,
    /// `ok`, `down`, `resting`, `unchecked` or `different`.
    pub state: String,
    /// Why it is not used.
    pub error: Option<Error>,
}

impl NamedKey {
    /// Whether some member can sign.
    pub fn is_usable(&self) -> bool {
        self.members.iter().any(|m| m.state == "ok")
    }
}

/// A key, and the places that hold it.
#[derive(Clone, Debug)]
pub struct KeyDescription {
    /// What to ask for it by: backend/key with its version, or the configured name of a key that several places hold.
    pub reference: String,
    /// Its backend; its configured name where several places hold it.
    pub backend: BackendName,
    /// What is known of it.
    pub info: KeyInfo,
    /// The places that hold it, where there are several.
    pub several: Option<NamedKey>,
}

/// The daemon's audit log as it is now.
#[derive(Clone, Debug)]
pub struct AuditStatus {
    /// Its folder, on the daemon's machine.
    pub directory: PathBuf,
    /// Its name.
    pub origin: String,
    /// How many records it has.
    pub records: u64,
    /// How many of them its newest checkpoint covers.
    pub signed: u64,
    /// Why nothing is signed; `None` when it is healthy.
    pub health: Option<Error>,
}

/// A page of the keys of one or of all backends.
#[derive(Clone, Debug, Default)]
pub struct KeyList {
    /// The keys, each with its backend.
    pub keys: Vec<(BackendName, KeyInfo)>,
    /// How to ask for the next page; `None` when this was the last.
    pub next: Option<String>,
    /// Backends whose keys are missing because they could not be asked.
    pub unavailable: Vec<(String, Error)>,
}

impl Client {
    /// How long a call may take when nobody says.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// A client that connects when it is first used.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let connection = Connection::new(socket.into());
        Self {
            rpc: Rpc::with_origin(connection.clone(), connection::origin())
                .max_decoding_message_size(crate::MAX_MESSAGE)
                .max_encoding_message_size(crate::MAX_MESSAGE),
            connection,
            timeout: Self::TIMEOUT,
            retrying: false,
            label: None,
        }
    }

    /// Connects now. `DeviceGone` that names the socket when nobody listens there, `Denied` when the caller may not
    /// open it.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let client = Self::new(socket);
        client.connection.connect().await?;
        Ok(client)
    }

    /// Sets how long a call may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tries calls that change nothing again, within their deadline, when the connection was lost or the answer was
    /// "busy" or "throttled". A daemon that was never there is waited for no longer than a moment.
    #[must_use]
    pub fn retrying(mut self) -> Self {
        self.retrying = true;
        self
    }

    /// Says what the calls are for, to people who are asked for a PIN or a touch because of them: a file's name.
    #[must_use]
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        self.label = Some(label.as_ref().into());
        self
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        self.connection.socket()
    }

    /// Another service at the same socket, the standard health service for one: whatever `make` makes of the
    /// connection.
    pub fn service<S>(&self, make: impl FnOnce(Connection, tonic::codegen::http::Uri) -> S) -> S {
        make(self.connection.clone(), connection::origin())
    }

    /// Signs one message or digest with the key of a reference; with the key's default algorithm if none is named.
    pub async fn sign(
        &self,
        key: &str,
        algorithm: Option<SignatureAlgorithm>,
        input: Input,
    ) -> Result<Signed> {
        self.sign_until(key, algorithm, input, self.deadline()).await
    }

    async fn sign_until(
        &self,
        key: &str,
        algorithm: Option<SignatureAlgorithm>,
        input: Input,
        deadline: Instant,
    ) -> Result<Signed> {
        check_len(&input, key)?;
        let request = pb::SignRequest {
            key: key.to_owned(),
            algorithm: algorithm.map(|a| a.name().to_owned()).unwrap_or_default(),
            input: Some(match input {
                Input::Message(message) => pb::sign_request::Input::Message(message),
                Input::Digest(digest) => pb::sign_request::Input::Digest(digest.as_bytes().to_vec()),
            }),
        };
        let answer = self.ask(deadline, request, |mut c: Rpc, r| async move { c.sign(r).await }).await?;
        Ok(Signed {
            signature: Signature::new(answer.signature),
            algorithm: answer.algorithm.parse()?,
            key: answer.key,
        })
    }

    /// Signs many with one key: at most `window` requests are on their way at a time.
    pub fn sign_stream(&self, key: &str, algorithm: SignatureAlgorithm, window: usize) -> SignStream {
        SignStream::open(self.rpc.clone(), key, algorithm, window)
    }

    /// The backends that the caller has a grant for.
    pub async fn backends(&self) -> Result<Vec<BackendStatus>> {
        Ok(self.status().await?.0)
    }

    /// The same, and the audit log, where the daemon keeps one.
    pub async fn status(&self) -> Result<(Vec<BackendStatus>, Option<AuditStatus>)> {
        let request = pb::ListBackendsRequest {};
        let rpc = |mut c: Rpc, r| async move { c.list_backends(r).await };
        let answer = self.ask(self.deadline(), request, rpc).await?;
        let backends = answer.backends.into_iter().map(backend_from_pb).collect::<Result<_>>()?;
        let audit = answer.audit.map(|audit| AuditStatus {
            directory: audit.directory.into(),
            origin: audit.origin,
            records: audit.records,
            signed: audit.signed,
            health: audit.health.map(error_from_pb),
        });
        Ok((backends, audit))
    }

    /// The configured keys that several places hold, as far as the caller has a grant for them.
    pub async fn named_keys(&self) -> Result<Vec<NamedKey>> {
        let rpc = |mut c: Rpc, r| async move { c.list_backends(r).await };
        let answer = self.ask(self.deadline(), pb::ListBackendsRequest {}, rpc).await?;
        Ok(answer.named_keys.into_iter().map(named_key_from_pb).collect())
    }

    async fn backend_status(&self, name: &BackendName) -> Result<BackendStatus> {
        self.backends().await?.into_iter().find(|b| b.name == *name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the daemon has no backend {name}"))
                .device(name)
                .next("`signer status` lists the backends that you may use")
        })
    }

    /// One backend, with the abilities that the daemon reports for it now.
    pub async fn backend(&self, name: &BackendName) -> Result<RemoteBackend> {
        let status = self.backend_status(name).await?;
        Ok(RemoteBackend::new(self.clone(), status))
    }

    /// A page of the keys that the caller has a grant for, of one backend or of all.
    pub async fn keys(&self, backend: Option<&BackendName>, page: ListRequest) -> Result<KeyList> {
        let request = pb::ListKeysRequest {
            backend: backend.map(ToString::to_string).unwrap_or_default(),
            page_size: page.page_size.min(1000) as u32,
            page_token: page.page_token.unwrap_or_default(),
        };
        let rpc = |mut c: Rpc, r| async move { c.list_keys(r).await };
        let answer = self.ask(self.deadline(), request, rpc).await?;
        let mut list = KeyList {
            next: Some(answer.next_page_token).filter(|t| !t.is_empty()),
            unavailable: answer.unavailable.into_iter().map(|(name, e)| (name, error_from_pb(e))).collect(),
            ..KeyList::default()
        };
        list.unavailable.sort_by(|a, b| a.0.cmp(&b.0));
        for key in answer.keys {
            match key_from_pb(key) {
                Ok(key) => list.keys.push(key),
                // A kind of key that only a newer daemon knows: nobody here could use it.
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(e) => return Err(e),
            }
        }
        Ok(list)
    }

    /// What is known of a key, and its backend. A key that several places hold has its configured name for both: see
    /// [`Self::describe`].
    pub async fn key_info(&self, key: &str) -> Result<(BackendName, KeyInfo)> {
        let description = self.describe(key).await?;
        Ok((description.backend, description.info))
    }

    /// A key, and the places that hold it.
    pub async fn describe(&self, key: &str) -> Result<KeyDescription> {
        let request = pb::GetKeyRequest { key: key.to_owned() };
        let rpc = |mut c: Rpc, r| async move { c.get_key(r).await };
        let mut key = self.ask(self.deadline(), request, rpc).await?;
        let reference = key.reference.clone();
        let (order, members) = (std::mem::take(&mut key.order), std::mem::take(&mut key.members));
        let several = (!members.is_empty()).then(|| NamedKey {
            name: reference.clone(),
            order,
            members: members_from_pb(members),
        });
        let (backend, info) = key_from_pb(key)?;
        Ok(KeyDescription { reference, backend, info, several })
    }

    /// A key as a signer.
    pub async fn key(&self, key: &str) -> Result<RemoteSigner> {
        let KeyDescription { reference, info, .. } = self.describe(key).await?;
        Ok(RemoteSigner::new(self.clone(), reference, info))
    }

    /// Makes a key in `backend`.
    pub async fn create(&self, backend: &BackendName, request: GenerateRequest) -> Result<KeyInfo> {
        let request = pb::CreateKeyRequest {
            key: format!("{backend}/{}", request.name),
            key_type: request.key_type.name().to_owned(),
            id: request.id,
            policy: policy_to_pb(&request.policy),
        };
        Ok(key_from_pb(self.change(request, |mut c: Rpc, r| async move { c.create_key(r).await }).await?)?.1)
    }

    /// Stores a key in `backend`.
    pub async fn import(&self, backend: &BackendName, request: ImportRequest) -> Result<KeyInfo> {
        let request = pb::ImportKeyRequest {
            key: format!("{backend}/{}", request.name),
            pkcs8: request.key.pkcs8_der().to_vec(),
            id: request.id,
            policy: policy_to_pb(&request.policy),
        };
        Ok(key_from_pb(self.change(request, |mut c: Rpc, r| async move { c.import_key(r).await }).await?)?.1)
    }

    /// Destroys a key.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let request = pb::DeleteKeyRequest { key: key.to_owned() };
        self.change(request, |mut c: Rpc, r| async move { c.delete_key(r).await }).await.map(drop)
    }

    /// Makes a new version of a key.
    pub async fn rotate(&self, key: &str) -> Result<(BackendName, KeyInfo)> {
        let request = pb::RotateKeyRequest { key: key.to_owned() };
        key_from_pb(self.change(request, |mut c: Rpc, r| async move { c.rotate_key(r).await }).await?)
    }

    /// Stores a DER certificate beside its key.
    pub async fn store_certificate(&self, key: &str, certificate: &[u8]) -> Result<(BackendName, KeyInfo)> {
        let request = pb::StoreCertificateRequest { key: key.to_owned(), certificate: certificate.to_vec() };
        key_from_pb(self.change(request, |mut c: Rpc, r| async move { c.store_certificate(r).await }).await?)
    }

    /// The device's own statement on a key, not yet verified.
    pub async fn attest(&self, key: &str) -> Result<Evidence> {
        let request = pb::AttestRequest { key: key.to_owned() };
        let rpc = |mut c: Rpc, r| async move { c.attest(r).await };
        evidence_from_pb(self.ask(self.deadline(), request, rpc).await?)
    }

    /// Gives a backend its PIN.
    pub async fn unlock(&self, backend: &BackendName, request: UnlockRequest) -> Result<()> {
        self.give_pin(backend, request, None).await
    }

    /// Gives a backend the PIN that a [`PinRequest`] asks for. `NotFound` when that is over: then the PIN was not tried.
    pub async fn answer_pin(&self, backend: &BackendName, number: u64, request: UnlockRequest) -> Result<()> {
        self.give_pin(backend, request, Some(number)).await
    }

    async fn give_pin(&self, backend: &BackendName, given: UnlockRequest, number: Option<u64>) -> Result<()> {
        let request = pb::UnlockRequest {
            backend: backend.to_string(),
            pin: given.pin.expose().to_owned(),
            use_last_try: given.use_last_try,
            request: number,
        };
        self.change(request, |mut c: Rpc, r| async move { c.unlock(r).await }).await.map(drop)
    }

    /// Says that nobody is going to give the PIN that a [`PinRequest`] asks for.
    pub async fn refuse_pin(&self, backend: &BackendName, number: u64) -> Result<()> {
        let request = pb::RefusePinRequest { backend: backend.to_string(), request: number };
        self.change(request, |mut c: Rpc, r| async move { c.refuse_pin(r).await }).await.map(drop)
    }

    /// Gives up a backend's login, and has the PIN forgotten that a person gave.
    pub async fn lock(&self, backend: &BackendName) -> Result<()> {
        let request = pb::LockRequest { backend: backend.to_string() };
        self.change(request, |mut c: Rpc, r| async move { c.lock(r).await }).await.map(drop)
    }

    /// What happens to one backend, or to all, from now on.
    pub async fn watch(&self, backend: Option<&BackendName>) -> Result<EventStream> {
        self.watch_with(backend, Prompts::None).await
    }

    /// The same, for a watcher that puts PIN requests and touches before a person.
    pub async fn watch_with(&self, backend: Option<&BackendName>, prompts: Prompts) -> Result<EventStream> {
        let backend = backend.map(ToString::to_string).unwrap_or_default();
        let request = pb::WatchRequest { backend, prompts: pb::Prompts::from(prompts).into() };
        let answer = self.rpc.clone().watch(request).await;
        Ok(EventStream::new(answer.map_err(|s| error_from_status(&s))?.into_inner()))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// A call that changes nothing, or that harms nobody when it is made twice.
    async fn ask<M, T, F>(
        &self,
        deadline: Instant,
        message: M,
        rpc: impl Fn(Rpc, Request<M>) -> F,
    ) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if !self.retrying {
            return self.once(deadline, message, &rpc).await.map_err(|failure| failure.error);
        }
        let begin = Instant::now();
        for attempt in 0.. {
            let failure = match self.once(deadline, message.clone(), &rpc).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = failure.pause(attempt, begin.elapsed()).filter(|p| Instant::now() + *p < deadline);
            let Some(pause) = pause else { return Err(failure.error) };
            tokio::time::sleep(pause).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// A call that changes something: made once, and uncertain when its answer was lost.
    async fn change<M, T, F>(&self, message: M, rpc: impl Fn(Rpc, Request<M>) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.once(self.deadline(), message, &rpc).await.map_err(|failure| {
            if failure.unanswered { failure.error.may_have_happened() } else { failure.error }
        })
    }

    async fn once<M, T, F>(
        &self,
        deadline: Instant,
        message: M,
        rpc: &impl Fn(Rpc, Request<M>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let was_connected = self.connection.was_connected();
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = Request::new(message);
        request.set_timeout(left);
        if let Some(label) = &self.label {
            label::to_metadata(request.metadata_mut(), label);
        }
        // The daemon ends the call itself at the deadline, with an error that says more than ours would.
        let until = tokio::time::Instant::from_std(deadline + GRACE);
        match tokio::time::timeout_at(until, rpc(self.rpc.clone(), request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let lost = is_connection_loss(&status);
                if lost && Instant::now() >= deadline {
                    return Err(Failure::late());
                }
                let never_sent = connection::is_connect_error(&status);
                Err(Failure {
                    error: error_from_status(&status),
                    lost: lost && (was_connected || !never_sent),
                    refused: connection::is_refused(&status),
                    unanswered: lost && !never_sent,
                })
            }
            Err(_) => Err(Failure::late()),
        }
    }
}

/// Refuses what no daemon takes before it is sent: the transport would only say that the connection broke.
fn check_len(input: &Input, key: &str) -> Result<()> {
    match input {
        Input::Message(message) if message.len() > crate::MAX_MESSAGE - AROUND_MESSAGE => {
            let what = format!("a message of {} bytes is too long to be signed as it is", message.len());
            Err(Error::bad_request(what).key(key).next("hash it and have the digest signed"))
        }
        _ => Ok(()),
    }
}

/// Room for what stands around a message.
const AROUND_MESSAGE: usize = 64 * 1024;

/// How much longer the client waits than the daemon was told.
const GRACE: Duration = Duration::from_millis(100);

/// How long a daemon that has left its socket behind is waited for: it may be starting again.
const RESTART: Duration = Duration::from_secs(2);

/// A call that failed.
struct Failure {
    error: Error,
    /// The connection broke, or could not be made again.
    lost: bool,
    /// The socket is there, and nobody listens.
    refused: bool,
    /// The request was sent, and nobody knows what became of it.
    unanswered: bool,
}

impl Failure {
    fn late() -> Self {
        Self { error: late(), lost: false, refused: false, unanswered: true }
    }

    /// How long to wait before the next attempt; `None` when there should be none.
    fn pause(&self, attempt: u32, waited: Duration) -> Option<Duration> {
        let backoff = Duration::from_millis(5 << attempt.min(6));
        if self.lost || (self.refused && waited < RESTART) {
            return Some(backoff);
        }
        let after = self.error.kind().retry_after()?;
        (!self.error.is_uncertain()).then(|| after.max(backoff))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.socket().display())
    }
}
