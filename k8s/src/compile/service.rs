//! Services: where their addresses lead, and the backend behind each port.
//!
//! Called by [`super::compile`]. Routes change what is made here afterwards ([`super::route`]).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_model::route::WeightedBackend;
use weft_model::{
    BackendKey, Cluster, Destination, Endpoint, Endpoints, Hostname, HttpRoutes, ListenerName,
    Mesh, Meta, Protocol, Scoped, SniRoute, TrafficPolicy,
};

use super::endpoint;
use super::index::{Frontend, Index, ServiceInfo, ServicePort};
use super::policy::TrafficPolicies;
use super::report::Report;
use crate::object::Stored;

/// What services say of the ports of pods: by address and port, the protocols they declare.
#[derive(Default)]
pub(super) struct PortUses(HashMap<IpAddr, BTreeMap<u16, Use>>);

/// What services say of one port.
#[derive(Default, Clone, Copy)]
struct Use {
    protocol: Protocol,
    conflict: bool,
}

impl PortUses {
    fn note(&mut self, address: SocketAddr, protocol: Protocol) {
        let known = self
            .0
            .entry(address.ip())
            .or_default()
            .entry(address.port())
            .or_default();
        known.conflict |= known.protocol != Protocol::Detect
            && protocol != Protocol::Detect
            && known.protocol != protocol;
        if known.protocol == Protocol::Detect {
            known.protocol = protocol;
        }
    }

    /// The ports of an address that services lead to. Where services contradict each other the protocol is detected.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = (u16, Protocol)> + '_ {
        let ports = self.0.get(&address).into_iter().flatten();
        ports.map(|(port, known)| {
            (
                *port,
                if known.conflict {
                    Protocol::Detect
                } else {
                    known.protocol
                },
            )
        })
    }
}

/// Fills in destinations, clusters, endpoints and route tables of every service.
pub(super) fn compile(
    index: &Index<'_>,
    policies: &TrafficPolicies,
    mesh: &mut Mesh,
    report: &mut Report,
) -> PortUses {
    let mut uses = PortUses::default();
    for (key, service) in &index.services {
        if matches!(service.frontend, Frontend::ExternalName(_)) {
            continue;
        }
        for port in &service.ports {
            let found = endpoint::of_port(index, service, key, port);
            let protocol = protocol(index, port, &found.endpoints);
            for endpoint in &found.endpoints {
                uses.note(endpoint.address, protocol);
            }
            let backend =
                BackendKey::service(service.namespace.clone(), service.name.clone(), port.port);
            frontend(index, service, &backend, protocol, mesh, report);
            let meta = Meta {
                origin: found
                    .newest
                    .map_or_else(|| service.meta.clone(), Stored::to_meta)
                    .origin,
                changed_at: found.changed_at().unwrap_or(service.meta.changed_at),
            };
            let policy = policies.of(&backend);
            insert_backend(
                backend,
                protocol,
                found.endpoints,
                policy,
                service.meta.clone(),
                meta,
                mesh,
            );
        }
    }
    uses
}

/// What the port declares, or bytes if its pods say that nobody is to look at them.
fn protocol(index: &Index<'_>, port: &ServicePort<'_>, endpoints: &[Endpoint]) -> Protocol {
    let opaque = |e: &Endpoint| {
        index
            .pod_at(e.address.ip())
            .is_some_and(|p| p.opaque.contains(e.address.port()))
    };
    match port.protocol {
        Protocol::Detect if endpoints.iter().any(opaque) => Protocol::Tcp,
        declared => declared,
    }
}

/// The names by which the port is asked for.
fn frontend(
    index: &Index<'_>,
    service: &ServiceInfo<'_>,
    key: &BackendKey,
    protocol: Protocol,
    mesh: &mut Mesh,
    report: &mut Report,
) {
    let mut names: Vec<ListenerName> = addresses(service)
        .map(|ip| ListenerName::Outbound(SocketAddr::new(ip, key.port)))
        .collect();
    names.extend(fqdn(index, service).map(|host| ListenerName::Authority(host, key.port)));
    for name in names {
        if let Some(taken) = mesh.destinations.get(&name) {
            let reason = format!("{name} already belongs to {}", taken.meta.origin);
            report.error(service.stored, "spec.clusterIP", reason, None);
            continue;
        }
        let destination = destination(name.clone(), key.clone(), protocol, &service.meta);
        mesh.destinations.insert(name, destination);
    }
}

/// Addresses of its own, then those at which its node or a load balancer would take its traffic.
fn addresses<'s>(service: &'s ServiceInfo<'_>) -> impl Iterator<Item = IpAddr> + 's {
    let own = match &service.frontend {
        Frontend::ClusterIp(addresses) => addresses.as_slice(),
        Frontend::Headless | Frontend::ExternalName(_) => &[],
    };
    let spec = service.stored.object.spec.as_ref();
    let external = spec
        .into_iter()
        .flat_map(|s| s.external_ips.iter().flatten())
        .map(String::as_str);
    let status = service
        .stored
        .object
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    // ipMode Proxy: "traffic to the load balancer is not delivered with the destination set to the load balancer's IP".
    let balancers = status.into_iter().flat_map(|s| s.ingress.iter().flatten());
    let balancers = balancers
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_deref());
    let others = external
        .chain(balancers)
        .filter_map(|a| a.parse::<IpAddr>().ok())
        .filter(|a| !own.contains(a));
    let mut others: Vec<IpAddr> = others.collect();
    others.sort_unstable();
    others.dedup();
    own.iter().copied().chain(others)
}

/// `<service>.<namespace>.svc.<cluster domain>`.
pub(super) fn fqdn(index: &Index<'_>, service: &ServiceInfo<'_>) -> Option<Hostname> {
    format!(
        "{}.{}.svc.{}",
        service.name, service.namespace, index.options.cluster_domain
    )
    .parse()
    .ok()
}

/// A destination that leads to the backend of the same key.
pub(super) fn destination(
    name: ListenerName,
    key: BackendKey,
    protocol: Protocol,
    meta: &Meta,
) -> Arc<Destination> {
    let sni = vec![SniRoute {
        names: Vec::new(),
        backends: vec![WeightedBackend::only(key.clone())],
        meta: meta.clone(),
    }];
    Arc::new(Destination {
        name,
        key,
        protocol,
        sni,
        meta: meta.clone(),
    })
}

/// Adds cluster, endpoints and, where HTTP is possible, the route table that leads straight there.
pub(super) fn insert_backend(
    key: BackendKey,
    protocol: Protocol,
    endpoints: Vec<Endpoint>,
    policy: TrafficPolicy,
    meta: Meta,
    endpoints_meta: Meta,
    mesh: &mut Mesh,
) {
    let mut identities: Vec<_> = endpoints
        .iter()
        .filter_map(|e| e.identity.clone())
        .collect();
    identities.sort();
    identities.dedup();
    if protocol.is_http() || protocol == Protocol::Detect {
        let routes = Arc::new(HttpRoutes::direct(key.clone(), meta.clone()));
        mesh.routes.insert(key.clone(), Scoped::any(routes));
    }
    let cluster = Cluster {
        key: key.clone(),
        protocol,
        identities,
        policy,
        meta,
    };
    mesh.clusters.insert(key.clone(), Arc::new(cluster));
    mesh.endpoints.insert(
        key.clone(),
        Arc::new(Endpoints {
            key,
            endpoints,
            meta: endpoints_meta,
        }),
    );
}
