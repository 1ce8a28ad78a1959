//! Keys: how they are made, found, used and removed, and what they are sealed under.
#![allow(clippy::unwrap_used)] // tests may panic

use std::os::unix::fs::PermissionsExt;

use hwtests::{
    engines::{Engine, SwTpm},
    programs,
};
use signer_contract::{Material, make_private_key};
use signer_core::{Backend, ErrorKind, ImportRequest, KeyOrigin, KeyPolicy, KeyType, PinPolicy};

mod support;
use support::*;

fn persistent(tpm: &SwTpm) -> String {
    programs::must(tpm.tool("tpm2_getcap").arg("handles-persistent"))
}

#[test]
fn the_storage_parent_is_made_once_and_reused() {
    let tpm = SwTpm::with_options(&[]);
    let first = backend(&tpm);
    now(first.health()).unwrap();
    drop(first);
    assert!(!persistent(&tpm).contains("0x81"), "looking at a TPM does not change it");
    let made = backend(&tpm);
    generate(&made, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    drop(made);
    assert_eq!(persistent(&tpm).trim(), "- 0x81000001");
    let read = |tpm: &SwTpm| programs::must(tpm.tool("tpm2_readpublic").args(["-c", "0x81000001"]));
    let before = read(&tpm);
    // It is the storage root key of the TCG's template: whoever makes it makes the same one.
    programs::must(tpm.tool("tpm2_createprimary").args(["-C", "o", "-G", "ecc", "-c", "srk.ctx"]));
    let srk = programs::must(tpm.tool("tpm2_readpublic").args(["-c", "srk.ctx"]));
    let name = |text: &str| text.lines().find(|l| l.starts_with("name:")).map(ToOwned::to_owned);
    eprintln!("tpm2_createprimary makes {:?}, ours is {:?}", name(&srk), name(&before));
    programs::must(tpm.tool("tpm2_flushcontext").arg("-t"));
    let again = backend(&tpm);
    generate(&again, "l", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    sign(&*open(&again, "k").unwrap(), ECDSA, b"x").unwrap();
    drop(again);
    assert_eq!(read(&tpm), before);
}

#[test]
fn a_parent_that_is_something_else_is_refused_and_left_alone() {
    for arguments in [
        &["-G", "rsa"][..],
        &["-G", "ecc", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"],
    ] {
        let tpm = SwTpm::with_options(&[]);
        programs::must(tpm.tool("tpm2_createprimary").args(["-C", "o", "-c", "p.ctx"]).args(arguments));
        programs::must(tpm.tool("tpm2_evictcontrol").args(["-C", "o", "-c", "p.ctx", "0x81000001"]));
        programs::must(tpm.tool("tpm2_flushcontext").arg("-t"));
        let before = programs::must(tpm.tool("tpm2_readpublic").args(["-c", "0x81000001"]));
        let backend = backend(&tpm);
        let error = generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
        assert!(error.to_string().contains("0x81000100"), "it says what to do: {error}");
        assert!(now(backend.health()).is_err());
        drop(backend);
        assert_eq!(programs::must(tpm.tool("tpm2_readpublic").args(["-c", "0x81000001"])), before);
        // With another handle all is well.
        let mut options = tpm.options();
        options["parent"] = "0x81000100".into();
        let config = signer_tpm::TpmConfig::from_json(options).unwrap();
        let backend = signer_tpm::TpmBackend::new(config, "tpm", TestPins::none()).unwrap();
        generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
        now(backend.health()).unwrap();
    }
}

#[test]
fn an_owner_with_an_authorisation() {
    let tpm = SwTpm::with_options(&[]);
    programs::must(tpm.tool("tpm2_changeauth").args(["-c", "o", "owner secret"]));
    let backend = backend(&tpm);
    let error = generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("owner_auth_file"), "{error}");
    drop(backend);
    let file = tpm.folder().join("owner");
    std::fs::write(&file, "owner secret\n").unwrap();
    let mut options = tpm.options();
    options["owner_auth_file"] = file.to_str().unwrap().into();
    let config = signer_tpm::TpmConfig::from_json(options).unwrap();
    let backend = signer_tpm::TpmBackend::new(config, "tpm", TestPins::none()).unwrap();
    generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
}

#[test]
fn persistent_keys_are_used_where_they_are() {
    let tpm = SwTpm::with_options(&[("handles_with_pin", serde_json::json!(["0x81000b02"]))]);
    let tool = |name: &str, arguments: &[&str]| programs::must(tpm.tool(name).args(arguments));
    tool("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-c", "p.ctx"]);
    let pin = tpm.pin();
    for (handle, kind, auth) in [
        ("0x81000b01", "ecc", ""),
        ("0x81000b02", "ecc384", pin.as_str()),
        ("0x81000b03", "rsa2048", ""),
        ("0x81000b04", "ecc", "surprise"),
    ] {
        let mut create = vec!["-C", "p.ctx", "-G", kind, "-u", "k.pub", "-r", "k.priv", "-c", "k.ctx"];
        create.extend(["-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"]);
        if !auth.is_empty() {
            create.extend(["-p", auth]);
        }
        tool("tpm2_create", &create);
        tool("tpm2_flushcontext", &["-t"]);
        tool("tpm2_evictcontrol", &["-C", "o", "-c", "k.ctx", handle]);
        tool("tpm2_flushcontext", &["-t"]);
    }
    let pins = TestPins::new(&pin);
    let backend = backend_with(&tpm, &pins);
    assert_eq!(names(&backend), ["0x81000b01", "0x81000b02", "0x81000b03", "0x81000b04"]);
    generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    for label in ["0x81000b01", "0x81000b02", "k", "0x81000b01"] {
        let signer = open(&backend, label).unwrap();
        for algorithm in signer.info().algorithms.clone() {
            sign(&*signer, algorithm, b"x").unwrap();
        }
        now(signer.health()).unwrap();
    }
    // This one may not decrypt, so PSS is what the TPM makes of it.
    let rsa = open(&backend, "0x81000b03").unwrap();
    for algorithm in rsa.info().algorithms.clone() {
        match sign(&*rsa, algorithm, b"x") {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unsupported, "{algorithm}: {e}"),
        }
    }
    // An authorisation that nobody told us of is found out once, and not again.
    let surprise = open(&backend, "0x81000b04").unwrap();
    for _ in 0..5 {
        let error = sign(&*surprise, ECDSA, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("handles_with_pin"), "{error}");
    }
    let signer = open(&backend, "0x81000b01").unwrap();
    let certificate = now(signer_contract::self_signed(&*signer, "persistent")).unwrap();
    now(backend.store_certificate().unwrap().store_certificate(&selector("0x81000b01"), &certificate))
        .unwrap();
    assert_eq!(open(&backend, "0x81000b01").unwrap().info().certificate.as_ref(), Some(&certificate));
    // Neither made nor removed here.
    assert_eq!(delete(&backend, "0x81000b01").unwrap_err().kind(), ErrorKind::Unsupported);
    let taken = generate(&backend, "0x81000b09", KeyType::EcdsaP256, KeyPolicy::default()).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::BadRequest, "{taken}");
    assert_eq!(open(&backend, "0x81000b09").err().unwrap().kind(), ErrorKind::NotFound);
    // Another one takes its place.
    drop(backend);
    let counter = tool("tpm2_getcap", &["properties-variable"]);
    let counter = counter.lines().find(|l| l.contains("LOCKOUT_COUNTER")).unwrap().to_owned();
    assert!(counter.ends_with("0x1"), "one try was burnt at 0x81000b04: {counter}");
}

