//! What there is to serve at one moment: the mesh, encoded on demand.
//!
//! Built from the [`Mesh`] that the control plane compiled and from the snapshot before: what did not change keeps its
//! bytes and version, and what did is listed, so that streams look at nothing else. [`super::session`] resolves names
//! against it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use weft_model::{InboundPort, ListenerName, Mesh, Namespace, Scoped, SpiffeId, WorkloadKey};

use super::resource::{Entry, Value};
use crate::TypeUrl;
use crate::convert::{
    TRUST_BUNDLE, TrustBundle, capture_listener, dns_name, invalid_backend, passthrough_cluster,
};

type Table = HashMap<Arc<str>, Arc<Entry>>;

/// Everything that can be served. Immutable.
pub struct Snapshot {
    version: u64,
    listeners: Table,
    clusters: Table,
    endpoints: Table,
    routes: HashMap<Arc<str>, Scoped<Arc<Entry>>>,
    secrets: Table,
    invalid: InvalidBackend,
    workloads: BTreeMap<WorkloadKey, Arc<Workload>>,
    changes: Changes,
}

/// What gRPC is told of a backend that does not exist.
#[derive(Clone)]
struct InvalidBackend {
    name: &'static str,
    cluster: Arc<Entry>,
    endpoints: Arc<Entry>,
}

impl InvalidBackend {
    fn new() -> Self {
        let (name, cluster, endpoints) = invalid_backend();
        Self {
            name,
            cluster: Entry::new(Value::Fixed(TypeUrl::Cluster, cluster)),
            endpoints: Entry::new(Value::Fixed(TypeUrl::Endpoints, endpoints)),
        }
    }
}

/// A workload's own ports.
pub(super) struct Workload {
    pub(super) identity: SpiffeId,
    model: Arc<weft_model::Workload>,
    ports: BTreeMap<u16, Arc<Entry>>,
    default: InboundPort,
}

/// What differs from the snapshot with the version before.
#[derive(Default)]
pub(super) struct Changes {
    names: HashMap<TypeUrl, HashSet<Arc<str>>>,
    workloads: HashSet<WorkloadKey>,
}

impl Changes {
    pub(super) fn names(&self, kind: TypeUrl) -> Option<&HashSet<Arc<str>>> {
        self.names.get(&kind)
    }

    pub(super) fn has_workload(&self, workload: Option<&WorkloadKey>) -> bool {
        workload.is_some_and(|w| self.workloads.contains(w))
    }
}

impl Snapshot {
    /// The mesh and its trust bundle. What is equal in `previous` is taken over from there.
    pub fn build(mesh: &Mesh, roots_pem: &[u8], previous: Option<&Snapshot>) -> Self {
        let mut changes = Changes::default();
        let mut table =
            |kind, old: Option<&Table>, values: &mut dyn Iterator<Item = (String, Value)>| {
                take_over(values, old, changes.names.entry(kind).or_default())
            };
        let destinations = mesh.destinations.iter();
        let listeners = table(
            TypeUrl::Listener,
            previous.map(|p| &p.listeners),
            &mut destinations
                .map(|(name, d)| (name.to_string(), Value::Destination(Arc::clone(d))))
                .chain([fixed(TypeUrl::Listener, capture_listener())]),
        );
        let clusters = table(
            TypeUrl::Cluster,
            previous.map(|p| &p.clusters),
            &mut (mesh.clusters.iter())
                .map(|(key, c)| (key.to_string(), Value::Cluster(Arc::clone(c))))
                .chain([fixed(TypeUrl::Cluster, passthrough_cluster())]),
        );
        let names = mesh.names.iter();
        let endpoints = table(
            TypeUrl::Endpoints,
            previous.map(|p| &p.endpoints),
            &mut names
                .map(|(name, record)| (dns_name(name), Value::Name(Arc::clone(record))))
                .chain(
                    (mesh.endpoints.iter())
                        .map(|(key, e)| (key.to_string(), Value::Endpoints(Arc::clone(e)))),
                ),
        );
        let pem = String::from_utf8_lossy(roots_pem).into_owned();
        let secrets = table(
            TypeUrl::Secret,
            previous.map(|p| &p.secrets),
            &mut [(TRUST_BUNDLE.to_owned(), Value::Roots(TrustBundle { pem }))].into_iter(),
        );
        let routes = routes(
            mesh,
            previous,
            changes.names.entry(TypeUrl::Routes).or_default(),
        );
        let workloads = workloads(mesh, previous, &mut changes.workloads);
        Self {
            version: previous.map_or(1, |p| p.version + 1),
            listeners,
            clusters,
            endpoints,
            routes,
            secrets,
            invalid: previous.map_or_else(InvalidBackend::new, |p| p.invalid.clone()),
            workloads,
            changes,
        }
    }

