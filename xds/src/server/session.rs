//! One stream: requests in, responses out, from the newest snapshot and only when the client can take them.
//!
//! Serves both variants of the protocol. [`Protocol`] says how requests are read and responses written; everything
//! between is the same. Ends when the client goes, or with the error that it is told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use weft_model::SpiffeId;

use super::Snapshot;
use super::clients::{ClientStatus, Clients, Open};
use super::peer::Peer;
use super::resource::Entry;
use super::subscription::Subscription;
use crate::{TypeUrl, wire};

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

/// A stream's state. What requests do to it is in [`super::request`], what it says next in [`super::respond`].
pub(super) struct Session {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) peer: Peer,
    pub(super) open: Open,
    pub(super) delta: bool,
    pub(super) subscriptions: BTreeMap<TypeUrl, Subscription>,
}

/// What to say next.
#[derive(Clone, Copy)]
pub(super) enum Step {
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
}

/// Only called for types that a request has named.
pub(super) fn subscription_of(
    all: &mut BTreeMap<TypeUrl, Subscription>,
    kind: TypeUrl,
) -> &mut Subscription {
    all.entry(kind).or_default()
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
