//! A running engine.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use serde_json::Value;
use signer_core::KeyType;
use tokio::sync::watch;

use crate::{
    aws::Aws,
    azure::Azure,
    certificates::Certificates,
    fault::{Fault, Faults},
    google::Google,
    material::Material,
    seen::Seen,
    server,
    tokens::Tokens,
};

/// Where an engine listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The port for plain HTTP; 0 for any.
    pub port: u16,
    /// The port for TLS; 0 for any.
    pub tls_port: u16,
}

/// An engine on threads of its own. It ends when it is dropped.
pub struct Engine {
    shared: Arc<Shared>,
    http: SocketAddr,
    https: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What all requests see.
pub(crate) struct Shared {
    pub(crate) aws: Aws,
    pub(crate) google: Google,
    pub(crate) azure: Azure,
    pub(crate) tokens: Tokens,
    pub(crate) faults: Faults,
    pub(crate) seen: Seen,
    pub(crate) certificates: Certificates,
    strangers: Mutex<HashMap<KeyType, Arc<Material>>>,
}

impl Shared {
    /// A key that belongs to nobody: it stands in for keys that were replaced.
    pub(crate) fn stranger(&self, key_type: KeyType) -> Arc<Material> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.entry(key_type).or_insert_with(|| Arc::new(Material::generate(key_type))).clone()
    }
}

impl Engine {
    /// Starts an engine on any ports.
    pub fn start() -> Self {
        Self::start_on(Options::default()).expect("two ports of 127.0.0.1 can be had")
    }

    /// Starts an engine.
    pub fn start_on(options: Options) -> io::Result<Self> {
        let bind = |port| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>((listener.local_addr()?, listener))
        };
        let (http, plain) = bind(options.port)?;
        let (https, tls) = bind(options.tls_port)?;
        let shared = Arc::new(Shared {
            aws: Aws::default(),
            google: Google::default(),
            azure: Azure::default(),
            tokens: Tokens::new(http),
            faults: Faults::default(),
            seen: Seen::default(),
            certificates: Certificates::make(),
            strangers: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let serving = shared.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let thread = std::thread::Builder::new().name("kms-engine".into()).spawn(move || {
            runtime.block_on(server::serve(serving, plain, tls, stopped));
            runtime.shutdown_background();
        })?;
        Ok(Self { shared, http, https, stop, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// `https://127.0.0.1:PORT`, with a certificate of [`Engine::ca_pem`].
    pub fn tls_url(&self) -> String {
        format!("https://{}", self.https)
    }

    /// Where TLS is served.
    pub fn tls_address(&self) -> SocketAddr {
        self.https
    }

    /// The test CA's certificate.
    pub fn ca_pem(&self) -> &str {
        self.shared.certificates.ca_pem()
    }

    /// The roots of the maker and of the cloud that the HSMs' attestations end at, in PEM.
    pub fn hsm_roots_pem(&self) -> &'static str {
        crate::google::attestation::roots()
    }

    /// The file that Google's clients read with `GOOGLE_APPLICATION_CREDENTIALS`: a service account of the engine.
    pub fn google_service_account(&self) -> String {
        self.shared.tokens.google_service_account()
    }

    /// The same for a user (`gcloud auth application-default login`): its refresh token is good for access tokens of the
    /// engine's token endpoint.
    pub fn google_authorized_user(&self) -> String {
        self.shared.tokens.google_authorized_user()
    }

    /// From now on, this goes wrong.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.set(Some(fault));
    }

    /// From now on, nothing goes wrong.
    pub fn heal(&self) {
        self.shared.faults.set(None);
        self.shared.certificates.expire(false);
    }

    /// New TLS connections are shown a certificate that has expired.
    pub fn expire_certificate(&self) {
        self.shared.certificates.expire(true);
    }

    /// Every token that was given is refused from now on; new ones are good.
    pub fn revoke_tokens(&self) {
        self.shared.tokens.revoke();
    }

    /// Tokens that are given from now on are good for so many seconds.
    pub fn token_lifetime(&self, seconds: u64) {
        self.shared.tokens.set_lifetime(seconds);
    }

    /// How often an operation was asked for: `aws.Sign`, `google.asymmetricSign`, `azure.sign`.
    pub fn seen(&self, operation: &str) -> u64 {
        self.shared.seen.of(operation)
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.shared.seen.connections()
    }

    /// All counters, as `/_seen` gives them.
    pub fn all_seen(&self) -> Value {
        self.shared.seen.to_json()
    }

    /// Makes a key ring, by its resource name.
    pub fn add_google_key_ring(&self, name: &str) {
        self.shared.google.add_ring(name);
    }

    /// Sets the state of a version of a Google key, by its resource name: `DISABLED`, `DESTROY_SCHEDULED`, `ENABLED`, …
    pub fn set_google_state(&self, version: &str, state: &str) -> bool {
        self.shared.google.set_state(version, state)
    }

    /// Enables or disables a version of an Azure key, or all of them.
    pub fn set_azure_enabled(&self, key: &str, version: Option<&str>, enabled: bool) -> bool {
        self.shared.azure.set_enabled(key, version, enabled)
    }

    /// Cuts every connection and answers nobody any more. The ports are free afterwards.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
