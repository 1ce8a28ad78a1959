//! Names of keys: odd, unknown, taken.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use signer_core::{
    Ability, Address, ErrorKind, GenerateRequest, ImportRequest, KeyName, KeySelector, Pkcs11Uri,
};

use crate::{
    Failure, Fixture, Material, Outcome,
    failure::{Context, ensure},
    make_private_key,
    support::{label, list_all, make_key, make_named, open, quick_type, refused, selector, works},
};

/// Whatever is asked of a key that is not there: `NotFound`.
pub(crate) async fn unknown_keys_are_not_found(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let there = make_key(&*backend, &profile, "there", quick_type(&profile)?).await?;
    let plain = there.name.clone().without_version();
    let mut unknown: Vec<KeySelector> = vec![
        selector(&label("not there")?),
        selector(&label("ther")?),
        selector(&label("there ")?),
        selector(&label("there/there")?),
        selector(&label("../there")?),
        selector(&KeyName::id(*b"\xde\xad\xbe\xef")?),
        selector(&plain.with_version("987654")?),
        KeySelector::Address("awskms:///alias/not-there".parse()?),
    ];
    if !profile.names.ignore_case() {
        unknown.push(selector(&label("THERE")?));
    }
    let elsewhere = Pkcs11Uri {
        token: Some("another token".into()),
        object: Some("there".into()),
        ..Pkcs11Uri::default()
    };
    unknown.push(KeySelector::Address(Address::Pkcs11(elsewhere)));
    for key in &unknown {
        let address = matches!(key, KeySelector::Address(_));
        let not_found = |kind| {
            kind == ErrorKind::NotFound
                || (address && profile.denies_unknown_addresses && kind == ErrorKind::Denied)
        };
        let kind = refused(backend.open(key).await, format!("opening {key}"))?;
        ensure!(not_found(kind), "opening {key}: {kind:?} instead of NotFound");
        if let Some(delete) = backend.delete() {
            let kind = refused(delete.delete(key).await, format!("deleting {key}"))?;
            ensure!(not_found(kind), "deleting {key}: {kind:?} instead of NotFound");
        }
        if let Some(store) = backend.store_certificate() {
            let signer = open(&*backend, &there.name).await?;
            let certificate = crate::self_signed(&*signer, "nobody").await?;
            let stored = store.store_certificate(key, &certificate).await;
            let kind = refused(stored, format!("a certificate for {key}"))?;
            ensure!(not_found(kind), "a certificate for {key}: {kind:?} instead of NotFound");
        }
    }
    if let Some(rotate) = backend.rotate() {
        let kind = refused(rotate.rotate(&label("not there")?).await, "rotating an unknown key")?;
        ensure!(kind == ErrorKind::NotFound, "rotating an unknown key: {kind:?} instead of NotFound");
    }
    works(&*open(&*backend, &there.name).await?).await
}

