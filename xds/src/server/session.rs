//! One stream: requests in, responses out, from the newest snapshot and only when the client can take them.
//!
//! Serves both variants of the protocol. [`Protocol`] says how requests are read and responses written; everything
//! between is the same. Ends when the client goes, or with the error that it is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use weft_model::{SpiffeId, UnixMillis};

use super::Snapshot;
use super::clients::{ClientStatus, Clients, Nack, Open, ResourceStatus};
use super::peer::Peer;
use super::resource::Entry;
use super::subscription::{InFlight, Subscription, WILDCARD};
use crate::convert::Flavour;
use crate::{TypeUrl, wire};

/// Names that one stream may follow, all types together.
const MAX_NAMES: usize = 100_000;
/// The longest name, in bytes. Ours are shorter than 400.
const MAX_NAME: usize = 512;
/// What a delta response may hold, in bytes; the rest follows in the next.
const MAX_RESPONSE: usize = 1 << 20;

/// A request of either variant.
pub(super) struct Request {
    pub(super) node: Option<wire::Node>,
    pub(super) type_url: String,
    pub(super) nonce: String,
    pub(super) error: Option<wire::Status>,
    pub(super) change: Change,
}

/// What a request does to the subscription.
pub(super) enum Change {
    /// Delta: names to add and to take out, and what the client has from before.
    Delta {
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        initial: HashMap<String, String>,
    },
    /// State of the world: all names.
    Sotw(Vec<String>),
}

/// A response of either variant.
pub(super) struct Response {
    pub(super) kind: TypeUrl,
    pub(super) version: u64,
    pub(super) nonce: String,
    pub(super) resources: Vec<(Arc<str>, Arc<Entry>)>,
    pub(super) removed: Vec<Arc<str>>,
}

/// The variant of the protocol.
pub(super) trait Protocol: Send + 'static {
    type Request: Send;
    type Response: Send;
    const DELTA: bool;

    fn read(request: Self::Request) -> Request;
    fn write(response: Response, peer: &Peer) -> Self::Response;
}

struct Session {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    snapshot: Arc<Snapshot>,
    peer: Peer,
    open: Open,
    delta: bool,
    subscriptions: BTreeMap<TypeUrl, Subscription>,
}

/// What to say next.
#[derive(Clone, Copy)]
enum Step {
    Update(TypeUrl),
    Remove(TypeUrl),
}

/// Runs a stream to its end.
pub(super) async fn run<P: Protocol>(
    mut requests: impl Stream<Item = Result<P::Request, Status>> + Unpin + Send,
    responses: mpsc::Sender<Result<P::Response, Status>>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    clients: Clients,
    identity: Option<SpiffeId>,
) {
    let Some(Ok(first)) = requests.next().await else {
        return;
    };
    let first = P::read(first);
    let peer = Peer::new(first.node.clone().unwrap_or_default(), identity);
    let snapshot = snapshots.borrow_and_update().clone();
    let mut session = Session {
        open: clients.open(peer.status(P::DELTA)),
        snapshots,
        snapshot,
        peer,
        delta: P::DELTA,
        subscriptions: BTreeMap::new(),
    };
    if let Err(status) = session.serve::<P>(first, &mut requests, &responses).await {
        tracing::info!(client = session.peer.id, code = ?status.code(), reason = status.message(), "a stream is refused");
        let _ = responses.send(Err(status)).await;
    }
}

