//! Every kind of key with every algorithm.

use std::{collections::BTreeSet, sync::Arc};

use signer_core::{
    Ability, Digest, ErrorKind, HashAlgorithm, Input, KeyOrigin, SignRequest, SignatureAlgorithm,
};

use crate::{
    Fixture, Outcome,
    failure::ensure,
    support::{list_all, make_key, open, quick_type, refused, sign_digest, sign_message, works},
};

/// Each kind of key is made, says truly what it is, and signs messages and digests with each algorithm.
pub(crate) async fn every_algorithm_signs(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    ensure!(!profile.types().is_empty(), "the profile expects no kind of key");
    for key_type in profile.types() {
        let made = make_key(&*backend, &profile, key_type.name(), key_type).await?;
        ensure!(
            made.public_key.key_type() == key_type,
            "{key_type}: it made a {}",
            made.public_key.key_type()
        );
        let expected: BTreeSet<_> = profile.algorithms_of(key_type).iter().copied().collect();
        let offered: BTreeSet<_> = made.algorithms.iter().copied().collect();
        ensure!(offered == expected, "{key_type}: offers {offered:?}, expected is {expected:?}");
        ensure!(
            made.algorithms.first() == Some(&key_type.default_algorithm()),
            "{key_type}: the default algorithm is not the first"
        );
        let generated = profile.generates.contains(&key_type) && profile.has(Ability::Generate);
        let origin = if generated { KeyOrigin::Generated } else { KeyOrigin::Imported };
        ensure!(
            made.origin == origin,
            "{key_type}: its origin is {}, expected {}",
            made.origin.name(),
            origin.name()
        );
        ensure!(made.extractable != Some(true), "{key_type}: the private key can be taken out of the device");

        let signer = open(&*backend, &made.name).await?;
        let info = signer.info();
        ensure!(info.public_key == made.public_key, "{key_type}: opened, it has another public key");
        ensure!(info.algorithms == made.algorithms, "{key_type}: opened, it has other algorithms");
        let message = format!("a message for a {key_type} key").into_bytes();
        for algorithm in profile.algorithms_of(key_type).iter().copied() {
            let of_message = sign_message(&*signer, algorithm, message.clone()).await?;
            let other = Input::Message(b"another message".to_vec().into());
            ensure!(
                info.public_key.verify(algorithm, &other, of_message.as_bytes()).is_err(),
                "{key_type}, {algorithm}: the signature fits any message"
            );
            if algorithm.prehash().is_some() {
                let of_digest = sign_digest(&*signer, algorithm, &message).await?;
                if matches!(algorithm, SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::Ed25519ph) {
                    ensure!(
                        of_digest == of_message,
                        "{key_type}, {algorithm}: a deterministic signature of message and digest differ"
                    );
                }
            }
        }
    }
    let listed = list_all(&*backend, 0).await?.len();
    let made = profile.types().len();
    ensure!(listed == made, "{listed} keys are listed where {made} were made");
    Ok(())
}

/// An algorithm of another kind of key, or one that the device lacks, is `Unsupported`, and the key goes on working.
pub(crate) async fn algorithms_that_a_key_lacks_are_unsupported(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    for key_type in profile.types() {
        // A short RSA key stands for all of them.
        if key_type.rsa_bits().is_some_and(|bits| bits > 2048) {
            continue;
        }
        let made = make_key(&*backend, &profile, key_type.name(), key_type).await?;
        let signer = open(&*backend, &made.name).await?;
        for algorithm in SignatureAlgorithm::ALL {
            if profile.algorithms_of(key_type).contains(&algorithm) {
                continue;
            }
            let mut requests = vec![SignRequest::message(algorithm, "a message")];
            if let Some(hash) = algorithm.prehash() {
                requests.push(SignRequest::digest(algorithm, Digest::of(hash, b"a message"))?);
            }
            for request in requests {
                let what = format!("{} with a {key_type} key, {algorithm}", what_is_signed(&request));
                let kind = refused(signer.sign(request).await, &what)?;
                ensure!(kind == ErrorKind::Unsupported, "{what}: {kind:?} instead of Unsupported");
            }
        }
        works(&*signer).await?;
    }
    Ok(())
}

fn what_is_signed(request: &SignRequest) -> &'static str {
    match request.input() {
        Input::Message(_) => "a message",
        Input::Digest(_) => "a digest",
    }
}

/// No digest of a wrong length or by another hash function becomes a request at all.
pub(crate) async fn digests_that_do_not_fit_are_refused(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let made = make_key(&*backend, &profile, "digests", quick_type(&profile)?).await?;
    let signer = open(&*backend, &made.name).await?;
    for algorithm in made.algorithms.iter().copied() {
        for hash in HashAlgorithm::ALL {
            for len in (0..=130).filter(|len| *len != hash.len()) {
                let kind =
                    refused(Digest::new(hash, &vec![1; len]), format!("a {hash} digest of {len} bytes"))?;
                ensure!(kind == ErrorKind::BadRequest, "a {hash} digest of {len} bytes: {kind:?}");
            }
            let request = SignRequest::digest(algorithm, Digest::of(hash, b"x"));
            if algorithm.prehash() == Some(hash) {
                signer.sign(request?).await?;
            } else {
                let kind = refused(request, format!("a {hash} digest for {algorithm}"))?;
                ensure!(kind == ErrorKind::BadRequest, "a {hash} digest for {algorithm}: {kind:?}");
            }
        }
    }
    works(&*signer).await
}

/// Two keys of one kind are not mistaken for each other, however they are used.
pub(crate) async fn two_keys_are_two_keys(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    let one = make_key(&*backend, &profile, "one", key_type).await?;
    let two = make_key(&*backend, &profile, "two", key_type).await?;
    ensure!(one.public_key != two.public_key, "two keys have one public key");
    let (first, second) = (open(&*backend, &one.name).await?, open(&*backend, &two.name).await?);
    for round in 0..20 {
        for signer in [&first, &second] {
            let algorithm = key_type.default_algorithm();
            let message = format!("round {round}");
            let signature = sign_message(&**signer, algorithm, message.clone()).await?;
            let other = if Arc::ptr_eq(signer, &first) { &two } else { &one };
            let wrong =
                other.public_key.verify(algorithm, &Input::Message(message.into()), signature.as_bytes());
            ensure!(wrong.is_err(), "key {} signed for {}", other.name, signer.info().name);
        }
    }
    Ok(())
}
