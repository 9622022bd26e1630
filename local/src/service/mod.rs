//! Services: addresses, endpoints, and what the node's rules, the cluster DNS and the NodePorts make of them.
//!
//! [`allocate`] does what the API server's allocators do, [`slices`] what the EndpointSlice controller does, and
//! [`ports`] what kube-proxy derives from both. Pure; the supervisor joins them. [`node_port`] is the listener on the host.

pub(crate) mod allocate;
pub(crate) mod node_port;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort as Port};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_k8s::ObjectKey;

use crate::names::hash_suffix;
use crate::network::rules::{ServicePort, Transport};
use crate::pod::probe::resolve_port;
use crate::workload::instance::{node_of, selects};

/// The label that ties a slice to its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod as a service sees it.
#[derive(Debug)]
pub(crate) struct Backend<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// Its addresses.
    pub(crate) ips: &'a [IpAddr],
    /// Its condition Ready.
    pub(crate) ready: bool,
    /// It was told to stop.
    pub(crate) terminating: bool,
}

/// What kind of service it is.
pub(crate) fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// No address of its own: DNS gives the pods' addresses.
pub(crate) fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

fn has_node_ports(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    matches!(kind, Some("NodePort" | "LoadBalancer"))
}

fn key_of(metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// The EndpointSlices of a service with a selector: one for each address family and set of target ports.
pub(crate) fn slices(service: &Service, backends: &[Backend<'_>]) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let Some(selector) = spec
        .selector
        .as_ref()
        .filter(|_| !is_external_name(service))
    else {
        return Vec::new();
    };
    let namespace = service.metadata.namespace.as_deref();
    let chosen = |backend: &&Backend<'_>| {
        backend.pod.metadata.namespace.as_deref() == namespace
            && selects(selector, backend.pod.metadata.labels.as_ref())
    };
    let mut all = Vec::new();
    for family in spec.ip_families.iter().flatten() {
        let mut groups: BTreeMap<Vec<Option<u16>>, Vec<Endpoint>> = BTreeMap::new();
        for backend in backends.iter().filter(chosen) {
            let Some(ip) = backend
                .ips
                .iter()
                .find(|ip| ip.is_ipv4() == (family == "IPv4"))
            else {
                continue;
            };
            let targets = spec
                .ports
                .iter()
                .flatten()
                .map(|port| target_port(port, backend.pod))
                .collect();
            groups
                .entry(targets)
                .or_default()
                .push(endpoint(service, backend, *ip));
        }
        for (targets, endpoints) in groups {
            all.push(slice(service, family, &targets, endpoints));
        }
    }
    all
}

/// Where a service port leads in a pod, if the pod has such a port.
fn target_port(port: &Port, pod: &Pod) -> Option<u16> {
    let same = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(port.port);
    let target = port.target_port.as_ref().unwrap_or(&same);
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(sidecars)
        .find_map(|container| resolve_port(target, container).ok())
}

fn endpoint(service: &Service, backend: &Backend<'_>, ip: IpAddr) -> Endpoint {
    let spec = service.spec.as_ref();
    let (meta, pod_spec) = (&backend.pod.metadata, backend.pod.spec.as_ref());
    let publish = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let subdomain = pod_spec.and_then(|s| s.subdomain.as_deref());
    let own_name = pod_spec
        .and_then(|s| s.hostname.clone())
        .filter(|_| subdomain == service.metadata.name.as_deref());
    let (node, zone) = node_of(
        meta.annotations.as_ref(),
        pod_spec.and_then(|s| s.node_selector.as_ref()),
    );
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (backend.ready && !backend.terminating)),
            serving: Some(publish || backend.ready),
            terminating: Some(backend.terminating),
        }),
        hostname: own_name,
        node_name: Some(node),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

