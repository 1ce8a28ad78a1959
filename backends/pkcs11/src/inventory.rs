//! Which keys there are: private keys with the public halves and certificates that belong to them, and their names.

use std::collections::HashMap;

use cryptoki_sys as sys;
use signer_core::{
    Address, Error, ErrorKind, KeyInfo, KeyName, KeyOrigin, KeyPolicy, Pkcs11Uri, PublicKey, Result,
};

use crate::{
    fault::Fault,
    mechanism,
    objects::{CertificateObject, Mark, PrivateObject, PublicObject},
    public_half,
    raw::Template,
    token::{Inside, Live},
};

/// Every key of the token that can sign, has a public half that can be found, and can be named.
///
/// Each class of objects is read once, however many keys there are.
pub(crate) fn all(inside: &Inside<'_>) -> Result<Vec<KeyInfo>, Fault> {
    let mut private = inside.private_keys(&Template::of(sys::CKO_PRIVATE_KEY))?;
    private.retain(|key| key.signs);
    let mut public = Vec::new();
    for key_type in public_half::KEY_TYPES {
        if private.iter().any(|key| key.key_type == key_type) {
            public.extend(inside.public_keys(Template::of(sys::CKO_PUBLIC_KEY), key_type)?);
        }
    }
    let public = Shelf::new(public);
    let certificates = Shelf::new(inside.certificates(Template::of(sys::CKO_CERTIFICATE))?);
    let mut labels: HashMap<&[u8], usize> = HashMap::new();
    let mut ids: HashMap<&[u8], usize> = HashMap::new();
    for key in &private {
        *labels.entry(&key.mark.label).or_default() += 1;
        *ids.entry(&key.mark.id).or_default() += 1;
    }
    let mut keys = Vec::with_capacity(private.len());
    for key in &private {
        let unique = |names: &HashMap<&[u8], usize>, name: &[u8]| names.get(name) == Some(&1);
        let name = name(&key.mark, unique(&labels, &key.mark.label), unique(&ids, &key.mark.id));
        let described = match (name, public_half(inside, key, &public, &certificates)?) {
            (Some(name), Ok(half)) => describe(inside.live, key, name, half, &certificates),
            (None, _) => Err(Error::bad_request("neither its label nor its id is its own")),
            (_, Err(reason)) => Err(reason),
        };
        match described {
            Ok(info) => keys.push(info),
            Err(reason) => {
                tracing::debug!(key = key.mark.describe(), %reason, "a key is left out of the list");
            }
        }
    }
    Ok(keys)
}

/// All that is known of one private key.
pub(crate) fn one(inside: &Inside<'_>, key: &PrivateObject) -> Result<KeyInfo, Fault> {
    let (public, certificates) = beside(inside, key)?;
    let half = public_half(inside, key, &public, &certificates)??;
    let count = |mark: Mark| -> Result<usize, Fault> {
        let found = inside.private_keys(&mark.template(sys::CKO_PRIVATE_KEY))?;
        Ok(found.iter().filter(|key| key.signs).count())
    };
    let own_label = key.mark.label_text().is_some()
        && count(Mark { id: Vec::new(), label: key.mark.label.clone() })? == 1;
    let own_id = own_label
        || (!key.mark.id.is_empty() && count(Mark { id: key.mark.id.clone(), label: Vec::new() })? == 1);
    let name = name(&key.mark, own_label, own_id).ok_or_else(|| {
        Error::bad_request(format!(
            "the key {} shares its label and its id with another key",
            key.mark.describe()
        ))
        .next("give one of them another id with your token's tools")
    })?;
    Ok(describe(inside.live, key, name, half, &certificates)?)
}

/// All that is known of a key that was made just now, under marks that no other key has.
pub(crate) fn new(inside: &Inside<'_>, key: &PrivateObject, half: PublicKey) -> Result<KeyInfo> {
    let name = name(&key.mark, key.mark.label_text().is_some(), true)
        .ok_or_else(|| Error::internal("a key was made without label and id"))?;
    describe(inside.live, key, name, half, &Shelf::new(Vec::new()))
}

