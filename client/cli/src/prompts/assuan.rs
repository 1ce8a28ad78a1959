//! The Assuan protocol's lines, as pinentry programs speak them (GnuPG's "Developing with Assuan", sections 2.1 and 2.2).

use zeroize::Zeroizing;

/// The longest line, its end included.
pub(super) const MAX_LINE: usize = 1000;

/// A line of the server.
#[derive(Debug)]
pub(super) enum Line {
    /// The request is done.
    Ok,
    /// It failed: an error code of libgpg-error, and words.
    Error(u32, String),
    /// A piece of what was asked for, unescaped.
    Data(Zeroizing<Vec<u8>>),
    /// The server asks for something itself.
    Inquiry,
    /// A status or a comment: to be passed over.
    Other,
}

impl Line {
    /// Reads a line, without its end. `None` for what is no line of the protocol.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let (word, rest) = match line.iter().position(|b| *b == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        Some(match word {
            b"OK" => Self::Ok,
            b"ERR" => {
                let text = String::from_utf8_lossy(rest);
                let (code, words) = text.split_once(' ').unwrap_or((&text, ""));
                Self::Error(code.parse().ok()?, words.to_owned())
            }
            b"D" => Self::Data(unescape(rest)),
            b"INQUIRE" => Self::Inquiry,
            b"S" => Self::Other,
            _ if line.first() == Some(&b'#') => Self::Other,
            _ => return None,
        })
    }
}

/// A command with its argument, escaped and cut so that it is one line that a server takes.
pub(super) fn command(name: &str, argument: &str) -> Vec<u8> {
    let mut line = Vec::from(name);
    if !argument.is_empty() {
        line.push(b' ');
    }
    let mut buffer = [0; 4];
    for c in argument.chars() {
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        let escaped = if matches!(c, '%' | '\r' | '\n') { 3 } else { bytes.len() };
        if line.len() + escaped >= MAX_LINE {
            break;
        }
        if escaped == 3 && bytes.len() == 1 {
            line.extend_from_slice(format!("%{:02X}", bytes[0]).as_bytes());
        } else {
            line.extend_from_slice(bytes);
        }
    }
    line.push(b'\n');
    line
}

/// `%XX` is a byte; a percent sign without two digits after it is itself.
fn unescape(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert!(matches!(Line::read(b"OK Pleased to meet you"), Some(Line::Ok)));
        assert!(matches!(Line::read(b"OK"), Some(Line::Ok)));
        assert!(matches!(Line::read(b"# a comment"), Some(Line::Other)));
        assert!(matches!(Line::read(b"S PIN_REPEATED"), Some(Line::Other)));
        assert!(matches!(Line::read(b"INQUIRE QUALITY x"), Some(Line::Inquiry)));
        match Line::read(b"ERR 83886179 Operation cancelled <Pinentry>") {
            Some(Line::Error(code, words)) => {
                assert_eq!(code & 0xffff, 99);
                assert_eq!(words, "Operation cancelled <Pinentry>");
            }
            other => panic!("{other:?}"),
        }
        match Line::read(b"D 12%2534%0A%zz%4") {
            Some(Line::Data(data)) => assert_eq!(data.as_slice(), b"12%34\n%zz%4"),
            other => panic!("{other:?}"),
        }
        for bad in [&b""[..], b"HELLO", b"ERR x", b"OKAY"] {
            assert!(Line::read(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_command_is_one_line_of_at_most_a_thousand_bytes() {
        assert_eq!(command("GETPIN", ""), b"GETPIN\n");
        assert_eq!(command("SETDESC", "50 %\nof it\r"), b"SETDESC 50 %25%0Aof it%0D\n");
        assert_eq!(command("SETDESC", "größe"), "SETDESC größe\n".as_bytes());
        for text in ["ä".repeat(2000), "%".repeat(2000), "\n".repeat(999)] {
            let line = command("SETDESC", &text);
            assert!(line.len() <= MAX_LINE, "{}", line.len());
            assert!(std::str::from_utf8(&line).is_ok());
            assert_eq!(line.iter().position(|b| *b == b'\n'), Some(line.len() - 1));
            assert!(!line.ends_with(b"%\n") && !line.ends_with(b"%2\n"), "half an escape");
        }
    }
}
