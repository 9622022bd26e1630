//! Which address ranges a mesh gets, and which address each pod and service.
//!
//! Pods: one `10.244.x.0/24` and `fd77:77:x::/64` per mesh, the same `x` in both. Host part 1 is the node, 254 the
//! host, 2 to 253 are pods. Services: `10.96.0.0/16` and `fd77:96::/112`, which only the node's own rules know, so
//! two meshes may use the same. Pure; [`super::Node`] reads the routes and carries the result out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::names::fnv;

const POD_FIRST: u8 = 2;
const POD_LAST: u8 = 253;
const HOST: u8 = 254;

/// The address ranges of one mesh's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The `x` of `10.244.x.0/24` and `fd77:77:x::/64`, 1 to 254.
    pub index: u8,
    /// False on a machine without IPv6.
    pub ipv6: bool,
}

impl Subnet {
    /// The first range that overlaps none of the `routes`, as `ip route show table all` and its `-6` twin print them.
    pub(crate) fn choose(routes: &str, ipv6: bool) -> Result<Self, Error> {
        let taken: Vec<(IpAddr, u8)> = routes.lines().filter_map(route_prefix).collect();
        (1..=254)
            .map(|index| Self { index, ipv6 })
            .find(|subnet| {
                !taken.iter().any(|&(ip, length)| {
                    overlaps((IpAddr::V4(subnet.v4(0)), 24), (ip, length))
                        || overlaps((IpAddr::V6(subnet.v6(0)), 64), (ip, length))
                })
            })
            .ok_or(Error::Exhausted("10.244.x.0/24 range"))
    }

    /// The IPv4 address with this host part.
    pub fn v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.index, host)
    }

    /// The IPv6 address with this host part.
    pub fn v6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(
            0xfd77,
            0x77,
            u16::from(self.index),
            0,
            0,
            0,
            0,
            u16::from(host),
        )
    }

    /// The node's addresses (the bridge), IPv4 first.
    pub fn node(self) -> Vec<IpAddr> {
        self.both(1)
    }

    /// The host's addresses, as pods see it, IPv4 first.
    pub fn host(self) -> Vec<IpAddr> {
        self.both(HOST)
    }

    /// Both addresses of a host part, IPv4 first.
    pub(crate) fn both(self, host: u8) -> Vec<IpAddr> {
        let mut addresses = vec![IpAddr::V4(self.v4(host))];
        if self.ipv6 {
            addresses.push(IpAddr::V6(self.v6(host)));
        }
        addresses
    }
}

/// The prefix a line of `ip route` is about; `None` for default routes, which everything overlaps.
fn route_prefix(line: &str) -> Option<(IpAddr, u8)> {
    let prefix = line.split_whitespace().find(|word| {
        word.starts_with(|c: char| c.is_ascii_hexdigit()) && word.contains(['.', ':'])
    })?;
    let (address, length) = match prefix.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, length.parse().ok()?),
        None => {
            let address: IpAddr = prefix.parse().ok()?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        }
    };
    (length > 0).then_some((address, length))
}

fn overlaps(a: (IpAddr, u8), b: (IpAddr, u8)) -> bool {
    let shorter = u32::from(a.1.min(b.1));
    match (a.0, b.0) {
        (IpAddr::V4(x), IpAddr::V4(y)) => (u32::from(x) ^ u32::from(y)).leading_zeros() >= shorter,
        (IpAddr::V6(x), IpAddr::V6(y)) => {
            (u128::from(x) ^ u128::from(y)).leading_zeros() >= shorter
        }
        _ => false,
    }
}

/// Who has which address. Kept in `addresses.json`; the same pod or service name gets the same address again while it
/// is free.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// `namespace/pod` to host part.
    pods: BTreeMap<String, u8>,
    /// `namespace/service` to the last 16 bits of its cluster IPs.
    services: BTreeMap<String, u16>,
    /// The host part handed out last: a freed address rests until all others had their turn.
    last: u8,
}

