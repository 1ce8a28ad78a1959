//! Bad days: the token goes away and comes back, and others meddle with the module.
#![allow(clippy::unwrap_used)] // tests may panic
#![allow(unsafe_code)] // calls the module behind the backend's back

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use signer_core::{Backend, ErrorKind, HashAlgorithm, KeyType, SignatureAlgorithm};
use signer_pkcs11::{Pkcs11Backend, Pkcs11Config};

mod support;
use support::*;

const ECDSA: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

on_every_token! {
    fn sessions_login_and_module_are_lost_one_after_the_other(bench: &Bench) {
        let pins = TestPins::new(PIN);
        let backend = bench.backend_with(&pins);
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        let signer = open(&backend, "k").unwrap();
        let behind = Behind::new(bench);
        for harm in [Behind::log_out, Behind::close_all_sessions, Behind::finalize, Behind::close_all_sessions] {
            harm(&behind);
            sign(&*signer, ECDSA, b"x").unwrap();
            harm(&behind);
            now(backend.health()).unwrap();
            harm(&behind);
            now(signer.health()).unwrap();
            harm(&behind);
            assert_eq!(names(&backend), ["k"]);
            harm(&behind);
            open(&backend, "k").unwrap();
        }
        // The key is there after all of it, once.
        sign(&*signer, ECDSA, b"x").unwrap();
    }
}

/// SoftHSM itself does not survive sessions that are closed while they are used.
#[test]
fn harm_under_load_is_not_seen() {
    in_own_process("harm_under_load_is_not_seen", Engine::Kryoptic, |bench| {
        let backend = bench.backend();
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        let signer = open(&backend, "k").unwrap();
        let behind = Behind::new(bench);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        sign(&*signer, ECDSA, b"x").unwrap();
                    }
                });
            }
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(30));
                behind.close_all_sessions();
            }
            over.store(true, Relaxed);
        });
    });
}

/// Only this heals SoftHSM: C_Finalize and C_Initialize.
#[test]
fn the_token_is_moved_away_and_back() {
    in_own_process("the_token_is_moved_away_and_back", Engine::SoftHsm, |bench| {
        let pins = TestPins::new(PIN);
        let backend = bench.backend_with(&pins);
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        let signer = open(&backend, "k").unwrap();
        let (here, away) = (bench.folder.join("tokens"), bench.folder.join("away"));
        let away_now = AtomicBool::new(false);
        let over = AtomicBool::new(false);
        let signed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        let before = away_now.load(Relaxed);
                        match sign(&*signer, ECDSA, b"x") {
                            Ok(()) => drop(signed.fetch_add(1, Relaxed)),
                            Err(e) => {
                                assert_eq!(e.kind(), ErrorKind::DeviceGone, "{e}");
                                assert!(before || away_now.load(Relaxed) || !over.load(Relaxed));
                            }
                        }
                    }
                });
            }
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(200));
                assert!(signed.load(Relaxed) > 0);
                away_now.store(true, Relaxed);
                std::fs::rename(&here, &away).unwrap();
                std::thread::sleep(Duration::from_millis(1500));
                for (what, error) in [
                    ("sign", sign(&*signer, ECDSA, b"x").unwrap_err()),
                    ("health", now(backend.health()).unwrap_err()),
                    ("the key's health", now(signer.health()).unwrap_err()),
                    ("open", open(&backend, "k").err().unwrap()),
                    ("generate", generate(&backend, "new", KeyType::EcdsaP256).unwrap_err()),
                ] {
                    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{what}: {error:?}");
                }
                std::fs::rename(&away, &here).unwrap();
                let back = Instant::now();
                while sign(&*signer, ECDSA, b"x").is_err() {
                    assert!(back.elapsed() < Duration::from_secs(1), "it does not sign again");
                    std::thread::sleep(Duration::from_millis(5));
                }
                eprintln!("signs again after {:?}", back.elapsed());
                away_now.store(false, Relaxed);
                now(backend.health()).unwrap();
                now(signer.health()).unwrap();
                signed.store(0, Relaxed);
            }
            over.store(true, Relaxed);
        });
        assert!(pins.seen().iter().all(|(_, o)| !matches!(o, signer_core::PinOutcome::Refused(_))));
    });
}

