//! Ways to reach the server, and what breaks on them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use hwtests::{
    engines::Vault,
    programs,
    proxy::{Carry, Proxy},
};
use signer_core::{Backend, ErrorKind, KeyName, KeyType};

use crate::support::{Config, backend, make, open, request, sign};

#[tokio::test]
async fn a_unix_socket_and_tls_are_ways_to_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vault.sock");
    let vault = Vault::with_socket(&socket);
    let address = format!("unix://{}", socket.display());
    let place = backend(Config { address: Some(address), ..vault.config() });
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    sign(&*open(&place, "hashivault://release").await.unwrap()).await.unwrap();

    let (ca, good, expired) = certificates(folder.path());
    let vault = Vault::with_tls(&good.0, &good.1);
    let address = Some(format!("https://localhost:{}", vault.address().rsplit(':').next().unwrap()));
    let place = backend(Config { address: address.clone(), ca_file: Some(ca.clone()), ..vault.config() });
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    sign(&*open(&place, "release").await.unwrap()).await.unwrap();
    // Of an authority that nobody named.
    let error = backend(Config { address, ca_file: None, ..vault.config() }).health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert!(error.what().contains("certificate") && error.advice().unwrap().contains("ca_file"), "{error:?}");

    let vault = Vault::with_tls(&expired.0, &expired.1);
    let address = Some(format!("https://localhost:{}", vault.address().rsplit(':').next().unwrap()));
    let error = backend(Config { address, ca_file: Some(ca), ..vault.config() }).health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert!(error.advice().unwrap().contains("expired"), "{error:?}");
}

type Pair = (PathBuf, PathBuf);

/// A test CA, and two certificates of it for `localhost`: a good one, and one that has expired.
fn certificates(folder: &Path) -> (PathBuf, Pair, Pair) {
    let openssl = |arguments: &[&str]| {
        programs::must(
            Command::new(programs::system("openssl", "openssl")).current_dir(folder).args(arguments),
        )
    };
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[&new[..], &["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "30"]].concat(),
    );
    std::fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n").unwrap();
    std::fs::write(folder.join("index"), "").unwrap();
    std::fs::write(
        folder.join("ca.conf"),
        "[ca]\ndefault_ca = t\n[t]\ndatabase = index\nnew_certs_dir = .\nserial = serial\ndefault_md = sha256\npolicy = p\n\
         unique_subject = no\n[p]\ncommonName = supplied\n",
    )
    .unwrap();
    let issue = |name: &str, start: &str, end: &str| {
        let (key, csr, pem) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let request = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        openssl(&[&request[..], &["-keyout", &key, "-out", &csr, "-subj", "/CN=localhost"]].concat());
        openssl(&[
            "ca",
            "-config",
            "ca.conf",
            "-batch",
            "-notext",
            "-rand_serial",
            "-cert",
            "ca.pem",
            "-keyfile",
            "ca.key",
            "-extfile",
            "ext",
            "-startdate",
            start,
            "-enddate",
            end,
            "-in",
            &csr,
            "-out",
            &pem,
        ]);
        (folder.join(pem), folder.join(key))
    };
    let good = issue("good", "20200101000000Z", "20991231000000Z");
    let expired = issue("expired", "20200101000000Z", "20210101000000Z");
    (folder.join("ca.pem"), good, expired)
}

#[tokio::test]
async fn connections_that_break_are_classified_and_healed() {
    let vault = Vault::start();
    let proxy = Proxy::start(vault.address()).await;
    let place = backend(Config { address: Some(format!("http://{}", proxy.address())), ..vault.config() });
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    let signer = open(&place, "release").await.unwrap();
    // Idle connections that are cut are nobody's trouble.
    for _ in 0..5 {
        proxy.cut();
        sign(&*signer).await.unwrap();
    }
    for (how, at_least) in [(Carry::Halves, 0.0), (Carry::Nothing, 1.0), (Carry::Slowly, 1.0)] {
        proxy.carry(how);
        let start = Instant::now();
        let error = sign(&*signer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone, "{how:?}: {error:?}");
        let took = start.elapsed().as_secs_f32();
        assert!(took >= at_least && took < 5.5, "{how:?}: {took} s");
        let late = request(&*signer).deadline(Some(Instant::now() + Duration::from_millis(300)));
        let error = signer.sign(late).await.unwrap_err();
        if how != Carry::Halves {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{how:?}: {error:?}");
        }
        proxy.carry(Carry::Well);
        sign(&*signer).await.unwrap();
    }
    // A change whose answer is lost may have been made, and is not made again.
    proxy.carry(Carry::Halves);
    let rotated = place.rotate().unwrap().rotate(&KeyName::label("release").unwrap()).await;
    proxy.carry(Carry::Well);
    // The first look at the key is lost already; nothing was changed then.
    assert_eq!(rotated.unwrap_err().kind(), ErrorKind::DeviceGone);
    assert_eq!(open(&place, "release").await.unwrap().info().name.to_string(), "release@1");
}

#[tokio::test]
async fn a_dead_server_is_told_soon() {
    let vault = Vault::start();
    let place = backend(vault.config());
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    let signer = open(&place, "release").await.unwrap();
    drop(vault);
    let start = Instant::now();
    for error in [sign(&*signer).await.unwrap_err(), place.health().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
