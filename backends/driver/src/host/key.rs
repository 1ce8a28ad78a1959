//! A key behind driver processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use signer_core::{
    BoxFuture, Error, ErrorKind, Input, KeyInfo, KeySelector, PinPolicy, Result, SignRequest, Signature,
    Signer,
};

use super::{CallError, FIRST_GUESS_NS, HANG, Link, MAX_DEATHS, PATIENCE, Shared};
use crate::{
    convert,
    pb::{self, from_driver::Body as Answer, sign::Input as SignInput, to_driver::Body as Request},
};

pub(super) struct DriverKey {
    shared: Arc<Shared>,
    handle: u32,
    info: KeyInfo,
    /// What a signature costs, smoothed: how work is spread over processes.
    work_ns: AtomicU32,
}

impl DriverKey {
    pub(super) async fn open(shared: &Arc<Shared>, selector: &KeySelector) -> Result<Self> {
        let handle = shared.next_handle.fetch_add(1, Relaxed);
        let _place = shared.enter()?;
        let until = Instant::now() + PATIENCE;
        let mut deaths = 0;
        while deaths < MAX_DEATHS {
            let link = shared.pick(FIRST_GUESS_NS, until).await?;
            match open_on(shared, &link, handle, selector.to_string()).await {
                Ok(info) => {
                    return Ok(Self {
                        shared: shared.clone(),
                        handle,
                        info,
                        work_ns: AtomicU32::new(FIRST_GUESS_NS),
                    });
                }
                Err(CallError::Answer(error)) => return Err(error.device(&shared.config.backend)),
                Err(CallError::Died(_)) => deaths += 1,
                Err(CallError::NotSent) => {}
            }
        }
        Err(shared.deadly())
    }

    /// Opens the key on a process that has not seen it. It must still be the same key.
    async fn ensure_open(&self, link: &Arc<Link>) -> Result<(), CallError> {
        if link.has_open(self.handle) {
            return Ok(());
        }
        let info = open_on(&self.shared, link, self.handle, self.info.name.to_string()).await?;
        if info.public_key != self.info.public_key {
            link.close_key(self.handle);
            return Err(CallError::Answer(
                Error::new(ErrorKind::NotFound, "another key has this name now")
                    .key(&self.info.name)
                    .device(&self.shared.config.backend)
                    .next("open it again to use the new one"),
            ));
        }
        Ok(())
    }

    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        self.info.check(request.algorithm())?;
        let deadline = request.until();
        let until = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        if until <= Instant::now() {
            return Err(self.timed_out());
        }
        let touch = request.touch_listener().cloned();
        let algorithm =
            self.info.algorithms.iter().position(|a| *a == request.algorithm()).unwrap_or_default() as u32;
        let input = match request.hashed().input() {
            Input::Digest(digest) => SignInput::Digest(digest.as_bytes().to_vec()),
            Input::Message(message) => SignInput::Message(message.clone()),
        };
        let message_len = match &input {
            SignInput::Message(message) => message.len(),
            SignInput::Digest(_) => 0,
        };
        if message_len > crate::frame::MAX_FRAME - 65_536 {
            return Err(Error::bad_request(format!(
                "a message of {message_len} bytes is too long to be signed as it is"
            ))
            .key(&self.info.name));
        }
        let _place = self.shared.enter()?;
        let work_ns = self.work_ns.load(Relaxed);
        let mut deaths = 0;
        while deaths < MAX_DEATHS {
            let link = self.shared.pick(work_ns, until).await?;
            let sign = async {
                self.ensure_open(&link).await?;
                let sign = pb::Sign { handle: self.handle, algorithm, input: Some(input.clone()) };
                link.call(Request::Sign(sign), work_ns, deadline, HANG, touch.clone()).await
            };
            let answer = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), sign).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(self.timed_out()),
                },
                None => sign.await,
            };
            match answer {
                Ok(Answer::Signature(signature)) => {
                    // The guess follows the last signatures by an eighth of the way each.
                    let smoothed = u64::from(work_ns) * 7 / 8 + u64::from(signature.work_ns) / 8;
                    self.work_ns.store(smoothed as u32, Relaxed);
                    if self.info.policy.pin != Some(PinPolicy::Never) {
                        self.shared.vault.serve();
                    }
                    return Ok(Signature::new(signature.bytes));
                }
                Ok(_) => return Err(self.shared.unexpected()),
                Err(CallError::Answer(error)) => {
                    return Err(error.key(&self.info.name).device(&self.shared.config.backend));
                }
                // A signature that is made twice harms nobody: ask the next process.
                Err(CallError::Died(_)) => deaths += 1,
                Err(CallError::NotSent) => {}
            }
        }
        Err(self.shared.deadly())
    }

    fn timed_out(&self) -> Error {
        Error::new(ErrorKind::TimedOut, "the device did not answer before the deadline")
            .key(&self.info.name)
            .device(&self.shared.config.backend)
    }
}

async fn open_on(
    shared: &Shared,
    link: &Arc<Link>,
    handle: u32,
    selector: String,
) -> Result<KeyInfo, CallError> {
    let open = pb::Open { handle, selector };
    match link.call(Request::Open(open), FIRST_GUESS_NS, None, HANG, None).await? {
        Answer::Key(info) => {
            link.set_open(handle);
            convert::key_from_pb(info).map_err(CallError::Answer)
        }
        _ => Err(CallError::Answer(shared.unexpected())),
    }
}

impl Signer for DriverKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(self.sign_now(request))
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let until = Instant::now() + PATIENCE;
            let mut deaths = 0;
            while deaths < MAX_DEATHS {
                let link = self.shared.pick(FIRST_GUESS_NS, until).await?;
                let ask = async {
                    self.ensure_open(&link).await?;
                    let health = pb::KeyHealth { handle: self.handle };
                    link.call(Request::KeyHealth(health), FIRST_GUESS_NS, None, HANG, None).await
                };
                match ask.await {
                    Ok(answer) => return super::done(&self.shared, &answer),
                    Err(CallError::Answer(error)) => {
                        return Err(error.key(&self.info.name).device(&self.shared.config.backend));
                    }
                    Err(CallError::Died(_)) => deaths += 1,
                    Err(CallError::NotSent) => {}
                }
            }
            Err(self.shared.deadly())
        })
    }
}

impl Drop for DriverKey {
    fn drop(&mut self) {
        for slot in &self.shared.slots {
            if let Some(link) = slot.link() {
                link.close_key(self.handle);
            }
        }
    }
}
