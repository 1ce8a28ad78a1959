//! A receiver of webhooks that answers as it is told and remembers everything.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
    /// What was answered.
    pub status: u16,
}

impl Received {
    /// One of its headers.
    pub fn header(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map_or_else(|| panic!("there is no {name}: {}", self.head), str::trim)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a webhook's body is JSON")
    }
}

/// A receiver. Dropping it closes it.
pub struct Webhook {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Webhook {
    /// Listens, and answers with this status until it is told another.
    pub fn start(status: u16) -> Self {
        Self::on("127.0.0.1:0".parse().expect("an address"), status)
    }

    /// Listens where another one did.
    pub fn on(address: SocketAddr, status: u16) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket can be made");
        socket.set_reuseaddr(true).expect("a socket can be used again");
        socket.bind(address).expect("the port is free");
        let listener = socket.listen(64).expect("a socket can listen");
        let address = listener.local_addr().expect("it has an address");
        let status = Arc::new(AtomicU16::new(status));
        let received = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, status.clone(), received.clone()));
        Self { address, status, received, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL. The path is a secret, as those of webhooks often are.
    pub fn url(&self) -> String {
        format!("http://{}/hook/very-secret-path?token=very-secret-token", self.address)
    }

    /// Answers with another status from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that were answered with 2xx.
    pub fn accepted(&self) -> Vec<Received> {
        self.received().into_iter().filter(|r| (200..300).contains(&r.status)).collect()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, status: Arc<AtomicU16>, received: Arc<Mutex<Vec<Received>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, status.clone(), received.clone()));
    }
}

async fn serve(stream: TcpStream, status: Arc<AtomicU16>, received: Arc<Mutex<Vec<Received>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = head.to_lowercase();
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let status = status.load(Ordering::SeqCst);
        let body = String::from_utf8_lossy(&body).into_owned();
        received.lock().unwrap_or_else(PoisonError::into_inner).push(Received { head, body, status });
        let extra =
            if (300..400).contains(&status) { "location: http://127.0.0.1:1/elsewhere\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status} X\r\n{extra}content-length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}
