//! The objects of a token: finding them, and reading what is needed of them.

use cryptoki_sys as sys;
use signer_core::{Error, ErrorKind, PublicKey, Result};
use sys::{CK_ATTRIBUTE_TYPE, CK_KEY_TYPE, CK_OBJECT_CLASS};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
};

use crate::{
    fault::Fault,
    public_half,
    raw::{Failure, Object, Template},
    token::Inside,
};

/// The most objects of one class that are read.
const MOST_OBJECTS: usize = 100_000;

/// By what a key's objects belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    /// `CKA_ID`; empty where there is none.
    pub(crate) id: Vec<u8>,
    /// `CKA_LABEL`; empty where there is none.
    pub(crate) label: Vec<u8>,
}

impl Mark {
    /// A template for objects of a class that have exactly this mark.
    pub(crate) fn template(&self, class: CK_OBJECT_CLASS) -> Template {
        let mut template = Template::of(class);
        if !self.id.is_empty() {
            template = template.bytes(sys::CKA_ID, &self.id);
        }
        if !self.label.is_empty() {
            template = template.bytes(sys::CKA_LABEL, &self.label);
        }
        template
    }

    /// The label, where it is one that people can type.
    pub(crate) fn label_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.label).ok().filter(|l| !l.is_empty() && !l.contains('\0'))
    }

    /// For messages: the label and the identifier.
    pub(crate) fn describe(&self) -> String {
        let label = self.label_text().map(|l| format!("{l:?}"));
        let id = (!self.id.is_empty()).then(|| format!("id:{}", hex(&self.id)));
        match (label, id) {
            (Some(label), Some(id)) => format!("{label} ({id})"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "one without label and id".to_owned(),
        }
    }
}

/// A private key object.
#[derive(Clone, Debug)]
pub(crate) struct PrivateObject {
    pub(crate) handle: Object,
    pub(crate) mark: Mark,
    pub(crate) key_type: CK_KEY_TYPE,
    /// `CKA_SIGN`; taken as true where the token does not say.
    pub(crate) signs: bool,
    /// `CKA_LOCAL`
    pub(crate) local: Option<bool>,
    /// `CKA_EXTRACTABLE`
    pub(crate) extractable: Option<bool>,
    /// `CKA_ALWAYS_AUTHENTICATE`
    pub(crate) always_authenticate: bool,
}

/// A public key object.
#[derive(Clone, Debug)]
pub(crate) struct PublicObject {
    pub(crate) mark: Mark,
    pub(crate) key_type: CK_KEY_TYPE,
    /// What it holds; why it cannot be used, otherwise.
    pub(crate) key: Result<PublicKey>,
}

/// An X.509 certificate object.
#[derive(Clone, Debug)]
pub(crate) struct CertificateObject {
    pub(crate) handle: Object,
    pub(crate) mark: Mark,
    /// DER.
    pub(crate) value: Vec<u8>,
}

impl CertificateObject {
    /// The public key that it is about, where it can be read.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        certified_key(&self.value).ok()
    }
}

/// The public key that a DER certificate is about.
pub(crate) fn certified_key(certificate: &[u8]) -> Result<PublicKey> {
    let malformed = |e| Error::bad_request("this is not an X.509 certificate").vendor(e);
    let parsed = Certificate::from_der(certificate).map_err(malformed)?;
    let spki = parsed.tbs_certificate().subject_public_key_info().to_der().map_err(malformed)?;
    PublicKey::from_der(&spki)
}

const PRIVATE_KINDS: [CK_ATTRIBUTE_TYPE; 7] = [
    sys::CKA_ID,
    sys::CKA_LABEL,
    sys::CKA_KEY_TYPE,
    sys::CKA_SIGN,
    sys::CKA_LOCAL,
    sys::CKA_EXTRACTABLE,
    sys::CKA_ALWAYS_AUTHENTICATE,
];

fn private_object(handle: Object, mut values: Values) -> PrivateObject {
    PrivateObject {
        handle,
        mark: values.mark(),
        key_type: values.number().unwrap_or(sys::CKK_VENDOR_DEFINED),
        signs: values.flag().unwrap_or(true),
        local: values.flag(),
        extractable: values.flag(),
        always_authenticate: values.flag().unwrap_or(false),
    }
}

