//! Which records are of interest.

use clap::Args;
use signerd_api::audit::{Record, utc_millis};

/// Which records; all that fit every one of these.
#[derive(Args, Debug)]
pub(super) struct Filter {
    /// Only of this key, whatever its version: its reference, with * for any characters, or the SHA-256 of its public key
    #[arg(short, long, value_name = "PATTERN")]
    key: Option<String>,
    /// Only by this caller: a user's name or number, or a program with * for any characters
    #[arg(long, value_name = "CALLER")]
    caller: Option<String>,
    /// Only this operation: sign, create, import, delete, rotate, certificate, unlock, attest, list, watch, …
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Only since then: 2026-11-27, 2026-11-27T08:30, or a time ago: 30m, 12h, 7d
    #[arg(long, value_parser = moment, value_name = "TIME")]
    since: Option<u64>,
    /// Only until then
    #[arg(long, value_parser = moment, value_name = "TIME")]
    until: Option<u64>,
    /// Only what was denied
    #[arg(long)]
    denied: bool,
    /// Only what failed, or what nobody waited for
    #[arg(long, conflicts_with = "denied")]
    failed: bool,
}

impl Filter {
    /// Whether a record fits. `outcome` is how it ended, as a later record may say.
    pub(super) fn fits(&self, record: &Record<'_>, outcome: &str) -> bool {
        let time = utc_millis(&record.time).unwrap_or_default();
        self.key.as_ref().is_none_or(|wanted| {
            let fingerprint = record.fingerprint.as_deref().unwrap_or_default();
            let hash = fingerprint.strip_prefix("sha256:").unwrap_or(fingerprint);
            [fingerprint, hash].contains(&wanted.as_str())
                || record
                    .key
                    .as_deref()
                    .is_some_and(|key| matches(wanted, key) || matches(wanted, plain(key)))
        }) && self.caller.as_ref().is_none_or(|wanted| is_by(record, wanted))
            && self.operation.as_ref().is_none_or(|wanted| *wanted == record.operation)
            && self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && (!self.denied || record.decision.as_deref() == Some("denied"))
            && (!self.failed || ["failed", "abandoned"].contains(&outcome))
    }
}

fn is_by(record: &Record<'_>, wanted: &str) -> bool {
    let Some(caller) = &record.caller else { return false };
    let wanted_user = wanted.strip_prefix("user:").or(wanted.strip_prefix("uid:")).unwrap_or(wanted);
    caller.user.as_deref() == Some(wanted_user)
        || caller.uid.is_some_and(|uid| uid.to_string() == wanted_user)
        || caller.program.as_deref().is_some_and(|program| matches(wanted, program))
}

/// A key without its version: whoever asks for the key means all of them.
fn plain(key: &str) -> &str {
    match key.rsplit_once('@') {
        Some((plain, version)) if version.bytes().all(|b| b.is_ascii_digit()) => plain,
        _ => key,
    }
}

/// Whether a text is like a pattern in which * stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// What a time that is cut off goes on with: the beginning of the day, the minute, the second.
const WHOLE: &str = "0000-00-00T00:00:00.000Z";

/// A moment in milliseconds since 1970: a date, a date and a time in UTC, or so long ago.
fn moment(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: write 2026-11-27, 2026-11-27T08:30 (UTC), 30m, 12h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    if let (Some(factor), Ok(number)) = (factor, digits.parse::<u64>()) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let ago = number.checked_mul(factor * 1000).ok_or_else(wrong)?;
        return Ok((now.as_millis() as u64).saturating_sub(ago));
    }
    let text = text.trim_end_matches('Z').replace(' ', "T");
    if !text.is_ascii() || text.len() < "2026-11-27".len() || text.len() >= WHOLE.len() {
        return Err(wrong());
    }
    utc_millis(&format!("{text}{}", &WHOLE[text.len()..])).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use signerd_api::audit::utc;

    use super::*;

    #[test]
    fn times_are_read() {
        let shown = |text: &str| moment(text).map(utc).unwrap_or_default();
        assert_eq!(shown("2026-11-27"), "2026-11-27T00:00:00.000Z");
        assert_eq!(shown("2026-11-27T08:30"), "2026-11-27T08:30:00.000Z");
        assert_eq!(shown("2026-11-27 08:30:01.5Z"), "2026-11-27T08:30:01.500Z");
        assert!(moment("1h").unwrap() < moment("1m").unwrap());
        for bad in ["", "yesterday", "2026-13-01", "2026-11-27T25:00", "h", "99999999999999999999d", "é"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_are_those_of_grants() {
        for (pattern, text) in [("*", ""), ("hsm/*", "hsm/a/b"), ("a*b*c", "aXbYbc"), ("hsm/a", "hsm/a")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "x"), ("hsm/*", "hs"), ("a*a", "a"), ("hsm/a", "hsm/ab"), ("*b", "ba")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
