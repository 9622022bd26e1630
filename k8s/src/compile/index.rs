//! The objects as the rest of the compilation looks things up: pods by address, slices by service, services by name.
//!
//! Built once per compilation by [`super::compile`]. What a pod or service means for the mesh is decided here and nowhere else.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_model::{Locality, Meta, Name, Namespace, Protocol, SpiffeId, WorkloadKey};

use super::CompileOptions;
use crate::inject::{MESHED_LABEL, PROXY_CONTAINER, annotations};
use crate::object::{ObjectKey, Objects, Stored};
use crate::ports::PortSet;

/// Everything that is looked up.
pub(super) struct Index<'a> {
    pub(super) objects: &'a Objects,
    pub(super) options: &'a CompileOptions,
    pub(super) services: BTreeMap<ObjectKey, ServiceInfo<'a>>,
    pub(super) pods: BTreeMap<ObjectKey, PodInfo<'a>>,
    pods_by_address: HashMap<IpAddr, ObjectKey>,
    slices: HashMap<ObjectKey, Vec<&'a Stored<EndpointSlice>>>,
}

/// A pod that runs or will run.
pub(super) struct PodInfo<'a> {
    pub(super) key: WorkloadKey,
    pub(super) stored: &'a Stored<Pod>,
    /// Its own addresses, the primary one first; empty before it has any, and with `hostNetwork`, whose addresses are the node's.
    pub(super) addresses: Vec<IpAddr>,
    /// Of its service account, when it has a sidecar.
    pub(super) identity: Option<SpiffeId>,
    /// Ports that its containers declare, with their names. TCP only.
    pub(super) ports: BTreeMap<u16, Option<&'a str>>,
    /// Ports that the sidecar does not capture.
    pub(super) skipped: PortSet,
    /// Ports that carry bytes that nobody is to look at.
    pub(super) opaque: PortSet,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frontend {
    /// By addresses of its own, the primary one first. Empty before it has any.
    ClusterIp(Vec<IpAddr>),
    /// By its pods' addresses.
    Headless,
    /// It is an alias of this name.
    ExternalName(String),
}

/// A service.
pub(super) struct ServiceInfo<'a> {
    pub(super) namespace: Namespace,
    pub(super) name: Name,
    pub(super) stored: &'a Stored<Service>,
    pub(super) frontend: Frontend,
    /// TCP ports, in order.
    pub(super) ports: Vec<ServicePort<'a>>,
    /// Prefer IPv6 endpoints of pods that have both.
    pub(super) prefers_v6: bool,
    pub(super) meta: Meta,
}

/// A TCP port of a service.
pub(super) struct ServicePort<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// Where it leads when it is a number; the same as `port` where nothing is said.
    pub(super) target: Option<u16>,
}

impl<'a> Index<'a> {
    pub(super) fn build(objects: &'a Objects, options: &'a CompileOptions) -> Self {
        let mut pods = BTreeMap::new();
        let mut pods_by_address: HashMap<IpAddr, ObjectKey> =
            HashMap::with_capacity(objects.pods.len());
        for (key, stored) in &objects.pods {
            let Some(info) = pod(stored, objects, options) else {
                continue;
            };
            for address in &info.addresses {
                let newer = |other: &ObjectKey| {
                    objects.pods.get(other).is_none_or(|o| {
                        (o.created(), o.changed_at) < (stored.created(), stored.changed_at)
                    })
                };
                // Two pods with one address: one of them is gone, and its object is old.
                if pods_by_address.get(address).is_none_or(newer) {
                    pods_by_address.insert(*address, key.clone());
                }
            }
            pods.insert(key.clone(), info);
        }
        let mut slices: HashMap<ObjectKey, Vec<_>> =
            HashMap::with_capacity(objects.endpoint_slices.len());
        for (key, stored) in &objects.endpoint_slices {
            let service = stored
                .object
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("kubernetes.io/service-name"));
            if let Some(service) = service {
                slices
                    .entry(ObjectKey::new(&*key.namespace, service))
                    .or_default()
                    .push(&**stored);
            }
        }
        let services = objects
            .services
            .iter()
            .filter_map(|(key, stored)| Some((key.clone(), service(stored)?)))
            .collect();
        Self {
            objects,
            options,
            services,
            pods,
            pods_by_address,
            slices,
        }
    }

    /// The slices of a service, in the order of their names.
    pub(super) fn slices(&self, service: &ObjectKey) -> &[&'a Stored<EndpointSlice>] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    /// The pod that has this address now.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<&PodInfo<'a>> {
        self.pods.get(self.pods_by_address.get(&address)?)
    }

    /// Region and zone of a node.
    pub(super) fn locality(&self, node: Option<&str>) -> Locality {
        let node = node.and_then(|name| self.objects.nodes.get(&ObjectKey::new("", name)));
        let Some(labels) = node.and_then(|n| n.object.metadata.labels.as_ref()) else {
            return Locality::default();
        };
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        Locality {
            region: label("topology.kubernetes.io/region"),
            zone: label("topology.kubernetes.io/zone"),
        }
    }
}

