//! Importing, deleting, rotating, and certificates.

use std::sync::Arc;

use signer_core::{Ability, ErrorKind, GenerateRequest, ImportRequest, KeyOrigin};

use crate::{
    Fixture, Material, Outcome,
    failure::{Context, ensure},
    make_private_key, self_signed,
    support::{label, list_all, make_key, open, quick_type, refused, selector, sign_message, works},
};

/// Every kind of key in every form of file becomes a key that signs as the same key.
pub(crate) async fn imports_every_kind_in_every_form(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let Some(import) = backend.import() else {
        ensure!(!profile.has(Ability::Import), "importing is expected, but not offered");
        return Ok(());
    };
    ensure!(!profile.imports.is_empty(), "the profile expects imports of no kind");
    for key_type in profile.imports.iter().copied() {
        for form in Material::forms(key_type) {
            let key = make_private_key(key_type)?.key(form)?;
            let public_key = key.public_key().clone();
            let what = format!("{key_type}-as-{form:?}");
            let name = label(&what)?;
            let info = import.import(ImportRequest::new(name, key)).await.context(&what)?;
            ensure!(info.public_key == public_key, "{what}: imported, it has another public key");
            ensure!(info.origin == KeyOrigin::Imported, "{what}: its origin is {}", info.origin.name());
            ensure!(info.extractable != Some(true), "{what}: the private key can be taken out again");
            let signer = open(&*backend, &info.name).await?;
            let algorithms = profile.algorithms_of(key_type);
            ensure!(
                info.algorithms.len() == algorithms.len(),
                "{what}: offers {:?}, expected is {algorithms:?}",
                info.algorithms
            );
            // All algorithms for the first form; the key is the same thing after that.
            let count = if form == Material::Pkcs8Der { algorithms.len() } else { 1 };
            for algorithm in algorithms.iter().copied().take(count) {
                sign_message(&*signer, algorithm, what.clone()).await?;
            }
        }
    }
    for key_type in signer_core::KeyType::ALL.into_iter().filter(|t| !profile.imports.contains(t)) {
        let key = make_private_key(key_type)?.key(Material::Pkcs8Der)?;
        let request = ImportRequest::new(label("unsupported")?, key);
        let kind = refused(import.import(request).await, format!("importing a {key_type} key"))?;
        ensure!(
            kind == ErrorKind::Unsupported,
            "importing a {key_type} key: {kind:?} instead of Unsupported"
        );
    }
    Ok(())
}

/// A deleted key is gone for everybody: the list, whoever opens it, whoever has it open. Its name is free again.
pub(crate) async fn deleted_keys_are_gone(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let Some(delete) = backend.delete() else {
        ensure!(!profile.has(Ability::Delete), "deleting is expected, but not offered");
        return Ok(());
    };
    let key_type = quick_type(&profile)?;
    let stays = make_key(&*backend, &profile, "stays", key_type).await?;
    let goes = make_key(&*backend, &profile, "goes", key_type).await?;
    let signer = open(&*backend, &goes.name).await?;
    works(&*signer).await?;
    delete.delete(&selector(&label("goes")?)).await?;

    let kind = refused(backend.open(&selector(&goes.name)).await, "opening a deleted key")?;
    ensure!(kind == ErrorKind::NotFound, "opening a deleted key: {kind:?} instead of NotFound");
    let kind = refused(delete.delete(&selector(&goes.name)).await, "deleting it again")?;
    ensure!(kind == ErrorKind::NotFound, "deleting it again: {kind:?} instead of NotFound");
    let request = signer_core::SignRequest::message(key_type.default_algorithm(), "too late");
    let kind = refused(signer.sign(request).await, "signing with a deleted key that was open")?;
    ensure!(
        kind == ErrorKind::NotFound,
        "signing with a deleted key that was open: {kind:?} instead of NotFound"
    );
    let listed = list_all(&*backend, 0).await?;
    ensure!(listed.len() == 1 && listed[0].public_key == stays.public_key, "the wrong keys are left");
    works(&*open(&*backend, &stays.name).await?).await?;

    if !profile.frees_names {
        let generate = Ability::Generate.require(backend.generate(), "under test")?;
        let again = generate.generate(GenerateRequest::new(label("goes")?, key_type)).await;
        let kind = refused(again, "a new key with the name of a deleted one")?;
        ensure!(kind == ErrorKind::AlreadyExists, "a new key with the name of a deleted one: {kind:?}");
        return Ok(());
    }
    let again = make_key(&*backend, &profile, "goes", key_type).await?;
    ensure!(again.public_key != goes.public_key, "the new key of an old name is the old key");
    let signer = open(&*backend, &label("goes")?).await?;
    ensure!(signer.info().public_key == again.public_key, "the old name opens the old key");
    works(&*signer).await
}

