//! Who is connected, what they asked for, and what they made of it.
//!
//! [`super::session`] keeps one entry per stream; the control plane's admin port, `weft routes` and route statuses
//! read them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;
use weft_model::{Namespace, UnixMillis, WorkloadKey};

use super::resource::Entry;
use super::subscription::InFlight;
use crate::convert::Flavour;
use crate::{TypeUrl, wire};

/// How much of a client's own words is kept, in characters.
const MAX_MESSAGE: usize = 4096;

/// What a response says: a name, the version that is sent of it, and when its source changed.
pub(super) type Content = Vec<(Arc<str>, Option<Arc<str>>, UnixMillis)>;

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientStatus {
    /// `node.id`, as the client gave it.
    pub id: String,
    /// The pod, where `id` is of the form `<pod>.<namespace>`.
    pub workload: Option<WorkloadKey>,
    /// From the peer's certificate, else from `workload`.
    pub namespace: Option<Namespace>,
    /// Which client it is.
    pub kind: Flavour,
    /// Delta, or state of the world?
    pub delta: bool,
    /// When the stream was opened.
    pub connected_at: UnixMillis,
    /// By resource type; only those asked for.
    pub types: BTreeMap<TypeUrl, TypeStatus>,
}

/// How a client stands with one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeStatus {
    /// Does it follow all resources of the type?
    pub wildcard: bool,
    /// The names it asked for.
    pub subscribed: BTreeSet<String>,
    /// The snapshot of the last response; 0: none.
    pub version_sent: u64,
    /// The snapshot of the last response it accepted; 0: none.
    pub version_acked: u64,
    /// When it accepted that.
    pub acked_at: UnixMillis,
    /// Its refusal of the newest response, if it refused it.
    pub nack: Option<Nack>,
    /// By resource.
    pub resources: BTreeMap<String, ResourceStatus>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nack {
    /// The snapshot that was refused.
    pub version: u64,
    /// The client's own words.
    pub message: String,
    /// When it came.
    pub at: UnixMillis,
}

/// How a client stands with one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// The version sent last; `None`: it was told that there is no such resource.
    pub version_sent: Option<String>,
    /// The version it accepted last.
    pub version_acked: Option<String>,
    /// When the resource's source changed.
    pub changed_at: UnixMillis,
    /// When `version_sent` was sent.
    pub sent_at: UnixMillis,
    /// When `version_acked` was accepted.
    pub acked_at: UnixMillis,
}

/// All streams; clones share them.
#[derive(Debug, Clone)]
pub struct Clients {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams: Mutex<BTreeMap<u64, Arc<Mutex<ClientStatus>>>>,
    changes: watch::Sender<u64>,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                streams: Mutex::default(),
                changes: watch::Sender::new(0),
            }),
        }
    }
}

impl Clients {
    /// How every stream stands now, in the order they were opened.
    pub fn list(&self) -> Vec<ClientStatus> {
        let streams: Vec<_> = lock(&self.shared.streams).values().cloned().collect();
        streams.iter().map(|status| lock(status).clone()).collect()
    }

    /// Changes with every stream that opens or closes and every acknowledgement or refusal.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn open(&self, status: ClientStatus) -> Open {
        let status = Arc::new(Mutex::new(status));
        let mut streams = lock(&self.shared.streams);
        let id = streams.last_key_value().map_or(0, |(id, _)| id + 1);
        streams.insert(id, Arc::clone(&status));
        drop(streams);
        let open = Open {
            id,
            status,
            clients: self.clone(),
        };
        open.changed();
        open
    }
}

/// A stream's own entry; gone when it is dropped.
pub(super) struct Open {
    id: u64,
    status: Arc<Mutex<ClientStatus>>,
    clients: Clients,
}

impl Open {
    /// Changes how the stream stands with a type.
    pub(super) fn update<R>(&self, kind: TypeUrl, change: impl FnOnce(&mut TypeStatus) -> R) -> R {
        change(lock(&self.status).types.entry(kind).or_default())
    }

    /// A response is on its way.
    pub(super) fn sent(&self, kind: TypeUrl, version: u64, content: Content) {
        let now = SystemTime::now().into();
        self.update(kind, |status| {
            status.version_sent = version;
            for (name, version, changed_at) in content {
                let resource = status.resources.entry(name.to_string()).or_default();
                resource.version_sent = version.map(|v| v.to_string());
                resource.changed_at = changed_at;
                resource.sent_at = now;
            }
        });
    }

    /// The client had the resource before the stream began.
    pub(super) fn recognised(&self, kind: TypeUrl, name: &str, entry: &Entry) {
        self.update(kind, |status| {
            let resource = status.resources.entry(name.to_owned()).or_default();
            resource.changed_at = entry.changed_at();
            resource.version_sent = Some(entry.version().to_string());
            resource.version_acked = Some(entry.version().to_string());
        });
    }

    /// The client accepted a response, or refused it.
    pub(super) fn answered(&self, kind: TypeUrl, response: InFlight, error: Option<wire::Status>) {
        let now = SystemTime::now().into();
        self.update(kind, |status| match error {
            Some(error) => {
                status.nack = Some(Nack {
                    version: response.version,
                    message: error.message.chars().take(MAX_MESSAGE).collect(),
                    at: now,
                });
            }
            None => {
                status.version_acked = status.version_acked.max(response.version);
                status.acked_at = now;
                status.nack = None;
                for (name, version) in response.content {
                    if let Some(resource) = status.resources.get_mut(name.as_ref()) {
                        resource.version_acked = version.map(|v| v.to_string());
                        resource.acked_at = now;
                    }
                }
            }
        });
        self.changed();
    }

    /// Tells [`Clients::changes`].
    pub(super) fn changed(&self) {
        self.clients
            .shared
            .changes
            .send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.clients.shared.streams).remove(&self.id);
        self.changed();
    }
}

/// A status is plain data, valid whatever its last writer did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
