//! Signed notes (C2SP `signed-note`): text, a blank line, and signatures by named keys.

use std::fmt::{self, Write as _};

use base64::{Engine, engine::general_purpose::STANDARD};
use signer_core::{Error, ErrorKind, HashAlgorithm, Input, KeyType, PublicKey, Result, SignatureAlgorithm};

use crate::{
    checkpoint::Checkpoint,
    tree::{Hash, hash},
};

/// How a key signs notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoteKind {
    /// `0x01`: Ed25519 over the text.
    Ed25519,
    /// `0x02`: ECDSA over the text, with the curve's own hash.
    Ecdsa,
    /// `0x04`: an Ed25519 cosignature with a time, by a witness (`tlog-cosignature`).
    Cosignature,
    /// `0x05`: the tree head signature of RFC 6962 section 3.5 (`static-ct-api`).
    TreeHead,
    /// `0xff`, as Rekor names it: RSA PKCS#1 v1.5 with SHA-256 over the text.
    RsaPkcs1,
}

/// A key that notes are verified with: its name, what it is, and how it signs.
#[derive(Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: NoteKind,
    key: PublicKey,
    id: Hash,
}

impl NoteKey {
    /// The key of a log: [`NoteKind::Ed25519`], [`NoteKind::Ecdsa`] or [`NoteKind::RsaPkcs1`], whichever the key is.
    pub fn of_log(name: &str, key: PublicKey) -> Result<Self> {
        let kind = match key.key_type() {
            KeyType::Ed25519 => NoteKind::Ed25519,
            KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => NoteKind::Ecdsa,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => NoteKind::RsaPkcs1,
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("{other} keys do not sign checkpoints"),
                )
                .next("use an ed25519 or ecdsa-p256 key"));
            }
        };
        Self::new(name, kind, key)
    }

    /// A key of any kind. `BadRequest` when name or key do not fit.
    pub fn new(name: &str, kind: NoteKind, key: PublicKey) -> Result<Self> {
        check_name(name)?;
        let fits = match kind {
            NoteKind::Ed25519 | NoteKind::Cosignature => key.key_type() == KeyType::Ed25519,
            NoteKind::Ecdsa => key.key_type().ecdsa_field_len().is_some(),
            // RFC 6962 section 2.1.4: P-256, or RSA of at least 2048 bits, with SHA-256.
            NoteKind::TreeHead => key.key_type() == KeyType::EcdsaP256 || key.key_type().rsa_bits().is_some(),
            NoteKind::RsaPkcs1 => key.key_type().rsa_bits().is_some(),
        };
        if !fits {
            return Err(Error::bad_request(format!(
                "a {} key does not sign notes as {kind:?}",
                key.key_type()
            )));
        }
        let spki = key.as_der();
        let named = |kind: u8, key: &[u8]| hash(&[name.as_bytes(), b"\n", &[kind], key]);
        let id = match kind {
            NoteKind::Ed25519 => named(1, key.key_bytes()),
            NoteKind::Ecdsa => hash(&[spki]),
            NoteKind::Cosignature => named(4, key.key_bytes()),
            NoteKind::TreeHead => named(5, &hash(&[spki])),
            NoteKind::RsaPkcs1 => hash(&[name.as_bytes(), b"\n\xffPKIX-RSA-PKCS#1v1.5", spki]),
        };
        Ok(Self { name: name.to_owned(), kind, key, id })
    }

    /// Reads a verifier key as C2SP and Go's `note` write it: `name+hash+base64(type ‖ key)`, Ed25519 kinds only.
    pub fn from_vkey(text: &str) -> Result<Self> {
        let wrong = || Error::bad_request("this is not a verifier key (name+hash+base64)");
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(id), Some(key)) = (name, id, key) else { return Err(wrong()) };
        let key = STANDARD.decode(key).map_err(|_| wrong())?;
        let (kind, key) = match key.split_first() {
            Some((1, key)) => (NoteKind::Ed25519, key),
            Some((4, key)) => (NoteKind::Cosignature, key),
            _ => return Err(wrong()),
        };
        let key = Self::new(name, kind, PublicKey::from_raw(KeyType::Ed25519, key)?)?;
        if hex::encode(key.hint()) != id {
            return Err(wrong().next("its hash is another one"));
        }
        Ok(key)
    }

    /// The verifier key as text, for the kinds that have one.
    pub fn to_vkey(&self) -> Option<String> {
        let kind = match self.kind {
            NoteKind::Ed25519 => 1,
            NoteKind::Cosignature => 4,
            _ => return None,
        };
        let key = [&[kind], self.key.key_bytes()].concat();
        Some(format!("{}+{}+{}", self.name, hex::encode(self.hint()), STANDARD.encode(key)))
    }

    /// Its name: a log's origin, or a witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    pub fn kind(&self) -> NoteKind {
        self.kind
    }

    /// The key itself.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The hash that identifies the key, not cut: Rekor's `logId.keyId`.
    pub fn id(&self) -> &Hash {
        &self.id
    }

    /// The four bytes that stand before each of its signatures.
    pub fn hint(&self) -> [u8; 4] {
        [self.id[0], self.id[1], self.id[2], self.id[3]]
    }

    /// The algorithm that signs.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            NoteKind::Ed25519 | NoteKind::Cosignature => SignatureAlgorithm::Ed25519,
            NoteKind::Ecdsa => self.key.key_type().default_algorithm(),
            NoteKind::RsaPkcs1 => SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256),
            NoteKind::TreeHead => match self.key.key_type() {
                KeyType::EcdsaP256 => SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
                _ => SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256),
            },
        }
    }

    /// What is signed for a text, at a time: milliseconds since 1970 for tree heads, seconds for cosignatures.
    pub(crate) fn message(&self, text: &str, time: u64) -> Result<Vec<u8>> {
        Ok(match self.kind {
            NoteKind::Ed25519 | NoteKind::Ecdsa | NoteKind::RsaPkcs1 => text.as_bytes().to_vec(),
            NoteKind::Cosignature => format!("cosignature/v1\ntime {time}\n{text}").into_bytes(),
            NoteKind::TreeHead => {
                let checkpoint = Checkpoint::from_text(text)?;
                if !checkpoint.extensions.is_empty() {
                    return Err(Error::bad_request(
                        "a tree head of RFC 6962 has no room for extension lines",
                    ));
                }
                let mut message = vec![0, 1];
                message.extend(time.to_be_bytes());
                message.extend(checkpoint.size.to_be_bytes());
                message.extend(checkpoint.root);
                message
            }
        })
    }

    /// A signature's place in a note: the line with the key's name.
    pub(crate) fn line(&self, time: u64, signature: &[u8]) -> String {
        let mut blob = self.hint().to_vec();
        match self.kind {
            NoteKind::Cosignature => blob.extend(time.to_be_bytes()),
            NoteKind::TreeHead => {
                blob.extend(time.to_be_bytes());
                blob.extend(digitally_signed(self.key.key_type(), signature));
            }
            _ => {}
        }
        if self.kind != NoteKind::TreeHead {
            blob.extend(signature);
        }
        format!("— {} {}\n", self.name, STANDARD.encode(blob))
    }

    /// Verifies one signature of a note; gives the time that it states.
    fn verify(&self, text: &str, signature: &[u8]) -> Result<u64> {
        let cut = || Error::new(ErrorKind::Denied, "a signature of the note is cut off");
        let (time, signature) = match self.kind {
            NoteKind::Cosignature | NoteKind::TreeHead => {
                let (time, rest) = signature.split_first_chunk::<8>().ok_or_else(cut)?;
                (u64::from_be_bytes(*time), rest)
            }
            _ => (0, signature),
        };
        let signature = match self.kind {
            NoteKind::TreeHead => {
                let (head, rest) = signature.split_first_chunk::<4>().ok_or_else(cut)?;
                if *head != digitally_signed(self.key.key_type(), rest)[..4] {
                    return Err(Error::new(ErrorKind::Denied, "the tree head is signed in another way"));
                }
                rest
            }
            _ => signature,
        };
        let message = self.message(text, time)?;
        self.key.verify(self.algorithm(), &Input::Message(message.into()), signature)?;
        Ok(time)
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteKey({} {:?} {})", self.name, self.kind, hex::encode(self.hint()))
    }
}

