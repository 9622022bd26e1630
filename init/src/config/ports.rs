//! Lists of TCP or UDP ports: `80,443,8000-8099`, or `*` for all.
//!
//! Parsed by [`crate::config`], rendered rule by rule in [`crate::rules`].

use std::fmt;

/// Inclusive range of ports, `first <= last`, both in 1..=65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range `first..=last`; `None` when it is empty or contains 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// Lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Does the range hold `port`?
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// `80` or `8000<separator>8099`: nft separates by `-`, iptables by `:`.
    pub fn joined(self, separator: char) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}{separator}{}", self.first, self.last)
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined('-'))
    }
}

/// Sorted ranges that neither overlap nor touch, so that equal sets give equal rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortList(Vec<PortRange>);

impl PortList {
    /// Parses a comma separated list; the empty text is the empty list. The error says what is wrong with which item.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|item| parse_range(item.trim()))
            .collect::<Result<Vec<_>, _>>()
            .map(Self::from_ranges)
    }

    /// Normalises: sorts, and merges ranges that overlap or touch.
    pub fn from_ranges(mut ranges: Vec<PortRange>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(previous) if u32::from(range.first) <= u32::from(previous.last) + 1 => {
                    previous.last = previous.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The same list with one more port.
    #[must_use]
    pub fn with(&self, port: u16) -> Self {
        let mut ranges = self.0.clone();
        ranges.extend(PortRange::new(port, port));
        Self::from_ranges(ranges)
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// Does the list hold `port`?
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }
}

impl fmt::Display for PortList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{range}")?;
        }
        Ok(())
    }
}

/// All ports, or the listed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSet {
    /// `*`
    All,
    /// A list; empty means none.
    Only(PortList),
}

impl PortSet {
    /// Parses `*` or a list.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            Ok(Self::All)
        } else {
            PortList::parse(text).map(Self::Only)
        }
    }

    /// Does the set hold `port`?
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.contains(port),
        }
    }
}

fn parse_range(item: &str) -> Result<PortRange, String> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let range = (parse_port(first)?, parse_port(last)?);
    PortRange::new(range.0, range.1)
        .ok_or_else(|| format!("the range \"{item}\" ends before it begins"))
}

/// Parses one port, 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a port is missing (an empty item)".to_owned());
    }
    // `u16::from_str` would let a leading `+` pass.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(format!("\"{text}\" is not a port between 1 and 65535")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_and_normalises() {
        for (text, shown) in [
            ("", ""),
            (" ", ""),
            ("80", "80"),
            ("443, 80", "80,443"),
            ("8000-8099,8050-8100,8101", "8000-8101"),
            ("1-65535", "1-65535"),
            ("65535,65535", "65535"),
        ] {
            assert_eq!(PortList::parse(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(PortSet::parse(" * "), Ok(PortSet::All));
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, why) in [
            ("0", "\"0\" is not a port between 1 and 65535"),
            ("65536", "\"65536\" is not a port between 1 and 65535"),
            ("+80", "\"+80\" is not a port between 1 and 65535"),
            ("http", "\"http\" is not a port between 1 and 65535"),
            ("80,,90", "a port is missing (an empty item)"),
            ("80-", "a port is missing (an empty item)"),
            ("90-80", "the range \"90-80\" ends before it begins"),
            ("80,*", "\"*\" is not a port between 1 and 65535"),
        ] {
            assert_eq!(PortSet::parse(text).unwrap_err(), why, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_a_round_trip(text in ".{0,40}") {
            if let Ok(list) = PortList::parse(&text) {
                prop_assert_eq!(PortList::parse(&list.to_string()), Ok(list));
            }
        }

        #[test]
        fn membership_is_that_of_the_ranges(
            pairs in prop::collection::vec((1u16.., 0u16..300), 0..8),
            probe in 1u16..,
        ) {
            let ranges: Vec<_> = pairs.iter()
                .filter_map(|(first, more)| PortRange::new(*first, first.saturating_add(*more)))
                .collect();
            let list = PortList::from_ranges(ranges.clone());
            prop_assert_eq!(list.contains(probe), ranges.iter().any(|range| range.contains(probe)));
            prop_assert_eq!(PortList::parse(&list.to_string()), Ok(list));
        }
    }
}
