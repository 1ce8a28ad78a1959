//! Times as the services write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Seconds since 1970, with a fraction: AWS's form.
pub(crate) fn now_fraction() -> f64 {
    since_1970(SystemTime::now()).as_secs_f64()
}

/// RFC 3339 in UTC, as in `2026-11-27T01:02:03Z`: Google's form.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    let time = time.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Reads `20261127T010203Z`: the form of signed requests.
pub(crate) fn parse_basic(text: &str) -> Option<u64> {
    let digits = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
    if text.len() != 16 || text.as_bytes()[8] != b'T' || text.as_bytes()[15] != b'Z' {
        return None;
    }
    let month = time::Month::try_from(u8::try_from(digits(4..6)?).ok()?).ok()?;
    let date = time::Date::from_calendar_date(
        i32::try_from(digits(0..4)?).ok()?,
        month,
        u8::try_from(digits(6..8)?).ok()?,
    )
    .ok()?;
    let clock = date
        .with_hms(
            u8::try_from(digits(9..11)?).ok()?,
            u8::try_from(digits(11..13)?).ok()?,
            u8::try_from(digits(13..15)?).ok()?,
        )
        .ok()?;
    u64::try_from(clock.assume_utc().unix_timestamp()).ok()
}

fn seconds(time: SystemTime) -> u64 {
    since_1970(time).as_secs()
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        assert_eq!(rfc3339(1_795_741_323), "2026-11-27T01:02:03Z");
        assert_eq!(parse_basic("20261127T010203Z"), Some(1_795_741_323));
        for bad in ["", "20261127T010203", "20261327T010203Z", "2026112 T010203Z", "éééééééé"] {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
    }
}
