//! Object identifiers and what they are called.

/// Fulcio's extensions below 1.3.6.1.4.1.57264.1 (`fulcio:docs/oid-info.md`): the last arc, and the name that other monitors
/// know them by.
pub(crate) const FULCIO: [(u32, &str); 23] = [
    (1, "issuer"),
    (2, "github-workflow-trigger"),
    (3, "github-workflow-sha"),
    (4, "github-workflow-name"),
    (5, "github-workflow-repository"),
    (6, "github-workflow-ref"),
    (8, "issuer-v2"),
    (9, "build-signer-uri"),
    (10, "build-signer-digest"),
    (11, "runner-environment"),
    (12, "source-repository-uri"),
    (13, "source-repository-digest"),
    (14, "source-repository-ref"),
    (15, "source-repository-identifier"),
    (16, "source-repository-owner-uri"),
    (17, "source-repository-owner-identifier"),
    (18, "build-config-uri"),
    (19, "build-config-digest"),
    (20, "build-trigger"),
    (21, "run-invocation-uri"),
    (22, "source-repository-visibility-at-signing"),
    (23, "deployment-environment"),
    (24, "token-subject"),
];

/// Where Fulcio's extensions are.
pub(crate) const FULCIO_ARC: &str = "1.3.6.1.4.1.57264.1.";

const OTHERS: [(&str, &str); 20] = [
    ("2.5.29.14", "subject key identifier"),
    ("2.5.29.15", "key usage"),
    ("2.5.29.17", "subject alternative name"),
    ("2.5.29.19", "basic constraints"),
    ("2.5.29.31", "CRL distribution points"),
    ("2.5.29.32", "certificate policies"),
    ("2.5.29.35", "authority key identifier"),
    ("2.5.29.37", "extended key usage"),
    ("1.3.6.1.5.5.7.1.1", "authority information access"),
    ("1.3.6.1.4.1.11129.2.4.2", "signed certificate timestamps"),
    ("1.3.6.1.4.1.11129.2.4.3", "precertificate poison"),
    ("1.3.6.1.5.5.7.3.3", "code signing"),
    ("1.3.6.1.5.5.7.3.8", "time stamping"),
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// What an object identifier is called, if it has a name here.
pub(crate) fn name(oid: &str) -> Option<&'static str> {
    let fulcio = || {
        let arc = oid.strip_prefix(FULCIO_ARC)?.parse::<u32>().ok()?;
        FULCIO.iter().find(|(known, _)| *known == arc).map(|(_, name)| *name)
    };
    OTHERS.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name).or_else(fulcio)
}

/// Reads what a rule calls an extension: `1.2.3`, or one of Fulcio's names.
pub(crate) fn oid_from_text(text: &str) -> Option<String> {
    if let Some((arc, _)) = FULCIO.iter().find(|(_, name)| *name == text) {
        return Some(format!("{FULCIO_ARC}{arc}"));
    }
    let arcs: Option<Vec<u128>> = text.split('.').map(|arc| arc.parse().ok()).collect();
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.split('.').all(|arc| arc == "0" || !arc.starts_with('0'));
    (plain && arcs?.len() >= 2).then(|| text.to_owned())
}

/// The content of an object identifier, with dots. `None` for one that is cut off.
pub(crate) fn dotted(content: &[u8]) -> Option<String> {
    let mut arcs: Vec<u128> = Vec::new();
    let mut arc = 0_u128;
    for (at, byte) in content.iter().enumerate() {
        arc = arc.checked_mul(128)?.checked_add(u128::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        } else if at + 1 == content.len() {
            return None;
        }
    }
    let first = *arcs.first()?;
    let (top, second) = (first.min(80) / 40, first - first.min(80) / 40 * 40);
    let rest = arcs[1..].iter().map(u128::to_string);
    Some([top.to_string(), second.to_string()].into_iter().chain(rest).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_written_with_dots() {
        assert_eq!(dotted(&[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 8]).unwrap(), "1.3.6.1.4.1.57264.1.8");
        assert_eq!(dotted(&[0x55, 0x1d, 17]).unwrap(), "2.5.29.17");
        assert_eq!(dotted(&[0x88, 0x37]).unwrap(), "2.999");
        assert_eq!(dotted(&[0x2b, 0x83]), None);
        assert_eq!(dotted(&[]), None);
        assert_eq!(name("1.3.6.1.4.1.57264.1.12"), Some("source-repository-uri"));
        assert_eq!(oid_from_text("issuer-v2").unwrap(), "1.3.6.1.4.1.57264.1.8");
        assert_eq!(oid_from_text("1.2.840").unwrap(), "1.2.840");
        for bad in ["", "1", "1..2", "1.02", "x", "1.2.", "isuer"] {
            assert_eq!(oid_from_text(bad), None, "{bad}");
        }
    }
}
