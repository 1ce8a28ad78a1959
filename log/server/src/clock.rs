//! Times as people and programs write them.

/// Milliseconds since 1970 as RFC 3339 has it, in UTC.
pub(crate) fn rfc3339(millis: u64) -> String {
    let [year, month, day, hour, minute, second] = parts(millis / 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1000)
}

/// Milliseconds since 1970 for people: `2026-11-27 10:57:40 UTC`.
pub(crate) fn for_people(millis: u64) -> String {
    let [year, month, day, hour, minute, second] = parts(millis / 1000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month, day, hour, minute and second.
fn parts(seconds: u64) -> [u64; 6] {
    let (mut days, in_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years have as many days each time.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    [year, month as u64 + 1, days + 1, in_day / 3600, in_day / 60 % 60, in_day % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(for_people(1_795_743_305_000), "2026-11-27 01:35:05 UTC");
        assert_eq!(for_people(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
        assert!(rfc3339(u64::MAX).ends_with('Z'));
    }
}
