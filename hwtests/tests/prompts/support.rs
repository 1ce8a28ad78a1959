//! What the stories share.

use std::time::Duration;

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv},
    load::input,
};
use signer_contract::PinSetup;
use signer_core::{
    BackendName, Error, GenerateRequest, HashAlgorithm, KeyInfo, KeyName, KeyPolicy, KeyType, Pin, PinPolicy,
    SignatureAlgorithm, UnlockRequest,
};
use signerd_api::{Client, DaemonEvent, EventStream, Happening, PinEnd, PinRequest, Prompts, Signed};

pub(crate) const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// What is waited for that should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn name(backend: &str) -> BackendName {
    backend.parse().unwrap()
}

pub(crate) fn pin(text: &str) -> UnlockRequest {
    UnlockRequest { pin: Pin::new(text.into()).unwrap(), use_last_try: false }
}

/// A card whose PIN nobody has configured, with a key in 9a that wants it once and one in 9c that wants it always.
pub(crate) async fn card_without_pin() -> (Piv, Daemon) {
    let card = Piv::start();
    let daemon = Daemon::start(&[card.toml("yubikey", PinSetup::Missing)]).await;
    for (slot, policy) in [("9a", PinPolicy::Once), ("9c", PinPolicy::Always)] {
        make(&daemon, slot, KeyPolicy { pin: Some(policy), ..KeyPolicy::default() }).await;
    }
    (card, daemon)
}

pub(crate) async fn make(daemon: &Daemon, slot: &str, policy: KeyPolicy) -> KeyInfo {
    let label = KeyName::label(slot).unwrap();
    let request = GenerateRequest { policy, ..GenerateRequest::new(label, KeyType::EcdsaP256) };
    daemon.backend("yubikey").await;
    let made = daemon.client().timeout(Duration::from_mins(1)).create(&name("yubikey"), request).await;
    made.unwrap_or_else(|e| panic!("{e:?}\n{}", daemon.log()))
}

pub(crate) async fn sign(client: &Client, key: &str) -> Result<Signed, Error> {
    client.sign(key, Some(P256), input(P256, "prompted")).await
}

/// Signs meanwhile.
pub(crate) fn signing(client: &Client, key: &str) -> tokio::task::JoinHandle<Result<Signed, Error>> {
    let (client, key) = (client.clone(), key.to_owned());
    tokio::spawn(async move { sign(&client, &key).await })
}

/// Somebody who answers for everybody, and what comes to be answered.
pub(crate) struct Answerer {
    pub(crate) client: Client,
    events: EventStream,
}

impl Answerer {
    pub(crate) async fn listen(daemon: &Daemon) -> Self {
        let client = daemon.client();
        let events = client.watch_with(None, Prompts::All).await.unwrap();
        Self { client, events }
    }

    pub(crate) async fn event(&mut self) -> DaemonEvent {
        let event = tokio::time::timeout(SOON, self.events.next()).await;
        event.expect("there is no event").expect("the events have ended").unwrap()
    }

    /// The next that is about a PIN request.
    async fn about_pins(&mut self) -> Happening {
        loop {
            let event = self.event().await;
            if matches!(event.happening, Happening::PinRequest(_) | Happening::PinRequestEnded { .. }) {
                return event.happening;
            }
        }
    }

    /// The next PIN request that so many wait for.
    pub(crate) async fn request(&mut self, askers: usize) -> PinRequest {
        loop {
            match self.about_pins().await {
                Happening::PinRequest(request) if request.askers.len() == askers => return request,
                Happening::PinRequest(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next end of a PIN request.
    pub(crate) async fn end(&mut self) -> (u64, PinEnd) {
        loop {
            if let Happening::PinRequestEnded { number, end } = self.about_pins().await {
                return (number, end.unwrap());
            }
        }
    }

    pub(crate) async fn answer(&self, request: &PinRequest, text: &str) -> Result<(), Error> {
        self.client.answer_pin(&name("yubikey"), request.number, pin(text)).await
    }
}

/// A PIN of the right form that is not the card's.
pub(crate) fn wrong_pin(card: &Piv) -> String {
    card.pin().chars().map(|c| if c == '9' { '0' } else { char::from(c as u8 + 1) }).collect()
}
