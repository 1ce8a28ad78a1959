//! The baseline: a PKCS#11 module driven by the program itself. One session and one cached key handle a thread, and
//! `C_SignInit` with one `C_Sign` a signature, straight through the function list: nothing that uses this module can be
//! faster in one process.
#![allow(unsafe_code)] // PKCS#11 is a C API

use std::{error::Error, path::PathBuf, ptr};

use clap::Args;
use cryptoki_sys as sys;

use crate::measure::{self, Load};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Sign with a PKCS#11 module in this process
#[derive(Args, Debug)]
pub(crate) struct Raw {
    /// The module
    #[arg(long)]
    module: PathBuf,
    /// Label of the token
    #[arg(long)]
    token: String,
    /// File with the PIN
    #[arg(long)]
    pin_file: PathBuf,
    /// Label of the private key: rsa… signs with CKM_RSA_PKCS, any other with CKM_ECDSA
    #[arg(long)]
    key: String,
    /// How many threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(flatten)]
    timing: crate::Timing,
}

/// DER of `DigestInfo` for SHA-256 up to the digest (RFC 8017, section 9.2, note 1).
const DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];

/// The longest signature: RSA-4096.
const LONGEST: usize = 512;

impl Raw {
    pub(crate) fn run(&self) -> Result<Load> {
        let pin = std::fs::read_to_string(&self.pin_file)?;
        let module = Module::load(&self.module)?;
        let slot = module.slot(&self.token)?;
        let rsa = self.key.starts_with("rsa");
        let mechanism = if rsa { sys::CKM_RSA_PKCS } else { sys::CKM_ECDSA };
        let mut input = if rsa { DIGEST_INFO.to_vec() } else { Vec::new() };
        input.extend(crate::DIGEST);
        let (warm_up, seconds, watch) = (self.timing.warm_up, self.timing.seconds, self.timing.watch);
        measure::threads(self.threads, warm_up, seconds, watch, || {
            let session = module.session(slot, pin.trim_end(), &self.key, mechanism)?;
            let input = &input;
            Ok(move || session.sign(input))
        })
    }
}

/// A loaded and initialised module; never unloaded.
#[derive(Clone, Copy)]
struct Module(&'static sys::CK_FUNCTION_LIST);

// SAFETY: the list is a constant table, and the module was initialised with CKF_OS_LOCKING_OK.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// `C_GetFunctionList`: PKCS#11 2.40, section 5.4.
type GetFunctionList = unsafe extern "C" fn(*mut sys::CK_FUNCTION_LIST_PTR) -> sys::CK_RV;

/// Calls a function of the list and turns anything but CKR_OK into an error with its name.
macro_rules! call {
    ($module:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = $module.0.$name.ok_or(concat!("the module has no ", stringify!($name)))?;
        // SAFETY: each pointer among the arguments is to a live local, with its true length beside it.
        match unsafe { function($($argument),*) } {
            sys::CKR_OK => Ok(()),
            code => Err(Code(stringify!($name), code)),
        }
    }};
}

#[derive(Debug)]
struct Code(&'static str, sys::CK_RV);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} returned {:#x}", self.0, self.1)
    }
}

impl Error for Code {}

impl Module {
    fn load(path: &std::path::Path) -> Result<Self> {
        // SAFETY: the user names the module; it is leaked, so its functions stay where they are.
        let library = Box::leak(Box::new(unsafe { libloading::Library::new(path) }?));
        // SAFETY: this is the function's type.
        let list = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList") }?;
        let mut table = ptr::null_mut();
        // SAFETY: a pointer to a live local.
        let code = unsafe { list(&raw mut table) };
        if code != sys::CKR_OK || table.is_null() {
            return Err(Code("C_GetFunctionList", code).into());
        }
        // SAFETY: the module gave its own table, which lives as long as the module.
        let module = Self(unsafe { &*table });
        let mut arguments = sys::CK_C_INITIALIZE_ARGS {
            flags: sys::CKF_OS_LOCKING_OK,
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            pReserved: ptr::null_mut(),
        };
        call!(module, C_Initialize((&raw mut arguments).cast()))?;
        Ok(module)
    }

    fn slot(self, label: &str) -> Result<sys::CK_SLOT_ID> {
        let mut slots = [0; 64];
        let mut count = slots.len() as sys::CK_ULONG;
        call!(self, C_GetSlotList(sys::CK_TRUE, slots.as_mut_ptr(), &raw mut count))?;
        for &slot in &slots[..count as usize] {
            let mut info = sys::CK_TOKEN_INFO::default();
            if call!(self, C_GetTokenInfo(slot, &raw mut info)).is_ok()
                && String::from_utf8_lossy(&info.label).trim_end() == label
            {
                return Ok(slot);
            }
        }
        Err(format!("there is no token {label}").into())
    }

    fn session(
        self,
        slot: sys::CK_SLOT_ID,
        pin: &str,
        label: &str,
        mechanism: sys::CK_MECHANISM_TYPE,
    ) -> Result<Session> {
        let mut session = 0;
        call!(self, C_OpenSession(slot, sys::CKF_SERIAL_SESSION, ptr::null_mut(), None, &raw mut session))?;
        let mut pin = pin.as_bytes().to_vec();
        match call!(self, C_Login(session, sys::CKU_USER, pin.as_mut_ptr(), pin.len() as sys::CK_ULONG)) {
            // The login belongs to the process: the first thread has done it.
            Ok(()) | Err(Code(_, sys::CKR_USER_ALREADY_LOGGED_IN)) => {}
            Err(code) => return Err(code.into()),
        }
        let (mut class, mut label) = (sys::CKO_PRIVATE_KEY, label.as_bytes().to_vec());
        let mut template = [
            sys::CK_ATTRIBUTE {
                type_: sys::CKA_CLASS,
                pValue: (&raw mut class).cast(),
                ulValueLen: size_of_val(&class) as sys::CK_ULONG,
            },
            sys::CK_ATTRIBUTE {
                type_: sys::CKA_LABEL,
                pValue: label.as_mut_ptr().cast(),
                ulValueLen: label.len() as sys::CK_ULONG,
            },
        ];
        let (mut key, mut found) = (0, 0);
        call!(self, C_FindObjectsInit(session, template.as_mut_ptr(), 2))?;
        call!(self, C_FindObjects(session, &raw mut key, 1, &raw mut found))?;
        call!(self, C_FindObjectsFinal(session))?;
        if found != 1 {
            return Err("there is no such private key".into());
        }
        Ok(Session { module: self, handle: session, key, mechanism })
    }
}

struct Session {
    module: Module,
    handle: sys::CK_SESSION_HANDLE,
    key: sys::CK_OBJECT_HANDLE,
    mechanism: sys::CK_MECHANISM_TYPE,
}

impl Session {
    fn sign(&self, input: &[u8]) -> Result<()> {
        let mut mechanism =
            sys::CK_MECHANISM { mechanism: self.mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let mut signature = [0; LONGEST];
        let mut length = LONGEST as sys::CK_ULONG;
        call!(self.module, C_SignInit(self.handle, &raw mut mechanism, self.key))?;
        // C_Sign only reads its data.
        let data = input.as_ptr().cast_mut();
        let output = signature.as_mut_ptr();
        call!(self.module, C_Sign(self.handle, data, input.len() as sys::CK_ULONG, output, &raw mut length))?;
        Ok(())
    }
}
