//! What several checks do.

use std::sync::Arc;

use signer_core::{
    Ability, Backend, Digest, ErrorKind, GenerateRequest, ImportRequest, Input, KeyInfo, KeyName,
    KeySelector, KeyType, ListRequest, SignRequest, Signature, SignatureAlgorithm, Signer,
};

use crate::{
    Failure, Material, Outcome, Profile,
    failure::{Context, ensure},
    make_private_key,
};

pub(crate) fn label(text: &str) -> Result<KeyName, Failure> {
    KeyName::label(text).context(format_args!("the label {text:?}"))
}

pub(crate) fn selector(name: &KeyName) -> KeySelector {
    KeySelector::Name(name.clone())
}

/// Makes a key of that kind: generated where the backend is expected to, imported otherwise.
pub(crate) async fn make_key(
    backend: &dyn Backend,
    profile: &Profile,
    name: &str,
    key_type: KeyType,
) -> Result<KeyInfo, Failure> {
    make_named(backend, profile, profile.names.of(name)?, key_type).await
}

/// The same, for any name.
pub(crate) async fn make_named(
    backend: &dyn Backend,
    profile: &Profile,
    name: KeyName,
    key_type: KeyType,
) -> Result<KeyInfo, Failure> {
    let what = format!("making a {key_type} key {name}");
    if profile.generates.contains(&key_type) && profile.has(Ability::Generate) {
        let generate = Ability::Generate.require(backend.generate(), "under test")?;
        generate.generate(GenerateRequest::new(name, key_type)).await.context(what)
    } else {
        let import = Ability::Import.require(backend.import(), "under test")?;
        let key = make_private_key(key_type)?.key(Material::Pkcs8Der)?;
        import.import(ImportRequest::new(name, key)).await.context(what)
    }
}

/// The kind of key that most checks use: the first of the quick ones that there is.
pub(crate) fn quick_type(profile: &Profile) -> Result<KeyType, Failure> {
    let types = profile.types();
    [KeyType::EcdsaP256, KeyType::Ed25519, KeyType::EcdsaP384, KeyType::MlDsa65]
        .into_iter()
        .find(|t| types.contains(t))
        .or_else(|| types.first().copied())
        .ok_or_else(|| Failure::new("the profile expects no kind of key at all"))
}

pub(crate) async fn open(backend: &dyn Backend, name: &KeyName) -> Result<Arc<dyn Signer>, Failure> {
    backend.open(&selector(name)).await.context(format_args!("opening {name}"))
}

/// Signs a message with an algorithm and verifies the signature.
pub(crate) async fn sign_message(
    signer: &dyn Signer,
    algorithm: SignatureAlgorithm,
    message: impl Into<bytes::Bytes>,
) -> Result<Signature, Failure> {
    let message = message.into();
    let name = &signer.info().name;
    let signature = signer
        .sign(SignRequest::message(algorithm, message.clone()))
        .await
        .context(format_args!("signing a message of {} bytes with {name}, {algorithm}", message.len()))?;
    verify(signer.info(), algorithm, &Input::Message(message), &signature)?;
    Ok(signature)
}

/// Signs the digest of a message and verifies the signature against the message.
pub(crate) async fn sign_digest(
    signer: &dyn Signer,
    algorithm: SignatureAlgorithm,
    message: &[u8],
) -> Result<Signature, Failure> {
    let name = &signer.info().name;
    let hash = algorithm.prehash().ok_or_else(|| Failure::new(format!("{algorithm} signs no digest")))?;
    let request = SignRequest::digest(algorithm, Digest::of(hash, message))?;
    let signature =
        signer.sign(request).await.context(format_args!("signing a digest with {name}, {algorithm}"))?;
    verify(signer.info(), algorithm, &Input::Message(message.to_vec().into()), &signature)?;
    Ok(signature)
}

pub(crate) fn verify(
    info: &KeyInfo,
    algorithm: SignatureAlgorithm,
    input: &Input,
    signature: &Signature,
) -> Outcome {
    info.public_key
        .verify(algorithm, input, signature.as_bytes())
        .context(format_args!("a signature of {} with {algorithm}", info.name))
}

/// Signs with the key's default algorithm and verifies.
pub(crate) async fn works(signer: &dyn Signer) -> Outcome {
    let message = format!("a message for {}", signer.info().name);
    sign_message(signer, signer.info().default_algorithm(), message).await.map(drop)
}

/// The kind of an error that must be one.
pub(crate) fn refused<T>(
    result: signer_core::Result<T>,
    what: impl std::fmt::Display,
) -> Result<ErrorKind, Failure> {
    match result {
        Ok(_) => Err(Failure::new(format!("{what}: done, but it must be refused"))),
        Err(error) => {
            ensure!(!error.what().trim().is_empty(), "{what}: an error without a word");
            Ok(error.kind())
        }
    }
}

/// Every key of a backend, page by page.
pub(crate) async fn list_all(backend: &dyn Backend, page_size: usize) -> Result<Vec<KeyInfo>, Failure> {
    let mut keys = Vec::new();
    let mut page_token = None;
    loop {
        let request = ListRequest { page_size, page_token: page_token.clone() };
        let page = backend.list(request).await.context("listing")?;
        ensure!(
            page_size == 0 || page.keys.len() <= page_size,
            "a page of {} keys where {page_size} were asked for",
            page.keys.len()
        );
        ensure!(
            page.next.is_none() || !page.keys.is_empty(),
            "an empty page that promises another one: a caller would go on for ever"
        );
        keys.extend(page.keys);
        ensure!(
            page_token.is_none() || page.next != page_token,
            "the next page is the same page: a caller would go on for ever"
        );
        page_token = page.next;
        if page_token.is_none() {
            return Ok(keys);
        }
    }
}