/// The `digitally-signed` structure of TLS 1.2 (RFC 5246 section 4.7), always with SHA-256 here.
pub fn digitally_signed(key: KeyType, signature: &[u8]) -> Vec<u8> {
    let scheme = if key.rsa_bits().is_some() { 1 } else { 3 };
    let mut out = vec![4, scheme];
    out.extend((signature.len() as u16).to_be_bytes());
    out.extend(signature);
    out
}

fn check_name(name: &str) -> Result<()> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 255 || name.contains(bad) {
        return Err(Error::bad_request(format!(
            "{name:?} cannot be the name of a key or the origin of a log"
        ))
        .next("use the host name of the log's URL, without spaces and plus signs"));
    }
    Ok(())
}

/// The longest note that is read: sixteen signatures of post-quantum size fit.
pub const MAX_NOTE: usize = 128 * 1024;

/// A note, taken apart and not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
}

impl Note {
    /// Takes a note apart.
    pub fn parse(note: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::bad_request(format!("this is not a signed note: {what}"));
        if note.len() > MAX_NOTE {
            return Err(wrong("it is too long"));
        }
        let note = std::str::from_utf8(note).map_err(|_| wrong("it is not UTF-8"))?;
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(wrong("it has control characters"));
        }
        let at = note.rfind("\n\n").ok_or_else(|| wrong("it has no signatures"))?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or_else(|| wrong("its last line is cut off"))?;
        let signature = |line: &str| {
            let (name, blob) = line.strip_prefix("— ")?.split_once(' ')?;
            check_name(name).ok()?;
            let blob = STANDARD.decode(blob).ok()?;
            let (hint, signature) = blob.split_first_chunk::<4>()?;
            (!signature.is_empty()).then(|| (name.to_owned(), *hint, signature.to_vec()))
        };
        let signatures = lines
            .split('\n')
            .map(|line| signature(line).ok_or_else(|| wrong("a signature line is malformed")))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its last line's end. Nothing in it may be believed before [`Note::verify`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, verified or not: the name of the key, its four bytes, and the signature.
    pub fn signatures(&self) -> impl Iterator<Item = (&str, [u8; 4], &[u8])> {
        self.signatures.iter().map(|(name, hint, signature)| (&**name, *hint, &**signature))
    }

