//! Witnesses (C2SP `tlog-witness`): those that our log asks, and our own, which others ask.

mod panel;
mod policy;
mod serve;

pub use panel::Panel;
pub(crate) use serve::Served;

use base64::{Engine, engine::general_purpose::STANDARD};
use signer_core::{Error, Result};
use signer_log_engine::Hash;

/// The most hashes that a consistency proof may have.
const MAX_PROOF: usize = 63;

/// A request to `add-checkpoint`: the size that was cosigned last, the proof from there on, and the checkpoint.
fn request(old: u64, proof: &[Hash], note: &str) -> String {
    let hashes: String = proof.iter().map(|hash| format!("{}\n", STANDARD.encode(hash))).collect();
    format!("old {old}\n{hashes}\n{note}")
}

/// Reads such a request.
fn read_request(body: &[u8]) -> Result<(u64, Vec<Hash>, &[u8])> {
    let wrong = |what: &str| Error::bad_request(format!("this is no request to add-checkpoint: {what}"));
    let end = body.windows(2).position(|w| w == b"\n\n").ok_or_else(|| wrong("there is no empty line"))?;
    let head = std::str::from_utf8(&body[..end]).map_err(|_| wrong("it is not UTF-8"))?;
    let mut lines = head.split('\n');
    let old = lines.next().and_then(|line| line.strip_prefix("old "));
    let plain = |n: &&str| n.bytes().all(|b| b.is_ascii_digit()) && (*n == "0" || !n.starts_with('0'));
    let old = old.filter(plain).and_then(|n| n.parse().ok());
    let old = old.ok_or_else(|| wrong("its first line is not \"old\" and a size"))?;
    let hash = |line: &str| {
        let hash = STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok());
        hash.ok_or_else(|| wrong("a line of the proof is no hash in base64"))
    };
    let proof = lines.map(hash).collect::<Result<Vec<Hash>>>()?;
    if proof.len() > MAX_PROOF {
        return Err(wrong("the proof has too many lines"));
    }
    Ok((old, proof, &body[end + 2..]))
}

/// For the fuzz target.
#[cfg(fuzzing)]
pub(crate) fn fuzz(body: &[u8]) {
    let _ = read_request(body);
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = policy::Policy::parse(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_requests_are_refused() {
        let hash = STANDARD.encode([7; 32]);
        assert!(read_request(b"old 0\n\nnote").is_ok());
        assert!(read_request(format!("old 9\n{hash}\n\nnote").as_bytes()).is_ok());
        for bad in [
            String::new(),
            "old 0\n".into(),
            "old 00\n\n".into(),
            "old -1\n\n".into(),
            "old +1\n\n".into(),
            "old 18446744073709551616\n\n".into(),
            "new 0\n\n".into(),
            "old 1\nxx\n\n".into(),
            format!("old 1\n{}\n\n", STANDARD.encode([7; 31])),
            format!("old 1\n{}\n", format!("{hash}\n").repeat(64)),
        ] {
            assert!(read_request(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_request_is_read_back(old: u64, proof in proptest::collection::vec(any::<[u8; 32]>(), 0..64), note in "\\PC{0,50}") {
            let text = request(old, &proof, &note);
            prop_assert_eq!(read_request(text.as_bytes()).unwrap(), (old, proof, note.as_bytes()));
        }

        #[test]
        fn foreign_requests_never_panic(text in "(old [0-9]{0,21}\n)?([A-Za-z0-9+/=]{0,50}\n){0,3}\n?\\PC{0,50}") {
            let _ = read_request(text.as_bytes());
        }
    }
}
