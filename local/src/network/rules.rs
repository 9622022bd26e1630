//! The node's nft rules: what kube-proxy does, for pods without a mesh and for what the mesh lets pass.
//!
//! Each service port jumps to the chain of one ready endpoint, drawn at random, or by the client's address when the
//! service asks for session affinity. A service address nobody answers for is refused, not routed outside. Pure text;
//! [`super::Node`] applies it in one transaction. Modelled on kube-proxy's nftables mode (KEP-3866).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::Subnet;

/// A transport protocol of a service port. SCTP is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The mark of a packet that a pod sends to itself through a service: it needs another source, or the pod would take
/// the answer for its own.
const HAIRPIN: &str = "0x4000";

/// One port of one cluster IP and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// The cluster IP.
    pub(crate) ip: IpAddr,
    /// The service's port.
    pub(crate) port: u16,
    /// TCP or UDP.
    pub(crate) transport: Transport,
    /// Ready endpoints of the same address family.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// `sessionAffinity: ClientIP`.
    pub(crate) by_client: bool,
}

/// The rules that do not depend on services: masquerading what leaves for another network than the host's.
pub(crate) fn node_base(subnet: Subnet) -> String {
    // A pod that reaches the host itself keeps its address; the host masquerades what goes further. Only packets a pod
    // sends to itself through a service need a new source, and those are in `services`.
    let mut script = String::from("table ip weft-services {\n}\n");
    if subnet.ipv6 {
        script += "table ip6 weft-services {\n}\n";
    }
    script
}

/// A script that replaces all service rules.
pub(crate) fn services(ports: &[ServicePort], ipv6: bool) -> String {
    let mut script = family(
        "ip",
        "10.96.0.0/16",
        ports.iter().filter(|p| p.ip.is_ipv4()),
    );
    if ipv6 {
        script += &family(
            "ip6",
            "fd77:96::/112",
            ports.iter().filter(|p| p.ip.is_ipv6()),
        );
    }
    script
}

fn family<'a>(family: &str, range: &str, ports: impl Iterator<Item = &'a ServicePort>) -> String {
    let mut chains: BTreeMap<(Transport, SocketAddr), usize> = BTreeMap::new();
    let mut dispatch = String::new();
    for port in ports.filter(|port| !port.endpoints.is_empty()) {
        let count = port.endpoints.len();
        let mut arms = Vec::with_capacity(count);
        for (n, endpoint) in port.endpoints.iter().enumerate() {
            let next = chains.len();
            let chain = *chains.entry((port.transport, *endpoint)).or_insert(next);
            arms.push(format!("{n} : goto endpoint-{chain}"));
        }
        let draw = if port.by_client {
            format!("jhash {family} saddr mod {count} seed 0x77656674")
        } else {
            format!("numgen random mod {count}")
        };
        let _ = writeln!(
            dispatch,
            "  {family} daddr {} {} dport {} {draw} vmap {{ {} }}",
            port.ip,
            port.transport.word(),
            port.port,
            arms.join(", ")
        );
    }
    let mut script = format!(
        "table {family} weft-services\ndelete table {family} weft-services\ntable {family} weft-services {{\n"
    );
    for ((transport, endpoint), chain) in &chains {
        let _ = writeln!(
            script,
            " chain endpoint-{chain} {{\n  {family} saddr {} meta mark set {HAIRPIN}\n  meta l4proto {} dnat to {endpoint}\n }}",
            endpoint.ip(),
            transport.word()
        );
    }
    let _ = write!(
        script,
        " chain services {{\n{dispatch} }}\n \
         chain prerouting {{\n  type nat hook prerouting priority dstnat; policy accept;\n  jump services\n }}\n \
         chain output {{\n  type nat hook output priority -100; policy accept;\n  jump services\n }}\n \
         chain forward {{\n  type filter hook forward priority filter; policy accept;\n  {family} daddr {range} reject\n }}\n \
         chain local {{\n  type filter hook output priority filter; policy accept;\n  {family} daddr {range} reject\n }}\n \
         chain postrouting {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
         meta mark {HAIRPIN} masquerade\n }}\n}}\n"
    );
    script
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn port(ip: &str, port: u16, endpoints: &[&str]) -> ServicePort {
        ServicePort {
            ip: ip.parse().unwrap(),
            port,
            transport: Transport::Tcp,
            endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
            by_client: false,
        }
    }

    #[test]
    fn each_port_draws_among_its_endpoints() {
        let mut sticky = port("10.96.0.2", 81, &["10.244.1.2:8080", "10.244.1.3:8080"]);
        sticky.by_client = true;
        let script = services(
            &[
                port("10.96.0.1", 80, &["10.244.1.2:8080", "10.244.1.3:8080"]),
                sticky,
            ],
            true,
        );
        assert!(script.contains(
            "ip daddr 10.96.0.1 tcp dport 80 numgen random mod 2 vmap { 0 : goto endpoint-0, 1 : goto endpoint-1 }"
        ));
        assert!(script.contains("ip daddr 10.96.0.2 tcp dport 81 jhash ip saddr mod 2"));
        assert!(script.contains("ip saddr 10.244.1.2 meta mark set 0x4000"));
        assert_eq!(script.matches("meta l4proto tcp dnat to").count(), 2);
    }

    #[test]
    fn families_stay_apart_and_no_endpoint_means_refused() {
        let script = services(
            &[
                port("10.96.0.1", 80, &[]),
                port("fd77:96::1", 80, &["[fd77:77:1::2]:80"]),
            ],
            true,
        );
        assert!(!script.contains("daddr 10.96.0.1"));
        assert!(script.contains("dnat to [fd77:77:1::2]:80"));
        assert!(script.contains("ip daddr 10.96.0.0/16 reject"));
        assert!(!services(&[], false).contains("ip6"));
    }
}
