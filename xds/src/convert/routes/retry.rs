//! Retry policies.
//!
//! Envoy has no retry for idempotent methods only: `reset-before-request` stands for it, which resends what was
//! certainly not sent. gRPC retries by status (gRFC A44), so HTTP statuses become the gRPC statuses that map to them.

use std::time::Duration;

use weft_model::route::{ResetRetry, RetryPolicy};

use crate::convert::error::At as _;
use crate::convert::proto::{duration, extension, from_duration, route, uint32};
use crate::convert::{DecodeError, Flavour};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use route::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate};

const CONNECT: [&str; 2] = ["connect-failure", "refused-stream"];
const RESET: &str = "reset";
const RESET_BEFORE_REQUEST: &str = "reset-before-request";
const STATUS: &str = "retriable-status-codes";
/// How often Envoy looks for a host that was not tried.
const OTHER_HOST_ATTEMPTS: i64 = 3;
/// Envoy's shortest.
const MIN_BACKOFF: Duration = Duration::from_millis(1);
/// The longest wait, as a multiple of the first.
const MAX_BACKOFF_FACTOR: u32 = 10;

/// For gRPC `None` where there is nothing to retry: it refuses a policy without attempts.
pub(super) fn encode(policy: &RetryPolicy, flavour: Flavour) -> Option<route::RetryPolicy> {
    let conditions = conditions(policy, flavour);
    if flavour == Flavour::Grpc && (policy.attempts == 0 || conditions.is_empty()) {
        return None;
    }
    let base = policy.backoff.max(MIN_BACKOFF);
    let mut encoded = route::RetryPolicy {
        retry_on: conditions.join(","),
        num_retries: uint32(policy.attempts),
        per_try_timeout: policy.per_try_timeout.and_then(duration),
        retriable_status_codes: policy.codes.iter().map(|code| u32::from(*code)).collect(),
        retry_back_off: Some(RetryBackOff {
            base_interval: duration(base),
            max_interval: duration(base.saturating_mul(MAX_BACKOFF_FACTOR)),
        }),
        ..Default::default()
    };
    if flavour == Flavour::Envoy {
        let previous = extension(
            "envoy.retry_host_predicates.previous_hosts",
            &PreviousHostsPredicate {},
        );
        encoded.retry_host_predicate = vec![RetryHostPredicate {
            name: previous.name,
            config_type: previous
                .typed_config
                .map(retry_host_predicate::ConfigType::TypedConfig),
        }];
        encoded.host_selection_retry_max_attempts = OTHER_HOST_ATTEMPTS;
    }
    Some(encoded)
}

fn conditions(policy: &RetryPolicy, flavour: Flavour) -> Vec<&'static str> {
    let mut conditions = Vec::new();
    if flavour != Flavour::Grpc {
        if policy.connect_failure {
            conditions.extend(CONNECT);
        }
        match policy.reset {
            ResetRetry::Never => {}
            ResetRetry::Idempotent => conditions.push(RESET_BEFORE_REQUEST),
            ResetRetry::Always => conditions.push(RESET),
        }
        if !policy.codes.is_empty() {
            conditions.push(STATUS);
        }
    } else if policy.reset == ResetRetry::Always {
        conditions.push("unavailable");
    }
    if flavour != Flavour::Weft {
        for code in &policy.codes {
            if let Some(status) = grpc_status(*code).filter(|s| !conditions.contains(s)) {
                conditions.push(status);
            }
        }
    }
    conditions
}

/// The gRPC status that stands for an HTTP status; `None`: no status that can be retried.
fn grpc_status(code: u16) -> Option<&'static str> {
    match code {
        429 => Some("resource-exhausted"),
        499 => Some("cancelled"),
        500 => Some("internal"),
        502 | 503 => Some("unavailable"),
        504 => Some("deadline-exceeded"),
        _ => None,
    }
}

pub(super) fn decode(policy: &route::RetryPolicy) -> Result<RetryPolicy, DecodeError> {
    let mut decoded = RetryPolicy {
        attempts: policy.num_retries.map_or(1, |n| n.value),
        connect_failure: false,
        reset: ResetRetry::Never,
        codes: Vec::new(),
        per_try_timeout: optional(policy.per_try_timeout.as_ref()).at("per_try_timeout")?,
        backoff: RetryPolicy::default().backoff,
    };
    for condition in policy.retry_on.split(',').map(str::trim) {
        match condition {
            RESET => decoded.reset = ResetRetry::Always,
            RESET_BEFORE_REQUEST => decoded.reset = ResetRetry::Idempotent,
            known if CONNECT.contains(&known) => decoded.connect_failure = true,
            _ => {}
        }
    }
    for code in &policy.retriable_status_codes {
        let code = u16::try_from(*code).map_err(DecodeError::new);
        decoded.codes.push(code.at("retriable_status_codes")?);
    }
    if let Some(backoff) = &policy.retry_back_off
        && let Some(base) =
            optional(backoff.base_interval.as_ref()).at("retry_back_off.base_interval")?
    {
        decoded.backoff = base;
    }
    Ok(decoded)
}

fn optional(
    d: Option<&crate::convert::proto::google::Duration>,
) -> Result<Option<Duration>, DecodeError> {
    d.map(from_duration).transpose()
}