/// The public half of one private key.
pub(crate) fn public_half_of(inside: &Inside<'_>, key: &PrivateObject) -> Result<PublicKey, Fault> {
    let (public, certificates) = beside(inside, key)?;
    Ok(public_half(inside, key, &public, &certificates)??)
}

/// The certificates that belong to a key.
pub(crate) fn certificates_of(inside: &Inside<'_>, mark: &Mark) -> Result<Vec<CertificateObject>, Fault> {
    let shelf = Shelf::new(near(mark, |mark| inside.certificates(mark.template(sys::CKO_CERTIFICATE)))?);
    Ok(shelf.beside(mark).into_iter().cloned().collect())
}

type Shelves = (Shelf<PublicObject>, Shelf<CertificateObject>);

fn beside(inside: &Inside<'_>, key: &PrivateObject) -> Result<Shelves, Fault> {
    let public =
        near(&key.mark, |mark| inside.public_keys(mark.template(sys::CKO_PUBLIC_KEY), key.key_type))?;
    let certificates = near(&key.mark, |mark| inside.certificates(mark.template(sys::CKO_CERTIFICATE)))?;
    Ok((Shelf::new(public), Shelf::new(certificates)))
}

/// What has the same id; what has the same label, if nothing has.
fn near<T>(mark: &Mark, mut find: impl FnMut(Mark) -> Result<Vec<T>, Fault>) -> Result<Vec<T>, Fault> {
    if !mark.id.is_empty() {
        let found = find(Mark { id: mark.id.clone(), label: Vec::new() })?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    if mark.label.is_empty() {
        return Ok(Vec::new());
    }
    find(Mark { id: Vec::new(), label: mark.label.clone() })
}

/// From the public key object, else the certificate, else what the private key object itself has.
fn public_half(
    inside: &Inside<'_>,
    key: &PrivateObject,
    public: &Shelf<PublicObject>,
    certificates: &Shelf<CertificateObject>,
) -> Result<Result<PublicKey>, Fault> {
    let mut problem = None;
    for object in public.beside(&key.mark).into_iter().filter(|object| object.key_type == key.key_type) {
        match &object.key {
            Ok(half) => return Ok(Ok(half.clone())),
            Err(reason) => problem = Some(reason.clone()),
        }
    }
    if let Some(half) = certificates.beside(&key.mark).into_iter().find_map(CertificateObject::public_key) {
        return Ok(Ok(half));
    }
    if let Some(half) = public_half::info(inside, key.handle)? {
        return Ok(Ok(half));
    }
    if let Some(reason) = problem {
        return Ok(Err(reason));
    }
    Ok(match public_half::of_private(inside, key.handle, key.key_type)? {
        Err(reason) if reason.kind() != ErrorKind::Unsupported => Err(Error::new(
            ErrorKind::NotFound,
            format!("the public half of the key {} is not in the token", key.mark.describe()),
        )
        .next("store its public key or its certificate in the token, with the same id")),
        done => done,
    })
}

/// The name that opens this key and no other.
fn name(mark: &Mark, own_label: bool, own_id: bool) -> Option<KeyName> {
    let by_label = mark.label_text().filter(|_| own_label).and_then(|label| KeyName::label(label).ok());
    by_label.or_else(|| own_id.then(|| KeyName::id(mark.id.clone()).ok()).flatten())
}

fn describe(
    live: &Live,
    key: &PrivateObject,
    name: KeyName,
    public_key: PublicKey,
    certificates: &Shelf<CertificateObject>,
) -> Result<KeyInfo> {
    let key_type = public_key.key_type();
    let algorithms = mechanism::algorithms(key_type, live);
    if algorithms.is_empty() {
        return Err(Error::unsupported(format_args!("sign with {key_type} keys"), "the token").key(name));
    }
    let id = Some(key.mark.id.clone()).filter(|id| !id.is_empty());
    let certificate = certificates
        .beside(&key.mark)
        .into_iter()
        .find(|certificate| certificate.public_key().as_ref() == Some(&public_key))
        .map(|certificate| certificate.value.clone());
    let address = Pkcs11Uri {
        token: Some(live.info.label.clone()).filter(|label| !label.is_empty()),
        serial: Some(live.info.serial.clone()).filter(|serial| !serial.is_empty()),
        object: key.mark.label_text().map(ToOwned::to_owned),
        id: id.clone(),
        object_type: Some("private".to_owned()),
        ..Pkcs11Uri::default()
    };
    Ok(KeyInfo {
        name,
        public_key,
        algorithms,
        origin: match key.local {
            Some(true) => KeyOrigin::Generated,
            Some(false) => KeyOrigin::Imported,
            None => KeyOrigin::Unknown,
        },
        extractable: key.extractable,
        created: None,
        id,
        address: Some(Address::Pkcs11(address)),
        certificate,
        policy: KeyPolicy::default(),
    })
}

/// Objects of one class, to be found by what they belong to.
struct Shelf<T> {
    objects: Vec<T>,
    by_id: HashMap<Vec<u8>, Vec<usize>>,
    by_label: HashMap<Vec<u8>, Vec<usize>>,
}

trait Marked {
    fn mark(&self) -> &Mark;
}

impl Marked for PublicObject {
    fn mark(&self) -> &Mark {
        &self.mark
    }
}

impl Marked for CertificateObject {
    fn mark(&self) -> &Mark {
        &self.mark
    }
}

impl<T: Marked> Shelf<T> {
    fn new(objects: Vec<T>) -> Self {
        let mut by_id: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_label: HashMap<_, Vec<_>> = HashMap::new();
        for (at, object) in objects.iter().enumerate() {
            by_id.entry(object.mark().id.clone()).or_default().push(at);
            by_label.entry(object.mark().label.clone()).or_default().push(at);
        }
        Self { objects, by_id, by_label }
    }

    /// The objects that belong to a key: those with its id, of them the ones with its label first. A key or an object
    /// without an id is known by its label.
    fn beside(&self, mark: &Mark) -> Vec<&T> {
        let at = |index: &HashMap<Vec<u8>, Vec<usize>>, name: &[u8]| -> Vec<&T> {
            index.get(name).into_iter().flatten().map(|at| &self.objects[*at]).collect()
        };
        if !mark.id.is_empty() {
            let mut found = at(&self.by_id, &mark.id);
            if !found.is_empty() {
                found.sort_by_key(|object| object.mark().label != mark.label);
                return found;
            }
        }
        if mark.label.is_empty() {
            return Vec::new();
        }
        let mut found = at(&self.by_label, &mark.label);
        found.retain(|object| mark.id.is_empty() || object.mark().id.is_empty());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(Mark);

    impl Marked for Thing {
        fn mark(&self) -> &Mark {
            &self.0
        }
    }

    fn mark(id: &[u8], label: &str) -> Mark {
        Mark { id: id.to_vec(), label: label.as_bytes().to_vec() }
    }

    #[test]
    fn what_belongs_together_is_known_by_the_id_and_without_one_by_the_label() {
        let shelf = Shelf::new(vec![
            Thing(mark(b"1", "a")),
            Thing(mark(b"1", "b")),
            Thing(mark(b"2", "b")),
            Thing(mark(b"", "c")),
        ]);
        let beside = |m: Mark| shelf.beside(&m).iter().map(|t| t.0.describe()).collect::<Vec<_>>();
        assert_eq!(beside(mark(b"1", "b")), ["\"b\" (id:31)", "\"a\" (id:31)"]);
        assert_eq!(beside(mark(b"3", "c")), ["\"c\""]);
        assert_eq!(beside(mark(b"3", "b")), [""; 0], "another id is another key");
        assert_eq!(beside(mark(b"", "b")).len(), 2);
        assert_eq!(beside(mark(b"", "")), [""; 0]);
    }

    #[test]
    fn a_name_is_the_label_if_that_is_its_own_else_the_id() {
        let text = |m: Mark, label, id| name(&m, label, id).map(|n| n.to_string());
        assert_eq!(text(mark(b"\x01", "a@b"), true, true).unwrap(), "a%40b");
        assert_eq!(text(mark(b"\x01", "a"), false, true).unwrap(), "id:01");
        assert_eq!(text(mark(b"\x01", ""), true, true).unwrap(), "id:01");
        assert_eq!(text(mark(b"\x01", "a"), false, false), None);
        assert_eq!(text(mark(b"", ""), true, true), None);
    }
}
