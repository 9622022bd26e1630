//! Who this workload is: its key, its certificate and the roots it trusts, always current.
//!
//! [`Identity`] is what the rest of the proxy sees: a handle from which a handshake takes the credentials of the moment.
//! Open connections keep what they began with.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use weft_model::SpiffeId;

/// One certificate with its key, and the roots to judge peers by. Immutable; a renewal makes a new one.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The identity in the certificate.
    pub id: SpiffeId,
    /// The chain, leaf first, without the root, and its key.
    pub key: Arc<CertifiedKey>,
    /// Whom to trust.
    pub roots: Arc<RootCertStore>,
    /// The leaf's validity begins.
    pub not_before: SystemTime,
    /// The leaf's validity ends.
    pub not_after: SystemTime,
    /// Grows by one with each change of certificate or roots; derived TLS configurations are cached by it.
    pub generation: u64,
}

/// A handle to the current credentials; cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    current: watch::Receiver<Arc<Credentials>>,
    /// Held so that waiting for a change never ends for want of a sender.
    _sender: Arc<watch::Sender<Arc<Credentials>>>,
}

impl Identity {
    /// Credentials that never change.
    pub fn fixed(credentials: Credentials) -> Self {
        Self::new(credentials).1
    }

    /// Credentials that whoever holds the sender may replace.
    pub fn new(credentials: Credentials) -> (Arc<watch::Sender<Arc<Credentials>>>, Self) {
        let (sender, current) = watch::channel(Arc::new(credentials));
        let sender = Arc::new(sender);
        let _sender = Arc::clone(&sender);
        (sender, Self { current, _sender })
    }

    /// The credentials for the next handshake. Takes a read lock for the length of a reference count.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// To be told of each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.clone()
    }
}
