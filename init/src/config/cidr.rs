//! Networks in CIDR notation: `10.0.0.0/8`, `fd00::/8`, or a single address.
//!
//! Parsed by [`crate::config`], matched in [`crate::rules`].

use crate::Family;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network; the bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network of `address` with `prefix` bits (0..=32 or 0..=128), host bits cleared.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// The network that holds only `address`.
    pub fn host(address: IpAddr) -> Self {
        let prefix = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, prefix }
    }

    /// Parses one network. Host bits are a mistake, since they usually betray a wrong prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("\"{address}\" is not an IP address"))?;
        let Some(prefix) = prefix else {
            return Ok(Self::host(address));
        };
        let most = Self::host(address).prefix;
        let cidr = prefix
            .parse::<u8>()
            .ok()
            .filter(|_| prefix.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|prefix| Self::new(address, prefix))
            .ok_or_else(|| format!("\"/{prefix}\" in \"{text}\" is not between /0 and /{most}"))?;
        if cidr.address != address {
            return Err(format!(
                "\"{text}\" has bits after its prefix; the network is {cidr}"
            ));
        }
        Ok(cidr)
    }

    /// IPv4 or IPv6.
    pub fn family(self) -> Family {
        Family::of(self.address)
    }

    /// First address of the network.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Is `address` in the network?
    pub fn contains(self, address: IpAddr) -> bool {
        Self::new(address, self.prefix) == Some(self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// All destinations, or the listed networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrSet {
    /// `*`
    All,
    /// A list; empty means none.
    Only(Vec<Cidr>),
}

impl CidrSet {
    /// Parses `*` or a list.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            Ok(Self::All)
        } else {
            parse_list(text).map(Self::Only)
        }
    }
}

/// Parses a comma separated list, sorted and without duplicates; the empty text is the empty list.
pub fn parse_list(text: &str) -> Result<Vec<Cidr>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut cidrs = text
        .split(',')
        .map(Cidr::parse)
        .collect::<Result<Vec<_>, _>>()?;
    cidrs.sort_unstable();
    cidrs.dedup();
    Ok(cidrs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            (" 192.0.2.7 ", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), shown);
        }
        assert_eq!(CidrSet::parse("*"), Ok(CidrSet::All));
        assert_eq!(CidrSet::parse(""), Ok(CidrSet::Only(vec![])));
        assert_eq!(
            parse_list("10.1.0.0/16,10.0.0.0/16,10.1.0.0/16")
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, why) in [
            (
                "10.0.0.0/33",
                "\"/33\" in \"10.0.0.0/33\" is not between /0 and /32",
            ),
            (
                "fd00::/129",
                "\"/129\" in \"fd00::/129\" is not between /0 and /128",
            ),
            (
                "10.0.0.0/+8",
                "\"/+8\" in \"10.0.0.0/+8\" is not between /0 and /32",
            ),
            (
                "10.1.2.3/8",
                "\"10.1.2.3/8\" has bits after its prefix; the network is 10.0.0.0/8",
            ),
            ("10.0.0/8", "\"10.0.0\" is not an IP address"),
            ("example.com", "\"example.com\" is not an IP address"),
            ("10.0.0.0/8,", "\"\" is not an IP address"),
        ] {
            assert_eq!(parse_list(text).unwrap_err(), why);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_a_round_trip(text in "[0-9a-f.:/,* ]{0,44}") {
            if let Ok(list) = parse_list(&text) {
                let shown: Vec<_> = list.iter().map(ToString::to_string).collect();
                prop_assert_eq!(parse_list(&shown.join(",")), Ok(list));
            }
        }

        #[test]
        fn a_network_holds_its_own_addresses(address: u32, prefix in 0u8..=32, host: u32) {
            let cidr = Cidr::new(Ipv4Addr::from_bits(address).into(), prefix).unwrap();
            let low = host & u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let IpAddr::V4(network) = cidr.address() else { unreachable!() };
            prop_assert!(cidr.contains(Ipv4Addr::from_bits(network.to_bits() | low).into()));
            if prefix > 0 {
                let flipped = network.to_bits() ^ (1 << (32 - prefix));
                prop_assert!(!cidr.contains(Ipv4Addr::from_bits(flipped).into()));
            }
            prop_assert_eq!(Cidr::parse(&cidr.to_string()), Ok(cidr));
        }
    }
}
