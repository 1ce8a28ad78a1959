//! What comes into a token from outside: private keys, certificates, and what other programs leave out.
#![allow(clippy::unwrap_used)] // tests may panic

use signer_contract::{Material, make_private_key, self_signed};
use signer_core::{
    Backend, ErrorKind, Import, ImportRequest, KeyInfo, KeyOrigin, KeyType, PrivateKey, Result,
    StoreCertificate,
};
use signer_pkcs11::Pkcs11Backend;

mod support;
use support::*;

fn import(backend: &Pkcs11Backend, name: &str, key: PrivateKey) -> Result<KeyInfo> {
    now(Import::import(backend, ImportRequest::new(name.parse().unwrap(), key)))
}

fn store(backend: &Pkcs11Backend, name: &str, certificate: &[u8]) -> Result<()> {
    now(StoreCertificate::store_certificate(backend, &name.parse().unwrap(), certificate))
}

fn certificate(backend: &Pkcs11Backend, key: &str, subject: &str) -> Vec<u8> {
    now(self_signed(&*open(backend, key).unwrap(), subject)).unwrap()
}

on_every_token! {
    fn every_key_type_is_taken_in(bench: &Bench) {
        let backend = bench.backend();
        let imports = now(backend.describe()).unwrap().imports;
        let expected: &[KeyType] = match bench.engine {
            Engine::SoftHsm => &KeyType::ALL[..7],
            Engine::Kryoptic => &KeyType::ALL,
        };
        assert_eq!(imports, expected);
        for key_type in imports {
            let key = make_private_key(key_type).unwrap();
            let read = || key.key(Material::Pkcs8Der).unwrap();
            let info = import(&backend, key_type.name(), read()).unwrap_or_else(|e| panic!("{key_type}: {e}"));
            assert_eq!(info.public_key, *read().public_key());
            assert_eq!((info.origin, info.extractable), (KeyOrigin::Imported, Some(false)));
            let signer = open(&backend, key_type.name()).unwrap();
            assert_eq!(*signer.info(), info);
            sign_every_way(&*signer);
            // The same key is the same key under any name.
            for name in [key_type.name(), "other"] {
                assert_eq!(import(&backend, name, read()).unwrap_err().kind(), ErrorKind::AlreadyExists);
            }
            delete(&backend, key_type.name()).unwrap();
            import(&backend, "other", read()).unwrap();
            delete(&backend, "other").unwrap();
        }
        assert_eq!(names(&backend), [""; 0]);
    }

    fn certificates_are_kept_beside_their_keys(bench: &Bench) {
        let backend = bench.backend();
        generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        generate(&backend, "other", KeyType::EcdsaP256).unwrap();
        assert_eq!(open(&backend, "k").unwrap().info().certificate, None);
        for subject in ["first", "second"] {
            let certificate = certificate(&backend, "k", subject);
            store(&backend, "k", &certificate).unwrap();
            assert_eq!(open(&backend, "k").unwrap().info().certificate, Some(certificate.clone()));
            let listed = list(&backend);
            assert_eq!(listed.iter().filter_map(|k| k.certificate.clone()).collect::<Vec<_>>(), [certificate]);
        }
        let foreign = certificate(&backend, "other", "other");
        assert_eq!(store(&backend, "k", &foreign).unwrap_err().kind(), ErrorKind::BadRequest);
        assert_eq!(store(&backend, "k", b"no certificate").unwrap_err().kind(), ErrorKind::BadRequest);
        assert_eq!(store(&backend, "nobody", &foreign).unwrap_err().kind(), ErrorKind::NotFound);

        // With the public key object gone, the certificate says what the public half is.
        bench.user_tool(&["--delete-object", "--type", "pubkey", "--label", "k"]);
        let signer = open(&backend, "k").unwrap();
        sign_every_way(&*signer);
        assert_eq!(list(&backend).len(), 2);
        delete(&backend, "k").unwrap();
        let again = generate(&backend, "k", KeyType::EcdsaP256).unwrap();
        assert_eq!(again.certificate, None, "it went with its key");
    }

    fn private_keys_without_a_public_one(bench: &Bench) {
        for (kind, label, id) in [("rsa:2048", "rsa", "01"), ("EC:prime256v1", "ec", "02"), ("EC:secp256r1", "whole", "03")] {
            bench.user_tool(&["--keypairgen", "--key-type", kind, "--label", label, "--id", id]);
        }
        for label in ["rsa", "ec"] {
            bench.user_tool(&["--delete-object", "--type", "pubkey", "--label", label]);
        }
        let backend = bench.backend();
        // An RSA key holds both halves.
        sign_every_way(&*open(&backend, "rsa").unwrap());
        match open(&backend, "ec") {
            // PKCS#11 3.0 tokens keep the public half with the private one.
            Ok(signer) => sign_every_way(&*signer),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(error.to_string().contains("public"), "{error}");
                assert_eq!(names(&backend), ["rsa", "whole"]);
            }
        }
    }
}
