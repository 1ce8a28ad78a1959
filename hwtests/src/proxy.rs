//! A proxy in front of a real server that breaks what it carries, on command.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// How it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Carry {
    /// As it should.
    Well = 0,
    /// The server's answers a byte at a time, a fifth of a second apart.
    Slowly = 1,
    /// Nothing comes back, and the connections stay.
    Nothing = 2,
    /// Connections are cut in the middle of the server's answers.
    Halves = 3,
    /// The server's answers 10 ms later, as from another place in the same region.
    Late = 4,
    /// Each request gets S3's 503 SlowDown, and the server never sees it.
    SlowDown = 5,
    /// Each request gets S3's 403 AccessDenied, and the server never sees it.
    AccessDenied = 6,
}

impl Carry {
    /// What is answered in the server's place.
    fn instead(how: u8) -> Option<String> {
        let (status, code) = match how {
            x if x == Self::SlowDown as u8 => ("503 Slow Down", "SlowDown"),
            x if x == Self::AccessDenied as u8 => ("403 Forbidden", "AccessDenied"),
            _ => return None,
        };
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
        );
        Some(format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// A proxy for TCP connections to one server.
pub struct Proxy {
    address: SocketAddr,
    carry: Arc<AtomicU8>,
    /// Cuts every connection that is open when it changes.
    cut: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Stands in front of `server`, which is `HOST:PORT`.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let carry = Arc::new(AtomicU8::new(Carry::Well as u8));
        let (cut, cuts) = watch::channel(0);
        let (server, how) = (server.to_owned(), carry.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, how, mut cuts) = (server.clone(), how.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = carry_between(client, &server, &how) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, carry, cut, accepting }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Carries so from now on.
    pub fn carry(&self, how: Carry) {
        self.carry.store(how as u8, Ordering::SeqCst);
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry_between(mut client: TcpStream, server: &str, how: &AtomicU8) -> Option<()> {
    if let Some(answer) = Carry::instead(how.load(Ordering::SeqCst)) {
        // A request's head, or what there is of it.
        let _ = client.read(&mut vec![0; 64 * 1024]).await.ok()?;
        client.write_all(answer.as_bytes()).await.ok()?;
        return client.shutdown().await.ok();
    }
    let server = TcpStream::connect(server).await.ok()?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        tokio::io::copy(&mut from_client, &mut to_server).await.ok()?;
        to_server.shutdown().await.ok()
    };
    tokio::select! {
        end = back(&mut from_server, &mut to_client, how) => end,
        // A client that says no more may still wait for an answer; one that is gone makes the other way fail.
        None = there => None,
    }
}

async fn back(server: &mut OwnedReadHalf, client: &mut OwnedWriteHalf, how: &AtomicU8) -> Option<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = server.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        let bytes = &buffer[..n];
        match how.load(Ordering::SeqCst) {
            x if x == Carry::Well as u8 => client.write_all(bytes).await.ok()?,
            x if x == Carry::Slowly as u8 => {
                for byte in bytes {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    client.write_all(&[*byte]).await.ok()?;
                }
            }
            x if x == Carry::Late as u8 => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                client.write_all(bytes).await.ok()?;
            }
            x if x == Carry::Halves as u8 => {
                client.write_all(&bytes[..n / 2]).await.ok()?;
                return None;
            }
            _ => {}
        }
    }
}
