//! What a certificate says, as text.

use std::{fmt, net::IpAddr};

use super::oids::{self, dotted};
use crate::x509::{Certificate, Extension, Tbs, only, tagged, value};

const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
/// Fulcio's issuer: `.8` is a DER UTF8String, `.1` the bare text.
const ISSUER_V2: &str = "1.3.6.1.4.1.57264.1.8";
const ISSUER_V1: &str = "1.3.6.1.4.1.57264.1.1";

/// A certificate for people and rules.
#[derive(Clone, Debug)]
pub(crate) struct CertificateView {
    /// Hexadecimal.
    pub(crate) serial: String,
    /// As RFC 4514 writes names, first things first; empty when it has none.
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// `2026-11-27 10:57:40 UTC`.
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    pub(crate) sans: Vec<San>,
    pub(crate) extensions: Vec<ExtensionView>,
    pub(crate) spki: Vec<u8>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct San {
    pub(crate) kind: SanKind,
    pub(crate) value: String,
}

/// What kind of name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SanKind {
    Email,
    Uri,
    Dns,
    Ip,
    /// An otherName: Fulcio's user names.
    Other,
}

impl fmt::Display for SanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email => "email",
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::Ip => "ip",
            Self::Other => "other",
        })
    }
}

/// An extension.
#[derive(Clone, Debug)]
pub(crate) struct ExtensionView {
    /// With dots.
    pub(crate) oid: String,
    /// What it is called, if it has a name here.
    pub(crate) name: Option<&'static str>,
    pub(crate) critical: bool,
    /// What is in it, if that is text.
    pub(crate) text: Option<String>,
    pub(crate) value: Vec<u8>,
}

impl CertificateView {
    /// Of a whole certificate, DER.
    pub(crate) fn from_certificate(der: &[u8]) -> Option<Self> {
        Self::new(&*Certificate::parse(der).ok()?)
    }

    /// Of a `TBSCertificate`, DER.
    pub(crate) fn from_tbs(der: &[u8]) -> Option<Self> {
        Self::new(&Tbs::parse(der)?)
    }

    fn new(tbs: &Tbs<'_>) -> Option<Self> {
        let (not_before, rest) = value(tbs.validity)?;
        let (not_after, _) = value(rest)?;
        let extensions = tbs.extensions.iter().map(ExtensionView::new).collect::<Option<Vec<_>>>()?;
        let sans = match extensions.iter().find(|e| e.oid == SUBJECT_ALTERNATIVE_NAME) {
            Some(names) => sans(&names.value)?,
            None => Vec::new(),
        };
        Some(Self {
            serial: hex::encode(tbs.serial),
            subject: name(tbs.subject)?,
            issuer: name(tbs.issuer)?,
            not_before: time(not_before.tag, not_before.content),
            not_after: time(not_after.tag, not_after.content),
            sans,
            extensions,
            spki: tbs.spki.to_vec(),
        })
    }

    /// Who has said who it is: Fulcio's issuer extension.
    pub(crate) fn issuer_v2(&self) -> Option<&str> {
        let text = |oid: &str| self.extensions.iter().find(|e| e.oid == oid)?.text.as_deref();
        text(ISSUER_V2).or_else(|| text(ISSUER_V1))
    }
}

impl ExtensionView {
    fn new(extension: &Extension<'_>) -> Option<Self> {
        let oid = dotted(extension.oid)?;
        let text = text(&oid, extension.value);
        Some(Self {
            name: oids::name(&oid),
            critical: extension.critical,
            text,
            value: extension.value.to_vec(),
            oid,
        })
    }
}

impl ExtensionView {
    /// What an extension of the usual kinds says, in words. `None` when it has to be shown as it is.
    pub(crate) fn in_words(&self) -> Option<String> {
        if let Some(text) = &self.text {
            return Some(text.clone());
        }
        match &*self.oid {
            "2.5.29.14" => Some(hex::encode(only(&self.value, 0x04)?.content)),
            "2.5.29.15" => key_usages(&self.value),
            SUBJECT_ALTERNATIVE_NAME => Some("the identities above".into()),
            "2.5.29.19" => {
                let inside = only(&self.value, 0x30)?.content;
                let authority = tagged(inside, 0x01).is_some_and(|(flag, _)| flag.content == [0xff]);
                Some(if authority { "may issue certificates" } else { "may not issue certificates" }.into())
            }
            "2.5.29.35" => {
                let (key, _) = tagged(only(&self.value, 0x30)?.content, 0x80)?;
                Some(hex::encode(key.content))
            }
            "2.5.29.37" => {
                let mut rest = only(&self.value, 0x30)?.content;
                let mut usages = Vec::new();
                while let Some((usage, after)) = tagged(rest, 0x06) {
                    let oid = dotted(usage.content)?;
                    usages.push(oids::name(&oid).map_or(oid.clone(), str::to_owned));
                    rest = after;
                }
                Some(usages.join(", "))
            }
            _ => None,
        }
    }
}