impl Inside<'_> {
    /// The private keys that fit a template.
    pub(crate) fn private_keys(&self, template: &Template) -> Result<Vec<PrivateObject>, Fault> {
        use std::sync::atomic::Ordering::Relaxed;
        let found = self.each(template, &PRIVATE_KINDS, private_object)?;
        if !found.is_empty() && !self.live.seen_keys.load(Relaxed) {
            self.live.seen_keys.store(true, Relaxed);
        }
        Ok(found)
    }

    /// The private key with this handle.
    pub(crate) fn private_key(&self, handle: Object) -> Result<PrivateObject, Failure> {
        Ok(private_object(handle, self.read(handle, &PRIVATE_KINDS)?))
    }

    /// The public keys of this type that fit a template. One call for each: some tokens take milliseconds for it.
    pub(crate) fn public_keys(
        &self,
        template: Template,
        key_type: CK_KEY_TYPE,
    ) -> Result<Vec<PublicObject>, Fault> {
        let kinds = [&[sys::CKA_ID, sys::CKA_LABEL], public_half::attributes(key_type)].concat();
        if kinds.len() == 2 {
            return Ok(Vec::new()); // nobody could read them
        }
        let template = template.number(sys::CKA_KEY_TYPE, key_type);
        let found = self.each(&template, &kinds, |handle, mut values| {
            let mark = values.mark();
            (handle, PublicObject { mark, key_type, key: public_half::from_values(key_type, &mut values) })
        })?;
        found.into_iter().map(|(handle, object)| self.or_by_its_info(handle, object)).collect()
    }

    /// What cannot be read in the usual way may still be in CKA_PUBLIC_KEY_INFO.
    fn or_by_its_info(&self, handle: Object, object: PublicObject) -> Result<PublicObject, Fault> {
        match &object.key {
            Err(reason) if reason.kind() != ErrorKind::Unsupported => {
                match public_half::info(self, handle)? {
                    Some(key) => Ok(PublicObject { key: Ok(key), ..object }),
                    None => Ok(object),
                }
            }
            _ => Ok(object),
        }
    }

    /// The X.509 certificates that fit a template.
    pub(crate) fn certificates(&self, template: Template) -> Result<Vec<CertificateObject>, Fault> {
        const KINDS: [CK_ATTRIBUTE_TYPE; 3] = [sys::CKA_ID, sys::CKA_LABEL, sys::CKA_VALUE];
        let template = template.number(sys::CKA_CERTIFICATE_TYPE, sys::CKC_X_509);
        self.each(&template, &KINDS, |handle, mut values| CertificateObject {
            handle,
            mark: values.mark(),
            value: values.bytes(),
        })
    }

    /// The objects that fit a template, without reading them.
    pub(crate) fn find(&self, template: &Template) -> Result<Vec<Object>, Failure> {
        self.token.module.find(self.session, template, MOST_OBJECTS)
    }

    /// These attributes of one object, in their order.
    pub(crate) fn read(&self, object: Object, kinds: &[CK_ATTRIBUTE_TYPE]) -> Result<Values, Failure> {
        Ok(Values(self.token.module.attributes(self.session, object, kinds)?.into_iter()))
    }

    fn each<T>(
        &self,
        template: &Template,
        kinds: &[CK_ATTRIBUTE_TYPE],
        make: impl Fn(Object, Values) -> T,
    ) -> Result<Vec<T>, Fault> {
        let found = self.find(template)?;
        let mut made = Vec::with_capacity(found.len());
        let mut vanished = None;
        for object in found {
            match self.read(object, kinds) {
                Ok(values) => made.push(make(object, values)),
                Err(failure) if failure.code == sys::CKR_OBJECT_HANDLE_INVALID => vanished = Some(failure),
                Err(other) => return Err(other.into()),
            }
        }
        // One may have been deleted meanwhile; if it is all of them, the token has a better reason.
        match vanished {
            Some(failure) if made.is_empty() => Err(failure.into()),
            _ => Ok(made),
        }
    }
}

/// Values of attributes, taken one after the other.
pub(crate) struct Values(std::vec::IntoIter<Option<Vec<u8>>>);

impl Values {
    /// The next one, empty if there is none.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        self.0.next().flatten().unwrap_or_default()
    }

    /// The next one as a CK_ULONG.
    pub(crate) fn number(&mut self) -> Option<sys::CK_ULONG> {
        Some(sys::CK_ULONG::from_ne_bytes(self.bytes().try_into().ok()?))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.bytes()[..] {
            [value] => Some(value != sys::CK_FALSE),
            _ => None,
        }
    }

    fn mark(&mut self) -> Mark {
        Mark { id: self.bytes(), label: self.bytes() }
    }
}

/// Pairs of hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Nothing is there that could be meant.
pub(crate) fn not_found(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("the token has no key {what}"))
        .next("`signer keys list` shows the keys that it has")
}
