//! Where a backend's traffic can go: endpoints with locality, readiness and weight, and the DNS names of services.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{BackendKey, Hostname, Meta, SpiffeId, WorkloadKey};

/// Every endpoint of a backend, sorted by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The backend.
    pub key: BackendKey,
    /// Its endpoints; addresses are unique.
    pub endpoints: Vec<Endpoint>,
    /// Origin (an EndpointSlice or Pod) and age.
    pub meta: Meta,
}

/// One address that serves a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address and port of the application; a meshed pod captures it.
    pub address: SocketAddr,
    /// May it get traffic?
    pub health: Health,
    /// Share of traffic relative to the others; 1 or more.
    pub weight: u32,
    /// Region and zone, empty where unknown.
    #[serde(default)]
    pub locality: Locality,
    /// The identity its certificate must carry. `None`: not in the mesh, so it is spoken to in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
    /// The pod behind the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadKey>,
}

/// Readiness of an endpoint, from the EndpointSlice conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// `ready`.
    Ready,
    /// `serving` and `terminating`: used only when nothing is ready.
    Draining,
    /// Neither; kept so that `weft endpoints` can show it.
    NotReady,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// `topology.kubernetes.io/region`, or empty.
    #[serde(default)]
    pub region: String,
    /// `topology.kubernetes.io/zone`, or empty.
    #[serde(default)]
    pub zone: String,
}

/// The addresses of a name that belongs to the mesh; other names are asked of the upstream resolver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Fully qualified, without the trailing dot.
    pub name: Hostname,
    /// ClusterIPs, or the pods' addresses of a headless service; sorted. Empty: the name exists without addresses.
    pub addresses: Vec<IpAddr>,
    /// Origin (a Service) and age.
    pub meta: Meta,
}
