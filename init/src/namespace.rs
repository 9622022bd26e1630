//! What the network namespace of this thread looks like: IPv6, and addresses of its own.
//!
//! Read by [`crate::apply`] to answer `--ipv6 auto`, and by [`crate::verify`] to find an address to dial.

use crate::Family;
use crate::config::interface::InterfacePattern;
use std::fs;
use std::net::IpAddr;

/// How much IPv6 there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ipv6 {
    /// The kernel has none.
    NoKernel,
    /// No interface has an address.
    Disabled,
    /// Only loopback and link-local addresses: nothing beyond the link is reachable.
    Local,
    /// An address that reaches other pods.
    Routable,
}

impl Ipv6 {
    /// Looks at this thread's namespace. `/proc/net` would be that of the process' first thread.
    pub fn detect() -> Self {
        match fs::read_to_string("/proc/thread-self/net/if_inet6") {
            Ok(table) => Self::of_table(&table),
            Err(_) => Self::NoKernel,
        }
    }

    /// Lines of address, interface index, prefix, scope, flags (all hexadecimal) and name.
    fn of_table(table: &str) -> Self {
        let level = |line: &str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            match columns.as_slice() {
                // Scope 00 is global.
                [_, _, _, "00", _, name] if *name != "lo" => Self::Routable,
                [..] => Self::Local,
            }
        };
        table.lines().map(level).max().unwrap_or(Self::Disabled)
    }
}

/// Names of legacy iptables' tables in use in this namespace; asking the program instead would create them.
pub fn legacy_tables(family: Family) -> Vec<String> {
    let name = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    let text = fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// An address by which other pods reach this one, and its interface; excluded interfaces do not count.
pub fn own_address(family: Family, excluded: &[InterfacePattern]) -> Option<(String, IpAddr)> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses
        .filter(|entry| entry.interface_name != "lo")
        .filter(|entry| {
            !excluded
                .iter()
                .any(|pattern| pattern.matches(&entry.interface_name))
        })
        .find_map(|entry| {
            let address = entry.address?;
            let address = match family {
                Family::V4 => IpAddr::V4(address.as_sockaddr_in()?.ip()),
                Family::V6 => IpAddr::V6(address.as_sockaddr_in6()?.ip()),
            };
            let link_local = match address {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            (!link_local).then_some((entry.interface_name, address))
        })
}

/// Is loopback up? A redirect ends at a loopback address, so nothing works without it.
pub fn loopback_is_up() -> bool {
    let up = |entry: nix::ifaddrs::InterfaceAddress| {
        entry.interface_name == "lo" && entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP)
    };
    // When the kernel does not say, the dials will.
    nix::ifaddrs::getifaddrs().map_or(true, |mut entries| entries.any(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_ipv6() {
        let lo = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let six = "00000000000000000000000000000006 01 80 00 80       lo\n";
        let link = "fe80000000000000d8a1b5fffe0c1f00 02 40 20 80     eth0\n";
        let pod = "fd770077000100000000000000000005 02 40 00 80     eth0\n";
        for (table, level) in [
            (String::new(), Ipv6::Disabled),
            (lo.to_owned(), Ipv6::Local),
            (format!("{lo}{six}{link}"), Ipv6::Local),
            (format!("{lo}{link}{pod}"), Ipv6::Routable),
        ] {
            assert_eq!(Ipv6::of_table(&table), level, "{table}");
        }
    }
}
