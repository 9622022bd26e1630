//! Times as people and X.509 write them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known;

/// A time printed as RFC 3339 in UTC, to the second.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339(pub SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole_seconds = from_unix_seconds(unix_seconds(self.0));
        match OffsetDateTime::from(whole_seconds).format(&well_known::Rfc3339) {
            Ok(text) => f.write_str(&text),
            Err(_) => write!(f, "{} s since 1970", unix_seconds(self.0)),
        }
    }
}

/// Whole seconds since 1970; 0 for anything earlier.
pub fn unix_seconds(t: SystemTime) -> i64 {
    let seconds = t.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// The other way round; anything before 1970 is 1970, anything after the year 9999 is its end.
pub fn from_unix_seconds(seconds: i64) -> SystemTime {
    const END_OF_9999: u64 = 253_402_300_799; // the last that X.509 and RFC 3339 can write
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(END_OF_9999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_seconds_in_utc() {
        assert_eq!(
            Rfc3339(from_unix_seconds(1_795_187_280) + Duration::from_millis(999)).to_string(),
            "2026-11-20T15:08:00Z"
        );
        assert_eq!(
            Rfc3339(from_unix_seconds(i64::MAX)).to_string(),
            "9999-12-31T23:59:59Z"
        );
        assert_eq!(
            Rfc3339(from_unix_seconds(-5)).to_string(),
            "1970-01-01T00:00:00Z"
        );
    }
}
