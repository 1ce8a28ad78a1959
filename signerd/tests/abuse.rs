//! Callers who mean harm, or do it by mistake: memory stays bounded, and the others are served.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use signer_core::{ErrorKind, GenerateRequest, Input, KeyType, SignatureAlgorithm};
use signerd_api::pb;
use support::{Daemon, SOFT, all_for_me};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

async fn daemon(more: &str) -> Daemon {
    let daemon = Daemon::with(&format!("{SOFT}{}{more}", all_for_me())).await;
    for (name, key_type) in [("k", KeyType::EcdsaP256), ("ed", KeyType::Ed25519)] {
        let request = GenerateRequest::new(name.parse().unwrap(), key_type);
        daemon.client().create(&"soft".parse().unwrap(), request).await.unwrap();
    }
    daemon
}

/// Others are served, quickly.
async fn still_serves(daemon: &Daemon) {
    let client = daemon.client();
    let begin = Instant::now();
    client.sign("soft/k", None, Input::Message("x".into())).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// Resident memory in MiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn garbage_on_the_socket_closes_that_connection_alone() {
    let daemon = daemon("").await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let garbage: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        vec![0; 100_000],
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        [&preface[..], &[0xff; 4096]].concat(),
        [&preface[..], &settings, &[0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]].concat(),
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        // The other end may have closed before all was written.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection is closed");
        still_serves(&daemon).await;
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_before_it_is_held() {
    let daemon = daemon("[limits]\nmax_message = \"1 MiB\"\n").await;
    let client = daemon.client();
    let sign = async |len: usize| {
        let input = Input::Message(vec![7_u8; len].into());
        client.sign("soft/ed", Some(SignatureAlgorithm::Ed25519), input).await
    };
    sign(1 << 20).await.unwrap();
    for len in [(1 << 20) + 1, 5 << 20, 100 << 20] {
        let error = sign(len).await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
    }
    // One that only claims to be long.
    let mut raw = pb::signer_service_client::SignerServiceClient::new(support_channel(&daemon).await);
    let input = Some(pb::sign_request::Input::Message(vec![0; 64 << 20].into()));
    let status = raw
        .sign(pb::SignRequest { key: "soft/ed".into(), algorithm: String::new(), input })
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    assert!(memory(&daemon) < 60, "{} MiB", memory(&daemon));
    still_serves(&daemon).await;
}

#[tokio::test]
async fn many_long_messages_at_once_stay_within_the_memory_for_them() {
    let daemon = daemon("[limits]\nmax_message = \"8 MiB\"\nmax_memory = \"24 MiB\"\n").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let client = daemon.client();
        tasks.spawn(async move {
            let input = Input::Message(vec![7_u8; 8 << 20].into());
            client.sign("soft/ed", Some(SignatureAlgorithm::Ed25519), input).await
        });
    }
    let mut signed = 0;
    while let Some(result) = tasks.join_next().await {
        match result.unwrap() {
            Ok(_) => signed += 1,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    assert!(signed > 0);
    assert!(memory(&daemon) < 120, "{} MiB", memory(&daemon));
    still_serves(&daemon).await;
}

#[tokio::test]
async fn a_caller_who_says_nothing_is_sent_away() {
    let daemon = daemon("").await;
    let mut silent = UnixStream::connect(daemon.socket()).await.unwrap();
    let mut slow = UnixStream::connect(daemon.socket()).await.unwrap();
    slow.write_all(b"PRI * HT").await.unwrap();
    still_serves(&daemon).await;
    for stream in [&mut silent, &mut slow] {
        let mut answer = Vec::new();
        // The server's settings come at once; the end of the connection when the time for a greeting is over.
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection is closed");
    }
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up_at_its_deadline() {
    let daemon = daemon("[limits]\ndefault_deadline = \"300 ms\"\n").await;
    let mut raw = support_channel(&daemon).await;
    // A body that begins and never ends.
    let (sender, receiver) =
        tokio::sync::mpsc::channel::<Result<http_body::Frame, std::convert::Infallible>>(1);
    sender.send(Ok(http_body::Frame::begun())).await.unwrap();
    let body = http_body::body(receiver);
    let request = tonic::codegen::http::Request::post("http://signerd/signerd.v1.SignerService/Sign")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let begin = Instant::now();
    std::future::poll_fn(|cx| tonic::codegen::Service::poll_ready(&mut raw, cx)).await.unwrap();
    let answer = tonic::codegen::Service::call(&mut raw, request).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
    let status = tonic::Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
    drop(sender);
}

/// A body that is sent piece by piece.
mod http_body {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use tokio::sync::mpsc::Receiver;

    pub(super) struct Frame(Bytes);

    impl Frame {
        /// The head of a message of 100 bytes, and none of them.
        pub(super) fn begun() -> Self {
            Self(Bytes::from_static(&[0, 0, 0, 0, 100]))
        }
    }

    pub(super) fn body(receiver: Receiver<Result<Frame, Infallible>>) -> tonic::body::Body {
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let frame = receiver.recv().await?;
            Some((frame.map(|f| hyper::body::Frame::data(f.0)), receiver))
        });
        tonic::body::Body::new(Streamed(frames.boxed()))
    }

    struct Streamed(stream::BoxStream<'static, Result<hyper::body::Frame<Bytes>, Infallible>>);

    impl hyper::body::Body for Streamed {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            self.0.poll_next_unpin(cx)
        }
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_grow() {
    let daemon = daemon("").await;
    still_serves(&daemon).await;
    let before = memory(&daemon);
    let mut raw = pb::signer_service_client::SignerServiceClient::new(support_channel(&daemon).await);
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let requests = futures_util::stream::iter(0_u64..2_000_000).map(move |id| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        pb::SignStreamRequest {
            key: "soft/k".into(),
            algorithm: String::new(),
            id,
            input: Some(pb::sign_stream_request::Input::Digest(vec![1; 32])),
        }
    });
    let answers = raw.sign_stream(requests).await.unwrap();
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        if now == last {
            break;
        }
        last = now;
    }
    assert!(last < 100_000, "{last} requests were taken in although nobody reads the answers");
    assert!(memory(&daemon) < before + 20, "{before} MiB before, {} MiB now", memory(&daemon));
    still_serves(&daemon).await;
    drop(answers);
}

#[tokio::test]
async fn a_thousand_callers_at_once_are_all_served() {
    let daemon = daemon("").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let client = daemon.client();
        tasks.spawn(async move { client.sign("soft/k", None, Input::Message("x".into())).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(memory(&daemon) < 150, "{} MiB", memory(&daemon));
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_at_once() {
    let daemon = daemon("[limits]\nmax_connections = 3\n").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = daemon.client();
        client.sign("soft/k", None, Input::Message("x".into())).await.unwrap();
        held.push(client);
    }
    let error = daemon.client().sign("soft/k", None, Input::Message("x".into())).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    drop(held);
    let begin = Instant::now();
    while daemon.client().sign("soft/k", None, Input::Message("x".into())).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_full_queue_is_told_with_a_hint_when_to_come_back() {
    let daemon = daemon("[limits]\nqueue = 2\n").await;
    let request = GenerateRequest::new("rsa".parse().unwrap(), KeyType::Rsa3072);
    daemon.client().create(&"soft".parse().unwrap(), request).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = daemon.client();
        tasks.spawn(async move { client.sign("soft/rsa", None, Input::Message("x".into())).await });
    }
    let mut busy = 0;
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result.unwrap() {
            assert!(error.kind().retry_after().is_some_and(|d| !d.is_zero()), "{error:?}");
            busy += 1;
        }
    }
    assert!(busy > 0);
    still_serves(&daemon).await;
}

async fn support_channel(daemon: &Daemon) -> tonic::transport::Channel {
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("unix:{}", daemon.socket().display())).unwrap();
    endpoint.connect().await.unwrap()
}