impl Addresses {
    /// The host part of a pod's addresses, the same until [`Self::release_pod`].
    pub(crate) fn pod(&mut self, key: &str) -> Result<u8, Error> {
        if let Some(&host) = self.pods.get(key) {
            return Ok(host);
        }
        let count = POD_LAST - POD_FIRST + 1;
        let start = (self.last + 1).saturating_sub(POD_FIRST);
        let host = (0..count)
            .map(|step| POD_FIRST + ((u16::from(start) + u16::from(step)) % u16::from(count)) as u8)
            .find(|host| !self.pods.values().any(|used| used == host))
            .ok_or(Error::Exhausted("pod address (a mesh has 252)"))?;
        self.last = host;
        self.pods.insert(key.to_owned(), host);
        Ok(host)
    }

    /// Gives a pod's address back.
    pub(crate) fn release_pod(&mut self, key: &str) {
        self.pods.remove(key);
    }

    /// The cluster IPs of a service: by its name, so that they are the same in every run.
    pub(crate) fn service(&mut self, key: &str, ipv6: bool) -> Result<Vec<IpAddr>, Error> {
        let low = if let Some(&low) = self.services.get(key) {
            low
        } else {
            let first = fnv(&[key]) % 65_000;
            let low = (0..65_000_u64)
                .filter_map(|step| u16::try_from(256 + (first + step) % 65_000).ok())
                .find(|low| !self.services.values().any(|used| used == low))
                .ok_or(Error::Exhausted("cluster IP"))?;
            self.services.insert(key.to_owned(), low);
            low
        };
        let [high, low_byte] = low.to_be_bytes();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 96, high, low_byte))];
        if ipv6 {
            addresses.push(IpAddr::V6(Ipv6Addr::new(0xfd77, 0x96, 0, 0, 0, 0, 0, low)));
        }
        Ok(addresses)
    }

    /// Forgets services that are gone.
    pub(crate) fn keep_services(&mut self, keep: impl Fn(&str) -> bool) {
        self.services.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_range_in_use_is_passed_over() {
        let chosen = |routes: &str| Subnet::choose(routes, true).unwrap().index;
        assert_eq!(
            chosen(
                "default via 192.0.2.1 dev eth0\n192.0.2.0/24 dev eth0 proto kernel\nfe80::/64 dev eth0"
            ),
            1
        );
        assert_eq!(
            chosen("10.244.1.0/24 via 10.244.1.1 dev x\nlocal 10.244.2.254 dev y table local"),
            3
        );
        assert_eq!(chosen("fd77:77:1::/64 via fe80::1 dev x"), 2);
        assert!(Subnet::choose("10.0.0.0/8 dev vpn", true).is_err());
        assert!(Subnet::choose("unreachable 10.244.0.0/16", false).is_err());
    }

    #[test]
    fn pods_keep_their_address_and_freed_ones_rest() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.pod("default/a").unwrap(), 2);
        assert_eq!(addresses.pod("default/b").unwrap(), 3);
        assert_eq!(addresses.pod("default/a").unwrap(), 2);
        addresses.release_pod("default/a");
        assert_eq!(addresses.pod("default/c").unwrap(), 4);
        for n in 0..250 {
            addresses.pod(&format!("x/{n}")).unwrap();
        }
        assert!(addresses.pod("one/too-many").is_err());
        addresses.release_pod("default/b");
        assert_eq!(addresses.pod("one/more").unwrap(), 3);
    }

    #[test]
    fn cluster_ips_depend_on_the_name_only() {
        let mut one = Addresses::default();
        let mut two = Addresses::default();
        two.service("other/thing", true).unwrap();
        let ips = one.service("default/web", true).unwrap();
        assert_eq!(ips, two.service("default/web", true).unwrap());
        assert!(
            ips[0].to_string().starts_with("10.96.") && ips[1].to_string().starts_with("fd77:96::")
        );
        assert_eq!(one.service("default/web", false).unwrap().len(), 1);
    }
}
