//! A raw HTTP/2 client (RFC 9113) for what a proper one would never do: endless bodies, answers that are never read.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// One connection. Streams are the caller's to number: odd, rising.
pub struct Http2 {
    socket: UnixStream,
    /// How much may be sent on the connection, and on each stream, by the peer's leave.
    window: i64,
    stream_windows: HashMap<u32, i64>,
    initial_window: i64,
    /// Streams that the peer has ended.
    ended: HashSet<u32>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Http2 {
    /// Connects and sends the preface; `receive_window` is what the peer may send before it must wait for us.
    pub fn connect(socket: &Path, receive_window: u32) -> std::io::Result<Self> {
        let mut socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.set_write_timeout(Some(Duration::from_secs(20)))?;
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut settings = vec![0, 4];
        settings.extend(receive_window.to_be_bytes());
        let mut this = Self {
            socket,
            window: 65_535,
            stream_windows: HashMap::new(),
            initial_window: 65_535,
            ended: HashSet::new(),
        };
        this.frame(SETTINGS, 0, 0, &settings)?;
        if let Some(more) = receive_window.checked_sub(65_535).filter(|n| *n > 0) {
            this.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes())?;
        }
        Ok(this)
    }

    /// Begins a gRPC call on a new stream.
    pub fn call(&mut self, stream: u32, path: &str, extra: &[(&str, &str)]) -> std::io::Result<()> {
        let mut block = Vec::new();
        let usual = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in usual.iter().chain(extra) {
            // RFC 7541 section 6.2.2: a literal that is not indexed; none here is longer than 126 bytes.
            block.extend([0, name.len() as u8]);
            block.extend(name.as_bytes());
            block.push(value.len() as u8);
            block.extend(value.as_bytes());
        }
        self.stream_windows.insert(stream, self.initial_window);
        self.frame(HEADERS, END_HEADERS, stream, &block)
    }

    /// Sends bytes of a body as fast as the peer allows. `false` when the peer has ended the stream or connection.
    pub fn send(&mut self, stream: u32, mut bytes: &[u8]) -> std::io::Result<bool> {
        while !bytes.is_empty() {
            let window = self.window.min(self.stream_windows.get(&stream).copied().unwrap_or(0));
            if self.ended.contains(&stream) {
                return Ok(false);
            }
            if window <= 0 {
                if !self.read_frame()? {
                    return Ok(false);
                }
                continue;
            }
            let now = bytes.len().min(16_384).min(usize::try_from(window).unwrap_or(0));
            if self.frame(DATA, 0, stream, &bytes[..now]).is_err() {
                return Ok(false);
            }
            self.spend(stream, now);
            bytes = &bytes[now..];
        }
        Ok(true)
    }

    /// Sends bytes without ever reading what comes back: only as much as may be sent unread. How many were sent.
    pub fn send_blindly(&mut self, stream: u32, bytes: &[u8], end: bool) -> std::io::Result<usize> {
        let window = self.window.min(self.stream_windows.get(&stream).copied().unwrap_or(0));
        let now = bytes.len().min(usize::try_from(window).unwrap_or(0)).min(16_384);
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, &bytes[..now])?;
        self.spend(stream, now);
        Ok(now)
    }

    /// Waits until the peer has ended the stream; `false` when it ended the connection instead.
    pub fn until_ended(&mut self, stream: u32) -> std::io::Result<bool> {
        while !self.ended.contains(&stream) {
            if !self.read_frame()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes bytes that need not be HTTP/2 at all.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    fn spend(&mut self, stream: u32, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.window -= bytes;
        *self.stream_windows.entry(stream).or_default() -= bytes;
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame)
    }

    /// Reads one frame and does what it asks. `false` when the connection is over.
    fn read_frame(&mut self) -> std::io::Result<bool> {
        let mut head = [0; 9];
        if let Err(e) = self.socket.read_exact(&mut head) {
            let over = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
            return if over.contains(&e.kind()) { Ok(false) } else { Err(e) };
        }
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let mut payload = vec![0; len];
        self.socket.read_exact(&mut payload)?;
        match (head[3], head[4]) {
            (SETTINGS, flags) if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value =
                        i64::from(u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
                    if setting[..2] == [0, 4] {
                        for window in self.stream_windows.values_mut() {
                            *window += value - self.initial_window;
                        }
                        self.initial_window = value;
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[])?;
            }
            (PING, flags) if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
            (WINDOW_UPDATE, _) if len == 4 => {
                let more =
                    i64::from(u32::from_be_bytes([payload[0] & 0x7f, payload[1], payload[2], payload[3]]));
                match stream {
                    0 => self.window += more,
                    _ => *self.stream_windows.entry(stream).or_default() += more,
                }
            }
            (RST_STREAM, _) => {
                self.ended.insert(stream);
            }
            (HEADERS | DATA, flags) if flags & END_STREAM != 0 => {
                self.ended.insert(stream);
            }
            (GOAWAY, _) => return Ok(false),
            _ => {}
        }
        Ok(true)
    }
}

/// The five bytes before a gRPC message (gRPC over HTTP/2, "Length-Prefixed-Message").
pub fn grpc_prefix(len: u32) -> [u8; 5] {
    let l = len.to_be_bytes();
    [0, l[0], l[1], l[2], l[3]]
}
