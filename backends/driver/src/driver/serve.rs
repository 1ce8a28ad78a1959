//! Taking requests and answering them.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{
    Ability, Backend, Digest, Error, ErrorKind, GenerateRequest, ImportRequest, Input, KeySelector,
    ListRequest, PinOutcome, PinPrompt, PinSource, PrivateKey, Result, SignRequest, Signer, TouchListener,
    TouchPolicy, Unlock, UnlockRequest,
};

use super::{Link, block_on, lock, pins::LinkPins};
use crate::{
    convert,
    pb::{self, from_driver::Body as Answer, to_driver::Body as Request},
};

/// Serves with so many threads until the daemon is gone. Each thread takes a request, does it and writes the answer;
/// one that finds no request waiting reads from the socket while the others work.
pub(super) fn run(link: &Arc<Link>, backend: &Arc<dyn Backend>, threads: usize) -> ExitCode {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(move || work(link, &**backend, threads));
        }
        work(link, &**backend, threads);
        // The daemon is gone: a thread that is still inside the device's library must not keep the process alive.
        std::process::exit(0);
    })
}

fn work(link: &Arc<Link>, backend: &dyn Backend, threads: usize) {
    let mut unwritten = 0;
    while let Some(request) = link.next_request() {
        let id = request.id;
        let until =
            (request.timeout_us > 0).then(|| Instant::now() + Duration::from_micros(request.timeout_us));
        // A panic is a defect of this backend: it costs its request, not the process.
        let answer = std::panic::catch_unwind(AssertUnwindSafe(|| answer(link, backend, request, until)))
            .unwrap_or_else(|_| Err(Error::internal("the driver panicked")));
        link.queue(id, answer.unwrap_or_else(|e| Answer::Error(convert::error_to_pb(&e))));
        unwritten += 1;
        // Under load answers are written an eighth of a batch at a time: a write costs as much as a fifth of a
        // signature, but whoever waits should not wait for the whole batch.
        let together = if threads == 1 { (lock(&link.input).batch / 8).max(1) } else { 1 };
        if unwritten >= together || !link.has_waiting() {
            link.flush();
            unwritten = 0;
        }
    }
}

fn answer(
    link: &Arc<Link>,
    backend: &dyn Backend,
    request: pb::ToDriver,
    until: Option<Instant>,
) -> Result<Answer> {
    if until.is_some_and(|t| t <= Instant::now()) {
        return Err(Error::new(ErrorKind::TimedOut, "the deadline passed before the driver began"));
    }
    match request.body {
        Some(Request::Sign(sign)) => self::sign(link, request.id, sign, until),
        Some(Request::Describe(_)) => {
            Ok(Answer::Described(convert::info_to_pb(block_on(backend.describe())?)))
        }
        Some(Request::List(list)) => {
            let request = ListRequest { page_size: list.page_size as usize, page_token: list.page_token };
            Ok(Answer::Page(convert::page_to_pb(&block_on(backend.list(request))?)))
        }
        Some(Request::Open(open)) => {
            let signer = block_on(backend.open(&open.selector.parse()?))?;
            let info = convert::key_to_pb(signer.info());
            link.keys.write().unwrap_or_else(PoisonError::into_inner).insert(open.handle, signer);
            Ok(Answer::Key(info))
        }
        Some(Request::Health(_)) => block_on(backend.health()).map(|()| Answer::Done(pb::Done {})),
        Some(Request::KeyHealth(key)) => {
            block_on(self::key(link, key.handle)?.health()).map(|()| Answer::Done(pb::Done {}))
        }
        Some(Request::Generate(r)) => {
            let ability = Ability::Generate.require(backend.generate(), "driver")?;
            let request = GenerateRequest {
                name: r.name.parse()?,
                key_type: r.key_type.parse()?,
                id: r.id,
                policy: convert::policy_from_pb(r.policy)?,
            };
            Ok(Answer::Key(convert::key_to_pb(&block_on(ability.generate(request))?)))
        }
        Some(Request::Import(r)) => {
            let ability = Ability::Import.require(backend.import(), "driver")?;
            let pkcs8 = zeroize::Zeroizing::new(r.pkcs8);
            let request = ImportRequest {
                name: r.name.parse()?,
                key: PrivateKey::from_pkcs8(&pkcs8)?,
                id: r.id,
                policy: convert::policy_from_pb(r.policy)?,
            };
            Ok(Answer::Key(convert::key_to_pb(&block_on(ability.import(request))?)))
        }
        Some(Request::Delete(r)) => {
            let ability = Ability::Delete.require(backend.delete(), "driver")?;
            let selector: KeySelector = r.selector.parse()?;
            block_on(ability.delete(&selector)).map(|()| Answer::Done(pb::Done {}))
        }
        Some(Request::Rotate(r)) => {
            let ability = Ability::Rotate.require(backend.rotate(), "driver")?;
            Ok(Answer::Key(convert::key_to_pb(&block_on(ability.rotate(&r.name.parse()?))?)))
        }
        Some(Request::StoreCertificate(r)) => {
            let ability = Ability::StoreCertificate.require(backend.store_certificate(), "driver")?;
            let selector: KeySelector = r.selector.parse()?;
            block_on(ability.store_certificate(&selector, &r.certificate)).map(|()| Answer::Done(pb::Done {}))
        }
        Some(Request::Attest(r)) => {
            let ability = Ability::Attest.require(backend.attest(), "driver")?;
            let selector: KeySelector = r.selector.parse()?;
            Ok(Answer::Evidence(convert::evidence_to_pb(block_on(ability.attest(&selector))?)))
        }
        Some(Request::Unlock(_)) => {
            let ability = Ability::Unlock.require(backend.unlock(), "driver")?;
            block_on(unlock(link, ability)).map(|()| Answer::Done(pb::Done {}))
        }
        Some(Request::Lock(_)) => {
            let ability = Ability::Unlock.require(backend.unlock(), "driver")?;
            block_on(ability.lock()).map(|()| Answer::Done(pb::Done {}))
        }
        Some(Request::Configure(_) | Request::PinLease(_) | Request::Close(_)) | None => {
            Err(Error::bad_request("the daemon sent a request that this driver does not know"))
        }
    }
}

