//! Missing and wrong PINs. A device's tries are few: none may be spent twice.

use std::sync::Arc;

use signer_core::{Ability, Backend, Error, ErrorKind, KeyInfo, Pin, SignRequest, UnlockRequest};

use crate::{
    Failure, Fixture, Outcome, PinSetup,
    failure::{Context, ensure},
    support::{make_key, open, quick_type, refused, selector, works},
};

/// A place that was started anew with a key in it.
struct Guarded {
    backend: Arc<dyn Backend>,
    key: KeyInfo,
    right: Pin,
    /// How many logins there had been before, where they are counted.
    logins: Option<u64>,
}

impl Guarded {
    /// How many logins there were since.
    fn logins(&self, fixture: &dyn Fixture) -> Option<u64> {
        Some(fixture.logins()? - self.logins?)
    }
}

/// Makes a key with the right PIN, then starts the place anew. `None` where PINs are not expected.
async fn start_with(fixture: &dyn Fixture, pin: PinSetup) -> Result<Option<Guarded>, Failure> {
    let profile = fixture.profile();
    if !profile.pins {
        ensure!(fixture.pin().is_none(), "the fixture has a PIN, but the profile does not expect PIN errors");
        return Ok(None);
    }
    let right =
        fixture.pin().ok_or_else(|| Failure::new("the profile expects PIN errors, but there is no PIN"))?;
    let key = make_key(&*fixture.backend(), &profile, "guarded", quick_type(&profile)?).await?;
    works(&*open(&*fixture.backend(), &key.name).await?).await?;
    let logins = fixture.logins();
    let backend = fixture.restart(pin).await.context(format_args!("starting with PIN {pin:?}"))?;
    Ok(Some(Guarded { backend, key, right, logins }))
}

/// Signs, opening the key first: either step may be the one that needs the PIN.
async fn try_to_sign(backend: &dyn Backend, key: &KeyInfo) -> Result<(), Error> {
    let signer = backend.open(&selector(&key.name)).await?;
    signer.sign(SignRequest::message(key.default_algorithm(), "guarded")).await.map(drop)
}

/// Without a PIN: `PinRequired`, however often one asks, and health says so; after the right one all is well.
pub(crate) async fn a_missing_pin_is_asked_for(fixture: Arc<dyn Fixture>) -> Outcome {
    let Some(place) = start_with(&*fixture, PinSetup::Missing).await? else { return Ok(()) };
    let (backend, key, right) = (&place.backend, &place.key, place.right.clone());
    for _ in 0..3 {
        let kind = refused(try_to_sign(&**backend, key).await, "signing without a PIN")?;
        ensure!(kind == ErrorKind::PinRequired, "signing without a PIN: {kind:?} instead of PinRequired");
    }
    let kind = refused(backend.health().await, "health without a PIN")?;
    ensure!(kind == ErrorKind::PinRequired, "health without a PIN: {kind:?} instead of PinRequired");
    if let Some(logins) = place.logins(&*fixture) {
        ensure!(logins == 0, "without a PIN there were {logins} logins");
    }
    if fixture.profile().has(Ability::Unlock) {
        let unlock = Ability::Unlock.require(backend.unlock(), "under test")?;
        unlock.unlock(UnlockRequest { pin: right, use_last_try: false }).await.context("the right PIN")?;
    } else {
        fixture.restart(PinSetup::Right).await?;
    }
    let backend = fixture.backend();
    backend.health().await.context("health after the right PIN")?;
    works(&*open(&*backend, &key.name).await?).await
}

