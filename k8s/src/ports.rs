//! Port sets as annotations write them: `80,443,9000-9100`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

/// Why a text is no set of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a list of ports: expected ports from 1 to 65535 and ranges of them, separated by commas, e.g. 80,9000-9100"
)]
pub struct PortSetError(String);

impl PortSet {
    /// Is the port in it?
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The single ports in it; ranges of more than one port are left out.
    pub fn singles(&self) -> impl Iterator<Item = u16> + '_ {
        self.0
            .iter()
            .filter(|r| r.start() == r.end())
            .map(|r| *r.start())
    }
}

impl FromStr for PortSet {
    type Err = PortSetError;

    fn from_str(s: &str) -> Result<Self, PortSetError> {
        let wrong = || PortSetError(s.chars().take(128).collect());
        let port = |text: &str| {
            text.trim()
                .parse::<u16>()
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(wrong)
        };
        let ranges = s
            .split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| match part.split_once('-') {
                Some((from, to)) => {
                    let (from, to) = (port(from)?, port(to)?);
                    if from <= to {
                        Ok(from..=to)
                    } else {
                        Err(wrong())
                    }
                }
                None => port(part).map(|p| p..=p),
            });
        ranges.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let set: PortSet = "80, 9000-9002".parse().unwrap();
        assert!(set.contains(80) && set.contains(9002) && !set.contains(9003));
        assert_eq!(set.to_string(), "80,9000-9002");
        assert!("".parse::<PortSet>().unwrap().is_empty());
        for bad in ["0", "x", "80-70", "65536", "80;81", "-1"] {
            assert!(bad.parse::<PortSet>().is_err(), "{bad}");
        }
    }
}
