//! The records of the daemon's audit log: what the daemon writes, and what reads it. `docs/audit.md` explains each field.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use signer_core::{Error, Result};

/// The version of the form that is written now.
pub const RECORD_VERSION: u32 = 1;

/// One record. Its fields are in the order of their names, numbers are whole, and what is absent is left out: so the text
/// that [`Record::to_json`] makes is canonical (RFC 8785), one record has one text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// How was to be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Cow<'a, str>>,
    /// Who asked; absent where the daemon itself is the one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller<'a>>,
    /// SHA-256 of the configuration that holds from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Cow<'a, str>>,
    /// What kind of thing was to be signed, where the daemon saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Cow<'a, str>>,
    /// `allowed` or `denied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Cow<'a, str>>,
    /// The digest that was to be signed, `sha256:…`; of a message that is signed as it is, its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Cow<'a, str>>,
    /// The kind of error that it ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// SHA-256 of the public key (`SubjectPublicKeyInfo`), `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Cow<'a, str>>,
    /// Which grant allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Cow<'a, str>>,
    /// Whether a `digest` or a `message` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Cow<'a, str>>,
    /// The key: backend/key, version included; as it was asked for where there is no such key, or nobody may know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Cow<'a, str>>,
    /// The earlier record whose end this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// What was to be done: `sign`, `create`, …
    pub operation: Cow<'a, str>,
    /// `begun`, `done`, `failed` or `abandoned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Cow<'a, str>>,
    /// How many requests were refused because nothing could be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// Its place in the log.
    pub sequence: u64,
    /// How many denials of this caller are not recorded one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    /// When, in UTC; never before the record that precedes it.
    pub time: Cow<'a, str>,
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// The daemon's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Cow<'a, str>>,
}

/// Who asked, as the kernel said it when the connection was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller<'a> {
    /// Its primary group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The program of that process, or its name where the daemon may not see the file. For orientation: a process can give
    /// itself another name, and numbers of processes come again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Cow<'a, str>>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// That user's name at the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
}

impl Record<'_> {
    /// The canonical text.
    pub fn to_json(&self) -> Vec<u8> {
        // Texts and numbers in plain structs: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record. A later version may say more: fields that are not known are passed over.
    pub fn from_json(text: &[u8]) -> Result<Record<'static>> {
        let record: Record<'static> = serde_json::from_slice(text)
            .map_err(|e| Error::internal("this is not a record of the audit log").vendor(e))?;
        Ok(record)
    }
}

/// A time in milliseconds since 1970 as people write it: `2026-11-24T15:31:00.123Z`.
pub fn utc(millis: u64) -> String {
    let seconds = signer_core::utc(millis / 1000);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), millis % 1000)
}

/// Reads what [`utc`] writes.
pub fn utc_millis(text: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| -> Option<u64> {
        text.get(from..to).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    // Days since 1 March of the year 0, in months of a year that begins with March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day.checked_sub(1)?;
    let seconds =
        days.checked_sub(719_468)? * 86_400 + digits(11, 13)? * 3600 + digits(14, 16)? * 60 + digits(17, 19)?;
    let millis = seconds * 1000 + digits(20, 23)?;
    (utc(millis) == text).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // As `date -u -d @… +%FT%T.000Z` says.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000Z"),
            (1_795_534_260, "2026-11-24T15:31:00.000Z"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
            assert_eq!(utc_millis(text), Some(seconds * 1000));
        }
        for bad in ["", "2026-02-30T00:00:00.000Z", "2026-11-24 15:31:00.000Z", "2026-11-24T15:31:00Z", "é"]
        {
            assert_eq!(utc_millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_record_is_canonical_json() {
        let record = Record {
            algorithm: Some("ecdsa-sha256".into()),
            caller: Some(Caller {
                gid: Some(100),
                pid: Some(4711),
                program: Some("/usr/bin/signer".into()),
                uid: Some(1000),
                user: Some("alice".into()),
            }),
            decision: Some("allowed".into()),
            digest: Some("sha256:5a".into()),
            key: Some("hsm/ré\"\n\u{1}lease".into()),
            operation: "sign".into(),
            outcome: Some("begun".into()),
            sequence: 17,
            time: utc(1_795_534_260_123).into(),
            v: RECORD_VERSION,
            ..Record::default()
        };
        let text = String::from_utf8(record.to_json()).unwrap();
        assert_eq!(
            text,
            "{\"algorithm\":\"ecdsa-sha256\",\"caller\":{\"gid\":100,\"pid\":4711,\"program\":\"/usr/bin/signer\",\
             \"uid\":1000,\"user\":\"alice\"},\"decision\":\"allowed\",\"digest\":\"sha256:5a\",\
             \"key\":\"hsm/ré\\\"\\n\\u0001lease\",\"operation\":\"sign\",\"outcome\":\"begun\",\"sequence\":17,\
             \"time\":\"2026-11-24T15:31:00.123Z\",\"v\":1}"
        );
        assert_eq!(Record::from_json(text.as_bytes()).unwrap(), record);
        let sorted: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&sorted).unwrap(), text);
    }
}
