//! Many keys, many callers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures_util::future::{join_all, try_join_all};
use signer_core::{Backend, ErrorKind, ListRequest, Signer};

use crate::{
    Failure, Fixture, Outcome, Profile,
    failure::{Context, ensure},
    support::{label, list_all, make_key, open, quick_type, refused, selector, sign_message, works},
};

/// Pages of every size give each key once, in one order; and a page token that nobody gave is refused or harmless.
pub(crate) async fn pages_lose_and_repeat_nothing(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    ensure!(list_all(&*backend, 3).await?.is_empty(), "the fixture is not empty");
    let key_type = quick_type(&profile)?;
    for at in 0..7 {
        make_key(&*backend, &profile, &format!("key-{at}"), key_type).await?;
    }
    let whole = list_all(&*backend, 0).await?;
    ensure!(whole.len() == 7, "{} keys are listed instead of 7", whole.len());
    for page_size in 1..=9 {
        let names =
            |keys: &[signer_core::KeyInfo]| keys.iter().map(|k| k.name.to_string()).collect::<Vec<_>>();
        let paged = list_all(&*backend, page_size).await?;
        ensure!(names(&paged) == names(&whole), "pages of {page_size} give {:?}", names(&paged));
    }
    let stray = ListRequest { page_size: 3, page_token: Some("nobody gave this ÿ".into()) };
    if let Err(e) = backend.list(stray).await {
        ensure!(e.kind() == ErrorKind::BadRequest, "a stray page token: {e:?}");
    }
    if let Some(delete) = backend.delete() {
        // A key that goes between two pages takes no other one with it.
        let first = backend.list(ListRequest { page_size: 3, page_token: None }).await?;
        delete.delete(&selector(&first.keys[2].name)).await?;
        let rest = ListRequest { page_size: 100, page_token: first.next };
        let rest = backend.list(rest).await?;
        ensure!(
            rest.keys.len() == 4,
            "after a deletion the second page has {} keys instead of 4",
            rest.keys.len()
        );
    }
    Ok(())
}

/// A thousand keys are listed without loss, and the last one opens and signs at once.
pub(crate) async fn many_keys(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    let name = |at: usize| format!("key-number-{at:05}");
    // A few at a time, as scripts do it.
    for chunk in (0..profile.many_keys).collect::<Vec<_>>().chunks(8) {
        try_join_all(chunk.iter().map(|at| {
            let (backend, profile, name) = (backend.clone(), profile.clone(), name(*at));
            async move { make_key(&*backend, &profile, &name, key_type).await }
        }))
        .await?;
    }
    for page_size in [0, 100, 333] {
        let listed = list_all(&*backend, page_size).await?;
        let names: BTreeSet<_> =
            listed.iter().map(|k| k.name.as_label().unwrap_or_default().to_owned()).collect();
        ensure!(
            listed.len() == profile.many_keys,
            "{} keys of {} are listed",
            listed.len(),
            profile.many_keys
        );
        ensure!(names.len() == listed.len(), "pages of {page_size} list a key twice");
        let keys: BTreeSet<_> = listed.iter().map(|k| k.public_key.as_der().to_vec()).collect();
        ensure!(keys.len() == listed.len(), "two keys have one public key");
    }
    for at in [profile.many_keys - 1, profile.many_keys / 2, 0] {
        let start = Instant::now();
        let signer = open(&*backend, &label(&name(at))?).await?;
        works(&*signer).await?;
        let took = start.elapsed();
        ensure!(took <= profile.open_within, "opening and using key {at} took {took:?}");
    }
    let backend = fixture.restart(crate::PinSetup::Right).await?;
    works(&*open(&*backend, &label(&name(profile.many_keys - 1))?).await?).await?;
    let listed = list_all(&*backend, 100).await?.len();
    ensure!(listed == profile.many_keys, "after a restart {listed} keys are listed");
    Ok(())
}

/// Sixteen tasks sign with several keys at once; every signature is the right key's over the right message.
pub(crate) async fn concurrent_use(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let signers = some_signers(&*backend, &profile).await?;
    let tasks = (0..16).map(|task| {
        let (signers, count) = (signers.clone(), profile.signatures_a_task);
        tokio::spawn(async move {
            for round in 0..count {
                // The slow kinds every tenth time, so that the quick ones meet each other.
                let at = if round % 10 == 0 { (task + round / 10) % signers.len() } else { round % 2 };
                let signer = &signers[at];
                let algorithms = &signer.info().algorithms;
                let algorithm = algorithms[(task + round) % algorithms.len()];
                sign_message(&**signer, algorithm, format!("task {task} round {round}")).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for outcome in join_all(tasks).await {
        outcome.map_err(|e| Failure::new(format!("the backend panicked: {e}")))??;
    }
    Ok(())
}

/// Two quick keys first, then one of each other kind (a short one for RSA).
async fn some_signers(backend: &dyn Backend, profile: &Profile) -> Result<Vec<Arc<dyn Signer>>, Failure> {
    let quick = quick_type(profile)?;
    let others =
        profile.types().into_iter().filter(|t| *t != quick && t.rsa_bits().is_none_or(|bits| bits == 2048));
    let mut signers = Vec::new();
    for (at, key_type) in [quick, quick].into_iter().chain(others).enumerate() {
        let made = make_key(backend, profile, &format!("{key_type}-{at}"), key_type).await?;
        signers.push(open(backend, &made.name).await?);
    }
    Ok(signers)
}

/// Keys come and go while another one signs without a failure.
pub(crate) async fn changes_under_load(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    let made = make_key(&*backend, &profile, "busy", key_type).await?;
    let signer = open(&*backend, &made.name).await?;
    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|task| {
            let (signer, done) = (signer.clone(), done.clone());
            tokio::spawn(async move {
                let mut count = 0_usize;
                while !done.load(Ordering::Relaxed) {
                    let message = format!("task {task} message {count}");
                    sign_message(&*signer, key_type.default_algorithm(), message).await?;
                    count += 1;
                    // A backend may do all its work in the first poll; the others want the thread, too.
                    tokio::task::yield_now().await;
                }
                Ok::<_, Failure>(count)
            })
        })
        .collect();
    let mut changed = Ok(());
    for round in 0..20 {
        tokio::task::yield_now().await;
        changed = change(&*backend, &profile, round).await.context(format_args!("round {round}"));
        if changed.is_err() {
            break;
        }
    }
    done.store(true, Ordering::Relaxed);
    for outcome in join_all(load).await {
        let count = outcome.map_err(|e| Failure::new(format!("the backend panicked: {e}")))??;
        ensure!(count > 0, "a caller got nothing signed while keys came and went");
    }
    changed
}

async fn change(backend: &dyn Backend, profile: &Profile, round: usize) -> Outcome {
    let made = make_key(backend, profile, &format!("short-lived-{round}"), quick_type(profile)?).await?;
    let signer = open(backend, &made.name).await?;
    works(&*signer).await?;
    if let Some(delete) = backend.delete() {
        delete.delete(&selector(&made.name)).await?;
        refused(backend.open(&selector(&made.name)).await, "opening a deleted key")?;
    }
    Ok(())
}
