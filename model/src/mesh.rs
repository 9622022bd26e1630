//! The compiled mesh, and the part of it that one client is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    BackendKey, Cluster, Destination, DnsRecord, Endpoints, Hostname, HttpRoutes, InboundPort,
    ListenerName, Namespace, SpiffeId, WorkloadKey,
};

/// A value that may differ by the namespace of who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scoped<T> {
    /// For everyone else.
    pub any: T,
    /// For clients in these namespaces.
    #[serde(default)]
    pub by_namespace: BTreeMap<Namespace, T>,
}

impl<T> Scoped<T> {
    /// The same for everyone.
    pub fn any(value: T) -> Self {
        Self {
            any: value,
            by_namespace: BTreeMap::new(),
        }
    }

    /// What a client in that namespace gets.
    pub fn for_namespace(&self, namespace: Option<&Namespace>) -> &T {
        namespace
            .and_then(|n| self.by_namespace.get(n))
            .unwrap_or(&self.any)
    }
}

/// Everything that the control plane knows, as the model. Made by `weft-k8s`'s compile, served by `weft-xds`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mesh {
    /// By captured address and by authority.
    pub destinations: BTreeMap<ListenerName, Arc<Destination>>,
    /// By the destination's key. A destination that is HTTP or detected has one.
    pub routes: BTreeMap<BackendKey, Scoped<Arc<HttpRoutes>>>,
    /// Backends.
    pub clusters: BTreeMap<BackendKey, Arc<Cluster>>,
    /// Their endpoints; the same keys as `clusters`.
    pub endpoints: BTreeMap<BackendKey, Arc<Endpoints>>,
    /// Names that the mesh answers for.
    pub names: BTreeMap<Hostname, Arc<DnsRecord>>,
    /// The meshed pods.
    pub workloads: BTreeMap<WorkloadKey, Arc<Workload>>,
}

/// A meshed pod as its own sidecar sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The pod.
    pub key: WorkloadKey,
    /// The identity of its service account.
    pub identity: SpiffeId,
    /// Ports that something is known about.
    pub ports: BTreeMap<u16, InboundPort>,
    /// For all other ports; its `port` is 0.
    pub default: InboundPort,
}

impl Workload {
    /// The policy of a port.
    pub fn inbound(&self, port: u16) -> InboundPort {
        self.ports
            .get(&port)
            .cloned()
            .unwrap_or_else(|| InboundPort {
                port,
                ..self.default.clone()
            })
    }
}

/// The mesh as one client is served it; what `weft routes` and `weft explain` work on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Sorted by name.
    pub destinations: Vec<Arc<Destination>>,
    /// Sorted by key.
    pub routes: Vec<Arc<HttpRoutes>>,
    /// Sorted by key.
    pub clusters: Vec<Arc<Cluster>>,
    /// Sorted by key.
    pub endpoints: Vec<Arc<Endpoints>>,
    /// Sorted by name.
    pub names: Vec<Arc<DnsRecord>>,
    /// Every meshed pod.
    pub workloads: Vec<Arc<Workload>>,
}

impl Mesh {
    /// The mesh as a client in that namespace sees it.
    pub fn view(&self, namespace: Option<&Namespace>) -> View {
        View {
            destinations: self.destinations.values().cloned().collect(),
            routes: self
                .routes
                .values()
                .map(|r| r.for_namespace(namespace).clone())
                .collect(),
            clusters: self.clusters.values().cloned().collect(),
            endpoints: self.endpoints.values().cloned().collect(),
            names: self.names.values().cloned().collect(),
            workloads: self.workloads.values().cloned().collect(),
        }
    }
}

impl View {
    /// The destination of that name.
    pub fn destination(&self, name: &ListenerName) -> Option<&Arc<Destination>> {
        find(&self.destinations, name, |d| &d.name)
    }

    /// The route table of that key.
    pub fn routes(&self, key: &BackendKey) -> Option<&Arc<HttpRoutes>> {
        find(&self.routes, key, |r| &r.key)
    }

    /// The backend of that key.
    pub fn cluster(&self, key: &BackendKey) -> Option<&Arc<Cluster>> {
        find(&self.clusters, key, |c| &c.key)
    }

    /// The endpoints of that key.
    pub fn endpoints(&self, key: &BackendKey) -> Option<&Arc<Endpoints>> {
        find(&self.endpoints, key, |e| &e.key)
    }

    /// The pod of that key, if it is in the mesh.
    pub fn workload(&self, key: &WorkloadKey) -> Option<&Arc<Workload>> {
        find(&self.workloads, key, |w| &w.key)
    }
}

fn find<'a, T, K: Ord>(sorted: &'a [Arc<T>], key: &K, of: impl Fn(&T) -> &K) -> Option<&'a Arc<T>> {
    sorted
        .binary_search_by(|item| of(item).cmp(key))
        .ok()
        .map(|i| &sorted[i])
}