/// With a wrong PIN configured: one try, and then the same answer to everybody without another.
pub(crate) async fn a_wrong_pin_is_tried_once(fixture: Arc<dyn Fixture>) -> Outcome {
    let Some(place) = start_with(&*fixture, PinSetup::Wrong).await? else { return Ok(()) };
    let (backend, key, right) = (&place.backend, &place.key, place.right.clone());
    let tries = (0..8).map(|_| {
        let (backend, key) = (backend.clone(), key.clone());
        tokio::spawn(async move { try_to_sign(&*backend, &key).await })
    });
    for outcome in futures_util::future::join_all(tries).await {
        let outcome = outcome.map_err(|e| Failure::new(format!("the backend panicked: {e}")))?;
        wrong_or_locked(refused(outcome, "signing with a wrong PIN")?, "signing with a wrong PIN")?;
    }
    wrong_or_locked(refused(backend.health().await, "health with a wrong PIN")?, "health with a wrong PIN")?;
    if let Some(logins) = place.logins(&*fixture) {
        ensure!(logins == 1, "the wrong PIN was tried {logins} times");
    }
    if fixture.profile().has(Ability::Unlock) {
        let unlock = Ability::Unlock.require(backend.unlock(), "under test")?;
        unlock.unlock(UnlockRequest { pin: right, use_last_try: false }).await.context("the right PIN")?;
    } else {
        fixture.restart(PinSetup::Right).await?;
    }
    works(&*open(&*fixture.backend(), &key.name).await?).await
}

fn wrong_or_locked(kind: ErrorKind, what: &str) -> Outcome {
    let expected = matches!(kind, ErrorKind::WrongPin { .. } | ErrorKind::Locked);
    ensure!(expected, "{what}: {kind:?} instead of WrongPin or Locked");
    Ok(())
}

/// A wrong PIN given by a person costs one try, is told as such, and leaves the way open for the right one.
pub(crate) async fn a_wrong_unlock_is_tried_once(fixture: Arc<dyn Fixture>) -> Outcome {
    if !fixture.profile().has(Ability::Unlock) {
        ensure!(fixture.backend().unlock().is_none(), "unlocking is offered, but not expected");
        return Ok(());
    }
    let Some(place) = start_with(&*fixture, PinSetup::Missing).await? else { return Ok(()) };
    let (backend, key, right) = (&place.backend, &place.key, place.right.clone());
    let unlock = Ability::Unlock.require(backend.unlock(), "under test")?;
    let wrong = Pin::new(format!("{}0", right.expose()))?;
    let kind =
        refused(unlock.unlock(UnlockRequest { pin: wrong, use_last_try: false }).await, "a wrong PIN")?;
    ensure!(matches!(kind, ErrorKind::WrongPin { .. }), "a wrong PIN: {kind:?} instead of WrongPin");
    for _ in 0..3 {
        wrong_or_locked(
            refused(try_to_sign(&**backend, key).await, "signing after")?,
            "signing after a wrong PIN",
        )?;
    }
    if let Some(logins) = place.logins(&*fixture) {
        ensure!(logins == 1, "a wrong PIN that was given once was tried {logins} times");
    }
    unlock.unlock(UnlockRequest { pin: right, use_last_try: false }).await.context("the right PIN")?;
    works(&*open(&**backend, &key.name).await?).await
}

/// A PIN that is given while the device is open is not taken on trust: whoever mistypes it is told now, and not when
/// the next login fails. Signing goes on in any case.
pub(crate) async fn an_unlock_while_open_is_no_trap(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    if !profile.has(Ability::Unlock) || !profile.pins {
        return Ok(());
    }
    let right =
        fixture.pin().ok_or_else(|| Failure::new("the profile expects PIN errors, but there is no PIN"))?;
    let made = make_key(&*backend, &profile, "open", quick_type(&profile)?).await?;
    let signer = open(&*backend, &made.name).await?;
    works(&*signer).await?;
    let unlock = Ability::Unlock.require(backend.unlock(), "under test")?;
    let wrong = Pin::new(format!("{}0", right.expose()))?;
    let told = unlock.unlock(UnlockRequest { pin: wrong, use_last_try: false }).await;
    refused(told, "a wrong PIN for a device that is open")?;
    works(&*signer).await?;
    // The right one may be taken, or found needless.
    let _ = unlock.unlock(UnlockRequest { pin: right, use_last_try: false }).await;
    works(&*signer).await
}
