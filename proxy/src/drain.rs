//! Stopping without breaking anything: the signal to stop, the connections that are still open, and the deadline.
//!
//! `main` calls [`Drain::start`] on SIGTERM and waits for [`Drain::finished`]; the admin port may start it too. Listeners
//! and connections hold a [`Guard`] while they have work, finish early when [`Drain::watch`] resolves (GOAWAY,
//! `Connection: close`), and give up when [`Drain::expired`] does.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// A cheap handle that every thread may hold.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None` while running, then the deadline.
    deadline: watch::Sender<Option<Instant>>,
    open: AtomicUsize,
    empty: Notify,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every guard is gone.
    Complete,
    /// The deadline came first; this many guards were still held.
    Forced(usize),
}

/// Something is still being served. Dropping it is the only way to be done.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Running, with nothing open.
    pub fn new() -> Self {
        let (deadline, _) = watch::channel(None);
        let shared = Shared {
            deadline,
            open: AtomicUsize::new(0),
            empty: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Counts one more connection (or request) as open until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        Guard {
            shared: Arc::clone(&self.shared),
        }
    }

    /// How many guards are held.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Begins to drain. A second call can only bring the deadline nearer.
    pub fn start(&self, deadline: Instant) {
        self.shared.deadline.send_if_modified(|current| {
            let nearer = current.is_none_or(|c| deadline < c);
            if nearer {
                *current = Some(deadline);
            }
            nearer
        });
    }

    /// Has [`Drain::start`] been called?
    pub fn is_draining(&self) -> bool {
        self.shared.deadline.borrow().is_some()
    }

    /// Resolves, with the deadline, as soon as the drain begins. Owns what it needs, so it can outlive the handle.
    pub fn watch(&self) -> impl Future<Output = Instant> + Send + 'static {
        let mut deadline = self.shared.deadline.subscribe();
        // Keeps the sender alive: the wait can then not end for want of one.
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                if let Some(at) = *deadline.borrow_and_update() {
                    drop(shared);
                    return at;
                }
                if deadline.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Resolves when the drain has begun and its deadline has passed: whatever is still open is cut off.
    pub fn expired(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut deadline = self.shared.deadline.subscribe();
        let began = self.watch();
        async move {
            let mut at = began.await;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    // The sender lives as long as any handle; without one, the deadline stays as it is.
                    Ok(()) = deadline.changed() => at = deadline.borrow_and_update().unwrap_or(at),
                }
            }
        }
    }

    /// Resolves when the drain has begun and nothing is open any more, or its deadline has passed.
    pub async fn finished(&self) -> Outcome {
        self.watch().await;
        tokio::select! {
            biased;
            () = self.emptied() => Outcome::Complete,
            () = self.expired() => Outcome::Forced(self.open()),
        }
    }

    async fn emptied(&self) {
        loop {
            let notified = self.shared.empty.notified();
            if self.shared.open.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_last_guard() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        assert!(!drain.is_draining());
        let begun = Instant::now();
        drain.start(begun + Duration::from_secs(30));
        assert!(drain.is_draining());
        assert_eq!(drain.watch().await, begun + Duration::from_secs(30));
        let finished = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished().await }
        });
        drop(first);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!finished.is_finished());
        drop(second);
        assert_eq!(finished.await.ok(), Some(Outcome::Complete));
        assert!(begun.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_it_and_can_come_nearer() {
        let drain = Drain::new();
        let _held = drain.guard();
        let begun = Instant::now();
        drain.start(begun + Duration::from_secs(30));
        let expired = tokio::spawn(drain.expired());
        tokio::time::sleep(Duration::from_secs(1)).await;
        drain.start(begun + Duration::from_secs(60));
        drain.start(begun + Duration::from_secs(3));
        assert_eq!(drain.finished().await, Outcome::Forced(1));
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        assert!(expired.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_ends_before_it_begins() {
        let drain = Drain::new();
        let wait = tokio::time::timeout(Duration::from_secs(3600), drain.finished());
        assert!(wait.await.is_err());
    }
}