    /// The signature lines by `key`, verified, as they stand in the note. Empty when there is none.
    pub fn lines_by(&self, key: &NoteKey) -> Result<String> {
        let mut lines = String::new();
        for (name, hint, signature) in &self.signatures {
            if *name == key.name && *hint == key.hint() {
                key.verify(&self.text, signature)?;
                let blob = STANDARD.encode([&hint[..], signature].concat());
                let _ = writeln!(lines, "— {name} {blob}");
            }
        }
        Ok(lines)
    }

    /// Verifies the signatures by `key`, and gives the time that the last of them states (0 for kinds without one).
    /// `Denied` when there is none, or when one does not verify.
    pub fn verify(&self, key: &NoteKey) -> Result<u64> {
        let mut time = None;
        for (name, hint, signature) in &self.signatures {
            if *name == key.name && *hint == key.hint() {
                time = Some(key.verify(&self.text, signature)?);
            }
        }
        time.ok_or_else(|| {
            Error::new(
                ErrorKind::Denied,
                format!("the note has no signature by {} {}", key.name, hex::encode(key.hint())),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_specification_is_taken_apart() {
        let note = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
                    — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
        let note = Note::parse(note.as_bytes()).unwrap();
        assert!(note.text().ends_with("sera.\n"));
        assert_eq!(note.signatures[0].0, "quasimodo.example/salvatore");
        assert_eq!(note.signatures[0].2.len(), 64);
    }

    #[test]
    fn malformed_notes_are_refused() {
        for bad in [
            "",
            "text\n",
            "text\n\n",
            "text\n\n— a AAAAAAA=",
            "text\n\n- a AAAAAAA=\n",
            "text\n\n—  AAAAAAA=\n",
            "text\n\n— a AAAA\n",
            "t\text\n\n— a AAAAAAA=\n",
            "text\n\n— a+b AAAAAAA=\n",
            "text\n\n— a AAAAAAA=\nx\n",
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Note::parse("text\n\n— a AAAAAAA=\n".as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn foreign_notes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC*\n\n— a [A-Za-z0-9+/=]{0,20}\n") {
            let _ = Note::parse(&bytes);
            if let Ok(note) = Note::parse(text.as_bytes()) {
                prop_assert!(note.text().ends_with('\n'));
            }
            let _ = NoteKey::from_vkey(&text);
        }
    }
}