/// A rotated key signs under its old name with the new key; every version signs when it is asked for.
pub(crate) async fn old_versions_still_sign(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let Some(rotate) = backend.rotate() else {
        ensure!(!profile.has(Ability::Rotate), "rotating is expected, but not offered");
        return Ok(());
    };
    let name = label("rotated")?;
    let mut versions = vec![make_key(&*backend, &profile, "rotated", quick_type(&profile)?).await?];
    let before = open(&*backend, &versions[0].name).await?;
    for _ in 0..3 {
        let info = rotate.rotate(&name).await?;
        ensure!(info.name.version().is_some(), "a new version is called {}", info.name);
        ensure!(info.name.as_label() == Some("rotated"), "a new version is called {}", info.name);
        for earlier in &versions {
            ensure!(earlier.name != info.name, "two versions are called {}", info.name);
            ensure!(earlier.public_key != info.public_key, "{} is {} again", info.name, earlier.name);
        }
        versions.push(info);
        let newest = open(&*backend, &name).await?;
        let expected = versions.last().map(|v| &v.public_key);
        ensure!(
            Some(&newest.info().public_key) == expected,
            "the plain name does not open the newest version"
        );
        works(&*newest).await?;
    }
    for version in &versions {
        let signer = open(&*backend, &version.name).await?;
        ensure!(signer.info().public_key == version.public_key, "{} opens another version", version.name);
        works(&*signer).await?;
    }
    // Opened before it was rotated, a key is the version that it was.
    works(&*before).await?;
    let listed = list_all(&*backend, 2).await?;
    ensure!(listed.len() == versions.len(), "{} versions are listed of {}", listed.len(), versions.len());

    if let Some(delete) = backend.delete() {
        let oldest = &versions[0].name;
        if profile.deletes_versions {
            delete.delete(&selector(oldest)).await?;
            let kind = refused(backend.open(&selector(oldest)).await, "opening a deleted version")?;
            ensure!(kind == ErrorKind::NotFound, "opening a deleted version: {kind:?} instead of NotFound");
        } else {
            let kind = refused(delete.delete(&selector(oldest)).await, "deleting a version")?;
            ensure!(kind == ErrorKind::Unsupported, "deleting a version: {kind:?} instead of Unsupported");
            works(&*open(&*backend, oldest).await?).await?;
        }
        works(&*open(&*backend, &name).await?).await?;
        delete.delete(&selector(&name)).await?;
        ensure!(list_all(&*backend, 0).await?.is_empty(), "deleting a name leaves some of its versions");
    }
    Ok(())
}

/// A certificate is kept beside its key, replaced by the next, and refused when it is another key's.
pub(crate) async fn certificates_are_kept(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let Some(store) = backend.store_certificate() else {
        ensure!(!profile.has(Ability::StoreCertificate), "storing certificates is expected, but not offered");
        return Ok(());
    };
    let key_type = quick_type(&profile)?;
    let made = make_key(&*backend, &profile, "certified", key_type).await?;
    ensure!(made.certificate.is_none(), "a new key has a certificate");
    let other = make_key(&*backend, &profile, "other", key_type).await?;
    let signer = open(&*backend, &made.name).await?;
    for common_name in ["first", "second"] {
        let certificate = self_signed(&*signer, common_name).await?;
        store
            .store_certificate(&selector(&made.name), &certificate)
            .await
            .context("storing a certificate")?;
        let kept = open(&*backend, &made.name).await?.info().certificate.clone();
        ensure!(
            kept.as_deref() == Some(&*certificate),
            "the {common_name} certificate is not what was stored"
        );
        let listed = list_all(&*backend, 0).await?;
        let listed = listed.iter().find(|k| k.name == made.name).and_then(|k| k.certificate.clone());
        ensure!(
            listed.as_deref() == Some(&*certificate),
            "the list does not have the {common_name} certificate"
        );
    }
    let second = open(&*backend, &made.name).await?.info().certificate.clone();
    let stranger = self_signed(&*open(&*backend, &other.name).await?, "stranger").await?;
    for (bytes, what) in [
        (&stranger[..], "another key's certificate"),
        (b"not a certificate", "something that is no certificate"),
        (&stranger[..stranger.len() / 2], "half a certificate"),
        (b"", "nothing"),
    ] {
        let kind = refused(store.store_certificate(&selector(&made.name), bytes).await, what)?;
        ensure!(kind == ErrorKind::BadRequest, "{what}: {kind:?} instead of BadRequest");
    }
    let kept = open(&*backend, &made.name).await?.info().certificate.clone();
    ensure!(kept == second, "a refused certificate replaced the good one");
    let bystander = open(&*backend, &other.name).await?.info().certificate.clone();
    ensure!(bystander.is_none(), "another key got the certificate");
    works(&*open(&*backend, &made.name).await?).await?;

    let backend = fixture.restart(crate::PinSetup::Right).await?;
    let kept = open(&*backend, &made.name).await?.info().certificate.clone();
    ensure!(kept == second, "the certificate did not survive a restart");
    if let Some(delete) = backend.delete() {
        delete.delete(&selector(&made.name)).await?;
        let again = make_key(&*backend, &profile, "certified", key_type).await?;
        ensure!(again.certificate.is_none(), "a new key has the certificate of a deleted one");
    }
    Ok(())
}
