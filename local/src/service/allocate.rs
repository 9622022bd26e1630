//! Cluster IPs, IP families and node ports of services, as the API server's allocators give them.
//!
//! Pure but for the books it keeps. Called by the supervisor for each service before anything is derived from it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::{has_node_ports, is_external_name, key_of};
use crate::Error;
use crate::network::subnet::Addresses;

/// The ports NodePorts are taken from, as the API server's default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// NodePorts handed out, by `namespace/service/port`; a service keeps its own.
#[derive(Debug, Default)]
pub(crate) struct NodePorts(BTreeMap<String, u16>);

impl NodePorts {
    fn take(&mut self, key: String, wanted: Option<u16>) -> Option<u16> {
        let taken = |port: u16, all: &BTreeMap<String, u16>| {
            all.iter().any(|(other, p)| *p == port && *other != key)
        };
        let port = match (wanted, self.0.get(&key)) {
            (Some(port), _) => Some(port),
            (None, Some(port)) => Some(*port),
            (None, None) => NODE_PORTS.clone().find(|port| !taken(*port, &self.0)),
        }?;
        self.0.insert(key, port);
        Some(port)
    }

    /// Forgets the ports of services that are gone.
    pub(crate) fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| {
            key.rsplit_once('/')
                .is_some_and(|(service, _)| keep(service))
        });
    }
}

/// The service with cluster IPs, IP families and node ports filled in, as the API server would return it.
pub(crate) fn with_addresses(
    service: &Service,
    addresses: &mut Addresses,
    node_ports: &mut NodePorts,
    ipv6: bool,
) -> Result<Service, Error> {
    let mut service = service.clone();
    let key = key_of(&service.metadata).to_string();
    let nodes = has_node_ports(&service);
    let external = is_external_name(&service);
    let Some(spec) = &mut service.spec else {
        return Ok(service);
    };
    if external {
        return Ok(service);
    }
    spec.type_.get_or_insert_with(|| "ClusterIP".into());
    // As on a cluster whose first family is IPv4: one family unless the service asks for both.
    let dual = spec
        .ip_family_policy
        .as_deref()
        .is_some_and(|policy| policy.ends_with("DualStack"));
    let families = spec.ip_families.get_or_insert_with(|| {
        let second = (dual && ipv6).then(|| "IPv6".to_owned());
        std::iter::once("IPv4".to_owned()).chain(second).collect()
    });
    if dual && ipv6 && families.len() == 1 {
        let other = if families[0] == "IPv4" {
            "IPv6"
        } else {
            "IPv4"
        };
        families.push(other.to_owned());
    }
    let families = families.clone();
    if spec.cluster_ip.as_deref() == Some("None") {
        spec.cluster_ips = Some(vec!["None".into()]);
        return Ok(service);
    }
    let own = addresses.service(&key, ipv6)?;
    let given: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let mut ips = Vec::new();
    for family in &families {
        let v4 = family == "IPv4";
        let ip = given.iter().chain(&own).find(|ip| ip.is_ipv4() == v4);
        ips.extend(ip.map(ToString::to_string));
    }
    spec.cluster_ip = ips.first().cloned();
    spec.cluster_ips = Some(ips);
    if nodes {
        for port in spec.ports.iter_mut().flatten() {
            let wanted = port.node_port.and_then(|port| u16::try_from(port).ok());
            port.node_port = node_ports
                .take(format!("{key}/{}", port.port), wanted)
                .map(i32::from);
        }
    }
    Ok(service)
}
