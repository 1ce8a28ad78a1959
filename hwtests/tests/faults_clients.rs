//! Clients that are too many, too slow, too big or no clients at all: memory stays bounded, the others are served.
#![allow(clippy::unwrap_used)] // tests

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use hwtests::{
    daemon::Daemon,
    engines::{Engine, SoftHsm, Software},
    http2::{Http2, grpc_prefix},
    load::{Load, failures, input},
    process,
};
use signer_contract::PinSetup;
use signer_core::{ErrorKind, HashAlgorithm, Input, KeyType, SignatureAlgorithm};
use signerd_api::{error_from_status, pb};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
const SIGN: &str = "/signerd.v1.SignerService/Sign";
const LIST: &str = "/signerd.v1.SignerService/ListKeys";

/// A daemon with a software key `soft/release`.
async fn daemon_with_a_key(soft: &Software) -> Daemon {
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "release").await;
    daemon
}

/// The others are served while something bad goes on: none fails, none waits long. And the daemon does not grow by more
/// than so many MiB.
async fn others_are_served(daemon: &Daemon, key: &str, bound_mib: u64, bad: impl AsyncFnOnce()) {
    let before = process::memory_kib(daemon.pid(), "VmRSS");
    let load = Load::start(|| daemon.client(), key, 4).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    bad().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let calls = load.stop().await;
    let failed = failures(&calls);
    assert!(failed.is_empty(), "{} calls of others failed, first {:?}", failed.len(), failed[0]);
    let slowest = calls.iter().map(|c| c.took).max().unwrap();
    assert!(slowest < Duration::from_secs(2), "another caller waited {slowest:?}");
    let highest = process::memory_kib(daemon.pid(), "VmHWM");
    let grown = highest.saturating_sub(before) / 1024;
    assert!(grown <= bound_mib, "the daemon grew by {grown} MiB, to {} MiB", highest / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_at_once() {
    let hsm = SoftHsm::start();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    let key = daemon.make_key("hsm", "release").await.public_key;
    let clients = (0..1000).map(|at| {
        let (client, key) = (daemon.client(), key.clone());
        tokio::spawn(async move {
            for round in 0..5 {
                let input = input(P256, &format!("client {at} round {round}"));
                let signed = client.sign("hsm/release", Some(P256), input.clone()).await?;
                key.verify(P256, &input, signed.signature.as_bytes())?;
            }
            Ok::<_, signer_core::Error>(())
        })
    });
    let outcomes = join_all(clients).await;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        outcome.unwrap().unwrap_or_else(|e| panic!("client {at}: {e:?}"));
    }
    let highest = process::memory_kib(daemon.pid(), "VmHWM") / 1024;
    assert!(highest < 150, "the daemon took {highest} MiB for a thousand clients");
    let left =
        hwtests::eventually(Duration::from_secs(5), async || process::open_files(daemon.pid()) < 100).await;
    assert!(left, "{} files are still open", process::open_files(daemon.pid()));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading() {
    let soft = Software::start();
    let daemon = daemon_with_a_key(&soft).await;
    for at in 0..100 {
        daemon.make_key("soft", &format!("key {at}")).await;
    }
    let socket = daemon.socket();
    others_are_served(&daemon, "soft/release", 200, async || {
        let stuck = tokio::task::spawn_blocking(move || {
            let mut connections = Vec::new();
            for _ in 0..16 {
                let Ok(mut connection) = Http2::connect(&socket, i32::MAX as u32) else { continue };
                for at in 0..500_u32 {
                    let stream = 2 * at + 1;
                    let request = grpc_prefix(0);
                    // A daemon may cut such a client off.
                    if connection.call(stream, LIST, &[]).is_err()
                        || connection.send_blindly(stream, &request, true).is_err()
                    {
                        break;
                    }
                }
                connections.push(connection);
            }
            assert!(!connections.is_empty(), "no connection could be made at all");
            std::thread::sleep(Duration::from_secs(3));
        });
        stuck.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_ten_gigabytes() {
    let soft = Software::start();
    let daemon = daemon_with_a_key(&soft).await;
    // A message of up to MAX_MESSAGE may be in memory, and a second one on its way.
    others_are_served(&daemon, "soft/release", 400, async || {
        for (what, announced) in [("announced in full", u32::MAX), ("announced as bearable", 100 << 20)] {
            let socket = daemon.socket();
            let sent = tokio::task::spawn_blocking(move || {
                let mut connection = Http2::connect(&socket, 65_535).unwrap();
                connection.call(1, SIGN, &[("content-length", "10000000000")]).unwrap();
                let mut sent: u64 = 0;
                let chunk = vec![0x2a; 1 << 20];
                let mut going = connection.send(1, &grpc_prefix(announced)).unwrap();
                while going && sent < 10_000_000_000 {
                    going = connection.send(1, &chunk).unwrap_or(false);
                    sent += chunk.len() as u64;
                }
                sent
            });
            let sent = sent.await.unwrap();
            assert!(sent < 500_000_000, "a message of 10 GB, {what}: {sent} bytes were taken");
        }
    })
    .await;

    // One that a proper client sends gets a sentence, whichever side finds it too long.
    daemon.make_key_of("soft", "pure", KeyType::Ed25519).await;
    for len in [(128 << 20) + 1, signerd_api::MAX_MESSAGE + 1] {
        let big = Input::Message(Bytes::from(vec![7; len]));
        let error = daemon.client().sign("soft/pure", None, big).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{len} bytes: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_digest_is_a_bad_request() {
    let (hsm, soft) = (SoftHsm::start(), Software::start());
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right), soft.toml("soft", PinSetup::Right)]).await;
    let mut keys = Vec::new();
    for (backend, types) in [
        ("hsm", &[KeyType::EcdsaP256, KeyType::Rsa2048, KeyType::Ed25519][..]),
        ("soft", &[KeyType::EcdsaP384, KeyType::Rsa2048, KeyType::Ed25519, KeyType::MlDsa65][..]),
    ] {
        for key_type in types {
            let info = daemon.make_key_of(backend, key_type.name(), *key_type).await;
            keys.push((format!("{backend}/{}", info.name), info));
        }
    }
    let client = daemon.client();
    let mut raw = client.service(pb::signer_service_client::SignerServiceClient::with_origin);
    for (reference, info) in &keys {
        for algorithm in SignatureAlgorithm::ALL {
            for len in [0, 1, 20, 28, 31, 32, 33, 47, 48, 49, 63, 64, 65, 128, 4096] {
                let offered = info.algorithms.contains(&algorithm);
                let fits = algorithm.prehash().is_some_and(|h| h.len() == len);
                let request = pb::SignRequest {
                    key: reference.clone(),
                    algorithm: algorithm.name().to_owned(),
                    input: Some(pb::sign_request::Input::Digest(vec![3; len])),
                };
                let answer = raw.sign(request).await;
                let what = format!("{reference}, {algorithm}, {len} bytes");
                match answer {
                    Ok(_) => assert!(offered && fits, "{what}: signed"),
                    Err(status) => {
                        let error = error_from_status(&status);
                        assert!(!(offered && fits), "{what}: {error:?}");
                        let expected = [ErrorKind::BadRequest, ErrorKind::Unsupported];
                        assert!(expected.contains(&error.kind()), "{what}: {error:?}");
                        assert!(!offered || error.kind() == ErrorKind::BadRequest, "{what}: {error:?}");
                    }
                }
            }
        }
        // Neither message nor digest; an algorithm that nobody knows.
        let nothing = pb::SignRequest { key: reference.clone(), ..pb::SignRequest::default() };
        let error = error_from_status(&raw.sign(nothing).await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error:?}");
        let odd = pb::SignRequest {
            key: reference.clone(),
            algorithm: "rot13".into(),
            input: Some(pb::sign_request::Input::Message("x".into())),
        };
        let error = error_from_status(&raw.sign(odd).await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error:?}");
        assert!(error.to_string().contains("rot13"), "{error}");
    }
    for bad in
        ["", "/", "hsm", "hsm/", "/x", "hsm/%", "a b", "hsm/x@@1", "pkcs11:pin-value=1234", "nothing://x"]
    {
        let request = pb::SignRequest { key: bad.into(), ..pb::SignRequest::default() };
        let error = error_from_status(&raw.sign(request).await.unwrap_err());
        let expected = [ErrorKind::BadRequest, ErrorKind::NotFound, ErrorKind::Denied];
        assert!(expected.contains(&error.kind()), "{bad:?}: {error:?}");
        assert!(!error.to_string().contains("1234"), "a PIN is repeated: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_socket() {
    let soft = Software::start();
    let daemon = daemon_with_a_key(&soft).await;
    let socket = daemon.socket();
    others_are_served(&daemon, "soft/release", 50, async || {
        let garbage = tokio::task::spawn_blocking(move || {
            let mut noise = vec![0; 1 << 20];
            std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
            for at in 0..200 {
                let mut stream = UnixStream::connect(&socket).unwrap();
                // Some of it ends early, some looks right at first.
                if at % 2 == 0 {
                    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                }
                let start = at * 4099 % (noise.len() / 2);
                let _ = stream.write_all(&noise[start..start + 1 + at * 37]);
            }
            for text in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\0\0\0\0", "SSH-2.0-x\r\n"] {
                let mut stream = UnixStream::connect(&socket).unwrap();
                let _ = stream.write_all(text.as_bytes());
            }
            // Good frames, and in them no message at all.
            for body in [
                &b"\xff\xff\xff\xff\xff"[..],
                &grpc_prefix(3),
                b"\0\0\0\0\x03\x0f\xff\xff",
                b"\x01\0\0\0\x01x",
            ] {
                let mut connection = Http2::connect(&socket, 65_535).unwrap();
                connection.call(1, SIGN, &[]).unwrap();
                let _ = connection.send_blindly(1, body, true);
                assert!(connection.until_ended(1).is_ok(), "a broken message is not answered");
            }
        });
        garbage.await.unwrap();
    })
    .await;
    let left =
        hwtests::eventually(Duration::from_secs(5), async || process::open_files(daemon.pid()) < 60).await;
    assert!(left, "{} files are still open", process::open_files(daemon.pid()));
    assert!(!daemon.log().contains("panicked"), "the daemon panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_lorises() {
    let soft = Software::start();
    let daemon = daemon_with_a_key(&soft).await;
    let socket = daemon.socket();
    others_are_served(&daemon, "soft/release", 100, async || {
        let slow = tokio::task::spawn_blocking(move || {
            // Some say nothing, some stop in the preface, some in a message.
            let mut silent: Vec<_> = (0..150).map(|_| UnixStream::connect(&socket).unwrap()).collect();
            let mut slow: Vec<_> = (0..150).map(|_| Http2::connect(&socket, 65_535).unwrap()).collect();
            for connection in &mut slow {
                connection.call(1, SIGN, &[]).unwrap();
                connection.send_blindly(1, &grpc_prefix(1000), false).unwrap();
            }
            let until = Instant::now() + Duration::from_secs(4);
            while Instant::now() < until {
                for (at, stream) in silent.iter_mut().enumerate() {
                    let _ = stream.write_all(&b"PRI * HTTP/2.0\r\n\r\n"[at % 10..=at % 10]);
                }
                for connection in &mut slow {
                    let _ = connection.send_blindly(1, b"x", false);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        slow.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_busy() {
    let hsm = SoftHsm::start();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key_of("hsm", "slow", KeyType::Rsa4096).await;
    // More than any queue holds, all at once, on few connections: each ends, and soon.
    let clients: Vec<_> = (0..8).map(|_| daemon.client().timeout(Duration::from_secs(5))).collect();
    let algorithm = KeyType::Rsa4096.default_algorithm();
    let calls = (0..8000_usize).map(|at| {
        let client = clients[at % clients.len()].clone();
        tokio::spawn(async move { client.sign("hsm/slow", Some(algorithm), input(algorithm, "x")).await })
    });
    let start = Instant::now();
    let mut signed = 0;
    for outcome in join_all(calls).await {
        match outcome.unwrap() {
            Ok(_) => signed += 1,
            Err(e) => {
                let expected = matches!(e.kind(), ErrorKind::Busy { .. } | ErrorKind::TimedOut);
                assert!(expected, "a call ended with {e:?}");
                if let ErrorKind::Busy { retry_after } = e.kind() {
                    assert!(!retry_after.is_zero(), "busy, but no hint when to try again");
                }
            }
        }
    }
    assert!(signed > 0, "nothing was signed at all");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "the last call ended after {took:?}");
    let highest = process::memory_kib(daemon.pid(), "VmHWM") / 1024;
    assert!(highest < 200, "the daemon took {highest} MiB");
    daemon.client().sign("hsm/slow", Some(algorithm), input(algorithm, "x")).await.unwrap();
}
