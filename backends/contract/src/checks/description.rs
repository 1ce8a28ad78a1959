//! What a backend says of itself.

use std::{collections::BTreeSet, sync::Arc};

use signer_core::{Ability, ErrorKind, KeyOrigin};

use crate::{
    Fixture, Outcome,
    failure::ensure,
    support::{list_all, make_key, open, quick_type, refused, selector},
};

/// The kinds of keys that it says it takes are those that it is expected to take.
pub(crate) async fn describes_itself(fixture: Arc<dyn Fixture>) -> Outcome {
    let profile = fixture.profile();
    let info = fixture.backend().describe().await?;
    ensure!(!info.kind.is_empty(), "it does not say what kind it is");
    ensure!(!info.device.is_empty(), "it does not say which device it is");
    let set = |types: &[_]| types.iter().copied().collect::<BTreeSet<_>>();
    if profile.has(Ability::Generate) {
        ensure!(
            set(&info.generates) == set(&profile.generates),
            "it says that it generates {:?}, expected is {:?}",
            info.generates,
            profile.generates
        );
    }
    if profile.has(Ability::Import) {
        ensure!(
            set(&info.imports) == set(&profile.imports),
            "it says that it imports {:?}, expected is {:?}",
            info.imports,
            profile.imports
        );
    }
    Ok(())
}

/// It has every ability that is expected, and claims no other.
pub(crate) async fn offers_exactly_its_abilities(fixture: Arc<dyn Fixture>) -> Outcome {
    let has = fixture.backend().abilities();
    for ability in Ability::ALL {
        // Watching is between a backend and its daemon: a remote backend may have it or not.
        if ability == Ability::Watch {
            continue;
        }
        let expected = fixture.profile().has(ability);
        ensure!(
            has.contains(&ability) == expected,
            "{}: {}",
            ability.name(),
            if expected { "expected, but it is not offered" } else { "offered, but not expected" }
        );
    }
    Ok(())
}

/// An empty place and a place with a key are healthy, a key is, and a deleted key is not.
pub(crate) async fn is_healthy(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    backend.health().await?;
    ensure!(list_all(&*backend, 0).await?.is_empty(), "the fixture is not empty");
    let made = make_key(&*backend, &profile, "healthy", quick_type(&profile)?).await?;
    let signer = open(&*backend, &made.name).await?;
    signer.health().await?;
    backend.health().await?;
    if let Some(delete) = backend.delete() {
        ensure!(
            made.origin != KeyOrigin::Imported || !profile.has(Ability::Generate),
            "a made key says imported"
        );
        delete.delete(&selector(&made.name)).await?;
        let kind = refused(signer.health().await, "the health of a deleted key")?;
        ensure!(kind == ErrorKind::NotFound, "the health of a deleted key: {kind:?} instead of NotFound");
        backend.health().await?;
    }
    Ok(())
}