/// The PIN that somebody gave waits at the daemon: it comes by a lease like every other.
async fn unlock(link: &Arc<Link>, ability: &dyn Unlock) -> Result<()> {
    let lease = LinkPins::new(link.clone()).lease(&PinPrompt::default()).await?;
    let request = UnlockRequest { pin: lease.pin().clone(), use_last_try: lease.may_use_last_try() };
    let result = ability.unlock(request).await;
    lease.report(match &result {
        Ok(()) => PinOutcome::Accepted,
        Err(e) if matches!(e.kind(), ErrorKind::WrongPin { .. }) => PinOutcome::Refused(e.clone()),
        Err(_) => PinOutcome::NotTried,
    });
    result
}

fn sign(link: &Arc<Link>, id: u64, sign: pb::Sign, until: Option<Instant>) -> Result<Answer> {
    let signer = key(link, sign.handle)?;
    let algorithm = *signer
        .info()
        .algorithms
        .get(sign.algorithm as usize)
        .ok_or_else(|| Error::bad_request("the daemon named an algorithm that the key does not have"))?;
    let input = match (sign.input, algorithm.prehash()) {
        (Some(pb::sign::Input::Digest(bytes)), Some(hash)) => Input::Digest(Digest::new(hash, &bytes)?),
        (Some(pb::sign::Input::Message(message)), None) => Input::Message(message),
        _ => {
            return Err(Error::bad_request(format!(
                "the daemon sent the wrong kind of input for {algorithm}"
            )));
        }
    };
    let mut request = SignRequest::new(algorithm, input)?.deadline(until);
    if signer.info().policy.touch.is_some_and(|t| t != TouchPolicy::Never) {
        let link = link.clone();
        request = request.on_touch(TouchListener::new(move |prompt| {
            let body = Answer::TouchRequired(pb::TouchRequired {
                device: prompt.device.clone(),
                key: prompt.key.clone(),
                timeout_ms: prompt.timeout.as_millis() as u64,
            });
            link.queue(id, body);
            link.flush();
        }));
    }
    let start = Instant::now();
    let signature = block_on(signer.sign(request))?;
    let work_ns = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
    Ok(Answer::Signature(pb::Signature { bytes: signature.into_bytes(), work_ns }))
}

fn key(link: &Link, handle: u32) -> Result<Arc<dyn Signer>> {
    link.keys
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&handle)
        .cloned()
        .ok_or_else(|| Error::internal("the daemon used a key that it did not open"))
}