/// `KeyUsage` (RFC 5280 section 4.2.1.3): the names of the bits that are set.
fn key_usages(der: &[u8]) -> Option<String> {
    const NAMES: [&str; 9] = [
        "digital signature",
        "content commitment",
        "key encipherment",
        "data encipherment",
        "key agreement",
        "certificate signing",
        "CRL signing",
        "encipher only",
        "decipher only",
    ];
    let bits = only(der, 0x03)?.content.get(1..)?;
    let is_set = |at: &usize| bits.get(at / 8).is_some_and(|byte| byte << (at % 8) & 0x80 != 0);
    Some((0..NAMES.len()).filter(is_set).map(|at| NAMES[at]).collect::<Vec<_>>().join(", "))
}

/// The text in an extension: a string of DER, or for the first of Fulcio's the bare text.
fn text(oid: &str, bytes: &[u8]) -> Option<String> {
    let bare = oid
        .strip_prefix(oids::FULCIO_ARC)
        .and_then(|arc| arc.parse::<u32>().ok())
        .is_some_and(|arc| (1..=6).contains(&arc));
    if bare {
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    let (one, rest) = value(bytes)?;
    (rest.is_empty()).then(|| string(one.tag, one.content)).flatten()
}

/// The strings of DER that are text. What is not UTF-8 in them is shown as such, and nothing is left out.
fn string(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString.
        0x0c | 0x12 | 0x13 | 0x14 | 0x16 | 0x1a => Some(String::from_utf8_lossy(content).into_owned()),
        // BMPString.
        0x1e => {
            let units: Vec<_> = content.as_chunks::<2>().0.iter().map(|c| u16::from_be_bytes(*c)).collect();
            Some(String::from_utf16_lossy(&units))
        }
        _ => None,
    }
}

/// A name (RFC 5280 section 4.1.2.4), as RFC 4514 writes it but in the order in which it stands.
fn name(der: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut rest = only(der, 0x30)?.content;
    while !rest.is_empty() {
        let (set, after) = tagged(rest, 0x31)?;
        rest = after;
        let mut attributes = set.content;
        while !attributes.is_empty() {
            let (attribute, after) = tagged(attributes, 0x30)?;
            attributes = after;
            let (oid, inner) = tagged(attribute.content, 0x06)?;
            let (content, _) = value(inner)?;
            let oid = dotted(oid.content)?;
            let content = string(content.tag, content.content)
                .unwrap_or_else(|| format!("#{}", hex::encode(content.whole)));
            parts.push(format!("{}={}", oids::name(&oid).unwrap_or(&oid), escaped(&content)));
        }
    }
    Some(parts.join(","))
}

/// RFC 4514 section 2.4, as far as it keeps one value from looking like two.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// `GeneralNames` (RFC 5280 section 4.2.1.6). Kinds that nobody signs with are left out.
fn sans(der: &[u8]) -> Option<Vec<San>> {
    let mut rest = only(der, 0x30)?.content;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (one, after) = value(rest)?;
        rest = after;
        let text = || String::from_utf8_lossy(one.content).into_owned();
        let (kind, value) = match one.tag {
            0x81 => (SanKind::Email, text()),
            0x82 => (SanKind::Dns, text()),
            0x86 => (SanKind::Uri, text()),
            0x87 => (SanKind::Ip, address(one.content)),
            0xa0 => (SanKind::Other, other_name(one.content)?),
            _ => continue,
        };
        found.push(San { kind, value });
    }
    Some(found)
}

fn address(bytes: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        IpAddr::from(four).to_string()
    } else if let Ok(sixteen) = <[u8; 16]>::try_from(bytes) {
        IpAddr::from(sixteen).to_string()
    } else {
        hex::encode(bytes)
    }
}