#[test]
fn imported_keys_sign_as_the_same_key_and_never_leave() {
    for options in [vec![], vec![("parameter_encryption", true.into())]] {
        let tpm = SwTpm::with_options(&options);
        let backend = backend(&tpm);
        for (at, key_type) in
            [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521, KeyType::Rsa2048, KeyType::Rsa3072]
                .into_iter()
                .enumerate()
        {
            for pin in [PinPolicy::Never, PinPolicy::Once] {
                let key = make_private_key(key_type).unwrap().key(Material::Pkcs8Der).unwrap();
                let half = key.public_key().clone();
                let label = format!("{at} {pin}");
                let request = ImportRequest { policy: policy(pin), ..ImportRequest::new(name(&label), key) };
                let info = now(backend.import().unwrap().import(request)).unwrap();
                assert_eq!(
                    (info.public_key, info.origin, info.extractable),
                    (half, KeyOrigin::Imported, Some(false))
                );
                let signer = open(&backend, &label).unwrap();
                for algorithm in signer.info().algorithms.clone() {
                    sign(&*signer, algorithm, b"x").unwrap();
                }
            }
        }
        for wrong in [KeyType::Ed25519, KeyType::Rsa4096, KeyType::MlDsa65] {
            let key = make_private_key(wrong).unwrap().key(Material::Pkcs8Der).unwrap();
            let error =
                now(backend.import().unwrap().import(ImportRequest::new(name("x"), key))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
}

#[test]
fn files_are_private_and_strangers_are_told_from_keys() {
    let tpm = SwTpm::with_options(&[]);
    let made = backend(&tpm);
    let long = "ä/".repeat(300);
    for label in ["k", long.as_str()] {
        generate(&made, label, KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    }
    let file = tpm.state().join("k.pem");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(&made).len(), 2);
    let signer = open(&made, "k").unwrap();
    sign(&*signer, ECDSA, b"x").unwrap();
    sign(&*open(&made, &long).unwrap(), ECDSA, b"x").unwrap();

    // A file that is no key, one that was damaged, and one that is not the TPM's.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(tpm.state().join("rubbish.pem"), "rubbish").unwrap();
    std::fs::write(tpm.state().join("half.pem"), &text[..text.len() / 2]).unwrap();
    let other = SwTpm::with_options(&[]);
    let stranger = backend(&other);
    generate(&stranger, "stranger", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    std::fs::copy(other.state().join("stranger.pem"), tpm.state().join("stranger.pem")).unwrap();
    assert_eq!(names(&made).len(), 3);
    let error = sign(&*open(&made, "stranger").unwrap(), ECDSA, b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("another TPM"), "{error}");
    assert_eq!(open(&made, "rubbish").err().unwrap().kind(), ErrorKind::BadRequest);
    now(made.health()).unwrap();
    // Another key in its place is not it.
    std::fs::rename(tpm.state().join("stranger.pem"), &file).unwrap();
    assert_eq!(sign(&*signer, ECDSA, b"x").unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::write(&file, &text).unwrap();
    sign(&*signer, ECDSA, b"x").unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(sign(&*signer, ECDSA, b"x").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_tpm_describes_itself() {
    let tpm = SwTpm::with_options(&[]);
    let info = now(backend(&tpm).describe()).unwrap();
    assert_eq!((info.kind.as_str(), info.model.as_str()), ("tpm", "IBM SW TPM"));
    assert!(
        info.firmware.starts_with("firmware 8217.4131.") && info.firmware.contains("revision 1."),
        "{info:?}"
    );
    let expected =
        [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521, KeyType::Rsa2048, KeyType::Rsa3072];
    assert_eq!(info.generates, expected);
}
