//! The server's side of mutual TLS: every client shows a certificate of our trust domain.
//!
//! [`crate::inbound`] calls [`Acceptor::accept`]. One configuration for all workers, so that a ticket issued by one is good
//! at the others; a change of credentials makes a new ticket key, so that no session outlives its credentials.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weft_model::SpiffeId;

use super::client::expired;
use super::verify::{OneTrustDomain, spiffe_id};
use super::{ACCEPTED, Agreed, Always, HandshakeFailure, Inner, provider};
use crate::identity::{Credentials, Identity};

/// Makes the configuration of each generation once, for all workers.
#[derive(Debug)]
pub struct Configs {
    identity: Identity,
    current: Mutex<Option<Generation>>,
}

/// What belongs to one generation of credentials.
#[derive(Debug, Clone)]
struct Generation {
    number: u64,
    config: Arc<ServerConfig>,
    verifier: Arc<OneTrustDomain>,
    own: Arc<SpiffeId>,
}

impl Configs {
    /// With the credentials that `identity` has at each accept.
    pub fn new(identity: Identity) -> Self {
        let current = Mutex::new(None);
        Self { identity, current }
    }

    fn current(&self) -> Result<Generation, HandshakeFailure> {
        let credentials = self.identity.current();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(made) if made.number == credentials.generation => Ok(made.clone()),
            _ => {
                let made = generation(&credentials)?;
                *current = Some(made.clone());
                Ok(made)
            }
        }
    }
}

fn generation(credentials: &Credentials) -> Result<Generation, HandshakeFailure> {
    let unusable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "the credentials cannot be used to accept connections");
        HandshakeFailure::Credentials
    };
    let trust_domain = credentials.id.trust_domain.clone();
    let verifier = OneTrustDomain::new(Arc::clone(&credentials.roots), trust_domain, provider());
    let verifier = Arc::new(verifier.map_err(|e| unusable(&e))?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable(&e))?
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_cert_resolver(Arc::new(Always(Arc::clone(&credentials.key))));
    config.alpn_protocols = ACCEPTED.iter().map(|p| p.to_vec()).collect();
    config.ticketer = Ticketer::new().map_err(|e| unusable(&e))?;
    // Each resumption uses one up and brings one.
    config.send_tls13_tickets = 1;
    Ok(Generation {
        number: credentials.generation,
        config: Arc::new(config),
        verifier,
        own: Arc::new(credentials.id.clone()),
    })
}

/// A client that proved who it is. Connections of one certificate share it.
#[derive(Debug)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// Ours, as the client saw it.
    pub own: Arc<SpiffeId>,
    chain: Vec<CertificateDer<'static>>,
}

/// Accepts connections on one worker.
#[derive(Debug)]
pub struct Acceptor {
    configs: Arc<Configs>,
    peers: RefCell<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    generation: u64,
    by_leaf: HashMap<Box<[u8]>, Rc<Peer>, foldhash::fast::RandomState>,
}

/// Certificates remembered, some 2 KiB each; beyond it the cache starts anew.
const MAX_PEERS: usize = 512;

/// A client's connection after the handshake.
#[derive(Debug)]
pub struct Accepted<I> {
    /// The stream inside.
    pub stream: TlsStream<I>,
    /// Who it is.
    pub peer: Rc<Peer>,
    /// What it speaks; `None`: the client did not say.
    pub inner: Option<Inner>,
    /// Version and group.
    pub agreed: Agreed,
}

impl Acceptor {
    /// On one worker, with the configurations of all.
    pub fn new(configs: Arc<Configs>) -> Self {
        let peers = RefCell::default();
        Self { configs, peers }
    }

    /// Handshakes with a client.
    pub async fn accept<I>(&self, io: I) -> Result<Accepted<I>, HandshakeFailure>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let generation = self.configs.current()?;
        let stream = TlsAcceptor::from(Arc::clone(&generation.config))
            .accept(io)
            .await;
        let stream = stream.map_err(|e: io::Error| HandshakeFailure::of(&e))?;
        let connection = stream.get_ref().1;
        let agreed = Agreed::of(connection);
        if agreed.kind == "resumed" && expired(connection) {
            return Err(HandshakeFailure::Expired);
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = self.peer(chain, &generation)?;
        let inner = connection.alpn_protocol().and_then(Inner::of);
        Ok(Accepted {
            stream,
            peer,
            inner,
            agreed,
        })
    }

    /// The peer of a chain that was verified, now or when its session began.
    fn peer(
        &self,
        chain: &[CertificateDer<'static>],
        of: &Generation,
    ) -> Result<Rc<Peer>, HandshakeFailure> {
        let leaf = chain.first().ok_or(HandshakeFailure::NoCertificate)?;
        let mut peers = self.peers.borrow_mut();
        if peers.generation != of.number || peers.by_leaf.len() >= MAX_PEERS {
            peers.by_leaf.clear();
            peers.generation = of.number;
        }
        if let Some(peer) = peers.by_leaf.get(leaf.as_ref()) {
            return Ok(Rc::clone(peer));
        }
        let peer = Rc::new(Peer {
            id: spiffe_id(leaf).map_err(|e| HandshakeFailure::from(&e))?,
            own: Arc::clone(&of.own),
            chain: chain.to_vec(),
        });
        peers.by_leaf.insert(leaf.as_ref().into(), Rc::clone(&peer));
        Ok(peer)
    }

    /// Do today's roots still vouch for a connection that began at `since`? Expiry does not count: the peer may have renewed
    /// its certificate without a new connection.
    pub fn still_trusted(&self, peer: &Peer, since: UnixTime) -> bool {
        let Ok(generation) = self.configs.current() else {
            return false;
        };
        let [leaf, intermediates @ ..] = peer.chain.as_slice() else {
            return false;
        };
        generation
            .verifier
            .verify_client_cert(leaf, intermediates, since)
            .is_ok()
    }
}