    /// Counts the snapshots since the first, which is 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version of a resource as a client in that namespace is served it; `None`: there is no such resource. For
    /// comparison with [`super::ResourceStatus::version_acked`]. Inbound listeners have to be named by workload, with
    /// [`Snapshot::inbound_version`].
    pub fn resource_version(
        &self,
        kind: TypeUrl,
        name: &str,
        namespace: Option<&Namespace>,
    ) -> Option<String> {
        self.get(kind, name, namespace)
            .map(|entry| entry.version().to_string())
    }

    /// The version of a workload's inbound port; `None`: the workload is not known.
    pub fn inbound_version(&self, workload: &WorkloadKey, port: u16) -> Option<String> {
        let workload = self.workloads.get(workload)?;
        Some(workload.inbound(port).version().to_string())
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn workload(&self, key: &WorkloadKey) -> Option<&Arc<Workload>> {
        self.workloads.get(key)
    }

    pub(super) fn get(
        &self,
        kind: TypeUrl,
        name: &str,
        namespace: Option<&Namespace>,
    ) -> Option<&Arc<Entry>> {
        match kind {
            TypeUrl::Listener => self.listeners.get(name),
            TypeUrl::Cluster => self.clusters.get(name),
            TypeUrl::Endpoints => self.endpoints.get(name),
            TypeUrl::Secret => self.secrets.get(name),
            TypeUrl::Routes => self
                .routes
                .get(name)
                .map(|scoped| scoped.for_namespace(namespace)),
        }
    }

    /// What only gRPC clients are told: the backend that does not exist.
    pub(super) fn get_for_grpc(&self, kind: TypeUrl, name: &str) -> Option<&Arc<Entry>> {
        match kind {
            TypeUrl::Cluster if name == self.invalid.name => Some(&self.invalid.cluster),
            TypeUrl::Endpoints if name == self.invalid.name => Some(&self.invalid.endpoints),
            _ => None,
        }
    }

    /// What a wildcard means: all clusters, and every listener of a captured address.
    pub(super) fn wildcard(&self, kind: TypeUrl) -> Vec<Arc<str>> {
        match kind {
            TypeUrl::Cluster => self.clusters.keys().cloned().collect(),
            TypeUrl::Listener => {
                let listeners = self.listeners.iter();
                let captured = listeners.filter(|(_, entry)| in_wildcard(entry));
                captured.map(|(name, _)| Arc::clone(name)).collect()
            }
            TypeUrl::Endpoints | TypeUrl::Routes | TypeUrl::Secret => Vec::new(),
        }
    }

    /// Does the wildcard of the type hold this name?
    pub(super) fn wildcard_has(&self, kind: TypeUrl, name: &str) -> bool {
        match kind {
            TypeUrl::Cluster => self.clusters.contains_key(name),
            TypeUrl::Listener => self
                .listeners
                .get(name)
                .is_some_and(|entry| in_wildcard(entry)),
            TypeUrl::Endpoints | TypeUrl::Routes | TypeUrl::Secret => false,
        }
    }
}

fn in_wildcard(entry: &Entry) -> bool {
    match entry.value() {
        Value::Destination(d) => matches!(d.name, ListenerName::Outbound(_)),
        _ => true,
    }
}

fn fixed(kind: TypeUrl, (name, bytes): (&str, bytes::Bytes)) -> (String, Value) {
    (name.to_owned(), Value::Fixed(kind, bytes))
}

/// The entry of an equal value before, else a new one and a note of the change.
fn reuse(old: Option<&Arc<Entry>>, value: Value, changed: impl FnOnce()) -> Arc<Entry> {
    match old {
        Some(old) if *old.value() == value => Arc::clone(old),
        _ => {
            changed();
            Entry::new(value)
        }
    }
}

fn take_over(
    values: &mut dyn Iterator<Item = (String, Value)>,
    old: Option<&Table>,
    changes: &mut HashSet<Arc<str>>,
) -> Table {
    let mut table = Table::with_capacity(old.map_or(0, HashMap::len));
    for (name, value) in values {
        let before = old.and_then(|t| t.get_key_value(name.as_str()));
        let name = before.map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
        let entry = reuse(before.map(|(_, entry)| entry), value, || {
            changes.insert(Arc::clone(&name));
        });
        table.insert(name, entry);
    }
    let gone = old.into_iter().flat_map(HashMap::keys);
    changes.extend(gone.filter(|name| !table.contains_key(*name)).cloned());
    table
}

fn routes(
    mesh: &Mesh,
    previous: Option<&Snapshot>,
    changes: &mut HashSet<Arc<str>>,
) -> HashMap<Arc<str>, Scoped<Arc<Entry>>> {
    let old = previous.map(|p| &p.routes);
    let mut table = HashMap::with_capacity(mesh.routes.len());
    for (key, scoped) in &mesh.routes {
        let name: Arc<str> = key.to_string().into();
        let before = old.and_then(|t| t.get(&name));
        let mut changed =
            before.is_none_or(|b| !b.by_namespace.keys().eq(scoped.by_namespace.keys()));
        let value = |routes: &Arc<_>| Value::Routes(Arc::clone(routes));
        let any = reuse(before.map(|b| &b.any), value(&scoped.any), || {
            changed = true;
        });
        let by_namespace = scoped.by_namespace.iter().map(|(namespace, routes)| {
            let before = before.and_then(|b| b.by_namespace.get(namespace));
            let entry = reuse(before, value(routes), || changed = true);
            (namespace.clone(), entry)
        });
        let by_namespace = by_namespace.collect();
        if changed {
            changes.insert(Arc::clone(&name));
        }
        table.insert(name, Scoped { any, by_namespace });
    }
    let gone = old.into_iter().flat_map(HashMap::keys);
    changes.extend(gone.filter(|name| !table.contains_key(*name)).cloned());
    table
}

fn workloads(
    mesh: &Mesh,
    previous: Option<&Snapshot>,
    changes: &mut HashSet<WorkloadKey>,
) -> BTreeMap<WorkloadKey, Arc<Workload>> {
    let mut table = BTreeMap::new();
    for (key, model) in &mesh.workloads {
        let before = previous.and_then(|p| p.workloads.get(key));
        let workload = match before {
            Some(before) if before.model == *model => Arc::clone(before),
            _ => {
                changes.insert(key.clone());
                Arc::new(Workload::new(model, before.map(Arc::as_ref)))
            }
        };
        table.insert(key.clone(), workload);
    }
    let gone = previous.into_iter().flat_map(|p| p.workloads.keys());
    changes.extend(gone.filter(|key| !table.contains_key(*key)).cloned());
    table
}

impl Workload {
    fn new(model: &Arc<weft_model::Workload>, before: Option<&Self>) -> Self {
        let ports = model.ports.iter().map(|(port, policy)| {
            let before = before.and_then(|b| b.ports.get(port));
            (
                *port,
                reuse(before, Value::Inbound(Box::new(policy.clone())), || ()),
            )
        });
        Self {
            identity: model.identity.clone(),
            ports: ports.collect(),
            default: model.default.clone(),
            model: Arc::clone(model),
        }
    }

    /// The policy of a port; of one that nothing is known about, the default.
    pub(super) fn inbound(&self, port: u16) -> Arc<Entry> {
        self.ports.get(&port).cloned().unwrap_or_else(|| {
            Entry::new(Value::Inbound(Box::new(InboundPort {
                port,
                ..self.default.clone()
            })))
        })
    }
}
