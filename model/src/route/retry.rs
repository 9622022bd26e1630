//! What is tried again, how often and how fast.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;

/// Gateway API `HTTPRouteRetry` (GEP-1731), with what holds where nobody says anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Retries after the first attempt; 0 to 100.
    pub attempts: u32,
    /// Retry when no connection could be made, or the request was provably not processed (REFUSED_STREAM, GOAWAY).
    pub connect_failure: bool,
    /// Retry when the connection broke before the first byte of a response.
    pub reset: ResetRetry,
    /// Retry these statuses; sorted, 400 to 599. For gRPC the trailers-only statuses that map to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// Gateway API `timeouts.backendRequest`: one attempt. `None` or zero: no limit. A timed-out attempt is retried.
    #[serde(
        default,
        with = "duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub per_try_timeout: Option<Duration>,
    /// Wait before the first retry; doubles with each further one, with jitter, up to ten times this.
    #[serde(with = "duration::text")]
    pub backoff: Duration,
}

impl Default for RetryPolicy {
    /// Two retries, elsewhere, of what certainly or harmlessly can be sent again.
    fn default() -> Self {
        Self {
            attempts: 2,
            connect_failure: true,
            reset: ResetRetry::Idempotent,
            codes: Vec::new(),
            per_try_timeout: None,
            backoff: Duration::from_millis(25),
        }
    }
}

/// May a request be sent again that broke off before its response began?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResetRetry {
    /// No.
    Never,
    /// If its method is idempotent (RFC 9110, 9.2.2).
    Idempotent,
    /// Always: the route's author asked for retries.
    Always,
}

impl ResetRetry {
    /// Does it allow this method?
    pub fn allows(self, method: &http::Method) -> bool {
        match self {
            Self::Never => false,
            Self::Idempotent => method.is_idempotent(),
            Self::Always => true,
        }
    }
}
