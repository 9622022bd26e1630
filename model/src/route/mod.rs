//! HTTP routes in Gateway API semantics, compiled: flat, sorted by precedence, first match wins.
//!
//! [`matching`] says what a rule matches and in which order rules stand, [`filter`] what it changes,
//! [`retry`] what happens when an attempt fails. [`crate::decide`] walks them.

pub mod filter;
pub mod matching;
pub mod retry;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use filter::{HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite};
pub use matching::{HeaderMatch, HttpMatch, PathMatch, Precedence, QueryMatch, ValueMatch};
pub use retry::{ResetRetry, RetryPolicy};

use crate::{BackendKey, HostnameMatch, Meta, duration};

/// The route table of a destination. Depends on who asks: a route in the client's namespace comes before the
/// producer's (Gateway API, GAMMA consumer routes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoutes {
    /// The service's port it is for.
    pub key: BackendKey,
    /// Virtual hosts with disjoint host names; the most specific that matches is used.
    pub hosts: Vec<VirtualHost>,
    /// Origin (the Service) and age (of the newest route in it).
    pub meta: Meta,
}

/// The rules for some host names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualHost {
    /// Never empty. Routes with a Service as parent are for [`HostnameMatch::Any`]: "hostnames are ignored" there.
    pub hostnames: Vec<HostnameMatch>,
    /// In order of precedence. No match: 404.
    pub rules: Vec<HttpRule>,
}

/// One match of one rule, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Which requests.
    pub matches: HttpMatch,
    /// What to do with them.
    pub action: Action,
    /// Header edits of the whole rule, on the request.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub request_headers: HeaderEdits,
    /// Header edits of the whole rule, on the response.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub response_headers: HeaderEdits,
    /// Origin (route and rule) and age.
    pub meta: Meta,
}

/// What happens to a matching request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Send it to one of the backends.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
}

/// Forwarding to weighted backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    /// One is drawn by weight. All weights zero, or none at all: 500 (Gateway API `backendRefs`).
    pub backends: Vec<WeightedBackend>,
    /// Host and path rewrite.
    #[serde(default, skip_serializing_if = "Rewrite::is_empty")]
    pub rewrite: Rewrite,
    /// Copies of requests; answers are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// Gateway API `timeouts.request`: the whole exchange, retries included. `None` or zero: no limit.
    #[serde(
        default,
        with = "duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_timeout: Option<Duration>,
    /// What to retry. `attempts` 0: nothing.
    pub retry: RetryPolicy,
}

/// A backend and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedBackend {
    /// The backend; `None` where the reference is invalid (unknown kind, missing object, no ReferenceGrant):
    /// its share of requests is answered 500.
    pub backend: Option<BackendKey>,
    /// 0 to 1,000,000; 0 gets nothing.
    pub weight: u32,
    /// Header edits of the backend reference, on the request, after the rule's.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub request_headers: HeaderEdits,
    /// Header edits of the backend reference, on the response, before the rule's.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub response_headers: HeaderEdits,
}

impl WeightedBackend {
    /// A backend alone, without edits.
    pub fn only(backend: BackendKey) -> Self {
        Self {
            backend: Some(backend),
            weight: 1,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
        }
    }
}

impl HttpRoutes {
    /// What holds for a service that no route is attached to: everything to the service itself.
    pub fn direct(key: BackendKey, meta: Meta) -> Self {
        let forward = Forward {
            backends: vec![WeightedBackend::only(key.clone())],
            rewrite: Rewrite::default(),
            mirrors: Vec::new(),
            request_timeout: None,
            retry: RetryPolicy::default(),
        };
        let rule = HttpRule {
            matches: HttpMatch::default(),
            action: Action::Forward(forward),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            meta: meta.clone(),
        };
        let host = VirtualHost {
            hostnames: vec![HostnameMatch::Any],
            rules: vec![rule],
        };
        Self {
            key,
            hosts: vec![host],
            meta,
        }
    }

    /// Every backend that some rule may send to, mirrors included, without repetition.
    pub fn backends(&self) -> Vec<&BackendKey> {
        let forwards = self
            .hosts
            .iter()
            .flat_map(|h| &h.rules)
            .filter_map(|r| match &r.action {
                Action::Forward(f) => Some(f),
                Action::Redirect(_) => None,
            });
        let mut keys: Vec<&BackendKey> = forwards
            .flat_map(|f| {
                f.backends
                    .iter()
                    .filter_map(|b| b.backend.as_ref())
                    .chain(f.mirrors.iter().map(|m| &m.backend))
            })
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }
}
