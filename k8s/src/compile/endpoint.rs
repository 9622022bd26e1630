//! The endpoints of a service's port, from its EndpointSlices and the pods behind them.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use weft_model::{Endpoint, Health, Locality, UnixMillis, WorkloadKey};

use super::index::{Index, PodInfo, ServiceInfo, ServicePort, port_number};
use crate::object::{ObjectKey, Stored};

/// Endpoints of one port, sorted by address, and the slice that changed last.
pub(super) struct Found<'a> {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) newest: Option<&'a Stored<EndpointSlice>>,
}

impl Found<'_> {
    pub(super) fn changed_at(&self) -> Option<UnixMillis> {
        self.newest.map(|s| s.changed_at)
    }
}

/// Collects them. A pod with addresses of both families is one endpoint, by the service's preferred family: two would count it
/// twice, and a retry elsewhere could meet it again.
pub(super) fn of_port<'a>(
    index: &Index<'a>,
    service: &ServiceInfo<'_>,
    key: &ObjectKey,
    port: &ServicePort<'_>,
) -> Found<'a> {
    let mut candidates = Vec::new();
    let mut newest: Option<&Stored<EndpointSlice>> = None;
    for slice in index.slices(key) {
        if newest.is_none_or(|n| n.changed_at < slice.changed_at) {
            newest = Some(slice);
        }
        let Some(number) = slice_port(&slice.object, port) else {
            continue;
        };
        for endpoint in slice.object.endpoints.iter().flatten() {
            // "Consumers of this API must not look at more than the first address" (EndpointSlice, addresses).
            if let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) {
                candidates.push(one(index, SocketAddr::new(address, number), endpoint));
            }
        }
    }
    let preferred = |address: IpAddr| address.is_ipv6() == service.prefers_v6;
    let covered: HashSet<Option<WorkloadKey>> = candidates
        .iter()
        .filter(|e| preferred(e.address.ip()))
        .map(|e| e.workload.clone())
        .collect();
    candidates.retain(|e| preferred(e.address.ip()) || !covered.contains(&e.workload));
    // While an endpoint moves from one slice to another it can be in both: the healthier one is the newer one.
    candidates.sort_by_key(|e| (e.address, e.health as u8));
    candidates.dedup_by_key(|e| e.address);
    Found {
        endpoints: candidates,
        newest,
    }
}

/// The number that a slice has for a service's port. Ports are matched by name; both may be unnamed.
fn slice_port(slice: &EndpointSlice, port: &ServicePort<'_>) -> Option<u16> {
    let found = slice.ports.iter().flatten().find(|p| {
        p.protocol.as_deref().unwrap_or("TCP") == "TCP"
            && p.name.as_deref().unwrap_or("") == port.name.unwrap_or("")
    })?;
    match found.port {
        Some(number) => port_number(number),
        None => port.target, // "If this is not specified, ports are not restricted"
    }
}

fn one(index: &Index<'_>, address: SocketAddr, endpoint: &SliceEndpoint) -> Endpoint {
    let target = endpoint
        .target_ref
        .as_ref()
        .filter(|r| r.kind.as_deref() == Some("Pod"));
    let named = target.map(|r| {
        ObjectKey::new(
            r.namespace.as_deref().unwrap_or_default(),
            r.name.as_deref().unwrap_or_default(),
        )
    });
    let named_pod = named.as_ref().and_then(|key| index.pods.get(key));
    let pod = named_pod.or_else(|| index.pod_at(address.ip()));
    let mut health = health(endpoint);
    // A slice can be ahead of the pods that we know, or behind. Who is at the address is then unknown, and so is whether plaintext
    // may be sent there: nothing is.
    if named.is_some()
        && !named_pod.is_some_and(|p| p.addresses.is_empty() || p.addresses.contains(&address.ip()))
    {
        health = Health::NotReady;
    }
    let node = endpoint
        .node_name
        .as_deref()
        .or_else(|| pod?.stored.object.spec.as_ref()?.node_name.as_deref());
    let mut locality = index.locality(node);
    if let Some(zone) = &endpoint.zone {
        locality = Locality {
            zone: zone.clone(),
            ..locality
        };
    }
    Endpoint {
        address,
        health,
        weight: 1,
        locality,
        identity: pod.and_then(|p| identity_at(p, address.port())),
        workload: pod.map(|p| p.key.clone()),
    }
}

/// The identity that a client meets on a pod's port: none where the sidecar does not capture it.
pub(super) fn identity_at(pod: &PodInfo<'_>, port: u16) -> Option<weft_model::SpiffeId> {
    pod.identity.clone().filter(|_| !pod.skipped.contains(port))
}

/// "A nil value should be interpreted as true" for `ready`; `serving` is `ready` where it is missing.
fn health(endpoint: &SliceEndpoint) -> Health {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Health::Ready,
        (false, true) => Health::Draining,
        (false, false) => Health::NotReady,
    }
}