/// Labels that break naive code: each is made, listed, opened by its printed name, signs, and is deleted.
pub(crate) async fn odd_labels(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    let long = "x".repeat(200);
    let long_wide = "ä".repeat(100);
    let labels = [
        "plain",
        "a/b",
        "a/b/c",
        "/leading",
        "trailing/",
        ".",
        "..",
        "../../escape",
        "with space",
        " leading space",
        "trailing space ",
        "user@host",
        "label@2",
        "100%",
        "%2F",
        "it's \"quoted\" `here`",
        "back\\slash",
        "semi;colon&amp?x=y#z",
        "*",
        "$(HOME)",
        "Grüße-ключ-鍵-🔑",
        "e\u{301}",
        "é",
        "two\nlines",
        "\ttab",
        "-leading-dash",
        "--help",
        "id:0a1b",
        "id:",
        "pkcs11:object=plain",
        "piv:1/9c",
        "awskms:///alias/plain",
        "CASE",
        "case",
        long.as_str(),
        long_wide.as_str(),
    ];
    let (labels, impossible): (Vec<_>, Vec<_>) = labels.into_iter().partition(|l| profile.names.allow(l));
    for text in impossible {
        let kind = refused(
            make_refused(&*backend, &profile, label(text)?, key_type).await?,
            format!("making {text:?}"),
        )?;
        ensure!(kind == ErrorKind::BadRequest, "making {text:?}: {kind:?} instead of BadRequest");
        let kind = refused(backend.open(&selector(&label(text)?)).await, format!("opening {text:?}"))?;
        ensure!(kind == ErrorKind::NotFound, "opening {text:?}: {kind:?} instead of NotFound");
    }
    let alike = |l: &&str| profile.names.ignore_case() && *l == "case";
    let labels: Vec<_> = labels.into_iter().filter(|l| !alike(l)).collect();
    let mut made = BTreeMap::new();
    for text in labels.iter().copied() {
        let info = make_named(&*backend, &profile, label(text)?, key_type).await?;
        ensure!(
            info.name.as_label() == Some(text),
            "the key that was made as {text:?} is called {:?}",
            info.name
        );
        made.insert(info.name.to_string(), info);
    }
    ensure!(made.len() == labels.len(), "two labels are printed alike");
    let listed = list_all(&*backend, 7).await?;
    ensure!(
        listed.len() == labels.len(),
        "{} keys are listed where {} were made",
        listed.len(),
        labels.len()
    );
    for info in &listed {
        let text = info.name.to_string();
        let expected =
            made.get(&text).ok_or_else(|| Failure::new(format!("{text:?} is listed, but not made")))?;
        ensure!(info.public_key == expected.public_key, "{text}: the list has another key's public key");
        // By the printed name, as a person copies it from a list.
        let key: KeySelector = text.parse().context(format_args!("reading the printed name {text:?}"))?;
        let signer =
            backend.open(&key).await.context(format_args!("opening by the printed name {text:?}"))?;
        ensure!(signer.info().public_key == expected.public_key, "{text}: opened, it is another key");
        works(&*signer).await?;
    }
    for text in labels.iter().copied() {
        // By the label alone, without the version that the backend may have added.
        let signer = open(&*backend, &label(text)?).await?;
        ensure!(signer.info().name.as_label() == Some(text), "{text:?} opens {:?}", signer.info().name);
    }
    if let Some(delete) = backend.delete() {
        for (at, text) in labels.iter().copied().enumerate() {
            delete.delete(&selector(&label(text)?)).await.context(format_args!("deleting {text:?}"))?;
            let left = list_all(&*backend, 0).await?.len();
            ensure!(left == labels.len() - at - 1, "deleting {text:?} left {left} keys");
        }
    }
    Ok(())
}

/// Where the caller can choose the device's identifier: it is kept, and opens the key.
pub(crate) async fn identifiers(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    let id = vec![0x00, 0x0a, 0xff, 0x80];
    let made = if profile.has(Ability::Generate) {
        let request =
            GenerateRequest { id: Some(id.clone()), ..GenerateRequest::new(label("identified")?, key_type) };
        Ability::Generate.require(backend.generate(), "under test")?.generate(request).await
    } else {
        let key = make_private_key(key_type)?.key(Material::Pkcs8Der)?;
        let request = ImportRequest { id: Some(id.clone()), ..ImportRequest::new(label("identified")?, key) };
        Ability::Import.require(backend.import(), "under test")?.import(request).await
    };
    if !profile.identifiers {
        let kind = refused(made, "a chosen identifier where there is none")?;
        ensure!(
            matches!(kind, ErrorKind::Unsupported | ErrorKind::BadRequest),
            "a chosen identifier where there is none: {kind:?}"
        );
        return Ok(());
    }
    let made = made?;
    ensure!(made.id.as_deref() == Some(&*id), "the chosen identifier became {:?}", made.id);
    let other = make_key(&*backend, &profile, "another", key_type).await?;
    ensure!(other.id.as_deref() != Some(&*id), "two keys have one identifier");
    for info in [&made, &other] {
        if let Some(id) = &info.id {
            let signer = open(&*backend, &KeyName::id(id.clone())?).await?;
            ensure!(signer.info().public_key == info.public_key, "id {id:x?} opens another key");
            works(&*signer).await?;
        }
    }
    Ok(())
}

