//! What the proxy holds of a resource: its newest value, and the wish to keep it.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

/// What is known of a resource.
#[derive(Debug)]
pub enum Known<T> {
    /// The server has not answered yet.
    Pending,
    /// The server says that there is no such thing.
    Absent,
    /// The last good value. Restored from disk, it stays until the server says otherwise.
    Present(Arc<T>),
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Absent => Self::Absent,
            Self::Present(value) => Self::Present(Arc::clone(value)),
        }
    }
}

impl<T> Known<T> {
    /// Is an answer still awaited?
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }

    /// The value, if there is one.
    pub fn present(self) -> Option<Arc<T>> {
        match self {
            Self::Present(value) => Some(value),
            Self::Pending | Self::Absent => None,
        }
    }
}

/// A subscribed resource. Dropping the last one starts the idle time, after which the client unsubscribes.
#[derive(Debug)]
pub struct Watch<T> {
    receiver: watch::Receiver<Known<T>>,
    /// The claim on the resource, released when it is dropped. `None`: `detached` keeps the value.
    lease: Option<Arc<dyn Any + Send + Sync>>,
    detached: Option<Arc<watch::Sender<Known<T>>>>,
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self {
            receiver: self.receiver.clone(),
            lease: self.lease.clone(),
            detached: self.detached.clone(),
        }
    }
}

impl<T> Watch<T> {
    pub(super) fn new(receiver: watch::Receiver<Known<T>>, lease: impl Any + Send + Sync) -> Self {
        Self {
            receiver,
            lease: Some(Arc::new(lease)),
            detached: None,
        }
    }

    /// A watch of something that is never subscribed; its value does not change.
    pub(super) fn detached(known: Known<T>) -> Self {
        let sender = watch::Sender::new(known);
        Self {
            receiver: sender.subscribe(),
            lease: None,
            detached: Some(Arc::new(sender)),
        }
    }

    /// What is known now. Cheap: a read lock and a reference count.
    pub fn get(&self) -> Known<T> {
        self.receiver.borrow().clone()
    }

    /// Waits for an answer, until the deadline; then still [`Known::Pending`].
    pub async fn ready(&self, deadline: Instant) -> Known<T> {
        let mut receiver = self.receiver.clone();
        let answered =
            tokio::time::timeout_at(deadline, receiver.wait_for(|known| !known.is_pending())).await;
        match answered {
            Ok(Ok(known)) => known.clone(),
            Ok(Err(_)) | Err(_) => self.get(),
        }
    }

    /// Waits until the value differs from the one that this watch has reported last. Pends for ever once the client
    /// is gone.
    pub async fn changed(&mut self) -> Known<T> {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.receiver.borrow_and_update().clone()
    }
}
