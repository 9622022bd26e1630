//! Which TrafficPolicy holds for which port of which service.
//!
//! The most specific wins (a named port before the whole service), then the oldest, then the first by name; what loses everywhere
//! is told so in its status.

use std::collections::HashMap;

use weft_model::policy::{CircuitBreaker, OutlierDetection, RetryBudget};
use weft_model::{BackendKey, Balancer, TrafficPolicy, UnixMillis};

use super::index::Index;
use super::report::Report;
use super::status::{Condition, ParentStatus, Reason, Status};
use crate::crd;
use crate::object::{ObjectKey, Stored};
use crate::problem::did_you_mean;

/// The winners.
#[derive(Default)]
pub(super) struct TrafficPolicies(HashMap<BackendKey, Winner>);

struct Winner {
    rank: Rank,
    policy: TrafficPolicy,
}

/// Smaller wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    whole_service: bool,
    created: UnixMillis,
    key: ObjectKey,
    target: usize,
}

impl TrafficPolicies {
    /// What holds for a backend.
    pub(super) fn of(&self, key: &BackendKey) -> TrafficPolicy {
        self.0
            .get(key)
            .map(|w| w.policy.clone())
            .unwrap_or_default()
    }

    /// Resolves all policies.
    pub(super) fn resolve(index: &Index<'_>, report: &mut Report) -> Self {
        let mut winners = Self::default();
        for (key, stored) in &index.objects.traffic_policies {
            let policy = to_model(stored);
            for (target, reference) in stored.object.spec.target_refs.iter().enumerate() {
                for backend in backends(index, key, reference) {
                    let whole_service = reference.section_name.is_none();
                    let rank = Rank {
                        whole_service,
                        created: stored.created(),
                        key: key.clone(),
                        target,
                    };
                    if winners.0.get(&backend).is_none_or(|w| rank < w.rank) {
                        winners.0.insert(
                            backend,
                            Winner {
                                rank,
                                policy: policy.clone(),
                            },
                        );
                    }
                }
            }
        }
        for (key, stored) in &index.objects.traffic_policies {
            winners.report(index, key, stored, report);
        }
        winners
    }

    fn report(
        &self,
        index: &Index<'_>,
        key: &ObjectKey,
        stored: &Stored<crd::TrafficPolicy>,
        report: &mut Report,
    ) {
        let mut parents = Vec::new();
        for (target, reference) in stored.object.spec.target_refs.iter().enumerate() {
            let backends = backends(index, key, reference);
            let field = format!("spec.targetRefs[{target}]");
            let won = backends.iter().find(|b| {
                self.0
                    .get(b)
                    .is_some_and(|w| w.rank.key == *key && w.rank.target == target)
            });
            let condition = if backends.is_empty() {
                let (field, reason, hint) = not_found(index, key, reference, &field);
                report.error(stored, field, reason.clone(), hint);
                Condition::refused(Reason::TargetNotFound, reason)
            } else if won.is_none() {
                let winner = backends
                    .first()
                    .and_then(|b| self.0.get(b))
                    .map(|w| w.rank.key.to_string())
                    .unwrap_or_default();
                let reason =
                    format!("TrafficPolicy {winner} is more specific or older, and holds instead");
                report.warning(stored, field, reason.clone(), None);
                Condition::refused(Reason::Conflicted, reason)
            } else {
                Condition::accepted()
            };
            let section = reference
                .section_name
                .as_deref()
                .map(|s| format!(" port {s}"))
                .unwrap_or_default();
            parents.push(ParentStatus {
                index: target,
                reference: format!("Service {}/{}{section}", key.namespace, reference.name),
                conditions: vec![condition],
                keys: Vec::new(),
            });
        }
        let generation = stored.object.metadata.generation.unwrap_or(0);
        report.statuses.push(Status {
            object: stored.to_meta().origin,
            generation,
            parents,
        });
    }
}

