//! What a stream is told next: changed names are looked up in the newest snapshot.
//!
//! Part of [`super::session`], which says when.

use std::sync::Arc;

use tonic::Status;
use weft_model::UnixMillis;

use super::clients::Content;
use super::resource::Entry;
use super::session::{Response, Session, Step, subscription_of};
use crate::TypeUrl;
use crate::convert::Flavour;

/// What a delta response may hold, in bytes; the rest follows in the next.
const MAX_RESPONSE: usize = 1 << 20;

impl Session {
    pub(super) fn respond(&mut self, step: Step) -> Result<Option<Response>, Status> {
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
        self.open.sent(kind, version, content);
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
                self.open.recognised(kind, &name, &entry);
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
