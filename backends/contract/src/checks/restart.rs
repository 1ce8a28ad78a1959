//! What is there after everything was stopped and started again.

use std::sync::Arc;

use crate::{
    Fixture, Outcome, PinSetup,
    failure::ensure,
    support::{list_all, make_key, open, sign_message},
};

/// Every kind of key is still there, is the same key, and signs. Twice, because the first restart may write something.
pub(crate) async fn keys_survive_a_restart(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let mut made = Vec::new();
    for key_type in profile.types() {
        made.push(make_key(&*backend, &profile, key_type.name(), key_type).await?);
    }
    for _ in 0..2 {
        let backend = fixture.restart(PinSetup::Right).await?;
        backend.health().await?;
        let listed = list_all(&*backend, 0).await?;
        ensure!(listed.len() == made.len(), "{} keys of {} are left", listed.len(), made.len());
        for before in &made {
            let signer = open(&*backend, &before.name).await?;
            let now = signer.info();
            ensure!(now.public_key == before.public_key, "{} is another key", before.name);
            ensure!(now.algorithms == before.algorithms, "{} has other algorithms", before.name);
            ensure!(now.origin == before.origin, "{} has another origin", before.name);
            ensure!(now.id == before.id, "{} has another identifier", before.name);
            for algorithm in now.algorithms.iter().copied() {
                sign_message(&*signer, algorithm, "after a restart").await?;
            }
        }
    }
    Ok(())
}
