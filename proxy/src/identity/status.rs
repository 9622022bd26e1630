//! How the identity is doing, for metrics, readiness and the admin port. Written by [`super::renewal`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Counts and the last error.
#[derive(Debug, Default)]
pub struct Status {
    succeeded: AtomicU64,
    failed: AtomicU64,
    latest: Mutex<Latest>,
}

/// What happened last.
#[derive(Debug, Clone, Default)]
pub struct Latest {
    /// Why the last request failed; `None` after a success.
    pub error: Option<String>,
    /// When the next one is due.
    pub due: Option<SystemTime>,
}

impl Status {
    /// Certificates obtained since the start.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Requests that failed since the start.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The last error and the next request.
    pub fn latest(&self) -> Latest {
        self.lock().clone()
    }

    pub(super) fn success(&self, due: SystemTime) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Latest {
            error: None,
            due: Some(due),
        };
    }

    pub(super) fn failure(&self, error: String, due: SystemTime) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Latest {
            error: Some(error),
            due: Some(due),
        };
    }

    pub(super) fn scheduled(&self, due: SystemTime) {
        self.lock().due = Some(due);
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
