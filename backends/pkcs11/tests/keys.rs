//! Keys in real tokens: made, found, listed, used, deleted.
#![allow(clippy::unwrap_used)] // tests may panic

use signer_core::{
    Backend, ErrorKind, GenerateRequest, HashAlgorithm, KeyOrigin, KeyType, SignatureAlgorithm,
};

mod support;
use support::*;

const ELLIPTIC: [KeyType; 4] = [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521, KeyType::Ed25519];

fn ecdsa() -> SignatureAlgorithm {
    SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256)
}

on_every_token! {
    fn every_key_type_signs_with_every_algorithm(bench: &Bench) {
        let backend = bench.backend();
        let info = now(backend.describe()).unwrap();
        assert_eq!((info.kind.as_str(), info.device.as_str()), ("pkcs11", TOKEN));
        assert!(!info.serial.is_empty() && info.firmware.contains("library"), "{info:?}");
        let expected: &[KeyType] = match bench.engine {
            Engine::SoftHsm => &KeyType::ALL[..7],
            Engine::Kryoptic => &KeyType::ALL,
        };
        assert_eq!(info.generates, expected);
        for key_type in info.generates {
            let made = generate(&backend, key_type.name(), key_type).unwrap();
            assert_eq!(made.public_key.key_type(), key_type);
            assert_eq!(made.origin, KeyOrigin::Generated);
            assert_eq!(made.extractable, Some(false));
            let usual = key_type.algorithms().iter().filter(|a| **a != SignatureAlgorithm::Ed25519ph);
            assert_eq!(made.algorithms, usual.copied().collect::<Vec<_>>());
            let signer = open(&backend, key_type.name()).unwrap();
            assert_eq!(*signer.info(), made);
            sign_every_way(&*signer);
            now(signer.health()).unwrap();
        }
        assert_eq!(list(&backend).len(), expected.len());
        now(backend.health()).unwrap();
    }

    fn keys_are_found_by_every_reference(bench: &Bench) {
        let backend = bench.backend();
        let made = generate(&backend, "root", KeyType::EcdsaP256).unwrap();
        generate(&backend, "other", KeyType::EcdsaP256).unwrap();
        let id = made.id.clone().unwrap();
        assert_eq!(id.len(), 20);
        let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
        let percent: String = id.iter().map(|b| format!("%{b:02x}")).collect();
        let serial = now(backend.describe()).unwrap().serial;
        for reference in [
            "root".to_owned(),
            format!("id:{hex}"),
            "pkcs11:object=root".to_owned(),
            format!("pkcs11:token=test%20token;object=root;type=private;id={percent}"),
            format!("pkcs11:serial={serial};id={percent}"),
            made.address.clone().unwrap().to_string(),
        ] {
            assert_eq!(*open(&backend, &reference).unwrap().info(), made, "{reference}");
        }
        for (reference, kind) in [
            ("nobody", ErrorKind::NotFound),
            ("id:00", ErrorKind::NotFound),
            ("root@2", ErrorKind::NotFound),
            ("pkcs11:token=another;object=root", ErrorKind::NotFound),
            ("pkcs11:serial=1;object=root", ErrorKind::NotFound),
            ("pkcs11:model=1;object=root", ErrorKind::NotFound),
            ("piv:1/9c", ErrorKind::NotFound),
            ("pkcs11:token=test%20token", ErrorKind::BadRequest),
        ] {
            let error = open(&backend, reference).err().unwrap();
            assert_eq!(error.kind(), kind, "{reference}: {error}");
        }
    }

    fn odd_labels_are_only_labels(bench: &Bench) {
        let backend = bench.backend();
        let labels = ["a/b/c", "Schlüssel 鍵", "a@b", "100%", "id:01", "with space", "*", "\"';--", "-n", &"x".repeat(200)];
        for label in labels {
            let name = signer_core::KeyName::label(label).unwrap();
            let request = GenerateRequest::new(name.clone(), KeyType::EcdsaP256);
            let made = make(&backend, request.clone()).unwrap();
            assert_eq!(made.name, name);
            let signer = open(&backend, &name.to_string()).unwrap();
            assert_eq!(*signer.info(), made);
            sign(&*signer, ecdsa(), b"x").unwrap();
            let again = make(&backend, request).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
            let address = made.address.unwrap().to_string();
            assert_eq!(open(&backend, &address).unwrap().info().name, name, "{address}");
        }
        assert_eq!(list(&backend).len(), labels.len());
        // Without a label: the id is the name.
        let made = generate(&backend, "id:0a0b", KeyType::EcdsaP256).unwrap();
        assert_eq!(made.name.to_string(), "id:0a0b");
        assert_eq!(made.id.as_deref(), Some(&[0x0a, 0x0b][..]));
        assert_eq!(open(&backend, "id:0a0b").unwrap().info().name, made.name);
        assert_eq!(generate(&backend, "id:0a0b", KeyType::EcdsaP256).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    fn keys_of_other_programs_are_found(bench: &Bench) {
        for (label, id) in [("twin", "01"), ("twin", "02"), ("single", "03")] {
            bench.user_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--id", id]);
        }
        // The same id, another label.
        bench.user_tool(&["--keypairgen", "--key-type", "EC:secp384r1", "--label", "half", "--id", "03"]);
        let backend = bench.backend();
        assert_eq!(names(&backend), ["half", "id:01", "id:02", "single"]);
        for name in names(&backend) {
            let signer = open(&backend, &name).unwrap();
            assert_eq!(signer.info().name.to_string(), name);
            sign_every_way(&*signer);
        }
        assert_eq!(open(&backend, "half").unwrap().info().public_key.key_type(), KeyType::EcdsaP384);
        let error = open(&backend, "twin").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert!(error.to_string().contains("id:01") && error.to_string().contains("id:02"), "{error}");
        assert_eq!(open(&backend, "id:03").err().unwrap().kind(), ErrorKind::BadRequest);
        assert_eq!(open(&backend, "pkcs11:object=twin;id=%02").unwrap().info().name.to_string(), "id:02");
        // One of them goes: what it had in common with others stays.
        delete(&backend, "half").unwrap();
        delete(&backend, "id:01").unwrap();
        assert_eq!(names(&backend), ["single", "twin"]);
        sign_every_way(&*open(&backend, "single").unwrap());
    }

    fn an_opened_key_that_is_replaced_is_not_mistaken(bench: &Bench) {
        let backend = bench.backend();
        generate(&backend, "release", KeyType::EcdsaP256).unwrap();
        let old = open(&backend, "release").unwrap();
        let id = old.info().id.clone();
        delete(&backend, "release").unwrap();
        assert_eq!(sign(&*old, ecdsa(), b"x").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(now(old.health()).unwrap_err().kind(), ErrorKind::NotFound);
        let again = GenerateRequest { id, ..GenerateRequest::new("release".parse().unwrap(), KeyType::EcdsaP256) };
        make(&backend, again).unwrap();
        assert_eq!(sign(&*old, ecdsa(), b"x").unwrap_err().kind(), ErrorKind::NotFound);
        sign(&*open(&backend, "release").unwrap(), ecdsa(), b"x").unwrap();
        assert_eq!(delete(&backend, "nobody").unwrap_err().kind(), ErrorKind::NotFound);
    }

    fn what_is_deleted_leaves_nothing_behind(bench: &Bench) {
        let backend = bench.backend();
        for key_type in ELLIPTIC {
            generate(&backend, "k", key_type).unwrap();
            delete(&backend, "k").unwrap();
        }
        assert_eq!(names(&backend), [""; 0]);
        drop(backend);
        let module = bench.module.to_str().unwrap();
        let output = std::process::Command::new("pkcs11-tool")
            .args(["--module", module, "--token-label", TOKEN, "--login", "--pin", PIN, "--list-objects"])
            .output()
            .unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !listed.contains("Key Object"), "{listed}");
    }

    fn many_threads_sign_at_once(bench: &Bench) {
        let backend = bench.backend();
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        let signer = open(&backend, "k").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for i in 0..50_u32 {
                        sign(&*signer, ecdsa(), &i.to_ne_bytes()).unwrap();
                    }
                });
            }
        });
    }

    fn a_thousand_keys_are_listed_in_no_time(bench: &Bench) {
        const MANY: usize = 1000;
        let backend = bench.backend();
        for i in 0..MANY {
            generate(&backend, &format!("key {i:04}"), KeyType::EcdsaP256).unwrap();
        }
        let start = std::time::Instant::now();
        let keys = list(&backend);
        eprintln!("listing took {:?}", start.elapsed());
        assert_eq!(keys.len(), MANY);
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        let mut page = now(backend.list(signer_core::ListRequest { page_size: 300, page_token: None })).unwrap();
        let mut seen = page.keys.len();
        while let Some(token) = page.next {
            page = now(backend.list(signer_core::ListRequest { page_size: 300, page_token: Some(token) })).unwrap();
            seen += page.keys.len();
        }
        assert_eq!(seen, MANY);
        let start = std::time::Instant::now();
        let signer = open(&backend, "key 0815").unwrap();
        eprintln!("opening took {:?}", start.elapsed());
        sign(&*signer, ecdsa(), b"x").unwrap();
    }
}

#[test]
fn a_read_only_backend_changes_nothing() {
    in_own_process("a_read_only_backend_changes_nothing", Engine::SoftHsm, |bench| {
        bench.user_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "01"]);
        let mut config = bench.config();
        config.read_only = true;
        let backend = signer_pkcs11::Pkcs11Backend::new(&config, "hsm", TestPins::new(PIN)).unwrap();
        let names: Vec<_> = backend.abilities().iter().map(|a| a.name()).collect();
        assert_eq!(names, ["unlock", "watch"]);
        sign_every_way(&*open(&backend, "k").unwrap());
        assert!(now(backend.describe()).unwrap().generates.is_empty());
    });
}
