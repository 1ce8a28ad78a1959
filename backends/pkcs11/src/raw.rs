//! The C interface: the only place that calls into a module. Everything above it is safe Rust.
//!
//! All calls go through the one function list that the module gave when it was loaded: some modules export nothing else
//! (Kryoptic), others are a separate instance each time that they are asked for a list (p11-kit-client).
#![allow(unsafe_code)] // PKCS#11 is a C API

use std::{path::Path, ptr};

use cryptoki_sys as sys;
use sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_FLAGS, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG, CK_USER_TYPE,
};
use zeroize::Zeroizing;

/// A function of the module failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it returned.
    pub(crate) code: CK_RV,
    /// Its name.
    pub(crate) function: &'static str,
}

type Outcome<T> = Result<T, Failure>;

/// A session. Closing it is the owner's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session(CK_SESSION_HANDLE);

/// An object, as one initialisation of the module numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object(CK_OBJECT_HANDLE);

/// A module that was loaded. The library stays loaded as long as this lives.
pub(crate) struct Module {
    functions: sys::CK_FUNCTION_LIST,
    /// Keeps the library loaded.
    _library: sys::Pkcs11,
}

/// Calls a function of the list; one that the module lacks fails with CKR_FUNCTION_NOT_SUPPORTED.
///
/// An expansion is to be preceded by a SAFETY comment on its arguments; that the function itself is what its type says,
/// and that the library that holds it is loaded, holds for every `Module`.
macro_rules! call {
    ($module:expr, $function:ident ( $($argument:expr),* $(,)? )) => {
        match $module.functions.$function {
            Some(function) => {
                // SAFETY: as said where the macro is used.
                outcome(stringify!($function), unsafe { function($($argument),*) })
            }
            None => Err(Failure { code: sys::CKR_FUNCTION_NOT_SUPPORTED, function: stringify!($function) }),
        }
    };
}

fn outcome(function: &'static str, code: CK_RV) -> Outcome<()> {
    if code == sys::CKR_OK { Ok(()) } else { Err(Failure { code, function }) }
}

