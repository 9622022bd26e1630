//! May this peer talk to this port? Asked when a connection arrives, and again whenever policy or roots change.

use std::rc::Rc;

use rustls::pki_types::UnixTime;
use weft_model::InboundPort;
use weft_model::decide::inbound::{self as decide, Peer as View};
use weft_model::decide::{NoTrace, Refusal};

use crate::error::Error;
use crate::port::Port;
use crate::tls::HandshakeFailure;
use crate::tls::server::Peer;
use crate::worker::Worker;

/// A connection's peer, before the policy of its port.
pub(super) struct Judge {
    pub(super) port: Rc<Port>,
    /// `None`: plaintext.
    pub(super) peer: Option<Rc<Peer>>,
    since: UnixTime,
    worker: Rc<Worker>,
}

impl Judge {
    pub(super) fn authenticated(port: &Rc<Port>, peer: Rc<Peer>, worker: &Rc<Worker>) -> Self {
        Self {
            port: Rc::clone(port),
            peer: Some(peer),
            since: UnixTime::now(),
            worker: Rc::clone(worker),
        }
    }

    pub(super) fn plaintext(port: &Rc<Port>, worker: &Rc<Worker>) -> Self {
        Self {
            port: Rc::clone(port),
            peer: None,
            since: UnixTime::now(),
            worker: Rc::clone(worker),
        }
    }

    /// By a certain policy.
    pub(super) fn admit(&self, policy: &InboundPort) -> Result<(), Error> {
        let view = self
            .peer
            .as_ref()
            .map_or(View::Plaintext, |p| View::Authenticated(&p.id));
        decide::connection(policy, view, &mut NoTrace).map_err(|refusal: Refusal| refusal.into())
    }

    /// By today's policy and roots. A policy that has become unknown changes nothing.
    fn again(&self) -> Result<(), Error> {
        if let Some(peer) = &self.peer
            && !self.worker.acceptor.still_trusted(peer, self.since)
        {
            return Err(HandshakeFailure::UnknownIssuer.into());
        }
        self.port
            .policy_now()
            .map_or(Ok(()), |policy| self.admit(&policy))
    }

    /// Resolves when the connection has to end. `on_drain`: also when the proxy drains.
    pub(super) async fn revoked(&self, on_drain: bool) {
        let refused = || match self.again() {
            Ok(()) => false,
            Err(error) => {
                let reason = super::reason(&error);
                self.worker.shared.metrics.refuse("inbound", reason);
                tracing::warn!(peer = %self.peer_label(), reason, "a living connection is ended: {error}");
                true
            }
        };
        self.worker.changed(on_drain, refused).await;
    }

    /// The peer's identity as a metric label.
    pub(super) fn peer_label(&self) -> String {
        self.peer
            .as_ref()
            .map_or_else(|| "plaintext".to_owned(), |p| p.id.to_string())
    }
}
