//! Commands and answers as they go over the wire (ISO/IEC 7816-4): short ones, chained where the data is longer.

use zeroize::Zeroizing;

use crate::{fault::Fault, status::Status};

/// Bytes of data in one short command.
const MAX_DATA: usize = 255;
/// A card that gives more than this in one answer is broken, or is none.
const MAX_ANSWER: usize = 64 * 1024;
/// CLA of a command that goes on in the next one.
const CHAINED: u8 = 0x10;
const GET_RESPONSE: u8 = 0xc0;

/// One command, of any length. Its data may be secret: it is wiped.
#[derive(Clone)]
pub(crate) struct Command {
    instruction: u8,
    p1: u8,
    p2: u8,
    data: Zeroizing<Vec<u8>>,
}

impl Command {
    pub(crate) fn new(instruction: u8, p1: u8, p2: u8) -> Self {
        Self { instruction, p1, p2, data: Zeroizing::default() }
    }

    #[must_use]
    pub(crate) fn data(mut self, data: impl Into<Zeroizing<Vec<u8>>>) -> Self {
        self.data = data.into();
        self
    }

    /// The short commands that it is sent as.
    fn frames(&self) -> Vec<Zeroizing<Vec<u8>>> {
        let mut pieces: Vec<&[u8]> = self.data.chunks(MAX_DATA).collect();
        let last = pieces.pop().unwrap_or_default();
        let header = |class| [class, self.instruction, self.p1, self.p2];
        let mut frames: Vec<_> = pieces
            .into_iter()
            .map(|piece| Zeroizing::new([&header(CHAINED)[..], &[MAX_DATA as u8], piece].concat()))
            .collect();
        // Le = 00: as much as there is.
        frames.push(Zeroizing::new(if last.is_empty() {
            [&header(0)[..], &[0]].concat()
        } else {
            [&header(0)[..], &[last.len() as u8], last, &[0]].concat()
        }));
        frames
    }
}

/// What the card answered.
pub(crate) struct Answer {
    pub(crate) data: Zeroizing<Vec<u8>>,
    pub(crate) status: Status,
}

impl Answer {
    /// The data, if the card says that all is well. `doing` is what was asked of it, for the error.
    pub(crate) fn ok(self, doing: &'static str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        if self.status == Status::OK { Ok(self.data) } else { Err(self.status.error(doing).into()) }
    }
}

/// Sends a command and collects the whole answer.
pub(crate) fn exchange(card: &pcsc::Card, command: &Command) -> Result<Answer, pcsc::Error> {
    let mut buffer = Zeroizing::new([0; pcsc::MAX_BUFFER_SIZE]);
    let mut frames = command.frames();
    let last = frames.pop().unwrap_or_default();
    for frame in frames {
        let (_, status) = split(card.transmit(&frame, &mut buffer[..])?)?;
        if status != Status::OK {
            return Ok(Answer { data: Zeroizing::default(), status });
        }
    }
    let mut next = last;
    let mut data = Zeroizing::new(Vec::new());
    loop {
        let (piece, status) = split(card.transmit(&next, &mut buffer[..])?)?;
        data.extend_from_slice(piece);
        if data.len() > MAX_ANSWER {
            return Err(pcsc::Error::CommDataLost);
        }
        match status.0.to_be_bytes() {
            [0x61, more] => next = Zeroizing::new(vec![0, GET_RESPONSE, 0, 0, more]),
            // The same again, with the length that the card wants.
            [0x6c, length] if next.last() != Some(&length) => {
                if let Some(le) = next.last_mut() {
                    *le = length;
                }
            }
            _ => return Ok(Answer { data, status }),
        }
    }
}

/// The data and the status word at its end.
fn split(answer: &[u8]) -> Result<(&[u8], Status), pcsc::Error> {
    let (data, status) = answer.split_last_chunk().ok_or(pcsc::Error::CommDataLost)?;
    Ok((data, Status(u16::from_be_bytes(*status))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_commands_are_one_frame() {
        let frames = Command::new(0x20, 0, 0x80).frames();
        assert_eq!(frames.iter().map(|f| f.to_vec()).collect::<Vec<_>>(), [vec![0, 0x20, 0, 0x80, 0]]);
        let frames = Command::new(0xcb, 0x3f, 0xff).data(vec![0x5c, 1, 0x7e]).frames();
        assert_eq!(*frames[0], [0, 0xcb, 0x3f, 0xff, 3, 0x5c, 1, 0x7e, 0]);
    }

    proptest! {
        #[test]
        fn long_data_is_chained_without_loss(data in proptest::collection::vec(any::<u8>(), 1..2000)) {
            let frames = Command::new(0xdb, 0x3f, 0xff).data(data.clone()).frames();
            let (last, chained) = frames.split_last().unwrap();
            let mut together = Vec::new();
            for frame in chained {
                prop_assert_eq!(&frame[..5], &[0x10, 0xdb, 0x3f, 0xff, 255]);
                prop_assert_eq!(frame.len(), 260);
                together.extend_from_slice(&frame[5..]);
            }
            prop_assert_eq!(last[0], 0);
            prop_assert_eq!(usize::from(last[4]), last.len() - 6);
            together.extend_from_slice(&last[5..last.len() - 1]);
            prop_assert_eq!(together, data);
        }
    }

    #[test]
    fn an_answer_has_a_status() {
        assert!(split(&[0x90]).is_err());
        let (data, status) = split(&[1, 2, 0x90, 0]).unwrap();
        assert_eq!((data, status), (&[1, 2][..], Status::OK));
    }
}
