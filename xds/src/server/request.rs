//! What a request does to a stream's subscriptions: acknowledgements, refusals, names that come and go.
//!
//! Part of [`super::session`]; what is answered is in [`super::respond`].

use std::collections::HashSet;

use tonic::Status;

use super::session::{Change, Request, Session, subscription_of};
use super::subscription::WILDCARD;
use crate::TypeUrl;

/// Names that one stream may follow, all types together.
const MAX_NAMES: usize = 100_000;
/// The longest name, in bytes. Ours are shorter than 400.
const MAX_NAME: usize = 512;

impl Session {
    pub(super) fn request(&mut self, request: Request) -> Result<(), Status> {
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
                self.open.answered(kind, response, request.error);
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
                        !(old.named.contains(name.as_str()) || (old.wildcard && *name == WILDCARD))
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
}
