//! Frames on the socket: four bytes of length, little-endian, then a message.

use prost::Message;

/// The longest message: a pure signature's message of 128 MiB and what is around it.
pub(crate) const MAX_FRAME: usize = 160 << 20;

/// Appends a message as one frame.
pub(crate) fn push(out: &mut Vec<u8>, message: &impl Message) {
    let len = message.encoded_len();
    out.reserve(4 + len);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    // A Vec grows as needed: encoding into it cannot fail.
    let _ = message.encode(out);
}

/// Bytes received and not yet taken apart.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// Adds what was received.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame's message, `None` when there is none yet, an error when what came is not the protocol.
    pub(crate) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, String> {
        let rest = &self.bytes[self.start..];
        let Some((len, rest)) = rest.split_first_chunk::<4>() else {
            self.compact();
            return Ok(None);
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_FRAME {
            return Err(format!("a frame of {len} bytes is longer than the protocol allows"));
        }
        let Some(body) = rest.get(..len) else {
            self.compact();
            return Ok(None);
        };
        let message =
            M::decode(body).map_err(|e| format!("a frame is not a message of the protocol: {e}"))?;
        self.start += 4 + len;
        Ok(Some(message))
    }

    /// Overwrites what was taken out: there was a secret in it.
    pub(crate) fn wipe(&mut self) {
        self.bytes[..self.start].fill(0);
        self.bytes.spare_capacity_mut().fill(std::mem::MaybeUninit::new(0));
        std::hint::black_box(&mut self.bytes);
    }

    /// Moves an unfinished frame to the front, and gives memory back after a large one.
    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn frames_survive_any_cut() {
        let messages: Vec<_> = (0..50_u32)
            .map(|i| pb::FromDriver {
                id: u64::from(i),
                body: Some(pb::from_driver::Body::Signature(pb::Signature {
                    bytes: vec![i as u8; i as usize * 7],
                    work_ns: i,
                })),
            })
            .collect();
        let mut wire = Vec::new();
        for message in &messages {
            push(&mut wire, message);
        }
        for piece in [1, 2, 3, 5, 64, 4096, wire.len()] {
            let mut inbox = Inbox::default();
            let mut got = Vec::new();
            for bytes in wire.chunks(piece) {
                inbox.push(bytes);
                while let Some(message) = inbox.next::<pb::FromDriver>().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, messages, "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        let mut inbox = Inbox::default();
        inbox.push(&[0xff; 8]);
        assert!(inbox.next::<pb::FromDriver>().is_err());
        let mut inbox = Inbox::default();
        inbox.push(&[2, 0, 0, 0, 0xff, 0xff]);
        assert!(inbox.next::<pb::FromDriver>().is_err());
    }
}