/// What a pod means. `None`: it has finished, and its address may be another's by now; or its name is none.
fn pod<'a>(
    stored: &'a Stored<Pod>,
    objects: &Objects,
    options: &CompileOptions,
) -> Option<PodInfo<'a>> {
    let metadata = &stored.object.metadata;
    let spec = stored.object.spec.as_ref()?;
    let status = stored.object.status.as_ref();
    if matches!(
        status.and_then(|s| s.phase.as_deref()),
        Some("Succeeded" | "Failed")
    ) {
        return None;
    }
    let key = WorkloadKey {
        namespace: metadata.namespace.as_deref()?.parse().ok()?,
        name: metadata.name.as_deref()?.parse().ok()?,
    };
    let host_network = spec.host_network == Some(true);
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Some(status) = status.filter(|_| !host_network) {
        let all = status
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| ip.ip.as_str())
            .chain(status.pod_ip.as_deref());
        for address in all.filter_map(|a| a.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    let account = spec
        .service_account_name
        .as_deref()
        .or(spec.service_account.as_deref())
        .filter(|a| !a.is_empty());
    let identity = (meshed(&stored.object) && !host_network)
        .then(|| {
            Some(SpiffeId {
                trust_domain: options.trust_domain.clone(),
                namespace: key.namespace.clone(),
                service_account: account.unwrap_or("default").parse().ok()?,
            })
        })
        .flatten();
    let defaults = objects
        .namespaces
        .get(&ObjectKey::new("", key.namespace.as_str()));
    let defaults = defaults.and_then(|n| n.object.metadata.annotations.as_ref());
    let ports = |annotation: &str| {
        annotations::ports_of(annotation, metadata.annotations.as_ref(), defaults)
    };
    Some(PodInfo {
        addresses,
        identity,
        ports: declared_ports(spec.containers.iter().chain(sidecars(&stored.object))),
        skipped: ports(annotations::SKIP_INBOUND_PORTS),
        opaque: ports(annotations::OPAQUE_PORTS),
        key,
        stored,
    })
}

/// Has the pod a sidecar, or says its label that it speaks for itself (gRPC without a proxy, Envoy)?
fn meshed(pod: &Pod) -> bool {
    let label = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(MESHED_LABEL));
    if label.is_some_and(|v| v == "true") {
        return true;
    }
    let Some(spec) = &pod.spec else { return false };
    let mut all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    all.any(|c| c.name == PROXY_CONTAINER)
}

fn sidecars(pod: &Pod) -> impl Iterator<Item = &Container> {
    let all = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    all.filter(|c| c.restart_policy.as_deref() == Some("Always"))
}

fn declared_ports<'a>(
    containers: impl Iterator<Item = &'a Container>,
) -> BTreeMap<u16, Option<&'a str>> {
    let ports = containers
        .filter(|c| c.name != PROXY_CONTAINER)
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|p| Some((port_number(p.container_port)?, p.name.as_deref())))
        .collect()
}

/// A port between 1 and 65535.
pub(crate) fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p > 0)
}

fn service(stored: &Stored<Service>) -> Option<ServiceInfo<'_>> {
    let metadata = &stored.object.metadata;
    let spec = stored.object.spec.as_ref()?;
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let first = spec.cluster_ip.as_deref().or(spec
        .cluster_ips
        .as_deref()
        .and_then(|ips| ips.first())
        .map(String::as_str));
    let frontend = if spec.type_.as_deref() == Some("ExternalName") {
        Frontend::ExternalName(spec.external_name.clone().unwrap_or_default())
    } else if first == Some("None") {
        Frontend::Headless
    } else {
        let all = first
            .into_iter()
            .chain(spec.cluster_ips.iter().flatten().map(String::as_str));
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in all.filter_map(|a| a.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Frontend::ClusterIp(addresses)
    };
    let prefers_v6 = match (families.first(), &frontend) {
        (Some(family), _) => family == "IPv6",
        (None, Frontend::ClusterIp(addresses)) => addresses.first().is_some_and(IpAddr::is_ipv6),
        (None, _) => false,
    };
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP");
    let ports = ports.filter_map(|p| {
        let port = port_number(p.port)?;
        let target = match &p.target_port {
            Some(IntOrString::Int(number)) => port_number(*number),
            Some(IntOrString::String(name)) => name.parse().ok(),
            None => Some(port),
        };
        let name = p.name.as_deref().filter(|n| !n.is_empty());
        Some(ServicePort {
            name,
            port,
            protocol: Protocol::declared(p.app_protocol.as_deref(), name),
            target,
        })
    });
    Some(ServiceInfo {
        namespace: metadata.namespace.as_deref()?.parse().ok()?,
        name: metadata.name.as_deref()?.parse().ok()?,
        frontend,
        ports: ports.collect(),
        prefers_v6,
        meta: stored.to_meta(),
        stored,
    })
}
