//! Backends as a client sees them: how to balance over them, when to eject an endpoint, what limits hold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BackendKey, Meta, Protocol, SpiffeId, duration};

/// A backend without its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its key.
    pub key: BackendKey,
    /// What it speaks.
    pub protocol: Protocol,
    /// Every identity that one of its endpoints may carry; sorted. The endpoint's own identity is what our proxy checks.
    #[serde(default)]
    pub identities: Vec<SpiffeId>,
    /// How it is used.
    pub policy: TrafficPolicy,
    /// Origin (the Service) and age.
    pub meta: Meta,
}

/// How traffic is spread over a backend and held within limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// How an endpoint is picked.
    pub balancer: Balancer,
    /// When an endpoint is taken out for a while; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Limits that hold per proxy.
    pub circuit_breaker: CircuitBreaker,
    /// How much of the load may be retries.
    pub retry_budget: RetryBudget,
    /// Time for TCP connect and TLS handshake together; more than zero.
    #[serde(with = "duration::text")]
    pub connect_timeout: Duration,
    /// How long an unused pooled connection is kept; shorter than what servers allow (nginx 75 s, Node 5 s).
    #[serde(with = "duration::text")]
    pub idle_timeout: Duration,
    /// Origin of what differs from the default.
    pub meta: Meta,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            balancer: Balancer::PeakEwma,
            outlier_detection: Some(OutlierDetection::default()),
            circuit_breaker: CircuitBreaker::default(),
            retry_budget: RetryBudget::default(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
            meta: Meta {
                origin: crate::Origin::default_of("traffic-policy"),
                ..Meta::default()
            },
        }
    }
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Balancer {
    /// The better of two random ones by latency (peak exponentially weighted moving average) times requests in flight.
    #[default]
    PeakEwma,
    /// The better of two random ones by requests in flight.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
}

/// Taking failing endpoints out (Envoy's outlier detection: consecutive 5xx and local-origin failures).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Failures in a row (5xx, connect failure, reset, timeout) that eject; 1 or more.
    pub consecutive_failures: u32,
    /// First ejection; doubles with each further one.
    #[serde(with = "duration::text")]
    pub base_ejection_time: Duration,
    /// Longest ejection; not below the first.
    #[serde(with = "duration::text")]
    pub max_ejection_time: Duration,
    /// At most this share of the endpoints is out at once, 0 to 100 percent; one may always be ejected.
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
        }
    }
}

/// Limits of one proxy towards one backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Open connections.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending_requests: u32,
    /// Requests in flight.
    pub max_requests: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_pending_requests: 10_000,
            max_requests: 100_000,
        }
    }
}

/// Retries in flight may be this share of the requests in flight, and never fewer than the minimum is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// 0 to 100.
    pub percent: u32,
    /// Retries that are always allowed at the same time.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20,
            min_concurrency: 10,
        }
    }
}
