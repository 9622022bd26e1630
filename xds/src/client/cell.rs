//! One resource's value behind its type, so that resources of every type fit in one [`super::table`].

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_model::{
    BackendKey, Cluster, Destination, DnsRecord, Endpoints, HttpRoutes, InboundPort, UnixMillis,
};

use super::state;
use super::watch::Known;
use crate::TypeUrl;
use crate::convert::{DecodeError, Resource, TrustBundle};

/// A value that watches follow.
pub(super) trait Cell: Send + Sync {
    /// Decodes and publishes. On an error the value stays.
    fn set(&self, name: &str, bytes: &[u8]) -> Result<(), DecodeError>;
    /// Publishes that there is no such thing.
    fn set_absent(&self);
    /// Where it stands.
    fn known(&self) -> state::Known;
    /// For [`receiver`].
    fn as_any(&self) -> &dyn Any;
}

struct Typed<T>(watch::Sender<Known<T>>);

impl<T: Resource> Cell for Typed<T> {
    fn set(&self, name: &str, bytes: &[u8]) -> Result<(), DecodeError> {
        let value = Arc::new(T::decode(name, bytes)?);
        self.0.send_replace(Known::Present(value));
        Ok(())
    }

    fn set_absent(&self) {
        self.0.send_if_modified(|known| {
            let changed = !matches!(known, Known::Absent);
            *known = Known::Absent;
            changed
        });
    }

    fn known(&self) -> state::Known {
        match *self.0.borrow() {
            Known::Pending => state::Known::Pending,
            Known::Absent => state::Known::Absent,
            Known::Present(_) => state::Known::Present,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A pending value of that type.
pub(super) fn typed<T: Resource>() -> Arc<dyn Cell> {
    Arc::new(Typed::<T>(watch::Sender::new(Known::Pending)))
}

/// A pending value of the type that a name stands for.
pub(super) fn for_name(kind: TypeUrl, name: &str) -> Arc<dyn Cell> {
    match kind {
        TypeUrl::Secret => typed::<TrustBundle>(),
        TypeUrl::Cluster => typed::<Cluster>(),
        TypeUrl::Routes => typed::<HttpRoutes>(),
        TypeUrl::Endpoints if name.parse::<BackendKey>().is_ok() => typed::<Endpoints>(),
        TypeUrl::Endpoints => typed::<DnsRecord>(),
        TypeUrl::Listener if name.starts_with("weft/inbound/") => typed::<InboundPort>(),
        TypeUrl::Listener => typed::<Destination>(),
    }
}

/// Follows a cell. `None`: it holds a value of another type.
pub(super) fn receiver<T: Resource>(cell: &dyn Cell) -> Option<watch::Receiver<Known<T>>> {
    cell.as_any()
        .downcast_ref::<Typed<T>>()
        .map(|typed| typed.0.subscribe())
}

/// A subscribed resource: its value, and what is known of it.
pub(super) struct Slot {
    pub(super) cell: Arc<dyn Cell>,
    pub(super) watches: usize,
    /// Set when `watches` fell to 0.
    pub(super) idle_since: Option<Instant>,
    /// Of the value in force.
    pub(super) version: Option<String>,
    pub(super) bytes: Option<Bytes>,
    pub(super) received_at: UnixMillis,
    pub(super) from_disk: bool,
    pub(super) error: Option<String>,
}

impl Slot {
    pub(super) fn new(cell: Arc<dyn Cell>) -> Self {
        Self {
            cell,
            watches: 0,
            idle_since: Some(Instant::now()),
            version: None,
            bytes: None,
            received_at: UnixMillis::default(),
            from_disk: false,
            error: None,
        }
    }

    /// A value came and was usable.
    pub(super) fn accept(&mut self, version: String, bytes: Bytes) {
        self.version = Some(version);
        self.bytes = Some(bytes);
        self.answered();
    }

    /// There is no such thing.
    pub(super) fn remove(&mut self) {
        self.cell.set_absent();
        self.version = None;
        self.bytes = None;
        self.answered();
    }

    fn answered(&mut self) {
        self.received_at = SystemTime::now().into();
        self.from_disk = false;
        self.error = None;
    }
}