/// The text of an otherName, or what it is in hexadecimal.
fn other_name(content: &[u8]) -> Option<String> {
    let (_, rest) = tagged(content, 0x06)?;
    let inner = only(rest, 0xa0)?;
    let (one, _) = value(inner.content)?;
    Some(string(one.tag, one.content).unwrap_or_else(|| hex::encode(one.whole)))
}

/// UTCTime and GeneralizedTime, as RFC 5280 allows them: always with seconds, always UTC.
fn time(tag: u8, content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let digits = text.strip_suffix('Z').filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let (year, rest) = match (tag, digits) {
        // RFC 5280 section 4.1.2.5.1: 50 and above are of the last century.
        (0x17, Some(d)) if d.len() == 12 => {
            (format!("{}{}", if &d[..2] < "50" { "20" } else { "19" }, &d[..2]), &d[2..])
        }
        (0x18, Some(d)) if d.len() == 14 => (d[..4].to_owned(), &d[4..]),
        _ => return text.into_owned(),
    };
    let two = |at: usize| &rest[at..at + 2];
    format!("{year}-{}-{} {}:{}:{} UTC", two(0), two(2), two(4), two(6), two(8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::encode;

    #[test]
    fn extensions_are_said_in_words() {
        let says = |oid: &str, value: &[u8]| {
            let view = ExtensionView {
                oid: oid.into(),
                name: None,
                critical: false,
                text: None,
                value: value.into(),
            };
            view.in_words()
        };
        assert_eq!(says("2.5.29.15", &[3, 2, 7, 0x80]).unwrap(), "digital signature");
        assert_eq!(says("2.5.29.15", &[3, 2, 1, 6]).unwrap(), "certificate signing, CRL signing");
        let usage = [0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3];
        assert_eq!(says("2.5.29.37", &usage).unwrap(), "code signing");
        assert_eq!(says("2.5.29.19", &[0x30, 3, 1, 1, 0xff]).unwrap(), "may issue certificates");
        assert_eq!(says("2.5.29.14", &[4, 2, 0xab, 0xcd]).unwrap(), "abcd");
        assert_eq!(says("2.5.29.35", &[0x30, 4, 0x80, 2, 1, 2]).unwrap(), "0102");
        for oid in ["2.5.29.14", "2.5.29.15", "2.5.29.19", "2.5.29.35", "2.5.29.37", "1.2.3"] {
            assert_eq!(says(oid, &[]), None);
            assert_eq!(says(oid, &[0x03]), None);
        }
    }

    #[test]
    fn names_times_and_identities_are_read() {
        assert_eq!(time(0x17, b"261127105740Z"), "2026-11-27 10:57:40 UTC");
        assert_eq!(time(0x17, b"991231235959Z"), "1999-12-31 23:59:59 UTC");
        assert_eq!(time(0x18, b"20501127105740Z"), "2050-11-27 10:57:40 UTC");
        assert_eq!(time(0x18, b"nonsense"), "nonsense");
        let attribute = |oid: &[u8], text: &[u8]| {
            encode(0x31, &encode(0x30, &[encode(0x06, oid), encode(0x0c, text)].concat()))
        };
        let der = encode(
            0x30,
            &[attribute(&[0x55, 4, 10], b"a,b"), attribute(&[0x55, 4, 3], b"<script>")].concat(),
        );
        assert_eq!(name(&der).unwrap(), "O=a\\,b,CN=\\<script\\>");
        let other = [encode(0x06, &[0x2b, 1]), encode(0xa0, &encode(0x0c, b"me!example"))].concat();
        let der = encode(
            0x30,
            &[
                encode(0x81, b"me@example.com"),
                encode(0x86, b"https://example.com/x"),
                encode(0xa0, &other),
                encode(0x87, &[127, 0, 0, 1]),
                encode(0x82, b"example.com"),
            ]
            .concat(),
        );
        let found: Vec<_> = sans(&der).unwrap().iter().map(|s| format!("{} {}", s.kind, s.value)).collect();
        assert_eq!(
            found,
            [
                "email me@example.com",
                "uri https://example.com/x",
                "other me!example",
                "ip 127.0.0.1",
                "dns example.com"
            ]
        );
    }
}
