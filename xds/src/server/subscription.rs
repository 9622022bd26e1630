//! What one stream follows of one type, what it has been sent, and what it has still to be told.
//!
//! Pure bookkeeping: [`super::session`] feeds it requests and changes, and asks it for the next response. Names wait
//! in [`Subscription::dirty`] until they are looked up in the newest snapshot, so a slow client costs one set of names
//! however many snapshots pass.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::resource::Entry;

/// The name that stands for all.
pub(super) const WILDCARD: &str = "*";
/// Responses that may wait for an acknowledgement; then the client is sent nothing more of the type.
const MAX_IN_FLIGHT: usize = 16;

/// One type on one stream.
#[derive(Default)]
pub(super) struct Subscription {
    pub(super) wildcard: bool,
    pub(super) named: HashSet<Arc<str>>,
    /// What the client has; `None`: it knows that there is no such thing.
    pub(super) sent: HashMap<Arc<str>, Option<Arc<Entry>>>,
    /// Names to look up again.
    pub(super) dirty: BTreeSet<Arc<str>>,
    /// Gone, but to be said only after everything that may still refer to them.
    pub(super) stale: BTreeSet<Arc<str>>,
    /// Asked for anew: answered even if nothing changed.
    pub(super) forced: HashSet<Arc<str>>,
    /// What the client said that it has from an earlier stream.
    pub(super) initial: HashMap<String, String>,
    /// A response is due even if it is empty.
    pub(super) reply: bool,
    in_flight: VecDeque<InFlight>,
    last_nonce: u64,
}

/// A response that is not answered yet.
pub(super) struct InFlight {
    nonce: u64,
    /// The snapshot it was made from.
    pub(super) version: u64,
    /// What it said of which resource.
    pub(super) content: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl Subscription {
    /// Follows a name. Returns whether it is a new one.
    pub(super) fn add(&mut self, name: &str) -> bool {
        let name: Arc<str> = name.into();
        self.dirty.insert(Arc::clone(&name));
        self.forced.insert(Arc::clone(&name));
        self.named.insert(name)
    }

    /// Follows a name no longer; what the wildcard holds stays.
    pub(super) fn remove(&mut self, name: &str) {
        self.named.remove(name);
        if !self.wildcard {
            self.forget(name);
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.sent.remove(name);
        self.dirty.remove(name);
        self.stale.remove(name);
        self.forced.remove(name);
    }

    /// Does it follow this name, given what the wildcard holds?
    pub(super) fn follows(&self, name: &str, in_wildcard: bool) -> bool {
        self.named.contains(name)
            || (self.wildcard && (in_wildcard || self.sent.contains_key(name)))
    }

    /// Is there something to look up and a client that keeps up?
    pub(super) fn has_updates(&self) -> bool {
        (self.reply || !self.dirty.is_empty()) && self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// Is there something left to be called gone?
    pub(super) fn has_removals(&self) -> bool {
        !self.stale.is_empty() && self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// Notes a response; returns its nonce.
    pub(super) fn respond(
        &mut self,
        version: u64,
        content: Vec<(Arc<str>, Option<Arc<str>>)>,
    ) -> String {
        self.last_nonce += 1;
        self.in_flight.push_back(InFlight {
            nonce: self.last_nonce,
            version,
            content,
        });
        self.last_nonce.to_string()
    }

    /// Is this the nonce of the newest response? (State of the world: requests with an older one are out of date.)
    pub(super) fn is_newest(&self, nonce: &str) -> bool {
        nonce.parse() == Ok(self.last_nonce)
    }

    /// The response that a nonce belongs to. Unknown nonces are no one's.
    pub(super) fn answered(&mut self, nonce: &str) -> Option<InFlight> {
        let nonce: u64 = nonce.parse().ok()?;
        let at = self.in_flight.iter().position(|f| f.nonce == nonce)?;
        self.in_flight.remove(at)
    }
}
