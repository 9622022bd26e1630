//! May a failed attempt be followed by another, and when? Pure; [`crate::outbound::http`] asks after each attempt.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use weft_model::route::RetryPolicy;

use crate::error::{Again, Error};

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// Without a response.
    Failed(&'a Error),
    /// With this status; for gRPC the one its `grpc-status` maps to ([`effective_status`]).
    Answered(u16),
}

/// Does the route's policy want another attempt? How many there were, the budget and the body are the caller's.
pub fn wanted(policy: &RetryPolicy, method: &Method, outcome: Outcome<'_>) -> bool {
    match outcome {
        Outcome::Failed(error) => match error.verdict().again {
            Again::Never => false,
            Again::Safe => policy.connect_failure,
            Again::Reset => policy.reset.allows(method),
            Again::Timeout => true,
        },
        Outcome::Answered(status) => policy.codes.binary_search(&status).is_ok(),
    }
}

/// Wait before retry number `retry` (1 is the first): the base, doubled each time, at most ten times the base; of that a
/// random part, so that many clients do not come back at once. `random` is spread over the whole range.
pub fn backoff(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let factor = 1u32
        .checked_shl(retry.saturating_sub(1))
        .unwrap_or(10)
        .min(10);
    let most = policy.backoff.saturating_mul(factor);
    most.mul_f64(random as f64 / u64::MAX as f64)
}

/// The status that retries and outlier detection go by: gRPC says in a trailers-only response what HTTP says in its status.
/// Mapped as Envoy and the Gateway API's GRPCRoute have it.
pub fn effective_status(status: StatusCode, headers: &HeaderMap) -> u16 {
    match headers.get("grpc-status").map(http::HeaderValue::as_bytes) {
        None | Some(b"0") => status.as_u16(),
        Some(b"1") => 499,                // CANCELLED
        Some(b"3" | b"9" | b"11") => 400, // INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
        Some(b"4") => 504,                // DEADLINE_EXCEEDED
        Some(b"5") => 404,                // NOT_FOUND
        Some(b"6" | b"10") => 409,        // ALREADY_EXISTS, ABORTED
        Some(b"7") => 403,                // PERMISSION_DENIED
        Some(b"8") => 429,                // RESOURCE_EXHAUSTED
        Some(b"12") => 501,               // UNIMPLEMENTED
        Some(b"14") => 503,               // UNAVAILABLE
        Some(b"16") => 401,               // UNAUTHENTICATED
        Some(_) => 500,                   // UNKNOWN, INTERNAL, DATA_LOSS
    }
}

#[cfg(test)]
mod tests {
    use weft_model::route::ResetRetry;

    use super::*;
    use crate::error::{ConnectError, DestinationError, ExchangeError, PickError};

    fn policy(reset: ResetRetry, codes: &[u16]) -> RetryPolicy {
        RetryPolicy {
            reset,
            codes: codes.to_vec(),
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn the_policy_decides_by_what_may_have_been_processed() {
        let reset: Error = ExchangeError::Reset.into();
        let refused: Error = ConnectError::Refused.into();
        let slow: Error = ExchangeError::TryTimeout.into();
        let none: Error = PickError::NoneReady.into();
        let unknown: Error = DestinationError::Pending.into();
        use ResetRetry::{Always, Idempotent, Never};
        for (error, reset_retry, method, wanted_) in [
            (&refused, Never, Method::POST, true),
            (&reset, Never, Method::GET, false),
            (&reset, Idempotent, Method::GET, true),
            (&reset, Idempotent, Method::PUT, true),
            (&reset, Idempotent, Method::POST, false),
            (&reset, Always, Method::POST, true),
            (&slow, Never, Method::POST, true),
            (&none, Always, Method::GET, false),
            (&unknown, Always, Method::GET, false),
        ] {
            let policy = policy(reset_retry, &[]);
            assert_eq!(
                wanted(&policy, &method, Outcome::Failed(error)),
                wanted_,
                "{error} {reset_retry:?} {method}"
            );
        }
        let picky = RetryPolicy {
            connect_failure: false,
            ..RetryPolicy::default()
        };
        assert!(!wanted(&picky, &Method::GET, Outcome::Failed(&refused)));
        let codes = policy(Never, &[500, 503]);
        assert!(wanted(&codes, &Method::POST, Outcome::Answered(503)));
        assert!(!wanted(&codes, &Method::POST, Outcome::Answered(502)));
    }

    #[test]
    fn waits_double_up_to_ten_times() {
        let policy = RetryPolicy::default();
        let longest: Vec<u128> = (1..=6)
            .map(|n| backoff(&policy, n, u64::MAX).as_millis())
            .collect();
        assert_eq!(longest, [25, 50, 100, 200, 250, 250]);
        assert_eq!(backoff(&policy, 3, 0), Duration::ZERO);
        assert_eq!(backoff(&policy, 99, u64::MAX).as_millis(), 250);
    }

    #[test]
    fn grpc_has_its_status_in_a_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(effective_status(StatusCode::OK, &headers), 200);
        for (grpc, http) in [("0", 200), ("14", 503), ("13", 500), ("4", 504), ("x", 500)] {
            headers.insert("grpc-status", http::HeaderValue::from_static(grpc));
            assert_eq!(effective_status(StatusCode::OK, &headers), http);
        }
    }
}
