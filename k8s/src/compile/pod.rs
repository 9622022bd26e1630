//! Pods addressed by their own IP, and what their sidecars admit.
//!
//! Called by [`super::compile`] after the services, which know what the ports of pods speak. A pod that has addresses of both
//! families is reached at its primary one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_model::{
    BackendKey, Endpoint, Health, InboundPort, ListenerName, Mesh, Protocol, TrafficPolicy,
    Workload,
};

use super::endpoint::identity_at;
use super::inbound::Inbound;
use super::index::{Index, PodInfo};
use super::service::{PortUses, destination, insert_backend};

/// Fills in destinations and backends of pods, and the workloads that have sidecars.
pub(super) fn compile(
    index: &Index<'_>,
    uses: &PortUses,
    inbound: &mut Inbound<'_>,
    mesh: &mut Mesh,
) {
    for pod in index.pods.values() {
        let ports = ports(pod, uses);
        by_address(index, pod, &ports, mesh);
        let Some(identity) = &pod.identity else {
            continue;
        };
        let rules = inbound.of(pod);
        let mut admitted = BTreeMap::new();
        for port in ports.keys().copied().chain(rules.ports()) {
            let protocol = ports.get(&port).copied().unwrap_or_default();
            admitted
                .entry(port)
                .or_insert_with(|| rules.port(port, protocol));
        }
        let workload = Workload {
            key: pod.key.clone(),
            identity: identity.clone(),
            ports: admitted,
            default: InboundPort {
                port: 0,
                ..rules.port(0, Protocol::Detect)
            },
        };
        mesh.workloads.insert(pod.key.clone(), Arc::new(workload));
    }
}

/// Every port that something is known about. What is opaque is bytes; else a service's word counts before the container's.
fn ports(pod: &PodInfo<'_>, uses: &PortUses) -> BTreeMap<u16, Protocol> {
    let mut ports: BTreeMap<u16, Protocol> = pod
        .ports
        .iter()
        .map(|(port, name)| (*port, Protocol::declared(None, *name)))
        .collect();
    for (port, protocol) in pod.addresses.iter().flat_map(|address| uses.of(*address)) {
        let known = ports.entry(port).or_default();
        if protocol != Protocol::Detect {
            *known = protocol;
        }
    }
    for port in pod.opaque.singles() {
        ports.insert(port, Protocol::Tcp);
    }
    for (port, protocol) in &mut ports {
        if pod.opaque.contains(*port) {
            *protocol = Protocol::Tcp;
        }
    }
    ports
}

/// The pod's own addresses. It gets its traffic ready or not, as it would without a mesh.
fn by_address(
    index: &Index<'_>,
    pod: &PodInfo<'_>,
    ports: &BTreeMap<u16, Protocol>,
    mesh: &mut Mesh,
) {
    let Some(primary) = pod.addresses.first() else {
        return;
    };
    if index.pod_at(*primary).is_none_or(|p| p.key != pod.key) {
        return; // a newer pod has its address
    }
    let meta = pod.stored.to_meta();
    let node = pod
        .stored
        .object
        .spec
        .as_ref()
        .and_then(|s| s.node_name.as_deref());
    let locality = index.locality(node);
    for (port, protocol) in ports {
        let key = BackendKey::pod(pod.key.clone(), *port);
        let mut named = false;
        for address in &pod.addresses {
            let name = ListenerName::Outbound(SocketAddr::new(*address, *port));
            if !mesh.destinations.contains_key(&name) {
                mesh.destinations.insert(
                    name.clone(),
                    destination(name, key.clone(), *protocol, &meta),
                );
                named = true;
            }
        }
        if !named {
            continue;
        }
        let endpoint = Endpoint {
            address: SocketAddr::new(*primary, *port),
            health: Health::Ready,
            weight: 1,
            locality: locality.clone(),
            identity: identity_at(pod, *port),
            workload: Some(pod.key.clone()),
        };
        // The only endpoint there is: taking it out would only turn one failure into two.
        let policy = TrafficPolicy {
            outlier_detection: None,
            ..TrafficPolicy::default()
        };
        insert_backend(
            key,
            *protocol,
            vec![endpoint],
            policy,
            meta.clone(),
            meta.clone(),
            mesh,
        );
    }
}
