//! Every resource that somebody watches, or did not long ago: shared by the handles and the client's task.
//!
//! Handles add and release watches; [`super::stream`] takes the changed wishes from here to the server and brings the
//! answers back; [`super::disk`] reads and writes the whole. One lock, never held across an await or a decode of
//! another resource.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_model::UnixMillis;

use super::Options;
use super::cell::{self, Slot};
use super::disk::Saved;
use super::state::{ClientState, ResourceState};
use super::watch::{Known, Watch};
use crate::TypeUrl;
use crate::convert::{DecodeError, Resource};

/// Held by every handle and watch: when the last is dropped, the task's receiver sees it.
pub(super) type Alive = watch::Sender<()>;

/// A resource by type and name.
pub(super) type Key = (TypeUrl, Arc<str>);

/// A name, and the version at hand.
pub(super) type Held = (Arc<str>, Option<String>);

/// What the task has to tell the server about one type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) subscribe: BTreeSet<Arc<str>>,
    pub(super) unsubscribe: BTreeSet<Arc<str>>,
}

/// The shared table.
pub(super) struct Table {
    pub(super) options: Options,
    inner: Mutex<Inner>,
    /// Wakes the task when wishes changed.
    pub(super) wishes_changed: Notify,
    /// Wakes the writer when something changed that belongs on disk.
    pub(super) content_changed: Notify,
    /// Held while the file is written: two writers would spoil each other's.
    pub(super) saving: tokio::sync::Mutex<()>,
}

struct Inner {
    slots: HashMap<Key, Slot>,
    wishes: BTreeMap<TypeUrl, Wishes>,
    connected: bool,
    since: UnixMillis,
    last_error: Option<String>,
}