fn slice(
    service: &Service,
    family: &str,
    targets: &[Option<u16>],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let key = key_of(&service.metadata);
    let ports = service
        .spec
        .iter()
        .flat_map(|s| s.ports.iter().flatten())
        .zip(targets);
    let ports: Vec<EndpointPort> = ports
        .filter_map(|(port, target)| {
            Some(EndpointPort {
                app_protocol: port.app_protocol.clone(),
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(i32::from((*target)?)),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            })
        })
        .collect();
    let numbers: Vec<String> = targets.iter().map(|t| t.unwrap_or(0).to_string()).collect();
    let suffix = hash_suffix(&[family, &numbers.join(",")], 5);
    let mut labels = BTreeMap::from([
        (SERVICE_NAME.to_owned(), key.name.clone()),
        (
            "endpointslice.kubernetes.io/managed-by".to_owned(),
            "weft-local".to_owned(),
        ),
    ]);
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".into(), String::new());
    }
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: endpoints.into(),
        metadata: ObjectMeta {
            name: Some(format!("{}-{suffix}", key.name)),
            namespace: Some(key.namespace),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}

/// The addresses traffic should go to: the ready endpoints, or, while there are none, those still serving as they stop.
fn usable(slice: &EndpointSlice, terminating: bool) -> impl Iterator<Item = IpAddr> + '_ {
    slice
        .endpoints
        .iter()
        .flatten()
        .filter_map(move |endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let is = |value: Option<bool>, default: bool| value.unwrap_or(default);
            let ready = is(conditions.and_then(|c| c.ready), true);
            let serving = is(conditions.and_then(|c| c.serving), ready);
            let stopping = is(conditions.and_then(|c| c.terminating), false);
            let wanted = if terminating {
                serving && stopping
            } else {
                ready
            };
            wanted
                .then(|| endpoint.addresses.first()?.parse().ok())
                .flatten()
        })
}

/// The endpoints of one port of a service, of one address family.
fn endpoints_of(port: &Port, slices: &[&EndpointSlice], v4: bool) -> Vec<SocketAddr> {
    let name = port.name.as_deref().unwrap_or_default();
    let collect = |terminating: bool| -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for slice in slices {
            let own = slice
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref().unwrap_or_default() == name);
            let Some(number) = own.and_then(|p| u16::try_from(p.port?).ok()) else {
                continue;
            };
            let ips = usable(slice, terminating).filter(|ip| ip.is_ipv4() == v4);
            found.extend(ips.map(|ip| SocketAddr::new(ip, number)));
        }
        found.sort_unstable();
        found.dedup();
        found
    };
    let ready = collect(false);
    if ready.is_empty() {
        collect(true)
    } else {
        ready
    }
}

/// What the node's rules need of a service whose addresses are filled in.
pub(crate) fn ports(service: &Service, slices: &[&EndpointSlice]) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let by_client = spec.session_affinity.as_deref() == Some("ClientIP");
    let ips = spec
        .cluster_ips
        .iter()
        .flatten()
        .filter_map(|ip| ip.parse::<IpAddr>().ok());
    ips.flat_map(|ip| spec.ports.iter().flatten().map(move |port| (ip, port)))
        .filter_map(|(ip, port)| {
            let transport = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => Transport::Tcp,
                "UDP" => Transport::Udp,
                _ => return None,
            };
            let number = u16::try_from(port.port).ok()?;
            Some(ServicePort {
                ip,
                port: number,
                transport,
                endpoints: endpoints_of(port, slices, ip.is_ipv4()),
                by_client,
            })
        })
        .collect()
}

/// The TCP ports of a service to open on the host, and where each leads.
pub(crate) fn host_ports(
    service: &Service,
    slices: &[&EndpointSlice],
) -> Vec<(u16, Vec<SocketAddr>)> {
    if !has_node_ports(service) {
        return Vec::new();
    }
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| {
            let number = u16::try_from(port.node_port?).ok()?;
            let v4 = endpoints_of(port, slices, true);
            Some((
                number,
                if v4.is_empty() {
                    endpoints_of(port, slices, false)
                } else {
                    v4
                },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests;
