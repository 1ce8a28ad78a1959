//! Random requests to a log server: good ones, almost good ones, and noise. Whatever comes, the server answers in order or
//! closes the connection, and does not grow.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    log::{Caller, ENTRIES, Signatory},
    process,
};

/// What came of them.
#[derive(Debug, Default)]
pub struct Report {
    /// How many answers had each status; 0 for connections that were closed without one.
    pub answers: BTreeMap<u16, u64>,
    /// The server's memory in KiB after a tenth of the requests, and at the end.
    pub memory: (u64, u64),
    /// Answers that no request may get, a sentence each; the first few.
    pub wrong: Vec<String>,
}

/// How many at a time.
const CALLERS: u64 = 16;
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends so many requests to the server that this process is.
pub async fn storm(address: SocketAddr, pid: u32, requests: u64, seed: u64) -> Report {
    let sent = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..CALLERS)
        .map(|at| {
            let sent = sent.clone();
            tokio::spawn(async move {
                let mut one = One::new(address, seed.wrapping_mul(31).wrapping_add(at));
                while sent.fetch_add(1, Ordering::Relaxed) < requests {
                    let (request, broken) = one.request();
                    match tokio::time::timeout(PATIENCE, one.send(&request, broken)).await {
                        Ok(status) => one.note(status, &request),
                        Err(_) => one.wrong.push(format!("no answer to {}", shown(&request))),
                    }
                }
                (one.answers, one.wrong)
            })
        })
        .collect();
    while sent.load(Ordering::Relaxed) < requests / 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let early = process::memory_kib(pid, "VmRSS");
    let mut report = Report::default();
    for task in tasks {
        let (answers, wrong) = task.await.expect("a caller does not panic");
        for (status, count) in answers {
            *report.answers.entry(status).or_default() += count;
        }
        report.wrong.extend(wrong);
    }
    report.wrong.truncate(20);
    report.memory = (early, process::memory_kib(pid, "VmRSS"));
    report
}

struct One {
    address: SocketAddr,
    random: u64,
    signatory: Signatory,
    stream: Option<TcpStream>,
    answers: BTreeMap<u16, u64>,
    wrong: Vec<String>,
}