impl Module {
    /// Loads a module. The error says why it cannot be, for people.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: loading a library runs its initialisers. Whoever configured this path vouches for the library, which
        // is why it is loaded in a process of its own.
        let library = unsafe { sys::Pkcs11::new(path) }.map_err(|e| e.to_string())?;
        let Ok(get_function_list) = library.C_GetFunctionList.as_ref() else {
            return Err("it has no function C_GetFunctionList".to_owned());
        };
        let mut list: sys::CK_FUNCTION_LIST_PTR = ptr::null_mut();
        // SAFETY: the argument is a valid place for a pointer.
        let code = unsafe { get_function_list(&raw mut list) };
        if code != sys::CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList failed ({})", crate::codes::name(code)));
        }
        // SAFETY: the module returned CKR_OK and a pointer that is not null, so it points at its list, which has at
        // least the functions of version 2.00 of the interface, all of those in the structure.
        let functions = unsafe { ptr::read_unaligned(list) };
        Ok(Self { functions, _library: library })
    }

    /// C_Initialize, telling the module that it is called from several threads.
    pub(crate) fn initialize(&self) -> Outcome<()> {
        let mut arguments = sys::CK_C_INITIALIZE_ARGS { flags: sys::CKF_OS_LOCKING_OK, ..Default::default() };
        // SAFETY: the structure lives through the call and asks for the system's own locks, so no callback is needed.
        call!(self, C_Initialize((&raw mut arguments).cast()))
    }

    /// C_Finalize. No other thread may be in the module.
    pub(crate) fn finalize(&self) -> Outcome<()> {
        // SAFETY: the only argument is reserved and has to be null.
        call!(self, C_Finalize(ptr::null_mut()))
    }

    /// C_GetInfo.
    pub(crate) fn info(&self) -> Outcome<sys::CK_INFO> {
        let mut info = sys::CK_INFO::default();
        // SAFETY: a valid place for the answer.
        call!(self, C_GetInfo(&raw mut info))?;
        Ok(info)
    }

    /// C_GetSlotList: the slots that have a token.
    pub(crate) fn slots(&self) -> Outcome<Vec<CK_SLOT_ID>> {
        // The number may change between the two calls; some modules never agree with themselves, so it ends.
        let mut last = Failure { code: sys::CKR_BUFFER_TOO_SMALL, function: "C_GetSlotList" };
        for _ in 0..4 {
            let mut count: CK_ULONG = 0;
            // SAFETY: a null list asks for the number of slots alone.
            call!(self, C_GetSlotList(sys::CK_TRUE, ptr::null_mut(), &raw mut count))?;
            let mut slots: Vec<CK_SLOT_ID> = vec![0; count as usize + 4];
            count = slots.len() as CK_ULONG;
            // SAFETY: `slots` has room for `count` numbers.
            match call!(self, C_GetSlotList(sys::CK_TRUE, slots.as_mut_ptr(), &raw mut count)) {
                Ok(()) => {
                    slots.truncate(count as usize);
                    return Ok(slots);
                }
                Err(e) if e.code == sys::CKR_BUFFER_TOO_SMALL => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// C_GetTokenInfo.
    pub(crate) fn token_info(&self, slot: CK_SLOT_ID) -> Outcome<sys::CK_TOKEN_INFO> {
        let mut info = sys::CK_TOKEN_INFO::default();
        // SAFETY: a valid place for the answer.
        call!(self, C_GetTokenInfo(slot, &raw mut info))?;
        Ok(info)
    }

    /// C_GetMechanismList.
    pub(crate) fn mechanisms(&self, slot: CK_SLOT_ID) -> Outcome<Vec<CK_MECHANISM_TYPE>> {
        let mut count: CK_ULONG = 0;
        // SAFETY: a null list asks for the number of mechanisms alone.
        call!(self, C_GetMechanismList(slot, ptr::null_mut(), &raw mut count))?;
        let mut mechanisms: Vec<CK_MECHANISM_TYPE> = vec![0; count as usize];
        // SAFETY: `mechanisms` has room for `count` numbers.
        call!(self, C_GetMechanismList(slot, mechanisms.as_mut_ptr(), &raw mut count))?;
        mechanisms.truncate(count as usize);
        Ok(mechanisms)
    }

    /// C_GetMechanismInfo.
    pub(crate) fn mechanism_info(
        &self,
        slot: CK_SLOT_ID,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Outcome<sys::CK_MECHANISM_INFO> {
        let mut info = sys::CK_MECHANISM_INFO::default();
        // SAFETY: a valid place for the answer.
        call!(self, C_GetMechanismInfo(slot, mechanism, &raw mut info))?;
        Ok(info)
    }

    /// C_OpenSession.
    pub(crate) fn open_session(&self, slot: CK_SLOT_ID, writable: bool) -> Outcome<Session> {
        let flags: CK_FLAGS = sys::CKF_SERIAL_SESSION | if writable { sys::CKF_RW_SESSION } else { 0 };
        let mut session: CK_SESSION_HANDLE = 0;
        // SAFETY: no callback is given; a valid place for the answer.
        call!(self, C_OpenSession(slot, flags, ptr::null_mut(), None, &raw mut session))?;
        Ok(Session(session))
    }

    /// C_GetSessionInfo.
    pub(crate) fn session_info(&self, session: Session) -> Outcome<sys::CK_SESSION_INFO> {
        let mut info = sys::CK_SESSION_INFO::default();
        // SAFETY: a valid place for the answer.
        call!(self, C_GetSessionInfo(session.0, &raw mut info))?;
        Ok(info)
    }

    /// C_CloseSession.
    pub(crate) fn close_session(&self, session: Session) -> Outcome<()> {
        // SAFETY: a number alone; a wrong one is answered with an error.
        call!(self, C_CloseSession(session.0))
    }

    /// C_CloseAllSessions: logs out, too.
    pub(crate) fn close_all_sessions(&self, slot: CK_SLOT_ID) -> Outcome<()> {
        // SAFETY: a number alone.
        call!(self, C_CloseAllSessions(slot))
    }

    /// C_Login; without a PIN the token asks for it itself (CKF_PROTECTED_AUTHENTICATION_PATH).
    pub(crate) fn login(&self, session: Session, user: CK_USER_TYPE, pin: Option<&str>) -> Outcome<()> {
        let (pin, len) = pin.map_or((ptr::null_mut(), 0), |p| (p.as_ptr().cast_mut(), p.len()));
        // SAFETY: `pin` has `len` bytes or is null; PKCS#11 only reads them, although the type is not const.
        call!(self, C_Login(session.0, user, pin, len as CK_ULONG))
    }

    /// C_FindObjectsInit, C_FindObjects and C_FindObjectsFinal: all objects that fit, at most `limit` of them.
    pub(crate) fn find(&self, session: Session, template: &Template, limit: usize) -> Outcome<Vec<Object>> {
        let mut lowered = template.lower();
        // SAFETY: `lowered` has as many attributes as said, which point into `template`, which lives through the call.
        call!(self, C_FindObjectsInit(session.0, lowered.as_mut_ptr(), lowered.len() as CK_ULONG))?;
        let mut found = Vec::new();
        let mut page: [CK_OBJECT_HANDLE; 256] = [0; 256];
        let searched = loop {
            let wanted = page.len().min(limit - found.len());
            if wanted == 0 {
                break Ok(());
            }
            let mut count: CK_ULONG = 0;
            // SAFETY: `page` has room for `wanted` numbers.
            match call!(self, C_FindObjects(session.0, page.as_mut_ptr(), wanted as CK_ULONG, &raw mut count))
            {
                Ok(()) if count == 0 => break Ok(()),
                Ok(()) => found.extend(page.iter().take((count as usize).min(wanted)).map(|h| Object(*h))),
                Err(e) => break Err(e),
            }
        };
        // SAFETY: a number alone.
        let ended = call!(self, C_FindObjectsFinal(session.0));
        searched?;
        ended?;
        Ok(found)
    }

    /// C_GetAttributeValue: the values of these attributes, in their order; `None` for one that the object does not
    /// have or does not give away.
    pub(crate) fn attributes(
        &self,
        session: Session,
        object: Object,
        kinds: &[CK_ATTRIBUTE_TYPE],
    ) -> Outcome<Vec<Option<Vec<u8>>>> {
        // One call with room for usual values. Where anything is odd, each attribute is asked for by itself: modules
        // differ in what they leave behind in the others.
        let mut values: Vec<Vec<u8>> = kinds.iter().map(|kind| vec![0; usual_len(*kind)]).collect();
        let mut lowered: Vec<CK_ATTRIBUTE> = kinds
            .iter()
            .zip(&mut values)
            .map(|(kind, value)| CK_ATTRIBUTE {
                type_: *kind,
                pValue: value.as_mut_ptr().cast(),
                ulValueLen: value.len() as CK_ULONG,
            })
            .collect();
        let count = lowered.len() as CK_ULONG;
        // SAFETY: each attribute points at a value of its own with as many bytes as it says.
        match call!(self, C_GetAttributeValue(session.0, object.0, lowered.as_mut_ptr(), count)) {
            Ok(()) => {}
            Err(e) if is_about_one_attribute(e.code) => {
                return kinds.iter().map(|kind| self.attribute(session, object, *kind)).collect();
            }
            Err(e) => return Err(e),
        }
        let lens = lowered.iter().map(|a| a.ulValueLen).collect::<Vec<_>>();
        Ok(values
            .into_iter()
            .zip(lens)
            .map(|(mut value, len)| {
                let len = usize::try_from(len).ok().filter(|len| *len <= value.len())?;
                value.truncate(len);
                Some(value)
            })
            .collect())
    }

    fn attribute(
        &self,
        session: Session,
        object: Object,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Outcome<Option<Vec<u8>>> {
        let mut attribute = CK_ATTRIBUTE { type_: kind, pValue: ptr::null_mut(), ulValueLen: 0 };
        // SAFETY: a null value asks for the length alone.
        match call!(self, C_GetAttributeValue(session.0, object.0, &raw mut attribute, 1)) {
            Ok(()) => {}
            Err(e) if is_about_one_attribute(e.code) => return Ok(None),
            Err(e) => return Err(e),
        }
        let Some(len) = usize::try_from(attribute.ulValueLen).ok().filter(|len| *len <= LONGEST_VALUE) else {
            return Ok(None);
        };
        let mut value = vec![0; len];
        attribute.pValue = value.as_mut_ptr().cast();
        // SAFETY: the attribute points at a value with as many bytes as it says.
        match call!(self, C_GetAttributeValue(session.0, object.0, &raw mut attribute, 1)) {
            Ok(()) => {}
            Err(e) if is_about_one_attribute(e.code) => return Ok(None),
            Err(e) => return Err(e),
        }
        value.truncate(usize::try_from(attribute.ulValueLen).unwrap_or(0));
        Ok(Some(value))
    }

    /// C_SignInit.
    pub(crate) fn sign_init(&self, session: Session, mechanism: Mechanism, key: Object) -> Outcome<()> {
        // Lives through the call, as `lowered` points at it.
        let mut parameters;
        let mut lowered = CK_MECHANISM { mechanism: mechanism.kind(), ..Default::default() };
        if let Mechanism::RsaPss { hash, mgf, salt_len } = mechanism {
            parameters = sys::CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: salt_len as CK_ULONG };
            lowered.pParameter = (&raw mut parameters).cast();
            lowered.ulParameterLen = size_of_val(&parameters) as CK_ULONG;
        }
        // SAFETY: the mechanism has no parameters or points at those of its kind, which live through the call.
        call!(self, C_SignInit(session.0, &raw mut lowered, key.0))
    }

    /// C_Sign, once, with room for `room` bytes.
    pub(crate) fn sign(&self, session: Session, data: &[u8], room: usize) -> Outcome<Vec<u8>> {
        let mut signature = vec![0; room];
        let mut len = room as CK_ULONG;
        // SAFETY: `data` is only read, although the type is not const; `signature` has room for `len` bytes.
        call!(
            self,
            C_Sign(
                session.0,
                data.as_ptr().cast_mut(),
                data.len() as CK_ULONG,
                signature.as_mut_ptr(),
                &raw mut len,
            )
        )?;
        signature.truncate(len as usize);
        Ok(signature)
    }

    /// C_GenerateKeyPair: the public and the private key.
    pub(crate) fn generate_key_pair(
        &self,
        session: Session,
        mechanism: CK_MECHANISM_TYPE,
        public: &Template,
        private: &Template,
    ) -> Outcome<(Object, Object)> {
        let mut mechanism = CK_MECHANISM { mechanism, ..Default::default() };
        let (mut public, mut private) = (public.lower(), private.lower());
        let (mut public_key, mut private_key) = (0, 0);
        // SAFETY: a mechanism without parameters; the templates have as many attributes as said, which point into
        // values that live through the call; valid places for the answers.
        call!(
            self,
            C_GenerateKeyPair(
                session.0,
                &raw mut mechanism,
                public.as_mut_ptr(),
                public.len() as CK_ULONG,
                private.as_mut_ptr(),
                private.len() as CK_ULONG,
                &raw mut public_key,
                &raw mut private_key,
            )
        )?;
        Ok((Object(public_key), Object(private_key)))
    }

    /// C_CreateObject.
    pub(crate) fn create_object(&self, session: Session, template: &Template) -> Outcome<Object> {
        let mut lowered = template.lower();
        let mut object = 0;
        // SAFETY: as many attributes as said, which point into `template`; a valid place for the answer.
        call!(
            self,
            C_CreateObject(session.0, lowered.as_mut_ptr(), lowered.len() as CK_ULONG, &raw mut object)
        )?;
        Ok(Object(object))
    }

    /// C_DestroyObject.
    pub(crate) fn destroy_object(&self, session: Session, object: Object) -> Outcome<()> {
        // SAFETY: numbers alone.
        call!(self, C_DestroyObject(session.0, object.0))
    }
}

/// Longer values than this are not read: no certificate or key is.
const LONGEST_VALUE: usize = 1 << 20;

/// Room for what an attribute usually holds.
fn usual_len(kind: CK_ATTRIBUTE_TYPE) -> usize {
    match kind {
        sys::CKA_ID => 64,
        sys::CKA_EC_PARAMS => 32,
        sys::CKA_EC_POINT | sys::CKA_LABEL => 160,
        sys::CKA_MODULUS => 512,
        sys::CKA_PUBLIC_EXPONENT => 8,
        sys::CKA_VALUE | sys::CKA_PUBLIC_KEY_INFO => 2700,
        sys::CKA_KEY_TYPE | sys::CKA_CLASS | sys::CKA_PARAMETER_SET => size_of::<CK_ULONG>(),
        _ => 1, // CK_BBOOL
    }
}

fn is_about_one_attribute(code: CK_RV) -> bool {
    [sys::CKR_ATTRIBUTE_TYPE_INVALID, sys::CKR_ATTRIBUTE_SENSITIVE, sys::CKR_BUFFER_TOO_SMALL].contains(&code)
}

/// How to sign: a mechanism with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// One without parameters.
    Plain(CK_MECHANISM_TYPE),
    /// CKM_RSA_PKCS_PSS over a digest that was made before.
    RsaPss { hash: CK_MECHANISM_TYPE, mgf: sys::CK_RSA_PKCS_MGF_TYPE, salt_len: usize },
}

impl Mechanism {
    /// Its number.
    pub(crate) fn kind(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Plain(kind) => kind,
            Self::RsaPss { .. } => sys::CKM_RSA_PKCS_PSS,
        }
    }
}

/// Attributes to find an object by, or to make one with. Values are wiped from memory: they may be a private key.
#[derive(Clone, Default)]
pub(crate) struct Template(Vec<(CK_ATTRIBUTE_TYPE, Zeroizing<Vec<u8>>)>);

impl Template {
    /// An object of this class.
    pub(crate) fn of(class: sys::CK_OBJECT_CLASS) -> Self {
        Self::default().number(sys::CKA_CLASS, class)
    }

    /// Adds an attribute with bytes.
    pub(crate) fn bytes(mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        self.0.push((kind, Zeroizing::new(value.to_vec())));
        self
    }

    /// Adds a number.
    pub(crate) fn number(self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds true or false.
    pub(crate) fn flag(self, kind: CK_ATTRIBUTE_TYPE, value: bool) -> Self {
        self.bytes(kind, &[if value { sys::CK_TRUE } else { sys::CK_FALSE }])
    }

    /// The C form. It points into `self`, and so must not outlive it.
    fn lower(&self) -> Vec<CK_ATTRIBUTE> {
        self.0
            .iter()
            .map(|(kind, value)| CK_ATTRIBUTE {
                type_: *kind,
                pValue: value.as_ptr().cast_mut().cast(),
                ulValueLen: value.len() as CK_ULONG,
            })
            .collect()
    }
}
