//! The series of one backend or destination, resolved once and kept by whoever sends there.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, ByDestination, Counter, Durations, Metrics, OutboundRequest};

/// Handles for one worker.
#[derive(Debug)]
pub struct DestinationMetrics {
    metrics: Arc<Metrics>,
    /// The value of the `destination` label.
    pub name: String,
    requests: RefCell<Vec<(Answer, Counter)>>,
    attempts: RefCell<Vec<(&'static str, Counter)>>,
    retries: RefCell<Vec<(&'static str, Counter)>>,
    durations: OnceCell<Arc<Durations>>,
}

impl DestinationMetrics {
    /// Of the destination with that name.
    pub fn new(metrics: Arc<Metrics>, name: String) -> Self {
        Self {
            metrics,
            name,
            requests: RefCell::default(),
            attempts: RefCell::default(),
            retries: RefCell::default(),
            durations: OnceCell::new(),
        }
    }

    /// A request was answered.
    pub fn answered(
        &self,
        protocol: &'static str,
        status: u16,
        reason: &'static str,
        after: Duration,
    ) {
        count(&self.requests, (protocol, status, reason), || {
            self.metrics.outbound_requests.get(&OutboundRequest {
                destination: self.name.clone(),
                protocol,
                status: status.into(),
                reason,
            })
        });
        let durations = self.durations.get_or_init(|| {
            let destination = self.name.clone();
            self.metrics
                .outbound_durations
                .get(&ByDestination { destination })
        });
        durations.observe(after);
    }

    /// An attempt ended; `success`, or the reason.
    pub fn attempted(&self, outcome: &'static str) {
        let get = || self.metrics.outbound_attempts.get(&self.attempt(outcome));
        count(&self.attempts, outcome, get);
    }

    /// A retry was made (`retried`), or not (`budget`, `body`, `exhausted`).
    pub fn retry(&self, outcome: &'static str) {
        let get = || self.metrics.retries.get(&self.attempt(outcome));
        count(&self.retries, outcome, get);
    }

    /// An endpoint was ejected.
    pub fn ejected(&self) {
        let destination = self.name.clone();
        self.metrics
            .ejections
            .get(&ByDestination { destination })
            .add(1);
    }

    fn attempt(&self, outcome: &'static str) -> Attempt {
        Attempt {
            destination: self.name.clone(),
            outcome,
        }
    }
}

/// Protocol, status, reason.
type Answer = (&'static str, u16, &'static str);

/// A few outcomes make up nearly all: looking through them is cheaper than hashing.
fn count<K: PartialEq>(known: &RefCell<Vec<(K, Counter)>>, key: K, get: impl FnOnce() -> Counter) {
    let mut known = known.borrow_mut();
    if let Some((_, counter)) = known.iter().find(|(k, _)| *k == key) {
        counter.add(1);
        return;
    }
    let counter = get();
    counter.add(1);
    known.push((key, counter));
}
