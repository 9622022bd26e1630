//! Circuit breakers and the retry budget of one backend on one worker: counters, and permits that give back on drop.
//!
//! The configured numbers hold for the proxy as a whole; each of its workers takes the same share of them, rounded up.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use weft_model::{CircuitBreaker, RetryBudget};

use crate::error::PickError;

/// What is in use of one backend.
#[derive(Debug)]
pub struct Limits {
    workers: u32,
    counts: Rc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: Cell<u32>,
    pending: Cell<u32>,
    requests: Cell<u32>,
    retries: Cell<u32>,
    released: Notify,
}

/// What a permit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Pending,
    Request,
    Retry,
}

/// One of them in use, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Rc<Counts>,
    kind: Kind,
}

impl Limits {
    /// Nothing in use; `workers` share the limits.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1) as u32,
            counts: Rc::default(),
        }
    }

    /// One more open connection.
    pub fn connection(&self, breaker: &CircuitBreaker) -> Result<Permit, PickError> {
        self.permit(Kind::Connection, breaker.max_connections)
            .ok_or(PickError::Connections)
    }

    /// One more request that waits for a connection.
    pub fn pending(&self, breaker: &CircuitBreaker) -> Result<Permit, PickError> {
        self.permit(Kind::Pending, breaker.max_pending_requests)
            .ok_or(PickError::Pending)
    }

    /// One more request in flight.
    pub fn request(&self, breaker: &CircuitBreaker) -> Result<Permit, PickError> {
        self.permit(Kind::Request, breaker.max_requests)
            .ok_or(PickError::Requests)
    }

    /// One more retry, if the budget has it: a share of the requests in flight, or the minimum.
    pub fn retry(&self, budget: &RetryBudget) -> Option<Permit> {
        let share = u64::from(self.counts.requests.get()) * u64::from(budget.percent) / 100;
        // The minimum is per proxy, the share is of this worker's own requests.
        let minimum = u64::from(budget.min_concurrency.div_ceil(self.workers));
        (u64::from(self.counts.retries.get()) < share.max(minimum)).then(|| self.take(Kind::Retry))
    }

    /// Waits until a connection is closed, or a request has ended and its connection is free.
    pub async fn released(&self) {
        self.counts.released.notified().await;
    }

    fn permit(&self, kind: Kind, max: u32) -> Option<Permit> {
        let share = max.div_ceil(self.workers);
        (self.counts.of(kind).get() < share).then(|| self.take(kind))
    }

    fn take(&self, kind: Kind) -> Permit {
        let count = self.counts.of(kind);
        count.set(count.get() + 1);
        Permit {
            counts: Rc::clone(&self.counts),
            kind,
        }
    }
}

impl Counts {
    fn of(&self, kind: Kind) -> &Cell<u32> {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Pending => &self.pending,
            Kind::Request => &self.requests,
            Kind::Retry => &self.retries,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let count = self.counts.of(self.kind);
        count.set(count.get() - 1);
        // A request that has ended gave its connection back before.
        if matches!(self.kind, Kind::Connection | Kind::Request) {
            self.counts.released.notify_one();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shared_by_workers() {
        let limits = Limits::new(2);
        let breaker = CircuitBreaker {
            max_connections: 3,
            max_pending_requests: 1,
            max_requests: 2,
        };
        let first = limits.connection(&breaker).unwrap();
        let _second = limits.connection(&breaker).unwrap();
        assert_eq!(
            limits.connection(&breaker).unwrap_err(),
            PickError::Connections
        );
        drop(first);
        assert!(limits.connection(&breaker).is_ok());
        let _pending = limits.pending(&breaker).unwrap();
        assert_eq!(limits.pending(&breaker).unwrap_err(), PickError::Pending);
        let _request = limits.request(&breaker).unwrap();
        assert_eq!(limits.request(&breaker).unwrap_err(), PickError::Requests);
    }

    #[test]
    fn retries_are_a_share_of_the_load() {
        let limits = Limits::new(1);
        let budget = RetryBudget {
            percent: 20,
            min_concurrency: 1,
        };
        let only = limits.retry(&budget).unwrap();
        assert!(limits.retry(&budget).is_none());
        drop(only);
        let breaker = CircuitBreaker::default();
        let _load: Vec<Permit> = (0..20).map(|_| limits.request(&breaker).unwrap()).collect();
        let retries: Vec<Permit> = std::iter::from_fn(|| limits.retry(&budget)).collect();
        assert_eq!(retries.len(), 4);
    }
}
