//! The client's side of mutual TLS: dials as this workload, and accepts only the identity that was asked for.
//!
//! [`crate::connect`] calls [`Dialer::connect`]. One configuration for each identity and inner protocol: a session can then
//! only be resumed with the identity that it was made with, and under the credentials of its time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_model::SpiffeId;

use super::verify::{OneIdentity, not_after};
use super::{Agreed, Always, HandshakeFailure, Inner, provider};
use crate::identity::{Credentials, Identity};

/// Sessions kept for each identity; eight tickets a server.
const SESSIONS: usize = 64;
/// Configurations kept; beyond it the cache starts anew, and the next connections do full handshakes.
const MAX_CONFIGS: usize = 1024;

/// Makes client connections with the credentials of the moment. One for each worker.
#[derive(Debug)]
pub struct Dialer {
    identity: Identity,
    cache: RefCell<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    generation: u64,
    configs: HashMap<(SpiffeId, Inner), Arc<ClientConfig>, foldhash::fast::RandomState>,
}

impl Dialer {
    /// With the credentials that `identity` has at each connect.
    pub fn new(identity: Identity) -> Self {
        let cache = RefCell::default();
        Self { identity, cache }
    }

    /// Handshakes over `io` with the server at `address`, which must prove to be `peer`.
    pub async fn connect<I>(
        &self,
        io: I,
        address: IpAddr,
        peer: &SpiffeId,
        inner: Inner,
    ) -> Result<(TlsStream<I>, Agreed), HandshakeFailure>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let credentials = self.identity.current();
        let config = self.config(&credentials, peer, inner)?;
        // An address is never sent as SNI; it only names the session to resume.
        let name = ServerName::IpAddress(address.into());
        let stream = TlsConnector::from(config).connect(name, io).await;
        let stream = stream.map_err(|e| HandshakeFailure::of(&e))?;
        let connection = stream.get_ref().1;
        if connection.alpn_protocol() != Some(inner.alpn()) {
            return Err(HandshakeFailure::Protocol);
        }
        let agreed = Agreed::of(connection);
        if agreed.kind == "resumed" && expired(connection) {
            return Err(HandshakeFailure::Expired);
        }
        Ok((stream, agreed))
    }

    fn config(
        &self,
        credentials: &Credentials,
        peer: &SpiffeId,
        inner: Inner,
    ) -> Result<Arc<ClientConfig>, HandshakeFailure> {
        let mut cache = self.cache.borrow_mut();
        if cache.generation != credentials.generation || cache.configs.len() >= MAX_CONFIGS {
            cache.configs.clear();
            cache.generation = credentials.generation;
        }
        let key = (peer.clone(), inner);
        if let Some(config) = cache.configs.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(credentials, peer, inner)?);
        cache.configs.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

fn config(
    credentials: &Credentials,
    peer: &SpiffeId,
    inner: Inner,
) -> Result<ClientConfig, HandshakeFailure> {
    let verifier = OneIdentity {
        roots: Arc::clone(&credentials.roots),
        expected: peer.clone(),
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| HandshakeFailure::Credentials)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Always(Arc::clone(&credentials.key))));
    config.alpn_protocols = vec![inner.alpn().to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.enable_sni = false;
    Ok(config)
}

/// Has the certificate expired since the session was made? A resumed handshake does not look.
pub(super) fn expired(connection: &rustls::CommonState) -> bool {
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let now = rustls::pki_types::UnixTime::now().as_secs();
    leaf.and_then(not_after).is_none_or(|end| end < now)
}
