//! PINs: tried once, asked for once, and never the last time without being told to.
#![allow(clippy::unwrap_used)] // tests may panic

use signer_core::{
    Backend, ErrorKind, HashAlgorithm, KeyType, PinOutcome, Result, SignatureAlgorithm, Unlock, UnlockRequest,
};
use signer_pkcs11::Pkcs11Backend;

mod support;
use support::*;

const ECDSA: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

fn unlock(backend: &Pkcs11Backend, pin: &str, use_last_try: bool) -> Result<()> {
    now(Unlock::unlock(backend, UnlockRequest { pin: pin_of(pin), use_last_try }))
}

on_every_token! {
    fn one_login_serves_all(bench: &Bench) {
        let pins = TestPins::new(PIN);
        let backend = bench.backend_with(&pins);
        now(backend.describe()).unwrap();
        assert_eq!(pins.seen(), [], "what everybody may know needs no PIN");
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        for _ in 0..20 {
            sign(&*open(&backend, "k").unwrap(), ECDSA, b"x").unwrap();
            now(backend.health()).unwrap();
        }
        assert_eq!(pins.seen().len(), 1);
        let (prompt, outcome) = &pins.seen()[0];
        assert_eq!(*outcome, PinOutcome::Accepted);
        let serial = now(backend.describe()).unwrap().serial;
        assert!(prompt.device.contains(TOKEN) && prompt.device.contains(&serial), "{prompt:?}");
        assert_eq!(prompt.key, None);
    }

    fn a_wrong_pin_is_tried_once(bench: &Bench) {
        let pins = TestPins::new("999999");
        let backend = bench.backend_with(&pins);
        let error = now(backend.health()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongPin { .. }), "{error}");
        assert!(!error.to_string().contains("999999"));
        for _ in 0..5 {
            assert_eq!(now(backend.health()).unwrap_err().kind(), ErrorKind::Locked);
            assert_eq!(open(&backend, "k").err().unwrap().kind(), ErrorKind::Locked);
        }
        assert!(matches!(pins.seen()[..], [(_, PinOutcome::Refused(_))]), "{:?}", pins.seen());
        // Somebody gives another wrong one, and then the right one.
        assert!(matches!(unlock(&backend, "888888", false).unwrap_err().kind(), ErrorKind::WrongPin { .. }));
        unlock(&backend, PIN, false).unwrap();
        now(backend.health()).unwrap();
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        // While it is open, another PIN is refused without a try, and nobody's signatures suffer.
        let signer = open(&backend, "k").unwrap();
        assert!(matches!(unlock(&backend, "777777", false).unwrap_err().kind(), ErrorKind::WrongPin { .. }));
        sign(&*signer, ECDSA, b"x").unwrap();
        unlock(&backend, PIN, false).unwrap();
        sign(&*signer, ECDSA, b"x").unwrap();
    }

    fn a_key_that_always_asks_gets_a_login_each_time(bench: &Bench) {
        bench.user_tool(&[
            "--keypairgen", "--key-type", "EC:prime256v1", "--label", "careful", "--id", "01", "--always-auth",
        ]);
        bench.user_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "easy", "--id", "02"]);
        let pins = TestPins::new(PIN);
        let backend = bench.backend_with(&pins);
        let careful = open(&backend, "careful").unwrap();
        assert_eq!(pins.seen().len(), 1);
        for _ in 0..3 {
            sign(&*careful, ECDSA, b"x").unwrap(); // as message and as digest
        }
        let for_the_key = pins.seen().iter().filter(|(p, _)| p.key.as_deref() == Some("careful")).count();
        assert_eq!((for_the_key, pins.seen().len()), (6, 7));
        // A wrong PIN costs one try and no other key.
        pins.set("999999");
        assert!(matches!(sign(&*careful, ECDSA, b"x").unwrap_err().kind(), ErrorKind::WrongPin { .. }));
        for _ in 0..3 {
            assert_eq!(sign(&*careful, ECDSA, b"x").unwrap_err().kind(), ErrorKind::Locked);
        }
        assert_eq!(pins.seen().iter().filter(|(_, o)| *o != PinOutcome::Accepted).count(), 1);
        sign_every_way(&*open(&backend, "easy").unwrap());
    }
}

/// Kryoptic counts tries and says so; SoftHSM does not.
#[test]
fn the_last_try_is_kept() {
    in_own_process("the_last_try_is_kept", Engine::Kryoptic, |bench| {
        let backend = bench.backend();
        let last = |error: &signer_core::Error| error.kind().tries_left() == Some(1);
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 30, "the token never says that one try is left");
            let error = unlock(&backend, "999999", false).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::WrongPin { .. }), "{error}");
            if last(&error) {
                break;
            }
        }
        let pins = TestPins::new(PIN);
        drop(backend);
        let backend = bench.backend_with(&pins);
        for _ in 0..3 {
            let error = now(backend.health()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
            assert!(error.to_string().contains("--use-last-try"), "{error}");
        }
        assert!(
            pins.seen().iter().all(|(prompt, outcome)| {
                *outcome == PinOutcome::NotTried && prompt.tries_left == Some(1)
            })
        );
        assert_eq!(unlock(&backend, PIN, false).unwrap_err().kind(), ErrorKind::Locked);
        unlock(&backend, PIN, true).unwrap();
        now(backend.health()).unwrap();
    });
}
