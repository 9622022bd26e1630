//! Durations as the Gateway API writes them (GEP-2257): `1h`, `1m30s`, `250ms`.
//!
//! A subset of Go's syntax: one to four numbers of one to five digits, each with a unit of `h`, `m`, `s` or `ms`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// What [`parse`] refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: expected one to four numbers of up to five digits with the units h, m, s or ms, e.g. 1m30s or 250ms"
)]
pub struct DurationError(String);

/// Reads a GEP-2257 duration. Range: 0 to 99999h59999m99999s99999ms.
pub fn parse(s: &str) -> Result<Duration, DurationError> {
    let refuse = || DurationError(s.chars().take(64).collect());
    let (mut rest, mut total, mut parts) = (s, Duration::ZERO, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        parts += 1;
        if !(1..=5).contains(&digits) || parts > 4 {
            return Err(refuse());
        }
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let (unit, tail) = if let Some(tail) = rest.strip_prefix("ms") {
            (1, tail)
        } else if let Some(tail) = rest.strip_prefix('h') {
            (3_600_000, tail)
        } else if let Some(tail) = rest.strip_prefix('m') {
            (60_000, tail)
        } else if let Some(tail) = rest.strip_prefix('s') {
            (1000, tail)
        } else {
            return Err(refuse());
        };
        total += Duration::from_millis(number * unit);
        rest = tail;
    }
    if parts == 0 { Err(refuse()) } else { Ok(total) }
}

/// Writes a duration in GEP-2257's syntax, rounded down to a millisecond.
pub fn format(d: Duration) -> String {
    let millis = d.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, size, next) in [
        ("h", 3_600_000, u128::MAX),
        ("m", 60_000, 60),
        ("s", 1000, 60),
        ("ms", 1, 1000),
    ] {
        let n = millis / size % next;
        if n > 0 {
            text.extend([n.to_string().as_str(), unit]);
        }
    }
    text
}

/// For `#[serde(with = "weft_model::duration::text")]`.
pub mod text {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// As GEP-2257 text.
    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format(*d))
    }

    /// From GEP-2257 text.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(default, with = "weft_model::duration::optional")]`.
pub mod optional {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// As GEP-2257 text, or null.
    pub fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match d {
            Some(d) => s.serialize_str(&super::format(*d)),
            None => s.serialize_none(),
        }
    }

    /// From GEP-2257 text, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(d)?
            .map(|s| super::parse(&s).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn gep_2257() {
        for (text, millis) in [
            ("0s", 0),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1h2m3s4ms", 3_723_004),
            ("99999ms", 99_999),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for bad in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "123456s",
            "1s2s3s4s5s",
            "1d",
            " 1s",
            "1us",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_as_it_parses() {
        for text in ["0s", "1h", "1m30s", "250ms", "1h2m3s4ms", "100h"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