impl One {
    fn new(address: SocketAddr, seed: u64) -> Self {
        Self {
            address,
            random: seed | 1,
            signatory: Signatory::default(),
            stream: None,
            answers: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// xorshift64*: the same seed, the same requests.
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// A request, and whether more is promised in it than comes.
    fn request(&mut self) -> (Vec<u8>, bool) {
        let mut broken = false;
        let method = self
            .pick(&["GET", "GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "get", "X"]);
        let path = self.path();
        let kind = self.pick(&[
            "application/json",
            "application/json",
            "application/json; charset=utf-8",
            "text/plain",
            "application/grpc",
            "application/grpc+proto",
            "",
            "\u{1f980}",
        ]);
        let body = if matches!(method, "POST" | "PUT") { self.body() } else { Vec::new() };
        let length = match self.below(40) {
            0 => body.len() + 1,
            1 => body.len() / 2,
            2 => usize::MAX,
            _ => body.len(),
        };
        broken |= length != body.len();
        let mut out =
            format!("{method} {path} HTTP/1.1\r\nhost: log\r\ncontent-type: {kind}\r\n").into_bytes();
        match self.below(30) {
            0 => {
                broken = true;
                out.extend(b"transfer-encoding: chunked\r\n");
            }
            1 => {
                broken = true;
                out.extend(b"content-length: -1\r\n");
            }
            _ => out.extend(format!("content-length: {length}\r\n").bytes()),
        }
        if self.below(20) == 0 {
            out.extend(format!("x-noise: {}\r\n", "y".repeat(self.below(9000))).bytes());
        }
        out.extend(b"\r\n");
        out.extend(body);
        if self.below(50) == 0 {
            let at = self.below(out.len());
            out[at] = self.next() as u8;
            broken = true;
        }
        (out, broken)
    }

    fn path(&mut self) -> String {
        let number = self.next() % 100_000;
        match self.below(12) {
            0..=4 => ENTRIES.to_owned(),
            5 => self.pick(&["/ct/v1/add-chain", "/ct/v1/add-pre-chain", "/ct/v1/get-roots"]).to_owned(),
            6 => format!(
                "/api/v2/tile/{}/{:03}",
                self.pick(&["0", "1", "entries", "data", "64", "00"]),
                number % 1000
            ),
            7 => format!("/tile/entries/x{:03}/{:03}.p/{}", number / 1000, number % 1000, number % 300),
            8 => self
                .pick(&["/checkpoint", "/api/v2/checkpoint", "/healthz", "/", "/openapi.json", "*", "//"])
                .to_owned(),
            9 => format!("/issuer/{number:064x}"),
            10 => "/%00%ff/../../etc/passwd?a=b#c".to_owned(),
            _ => format!("/{}", hex::encode(self.noise(60))),
        }
    }

    fn body(&mut self) -> Vec<u8> {
        let artifact = self.next().to_be_bytes();
        let mut good = self.signatory.request(&artifact);
        match self.below(12) {
            // In order, now and then: those are signed for.
            0 => good.to_string().into_bytes(),
            1..=5 => {
                self.mutate(&mut good);
                good.to_string().into_bytes()
            }
            6 | 7 => {
                let mut bytes = good.to_string().into_bytes();
                for _ in 0..=self.below(6) {
                    let at = self.below(bytes.len());
                    bytes[at] = self.next() as u8;
                }
                bytes
            }
            8 => {
                let mut bytes = good.to_string().into_bytes();
                bytes.truncate(self.below(600));
                bytes
            }
            9 => format!("{{\"chain\":[\"{}\"]}}", hex::encode(self.noise(900))).into_bytes(),
            10 => "[".repeat(self.below(5000)).into_bytes(),
            _ => self.noise(20_000),
        }
    }

    /// Makes something of a JSON value another one.
    fn mutate(&mut self, value: &mut Value) {
        let fresh = [
            Value::Null,
            Value::Bool(true),
            Value::from(-1),
            Value::from(1e300),
            Value::from(""),
            Value::from("AAAA"),
            Value::from("\u{0}\u{202e}"),
            Value::from(vec![Value::Null; 3]),
            serde_json::json!({"rawBytes": "AA==", "x": {}}),
        ];
        let replacement = fresh[self.below(fresh.len())].clone();
        match value {
            Value::Object(fields) if !fields.is_empty() && self.below(4) > 0 => {
                let names: Vec<_> = fields.keys().cloned().collect();
                let name = names[self.below(names.len())].clone();
                match self.below(6) {
                    0 => drop(fields.remove(&name)),
                    1 => drop(fields.insert(format!("{name}x"), replacement)),
                    _ => {
                        if let Some(inner) = fields.get_mut(&name) {
                            self.mutate(inner);
                        }
                    }
                }
            }
            other => *other = replacement,
        }
    }

    /// Sends it on a connection that may have served others before. The status; 0 when the connection was closed.
    async fn send(&mut self, request: &[u8], broken: bool) -> u16 {
        let stream = match self.stream.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect(self.address).await,
        };
        let Ok(mut stream) = stream else { return 0 };
        // What the server does not want to read to the end it need not.
        let _ = stream.write_all(request).await;
        if broken {
            // It must not be waited for by either side.
            let _ = stream.shutdown().await;
        }
        let mut read = Vec::new();
        let mut piece = vec![0; 64 << 10];
        while let Ok(n @ 1..) = stream.read(&mut piece).await {
            read.extend_from_slice(&piece[..n]);
            let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(999);
            // Chunks may end with trailers: gRPC's do.
            let last_chunk = read[end..].windows(5).any(|w| w == b"\r\n0\r\n");
            let complete = request.starts_with(b"HEAD")
                || matches!(status, 204 | 304)
                || length.is_some_and(|length| read.len() >= end + 4 + length)
                || (last_chunk && read.ends_with(b"\r\n\r\n"));
            if complete {
                let exact = length.is_some_and(|length| read.len() == end + 4 + length);
                if exact && !broken && !head.contains("connection: close") && self.below(8) > 0 {
                    self.stream = Some(stream);
                }
                return status;
            }
        }
        0
    }

    fn note(&mut self, status: u16, request: &[u8]) {
        *self.answers.entry(status).or_default() += 1;
        let in_order = matches!(status, 0 | 200..=204 | 400..=499 | 503);
        if !in_order && self.wrong.len() < 5 {
            self.wrong.push(format!("{status} to {}", shown(request)));
        }
    }
}

fn shown(request: &[u8]) -> String {
    String::from_utf8_lossy(&request[..request.len().min(300)]).escape_debug().to_string()
}

/// One request in order, to see that the server goes on.
pub async fn still_serves(address: SocketAddr) -> bool {
    let request = Signatory::default().request(b"after the storm").to_string();
    let answer = Caller::to(address).post(ENTRIES, request.as_bytes()).await;
    answer.is_ok_and(|answer| matches!(answer.status, 201 | 404))
}