impl Session {
    async fn serve<P: Protocol>(
        &mut self,
        first: Request,
        requests: &mut (impl Stream<Item = Result<P::Request, Status>> + Unpin + Send),
        responses: &mpsc::Sender<Result<P::Response, Status>>,
    ) -> Result<(), Status> {
        self.request(first)?;
        loop {
            // Requests first, so that what they ask for together is answered in push order.
            tokio::select! {
                biased;
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(P::read(request))?,
                    Some(Err(_)) | None => return Ok(()),
                },
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the control plane is shutting down"));
                    }
                    self.next_snapshot();
                }
                permit = responses.reserve(), if self.next_step().is_some() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(step) = self.next_step()
                        && let Some(response) = self.respond(step)?
                    {
                        permit.send(Ok(P::write(response, &self.peer)));
                    }
                }
            }
        }
    }

    /// Make before break: additions and changes in the order of [`TypeUrl`], then removals the other way round.
    fn next_step(&self) -> Option<Step> {
        let updates = self.subscriptions.iter().filter(|(_, s)| s.has_updates());
        let removals = self
            .subscriptions
            .iter()
            .rev()
            .filter(|(_, s)| s.has_removals());
        updates
            .map(|(kind, _)| Step::Update(*kind))
            .chain(removals.map(|(kind, _)| Step::Remove(*kind)))
            .next()
    }

    /// Marks what the new snapshot may have changed for this client. Usually nothing.
    fn next_snapshot(&mut self) {
        let newest = self.snapshots.borrow_and_update().clone();
        let follows_last = newest.version() == self.snapshot.version() + 1;
        for (kind, subscription) in &mut self.subscriptions {
            if follows_last {
                let changed = newest.changes().names(*kind).into_iter().flatten();
                let mine = changed
                    .filter(|name| subscription.follows(name, newest.wildcard_has(*kind, name)));
                let mine: Vec<Arc<str>> = mine.cloned().collect();
                subscription.dirty.extend(mine);
                if *kind == TypeUrl::Listener
                    && newest.changes().has_workload(self.peer.workload.as_ref())
                {
                    let inbound = subscription
                        .named
                        .iter()
                        .filter(|name| Peer::is_inbound(name));
                    subscription
                        .dirty
                        .extend(inbound.cloned().collect::<Vec<_>>());
                }
            } else {
                // Snapshots were skipped: look at everything.
                subscription
                    .dirty
                    .extend(subscription.named.iter().cloned());
                if subscription.wildcard {
                    subscription.dirty.extend(subscription.sent.keys().cloned());
                    subscription.dirty.extend(newest.wildcard(*kind));
                }
            }
        }
        self.snapshot = newest;
    }

    fn request(&mut self, request: Request) -> Result<(), Status> {
        let Some(kind) = TypeUrl::from_url(&request.type_url) else {
            tracing::debug!(
                client = self.peer.id,
                type_url = request.type_url,
                "a type that is not served"
            );
            return Ok(());
        };
        let first = !self.subscriptions.contains_key(&kind);
        let subscription = self.subscriptions.entry(kind).or_default();
        if !request.nonce.is_empty() {
            if let Some(response) = subscription.answered(&request.nonce) {
                answered(&self.open, kind, response, request.error);
            }
            if !self.delta && !subscription.is_newest(&request.nonce) {
                return Ok(());
            }
        }
        match request.change {
            Change::Delta {
                subscribe,
                unsubscribe,
                initial,
            } => {
                if first {
                    subscription.reply = true;
                    subscription.initial = initial;
                    if subscribe.is_empty() {
                        self.follow_all(kind);
                    }
                }
                self.change(kind, &subscribe, &unsubscribe)
            }
            Change::Sotw(names) => {
                if first {
                    subscription.reply = kind.is_full_state();
                    if names.is_empty() {
                        self.follow_all(kind);
                    }
                } else if names.is_empty() && subscription.wildcard {
                    return Ok(());
                }
                let old = subscription_of(&mut self.subscriptions, kind);
                let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
                let leaves_wildcard =
                    old.wildcard && !wanted.is_empty() && !wanted.contains(WILDCARD);
                let dropped: Vec<String> = old
                    .named
                    .iter()
                    .filter(|name| !wanted.contains(name.as_ref()))
                    .map(ToString::to_string)
                    .chain(leaves_wildcard.then(|| WILDCARD.to_owned()))
                    .collect();
                let added: Vec<String> = names
                    .iter()
                    .filter(|name| {
                        !old.named.contains(name.as_str()) && !(old.wildcard && *name == WILDCARD)
                    })
                    .cloned()
                    .collect();
                self.change(kind, &added, &dropped)
            }
        }
    }

    /// A wildcard, if the type has one. It holds what there is now, and what the client has from before and may have
    /// to drop.
    fn follow_all(&mut self, kind: TypeUrl) {
        if !kind.is_full_state() {
            return;
        }
        let subscription = subscription_of(&mut self.subscriptions, kind);
        subscription.wildcard = true;
        subscription.dirty.extend(self.snapshot.wildcard(kind));
        for name in subscription.initial.keys() {
            subscription.sent.entry(name.as_str().into()).or_default();
            subscription.forced.insert(name.as_str().into());
            subscription.dirty.insert(name.as_str().into());
        }
        self.open.update(kind, |status| status.wildcard = true);
    }

    fn change(
        &mut self,
        kind: TypeUrl,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Result<(), Status> {
        let held: usize = self.subscriptions.values().map(|s| s.named.len()).sum();
        if held + subscribe.len() > MAX_NAMES {
            let limit = format!("a stream may follow {MAX_NAMES} resources");
            return Err(Status::resource_exhausted(limit));
        }
        if subscribe.iter().any(|name| name.len() > MAX_NAME) {
            let limit = format!("resource names have at most {MAX_NAME} bytes");
            return Err(Status::invalid_argument(limit));
        }
        for name in subscribe {
            if name == WILDCARD {
                self.follow_all(kind);
                continue;
            }
            self.peer.may_ask(&self.snapshot, name)?;
            subscription_of(&mut self.subscriptions, kind).add(name);
        }
        let subscription = subscription_of(&mut self.subscriptions, kind);
        for name in unsubscribe {
            if name == WILDCARD {
                subscription.wildcard = false;
                let held = subscription.sent.keys().chain(&subscription.dirty);
                let unnamed: Vec<_> = held
                    .filter(|n| !subscription.named.contains(*n))
                    .cloned()
                    .collect();
                for name in unnamed {
                    subscription.forget(&name);
                }
            } else {
                subscription.remove(name);
            }
        }
        if !subscribe.is_empty() || !unsubscribe.is_empty() {
            let wildcard = subscription.wildcard;
            self.open.update(kind, |status| {
                status.wildcard = wildcard;
                for name in unsubscribe {
                    status.subscribed.remove(name);
                    status.resources.remove(name);
                }
                status
                    .subscribed
                    .extend(subscribe.iter().filter(|n| *n != WILDCARD).cloned());
            });
        }
        Ok(())
    }

    fn respond(&mut self, step: Step) -> Result<Option<Response>, Status> {
        let (kind, mut draft) = match step {
            Step::Remove(kind) => {
                let subscription = subscription_of(&mut self.subscriptions, kind);
                let removed: Vec<_> = std::mem::take(&mut subscription.stale)
                    .into_iter()
                    .collect();
                let draft = Draft {
                    needed: true,
                    removed,
                    ..Draft::default()
                };
                (kind, draft)
            }
            Step::Update(kind) => (kind, self.look_up(kind)?),
        };
        let subscription = subscription_of(&mut self.subscriptions, kind);
        draft.needed |= std::mem::take(&mut subscription.reply);
        for name in &draft.removed {
            subscription.sent.insert(Arc::clone(name), None);
        }
        for (name, entry) in &draft.resources {
            subscription
                .sent
                .insert(Arc::clone(name), Some(Arc::clone(entry)));
        }
        // State of the world cannot say of a route table or of endpoints that they are gone.
        let sayable = self.delta || kind.is_full_state() || !draft.resources.is_empty();
        if !draft.needed || !sayable {
            return Ok(None);
        }
        if kind == TypeUrl::Cluster && self.peer.flavour == Flavour::Envoy {
            self.warm(&draft.resources);
        }
        let subscription = subscription_of(&mut self.subscriptions, kind);
        let content = draft.content();
        if !self.delta && kind.is_full_state() {
            // Everything the client shall have: what is stale stays until its turn.
            let have = subscription.sent.iter();
            let have = have
                .filter_map(|(name, entry)| Some((Arc::clone(name), Arc::clone(entry.as_ref()?))));
            draft.resources = have.collect();
            draft.resources.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let version = self.snapshot.version();
        let nonce = subscription.respond(
            version,
            content
                .iter()
                .map(|(n, v, _)| (n.clone(), v.clone()))
                .collect(),
        );
        sent(&self.open, kind, version, content);
        // What is gone and only followed by the wildcard is nobody's any more.
        let gone = draft
            .removed
            .iter()
            .filter(|name| !subscription.named.contains(*name));
        for name in gone {
            subscription.sent.remove(name);
        }
        Ok(Some(Response {
            kind,
            version,
            nonce,
            resources: draft.resources,
            removed: draft.removed,
        }))
    }

    /// Envoy holds a changed cluster back until it is sent the endpoints again, changed or not (xDS protocol, "Resource
    /// warming").
    fn warm(&mut self, clusters: &[(Arc<str>, Arc<Entry>)]) {
        if let Some(endpoints) = self.subscriptions.get_mut(&TypeUrl::Endpoints) {
            for (name, _) in clusters {
                if endpoints.named.contains(name) {
                    endpoints.dirty.insert(Arc::clone(name));
                    endpoints.forced.insert(Arc::clone(name));
                }
            }
        }
    }

    /// Looks the dirty names up, until a response is full.
    fn look_up(&mut self, kind: TypeUrl) -> Result<Draft, Status> {
        let subscription = subscription_of(&mut self.subscriptions, kind);
        let mut draft = Draft::default();
        let mut size = 0;
        while let Some(name) = subscription.dirty.pop_first() {
            let forced = subscription.forced.remove(&name);
            let entry = self.peer.resolve(&self.snapshot, kind, &name)?;
            let known = subscription.sent.get(&name);
            let Some(entry) = entry else {
                let had = matches!(known, Some(Some(_)));
                if had && matches!(kind, TypeUrl::Cluster | TypeUrl::Endpoints) {
                    subscription.stale.insert(name);
                } else if had || forced || known.is_none() {
                    draft.needed |= had || self.delta;
                    draft.removed.push(name);
                }
                continue;
            };
            subscription.stale.remove(&name);
            let same =
                |old: &Arc<Entry>| Arc::ptr_eq(old, &entry) || old.version() == entry.version();
            if subscription.initial.remove(name.as_ref()).as_deref()
                == Some(entry.version().as_ref())
            {
                self.open.update(kind, |status| {
                    let resource = status.resources.entry(name.to_string()).or_default();
                    resource.changed_at = entry.changed_at();
                    resource.version_sent = Some(entry.version().to_string());
                    resource.version_acked = Some(entry.version().to_string());
                });
                subscription.sent.insert(name, Some(entry));
            } else if forced || !matches!(known, Some(Some(old)) if same(old)) {
                size += name.len() + entry.encoded(self.peer.flavour).value.len();
                draft.needed = true;
                draft.resources.push((name, entry));
            } else {
                subscription.sent.insert(name, Some(entry));
            }
            if self.delta && size > MAX_RESPONSE {
                break;
            }
        }
        Ok(draft)
    }
}

/// A response in the making.
#[derive(Default)]
struct Draft {
    /// Is there anything to say?
    needed: bool,
    resources: Vec<(Arc<str>, Arc<Entry>)>,
    removed: Vec<Arc<str>>,
}

/// A name, the version that is sent of it, and when its source changed.
type Content = Vec<(Arc<str>, Option<Arc<str>>, UnixMillis)>;

impl Draft {
    fn content(&self) -> Content {
        let resources = self.resources.iter();
        let resources =
            resources.map(|(n, e)| (Arc::clone(n), Some(Arc::clone(e.version())), e.changed_at()));
        let removed = self
            .removed
            .iter()
            .map(|n| (Arc::clone(n), None, UnixMillis::default()));
        resources.chain(removed).collect()
    }
}

/// Only called for types that a request has named.
fn subscription_of(all: &mut BTreeMap<TypeUrl, Subscription>, kind: TypeUrl) -> &mut Subscription {
    all.entry(kind).or_default()
}

fn sent(open: &Open, kind: TypeUrl, version: u64, content: Content) {
    let now = SystemTime::now().into();
    open.update(kind, |status| {
        status.version_sent = version;
        for (name, version, changed_at) in content {
            let resource: &mut ResourceStatus =
                status.resources.entry(name.to_string()).or_default();
            resource.version_sent = version.map(|v| v.to_string());
            resource.changed_at = changed_at;
            resource.sent_at = now;
        }
    });
}

fn answered(open: &Open, kind: TypeUrl, response: InFlight, error: Option<wire::Status>) {
    let now = SystemTime::now().into();
    open.update(kind, |status| match error {
        Some(error) => {
            status.nack = Some(Nack {
                version: response.version,
                message: error.message.chars().take(4096).collect(),
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
    open.changed();
}

impl Peer {
    fn status(&self, delta: bool) -> ClientStatus {
        ClientStatus {
            id: self.id.clone(),
            workload: self.workload.clone(),
            namespace: self.namespace.clone(),
            kind: self.flavour,
            delta,
            connected_at: SystemTime::now().into(),
            types: BTreeMap::new(),
        }
    }
}