fn backends(index: &Index<'_>, policy: &ObjectKey, reference: &crd::ServiceRef) -> Vec<BackendKey> {
    let Some(service) = index
        .services
        .get(&ObjectKey::new(&*policy.namespace, &*reference.name))
    else {
        return Vec::new();
    };
    let ports = service.ports.iter().filter(|p| {
        reference.section_name.is_none() || reference.section_name.as_deref() == p.name
    });
    ports
        .map(|p| BackendKey::service(service.namespace.clone(), service.name.clone(), p.port))
        .collect()
}

/// Field, reason and hint for a target that is not there.
fn not_found(
    index: &Index<'_>,
    policy: &ObjectKey,
    reference: &crd::ServiceRef,
    field: &str,
) -> (String, String, Option<String>) {
    let key = ObjectKey::new(&*policy.namespace, &*reference.name);
    match (index.services.get(&key), &reference.section_name) {
        (Some(service), Some(section)) => {
            let names = service.ports.iter().filter_map(|p| p.name);
            let reason = format!("Service {key} has no port named {section:?}");
            (
                format!("{field}.sectionName"),
                reason,
                did_you_mean(section, names),
            )
        }
        (Some(_), None) => (
            field.to_owned(),
            format!("Service {key} has no TCP port"),
            None,
        ),
        (None, _) => {
            let near = index
                .services
                .keys()
                .filter(|k| k.namespace == key.namespace)
                .map(|k| k.name.as_str());
            let hint = did_you_mean(&reference.name, near);
            (
                format!("{field}.name"),
                format!("there is no Service {key}"),
                hint,
            )
        }
    }
}

fn to_model(stored: &Stored<crd::TrafficPolicy>) -> TrafficPolicy {
    let spec = &stored.object.spec;
    let default = TrafficPolicy::default();
    let outlier_detection = match &spec.outlier_detection {
        Some(o) if o.disabled == Some(true) => None,
        Some(o) => {
            let default = OutlierDetection::default();
            let base_ejection_time = o
                .base_ejection_time
                .map_or(default.base_ejection_time, |d| d.0);
            Some(OutlierDetection {
                consecutive_failures: o
                    .consecutive_failures
                    .unwrap_or(default.consecutive_failures),
                base_ejection_time,
                max_ejection_time: o
                    .max_ejection_time
                    .map_or(default.max_ejection_time.max(base_ejection_time), |d| {
                        d.0.max(base_ejection_time)
                    }),
                max_ejection_percent: o
                    .max_ejection_percent
                    .unwrap_or(default.max_ejection_percent),
            })
        }
        None => default.outlier_detection,
    };
    let breaker = spec.circuit_breaker.clone().unwrap_or_default();
    let budget = spec.retry_budget.clone().unwrap_or_default();
    TrafficPolicy {
        balancer: match spec.load_balancer.map(|l| l.algorithm).unwrap_or_default() {
            crd::Algorithm::PeakEwma => Balancer::PeakEwma,
            crd::Algorithm::LeastRequest => Balancer::LeastRequest,
            crd::Algorithm::RoundRobin => Balancer::RoundRobin,
            crd::Algorithm::Random => Balancer::Random,
        },
        outlier_detection,
        circuit_breaker: CircuitBreaker {
            max_connections: breaker
                .max_connections
                .unwrap_or(default.circuit_breaker.max_connections),
            max_pending_requests: breaker
                .max_pending_requests
                .unwrap_or(default.circuit_breaker.max_pending_requests),
            max_requests: breaker
                .max_requests
                .unwrap_or(default.circuit_breaker.max_requests),
        },
        retry_budget: RetryBudget {
            percent: budget.percent.unwrap_or(default.retry_budget.percent),
            min_concurrency: budget
                .min_concurrency
                .unwrap_or(default.retry_budget.min_concurrency),
        },
        connect_timeout: spec
            .connect_timeout
            .map_or(default.connect_timeout, |d| d.0),
        idle_timeout: spec.idle_timeout.map_or(default.idle_timeout, |d| d.0),
        meta: stored.to_meta(),
    }
}
