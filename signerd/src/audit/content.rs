//! What kind of thing a message is, as far as that can be told from its own first bytes. A digest says nothing.

/// The longest type name that is recorded.
const LONGEST: usize = 128;

/// The kind of a message, `dsse:application/vnd.in-toto+json`, where it is one that is known. Of the message itself nothing
/// is kept but the type that it names for everybody to read.
pub(super) fn kind(message: &[u8]) -> Option<String> {
    ssh_signature(message)
        .map(|namespace| format!("sshsig:{namespace}"))
        .or_else(|| dsse(message).map(|payload_type| format!("dsse:{payload_type}")))
        .or_else(|| checkpoint(message).map(|origin| format!("checkpoint:{origin}")))
        .or_else(|| to_be_signed(message).map(|()| "x509:certificate".to_owned()))
}

/// What `ssh-keygen -Y` signs (OpenSSH, PROTOCOL.sshsig): a magic, and the namespace with its length.
fn ssh_signature(message: &[u8]) -> Option<&str> {
    let (length, rest) = message.strip_prefix(b"SSHSIG")?.split_first_chunk::<4>()?;
    name(rest.get(..u32::from_be_bytes(*length) as usize)?)
}

/// DSSE's pre-authentication encoding: `DSSEv1 LEN TYPE LEN BODY`.
fn dsse(message: &[u8]) -> Option<&str> {
    let rest = message.strip_prefix(b"DSSEv1 ")?;
    let space = rest.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    let rest = &rest[space + 1..];
    (rest.get(length) == Some(&b' ')).then(|| name(&rest[..length]))?
}

/// The text of a log's checkpoint (C2SP tlog-checkpoint): origin, size, root, a line each.
fn checkpoint(message: &[u8]) -> Option<&str> {
    let head = std::str::from_utf8(&message[..message.len().min(512)]).ok()?;
    let mut lines = head.split('\n');
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    lines.next()?;
    let size_fits = !size.is_empty() && size.len() <= 20 && size.bytes().all(|b| b.is_ascii_digit());
    let root_fits = root.len() == 44 && root.ends_with('=');
    if size_fits && root_fits { name(origin.as_bytes()) } else { None }
}

/// A `TBSCertificate` of version 3 (RFC 5280): a SEQUENCE of the whole message that begins with `[0] { INTEGER 2 }`.
fn to_be_signed(message: &[u8]) -> Option<()> {
    let (tag, rest) = message.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, body) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (length, body) = rest.split_at_checked(usize::from(first & 3))?;
            (length.iter().fold(0, |n, b| n << 8 | usize::from(*b)), body)
        }
        _ => return None,
    };
    (*tag == 0x30 && length == body.len() && body.starts_with(&[0xa0, 3, 2, 1, 2])).then_some(())
}

/// A type's name: printable and short.
fn name(bytes: &[u8]) -> Option<&str> {
    let plain = !bytes.is_empty() && bytes.len() <= LONGEST && bytes.iter().all(u8::is_ascii_graphic);
    if plain { std::str::from_utf8(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_are_told() {
        let told = |message: &[u8]| kind(message).unwrap_or_default();
        assert_eq!(told(b"SSHSIG\0\0\0\x03git\0\0\0\0"), "sshsig:git");
        assert_eq!(told(b"DSSEv1 9 text/json 2 {}"), "dsse:text/json");
        let root = "A".repeat(43) + "=";
        assert_eq!(told(format!("log.example\n17\n{root}\n").as_bytes()), "checkpoint:log.example");
        assert_eq!(told(&[0x30, 6, 0xa0, 3, 2, 1, 2, 0]), "x509:certificate");
        for other in [
            &b""[..],
            b"hello",
            b"SSHSIG\xff\xff\xff\xffgit",
            b"DSSEv1 99 text/json 2 {}",
            b"DSSEv1 9 text json 2 {}",
            b"log\n17\nroot\n",
            &[0x30, 5, 2, 1, 2, 0, 0],
        ] {
            assert_eq!(told(other), "");
        }
    }

    proptest! {
        #[test]
        fn foreign_messages_never_panic(
            head in prop::sample::select(vec![&b""[..], b"SSHSIG", b"DSSEv1 ", b"\x30\x82", b"\x30\x84"]),
            rest in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = kind(&[head, &rest].concat());
        }
    }
}