impl Table {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            inner: Mutex::new(Inner {
                slots: HashMap::new(),
                wishes: BTreeMap::new(),
                connected: false,
                since: SystemTime::now().into(),
                last_error: None,
            }),
            wishes_changed: Notify::new(),
            content_changed: Notify::new(),
            saving: tokio::sync::Mutex::new(()),
        }
    }

    /// The values stay consistent even if a holder panicked: every change is one assignment after the decoding.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a resource, and subscribes to it if it is new.
    pub(super) fn watch<T: Resource>(
        self: &Arc<Self>,
        alive: &Arc<Alive>,
        name: String,
    ) -> Watch<T> {
        let key: Key = (T::TYPE, name.into());
        let mut inner = self.lock();
        if !inner.slots.contains_key(&key) {
            if inner.slots.len() >= self.options.max_resources && !inner.drop_idlest() {
                tracing::warn!(kind = %key.0, name = %key.1, limit = self.options.max_resources,
                    "too many resources are in use; this one is not subscribed");
                return Watch::detached(Known::Pending);
            }
            inner
                .slots
                .insert(key.clone(), Slot::new(cell::typed::<T>()));
            inner.wish(&key, true);
            self.wishes_changed.notify_one();
        }
        let Some(slot) = inner.slots.get_mut(&key) else {
            return Watch::detached(Known::Pending);
        };
        let Some(receiver) = cell::receiver::<T>(slot.cell.as_ref()) else {
            // A name of another type, e.g. the DNS name `80` and the backend `weft/dns/80`: nothing of the mesh.
            return Watch::detached(Known::Absent);
        };
        slot.watches += 1;
        slot.idle_since = None;
        let lease = Lease {
            table: Arc::clone(self),
            key,
            _alive: Arc::clone(alive),
        };
        Watch::new(receiver, lease)
    }

    fn release(&self, key: &Key) {
        if let Some(slot) = self.lock().slots.get_mut(key) {
            slot.watches = slot.watches.saturating_sub(1);
            if slot.watches == 0 {
                slot.idle_since = Some(Instant::now());
            }
        }
    }

    /// What the server has to be told since the last call.
    pub(super) fn take_wishes(&self) -> BTreeMap<TypeUrl, Wishes> {
        std::mem::take(&mut self.lock().wishes)
    }

    /// Everything subscribed, with the versions at hand, for the first requests of a stream.
    pub(super) fn take_all(&self) -> BTreeMap<TypeUrl, Vec<Held>> {
        let mut inner = self.lock();
        inner.wishes.clear();
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((kind, name), slot) in &inner.slots {
            all.entry(*kind)
                .or_default()
                .push((Arc::clone(name), slot.version.clone()));
        }
        all
    }

    /// A resource arrived. Refused: the last good value stays. Nobody asks for it any more: ignored.
    pub(super) fn apply(
        &self,
        kind: TypeUrl,
        name: &str,
        version: String,
        bytes: Bytes,
    ) -> Result<(), DecodeError> {
        let key: Key = (kind, name.into());
        let Some(cell) = self
            .lock()
            .slots
            .get(&key)
            .map(|slot| Arc::clone(&slot.cell))
        else {
            return Ok(());
        };
        let result = cell.set(name, &bytes);
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(&key) else {
            return result;
        };
        match &result {
            Ok(()) => {
                slot.accept(version, bytes);
                self.content_changed.notify_one();
            }
            Err(error) => slot.error = Some(error.to_string()),
        }
        result
    }

    /// The server says that there is no such resource.
    pub(super) fn remove(&self, kind: TypeUrl, name: &str) {
        let key: Key = (kind, name.into());
        if let Some(slot) = self.lock().slots.get_mut(&key) {
            slot.remove();
            self.content_changed.notify_one();
        }
    }

    /// The server answered for this type: what it does not send again it has recognised by its version.
    pub(super) fn confirm(&self, kind: TypeUrl) {
        let mut inner = self.lock();
        let slots = inner.slots.iter_mut().filter(|((k, _), _)| *k == kind);
        for (_, slot) in slots {
            slot.from_disk = false;
        }
    }

    /// The server answered on a new stream: idle times begin anew, because none ran while it was away.
    pub(super) fn connected(&self) {
        let mut inner = self.lock();
        let now = Instant::now();
        for slot in inner.slots.values_mut() {
            slot.idle_since = slot.idle_since.map(|_| now);
        }
        inner.connected = true;
        inner.since = SystemTime::now().into();
    }

    /// The stream ended, or none could be opened.
    pub(super) fn disconnected(&self, error: String) {
        let mut inner = self.lock();
        if inner.connected {
            inner.since = SystemTime::now().into();
        }
        inner.connected = false;
        inner.last_error = Some(error);
    }

    /// Forgets what has been idle too long. Only while connected: without a server nothing could be asked for again.
    pub(super) fn evict_idle(&self) {
        let mut inner = self.lock();
        if !inner.connected {
            return;
        }
        let idle = self.options.idle;
        let expired: Vec<Key> = inner
            .slots
            .iter()
            .filter(|(_, slot)| slot.idle_since.is_some_and(|since| since.elapsed() >= idle))
            .map(|(key, _)| key.clone())
            .collect();
        if expired.is_empty() {
            return;
        }
        for key in &expired {
            inner.forget(key);
        }
        self.wishes_changed.notify_one();
        self.content_changed.notify_one();
    }

    /// Puts back what was on disk. What cannot be decoded any more is left out.
    pub(super) fn restore(&self, saved: Vec<Saved>) {
        let mut inner = self.lock();
        let now = SystemTime::now().into();
        for Saved {
            kind,
            name,
            version,
            bytes,
        } in saved
        {
            let mut slot = Slot::new(cell::for_name(kind, &name));
            match &bytes {
                Some(bytes) => {
                    if let Err(error) = slot.cell.set(&name, bytes) {
                        tracing::warn!(%kind, name, %error, "a resource on disk is not usable any more");
                        continue;
                    }
                }
                None => slot.cell.set_absent(),
            }
            slot.version = bytes.is_some().then_some(version);
            slot.bytes = bytes;
            slot.received_at = now;
            slot.from_disk = true;
            inner.slots.insert((kind, name.into()), slot);
        }
    }

    /// What belongs on disk.
    pub(super) fn content(&self) -> Vec<Saved> {
        let inner = self.lock();
        let slots = inner
            .slots
            .iter()
            .filter(|(_, slot)| slot.cell.known() != super::state::Known::Pending);
        let mut content: Vec<Saved> = slots
            .map(|((kind, name), slot)| Saved {
                kind: *kind,
                name: name.to_string(),
                version: slot.version.clone().unwrap_or_default(),
                bytes: slot.bytes.clone(),
            })
            .collect();
        content.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        content
    }

    /// For the admin port.
    pub(super) fn state(&self) -> ClientState {
        let inner = self.lock();
        let mut resources: Vec<ResourceState> = inner
            .slots
            .iter()
            .map(|((kind, name), slot)| ResourceState {
                kind: *kind,
                name: name.to_string(),
                known: slot.cell.known(),
                version: slot.version.clone(),
                received_at: slot.received_at,
                from_disk: slot.from_disk,
                watches: slot.watches,
                error: slot.error.clone(),
            })
            .collect();
        resources.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        ClientState {
            node_id: self.options.node_id.clone(),
            connected: inner.connected,
            since: inner.since,
            last_error: inner.last_error.clone(),
            resources,
        }
    }
}

impl Inner {
    /// Notes that the server has to be told. A wish and its opposite cancel out only towards the newer one: the server
    /// may have seen the first already.
    fn wish(&mut self, (kind, name): &Key, subscribe: bool) {
        let wishes = self.wishes.entry(*kind).or_default();
        let (to, from) = if subscribe {
            (&mut wishes.subscribe, &mut wishes.unsubscribe)
        } else {
            (&mut wishes.unsubscribe, &mut wishes.subscribe)
        };
        from.remove(name);
        to.insert(Arc::clone(name));
    }

    fn forget(&mut self, key: &Key) {
        self.slots.remove(key);
        self.wish(key, false);
    }

    /// Makes room. False: everything is in use.
    fn drop_idlest(&mut self) -> bool {
        let idlest = self
            .slots
            .iter()
            .filter_map(|(key, slot)| slot.idle_since.map(|since| (since, key)))
            .min_by_key(|(since, _)| *since)
            .map(|(_, key)| key.clone());
        idlest.map(|key| self.forget(&key)).is_some()
    }
}

/// A claim on a resource; released on drop.
pub(super) struct Lease {
    table: Arc<Table>,
    key: Key,
    _alive: Arc<Alive>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({} {})", self.key.0, self.key.1)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.release(&self.key);
    }
}