/// Where keys have an address of another world, it opens the key.
pub(crate) async fn addresses(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    for text in ["plain", "odd; name/with=50% &c."] {
        if !profile.names.allow(text) {
            continue;
        }
        let made = make_key(&*backend, &profile, text, quick_type(&profile)?).await?;
        let Some(address) = &made.address else {
            ensure!(!profile.addresses, "the key {text:?} has no address");
            continue;
        };
        ensure!(profile.addresses, "the key {text:?} has an address that is not expected: {address}");
        // As it is printed and typed.
        let address: Address = address.to_string().parse()?;
        let signer = backend.open(&KeySelector::Address(address.clone())).await.context(&address)?;
        ensure!(signer.info().public_key == made.public_key, "{address} opens another key");
        works(&*signer).await?;
    }
    Ok(())
}

/// A second key of the same name is refused, and the first one stays what it was.
pub(crate) async fn a_name_is_taken_once(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    let first = make_key(&*backend, &profile, "taken", key_type).await?;
    for again in profile.types().into_iter().filter(|t| t.rsa_bits().is_none()) {
        if profile.has(Ability::Generate) && profile.generates.contains(&again) {
            let generate = Ability::Generate.require(backend.generate(), "under test")?;
            let request = GenerateRequest::new(label("taken")?, again);
            let kind = refused(
                generate.generate(request).await,
                format!("generating a {again} key of a taken name"),
            )?;
            ensure!(kind == ErrorKind::AlreadyExists, "generating a {again} key of a taken name: {kind:?}");
        }
        if profile.has(Ability::Import) && profile.imports.contains(&again) {
            let import = Ability::Import.require(backend.import(), "under test")?;
            let key = make_private_key(again)?.key(Material::Pkcs8Der)?;
            let request = ImportRequest::new(label("taken")?, key);
            let kind =
                refused(import.import(request).await, format!("importing a {again} key of a taken name"))?;
            ensure!(kind == ErrorKind::AlreadyExists, "importing a {again} key of a taken name: {kind:?}");
        }
    }
    let listed = list_all(&*backend, 0).await?;
    ensure!(listed.len() == 1, "{} keys are there instead of one", listed.len());
    let signer = open(&*backend, &first.name).await?;
    ensure!(signer.info().public_key == first.public_key, "the first key was replaced");
    works(&*signer).await
}

/// Of eight that make a key of one name at once, one wins and seven are told; nothing is left of theirs.
pub(crate) async fn one_of_many_wins_a_name(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let key_type = quick_type(&profile)?;
    for round in 0..5 {
        let name = format!("contended-{round}");
        let tries = (0..8).map(|_| {
            let (backend, profile, name) = (backend.clone(), profile.clone(), name.clone());
            tokio::spawn(async move { make_refused(&*backend, &profile, label(&name)?, key_type).await })
        });
        let mut winners = Vec::new();
        for outcome in join_all(tries).await {
            match outcome.map_err(|e| Failure::new(format!("the backend panicked: {e}")))?? {
                Ok(info) => winners.push(info),
                Err(e) => ensure!(e.kind() == ErrorKind::AlreadyExists, "a loser was told {e:?}"),
            }
        }
        ensure!(winners.len() == 1, "{} of 8 were told that they had made {name:?}", winners.len());
        let signer = open(&*backend, &label(&name)?).await?;
        ensure!(signer.info().public_key == winners[0].public_key, "the key is not the winner's");
        let listed = list_all(&*backend, 0).await?.len();
        ensure!(listed == round + 1, "{listed} keys are there instead of {}", round + 1);
    }
    Ok(())
}

/// Makes a key that may be refused.
async fn make_refused(
    backend: &dyn signer_core::Backend,
    profile: &crate::Profile,
    name: KeyName,
    key_type: signer_core::KeyType,
) -> Result<signer_core::Result<signer_core::KeyInfo>, Failure> {
    Ok(if profile.has(Ability::Generate) && profile.generates.contains(&key_type) {
        let generate = Ability::Generate.require(backend.generate(), "under test")?;
        generate.generate(GenerateRequest::new(name, key_type)).await
    } else {
        let import = Ability::Import.require(backend.import(), "under test")?;
        let key = make_private_key(key_type)?.key(Material::Pkcs8Der)?;
        import.import(ImportRequest::new(name, key)).await
    })
}
