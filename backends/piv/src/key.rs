//! One key in a card, as a signer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use signer_core::{
    BoxFuture, Error, ErrorKind, Input, KeyInfo, KeyOrigin, PinPolicy, Result, SignRequest, Signature,
    Signer, TouchPolicy, TouchPrompt,
};

use crate::{
    algorithm,
    device::Device,
    inventory::{self, Content},
    login, padding,
    pins::Pins,
    slot::Slot,
    status::Status,
    tlv,
};

/// How long a card waits for a finger.
const TOUCH: Duration = Duration::from_secs(15);

/// A key that was opened.
pub(crate) struct Key {
    device: Device,
    pins: Arc<Pins>,
    slot: Slot,
    info: KeyInfo,
}

impl Key {
    pub(crate) fn new(device: Device, pins: Arc<Pins>, slot: Slot, info: KeyInfo) -> Self {
        Self { device, pins, slot, info }
    }

    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        self.info.check(request.algorithm())?;
        let key_type = self.info.public_key.key_type();
        let block = padding::block(key_type, &request)?;
        if request.until().is_some_and(|until| until <= Instant::now()) {
            return Err(Error::new(ErrorKind::TimedOut, "the deadline passed before the card signed"));
        }
        let wants_pin = self.info.policy.pin.unwrap_or_else(|| self.slot.default_pin_policy());
        let signed = match self.sign_once(&request, &block, wants_pin).await {
            // Of a key that was imported into an old card nobody knows what it wants.
            Err(error) if error.kind() == ErrorKind::PinRequired && wants_pin == PinPolicy::Never => {
                self.sign_once(&request, &block, PinPolicy::Always).await
            }
            other => other,
        }?;
        let signature = Signature::new(signed);
        // The card in the slot may hold another key by now, and a card may err.
        let input = match request.to_digest() {
            Some(digest) => Input::Digest(digest),
            None => request.input().clone(),
        };
        match self.info.public_key.verify(request.algorithm(), &input, signature.as_bytes()) {
            Ok(()) => Ok(signature),
            Err(_) => Err(self.what_became_of_it(None)),
        }
    }

    async fn sign_once(&self, request: &SignRequest, block: &[u8], policy: PinPolicy) -> Result<Vec<u8>> {
        // The PIN is asked for before the card is held, so that nobody else waits for whoever is asked.
        let mut pin = match policy {
            PinPolicy::Never => None,
            PinPolicy::Once => Some(self.pins.lease(&self.device, None).await?),
            PinPolicy::Always => Some(self.pins.lease(&self.device, Some(self.info.name.to_string())).await?),
        };
        let slot = self.slot;
        let key_type = self.info.public_key.key_type();
        let had_pin = pin.is_some();
        let policy_is_guessed = self.info.origin == KeyOrigin::Unknown;
        let touch = self.info.policy.touch.is_some_and(|t| t != TouchPolicy::Never);
        let listener = request.touch_listener().filter(|_| touch).cloned();
        let name = self.info.name.to_string();
        let until = request.until();
        let block = block.to_vec();
        let signed = self.device.run(until, move |applet| {
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(
                    Error::new(ErrorKind::TimedOut, "the deadline passed before the card signed").into()
                );
            }
            if let Some(pin) = &mut pin {
                login::verify(applet, pin)?;
            }
            if let Some(listener) = &listener {
                let device = applet.identity.to_string();
                listener.tell(&TouchPrompt { device, key: name.clone(), timeout: TOUCH });
            }
            let identifier = algorithm::identifier(key_type).unwrap_or_default();
            let answer = applet.private_operation(identifier, slot, &block)?;
            if answer.status != Status::OK {
                return Ok(Err(answer.status));
            }
            let signed = tlv::find(&answer.data, 0x7c).and_then(|t| tlv::find(t, 0x82));
            let signed = signed.ok_or_else(|| Error::internal("the card's signature is not whole"))?;
            Ok(Ok(signed.to_vec()))
        })?;
        match signed {
            Ok(signed) => Ok(signed),
            Err(Status::SECURITY) if !had_pin && policy_is_guessed => {
                Err(Error::new(ErrorKind::PinRequired, "the key wants the PIN"))
            }
            Err(Status::SECURITY) if touch => {
                Err(Error::new(ErrorKind::TouchTimedOut, "nobody touched the card in time")
                    .vendor(format_args!("sign: SW {:04x}", Status::SECURITY.0))
                    .next("try again, and touch it when it blinks"))
            }
            Err(status) => Err(self.what_became_of_it(Some(status.error("sign")))),
        }
    }

    /// Why a key did not sign as it should: perhaps it is not there any more.
    fn what_became_of_it(&self, error: Option<Error>) -> Error {
        match self.find_again() {
            Err(gone) => gone,
            Ok(()) => error.unwrap_or_else(|| {
                Error::internal("the card gave a signature that does not verify")
                    .next("try again; if it goes on, the card is defective")
            }),
        }
    }

    /// Proves that this very key is still in its slot.
    fn find_again(&self) -> Result<()> {
        let (slot, public_key) = (self.slot, self.info.public_key.clone());
        self.device.run(None, move |applet| match inventory::look(applet, slot)? {
            Content::Key(key) if key.public_key == public_key => Ok(()),
            Content::Empty => Err(inventory::not_found(slot).into()),
            Content::Key(_) | Content::Other => {
                Err(Error::new(ErrorKind::NotFound, format!("slot {slot} of the card holds another key now"))
                    .next("open it again to use the new one")
                    .into())
            }
        })
    }

    fn about(&self, error: Error) -> Error {
        self.device.about(error.key(&self.info.name))
    }
}

impl Signer for Key {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.sign_now(request).await.map_err(|e| self.about(e)) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.find_again().map_err(|e| self.about(e)) })
    }
}
