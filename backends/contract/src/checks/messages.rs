//! Messages of unusual sizes.

use std::sync::Arc;

use bytes::Bytes;
use signer_core::{ErrorKind, Input, SignRequest};

use crate::{
    Failure, Fixture, Outcome,
    failure::ensure,
    support::{make_key, open, refused, sign_digest, sign_message, verify, works},
};

/// Nothing is a message, too.
pub(crate) async fn empty_messages(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    for key_type in profile.types() {
        if key_type.rsa_bits().is_some_and(|bits| bits > 2048) {
            continue;
        }
        let made = make_key(&*backend, &profile, key_type.name(), key_type).await?;
        let signer = open(&*backend, &made.name).await?;
        for algorithm in made.algorithms.iter().copied() {
            if algorithm.prehash().is_none() && !profile.signs_nothing {
                let request = SignRequest::message(algorithm, Bytes::new());
                let kind = refused(signer.sign(request).await, "signing nothing")?;
                ensure!(kind == ErrorKind::BadRequest, "signing nothing: {kind:?} instead of BadRequest");
                continue;
            }
            sign_message(&*signer, algorithm, Bytes::new()).await?;
            if algorithm.prehash().is_some() {
                sign_digest(&*signer, algorithm, b"").await?;
            }
        }
    }
    Ok(())
}

/// An algorithm that hashes signs a message of any size. One that signs the message itself either signs it rightly or
/// says that it is too long; and then it signs the longest that it says it takes.
pub(crate) async fn messages_of_100_megabytes(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let limit = backend.describe().await?.max_message;
    let message = Bytes::from((0..100_000_000_u32).map(|i| (i ^ (i >> 13)) as u8).collect::<Vec<_>>());
    for key_type in profile.types() {
        if key_type.rsa_bits().is_some_and(|bits| bits > 2048) {
            continue;
        }
        let made = make_key(&*backend, &profile, key_type.name(), key_type).await?;
        let signer = open(&*backend, &made.name).await?;
        let algorithms = profile.algorithms_of(key_type);
        for algorithm in algorithms.iter().copied().filter(|a| a.prehash().is_some()).take(1) {
            sign_message(&*signer, algorithm, message.clone()).await?;
        }
        for algorithm in algorithms.iter().copied().filter(|a| a.prehash().is_none()) {
            match signer.sign(SignRequest::message(algorithm, message.clone())).await {
                Ok(signature) => {
                    verify(signer.info(), algorithm, &Input::Message(message.clone()), &signature)?;
                }
                Err(e) if e.kind() == ErrorKind::BadRequest => {
                    // A device that states a limit keeps to it; one that knows none finds out by trying.
                    let limit = limit.unwrap_or(1_000_000);
                    ensure!(
                        limit < 100_000_000,
                        "{key_type}: refused although it fits the limit of {limit}: {e}"
                    );
                    let longest = message.slice(..usize::try_from(limit).unwrap_or(usize::MAX));
                    sign_message(&*signer, algorithm, longest).await?;
                }
                Err(e) => return Err(Failure::new(format!("{key_type}: a long message fails with {e:?}"))),
            }
            let shorter = limit.map_or(100_000, |n| usize::try_from(n).unwrap_or(usize::MAX).min(100_000));
            sign_message(&*signer, algorithm, message.slice(..shorter)).await?;
        }
        works(&*signer).await?;
    }
    Ok(())
}