#[test]
fn nobody_signs_while_the_token_goes_and_health_sees_it() {
    in_own_process("nobody_signs_while_the_token_goes_and_health_sees_it", Engine::SoftHsm, |bench| {
        let backend = bench.backend();
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        now(backend.health()).unwrap();
        let (here, away) = (bench.folder.join("tokens"), bench.folder.join("away"));
        std::fs::rename(&here, &away).unwrap();
        assert_eq!(now(backend.health()).unwrap_err().kind(), ErrorKind::DeviceGone);
        std::fs::rename(&away, &here).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        now(backend.health()).unwrap();
        std::fs::rename(&here, &away).unwrap();
        assert_eq!(open(&backend, "k").err().unwrap().kind(), ErrorKind::DeviceGone);
        assert_eq!(open(&backend, "unknown").err().unwrap().kind(), ErrorKind::DeviceGone);
    });
}

#[test]
fn the_token_comes_after_the_backend() {
    in_own_process("the_token_comes_after_the_backend", Engine::SoftHsm, |bench| {
        let options = serde_json::json!({ "module": bench.module, "token": "later" });
        let config = Pkcs11Config::from_json(options).unwrap();
        let backend = Pkcs11Backend::new(&config, "hsm", TestPins::new(PIN)).unwrap();
        let error = now(backend.describe()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        assert!(error.to_string().contains(TOKEN), "it says which tokens there are: {error}");
        bench.make_token("later");
        std::thread::sleep(Duration::from_millis(200));
        now(backend.describe()).unwrap();
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        assert_eq!(names(&backend), ["k"]);
    });
}

#[test]
fn two_tokens_of_one_label_are_told_apart_by_serial() {
    in_own_process("two_tokens_of_one_label_are_told_apart_by_serial", Engine::SoftHsm, |bench| {
        let serial = now(bench.backend().describe()).unwrap().serial;
        bench.make_token(TOKEN);
        let backend = bench.backend();
        let error = now(backend.describe()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert!(error.to_string().contains(&serial), "{error}");
        drop(backend);
        let options = serde_json::json!({ "module": bench.module, "serial": serial });
        let config = Pkcs11Config::from_json(options).unwrap();
        let backend = Pkcs11Backend::new(&config, "hsm", TestPins::new(PIN)).unwrap();
        assert_eq!(now(backend.describe()).unwrap().serial, serial);
    });
}

#[test]
fn a_module_that_is_none_is_a_wrong_configuration() {
    for path in ["/nowhere/lib.so", "/etc/passwd", "/lib/x86_64-linux-gnu/libm.so.6"] {
        let options = serde_json::json!({ "module": path, "token": "t" });
        let config = Pkcs11Config::from_json(options).unwrap();
        let error = Pkcs11Backend::new(&config, "hsm", TestPins::new(PIN)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

/// The same module in the same process, in other hands.
struct Behind {
    functions: cryptoki_sys::CK_FUNCTION_LIST,
    _library: cryptoki_sys::Pkcs11,
}

impl Behind {
    fn new(bench: &Bench) -> Self {
        let mut list = std::ptr::null_mut();
        // SAFETY: the module is loaded already; it fills in the pointer that is read.
        let (library, functions) = unsafe {
            let library = cryptoki_sys::Pkcs11::new(&bench.module).unwrap();
            assert_eq!((library.C_GetFunctionList.as_ref().unwrap())(&raw mut list), cryptoki_sys::CKR_OK);
            (library, *list)
        };
        Self { functions, _library: library }
    }

    fn slots(&self) -> Vec<cryptoki_sys::CK_SLOT_ID> {
        let mut slots = vec![0; 16];
        let mut count = 16;
        // SAFETY: there is room for as many slots as said.
        unsafe { (self.functions.C_GetSlotList.unwrap())(1, slots.as_mut_ptr(), &raw mut count) };
        slots.truncate(count as usize);
        slots
    }

    fn close_all_sessions(&self) {
        for slot in self.slots() {
            // SAFETY: a number alone.
            unsafe { (self.functions.C_CloseAllSessions.unwrap())(slot) };
        }
    }

    fn log_out(&self) {
        for slot in self.slots() {
            let mut session = 0;
            // SAFETY: a valid place for the session; the rest are numbers.
            unsafe {
                (self.functions.C_OpenSession.unwrap())(
                    slot,
                    4,
                    std::ptr::null_mut(),
                    None,
                    &raw mut session,
                );
                (self.functions.C_Logout.unwrap())(session);
                (self.functions.C_CloseSession.unwrap())(session);
            }
        }
    }

    fn finalize(&self) {
        // SAFETY: no other thread is in the module in the test that does this.
        unsafe { (self.functions.C_Finalize.unwrap())(std::ptr::null_mut()) };
    }
}
