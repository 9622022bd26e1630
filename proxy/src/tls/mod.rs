//! Mutual TLS between sidecars: TLS 1.3 only, peers known by their SPIFFE ID.
//!
//! [`client`] dials for [`crate::connect`], [`server`] accepts for [`crate::inbound`], [`verify`] judges certificates,
//! [`failure`] says why a handshake came to nothing. Configurations are made from [`crate::identity::Credentials`] and
//! cached by their generation: a renewal changes what new connections use, never an open one.

pub mod client;
pub mod failure;
pub mod server;
pub mod verify;

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::sign::CertifiedKey;

pub use failure::HandshakeFailure;

/// What is spoken inside a connection between sidecars, as its ALPN says. The client offers exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inner {
    /// HTTP/1.1, `weft/h1`.
    Http1,
    /// HTTP/2, `weft/h2`.
    Http2,
    /// Opaque bytes, `weft/tcp`.
    Tcp,
}

impl Inner {
    /// The ALPN protocol name.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"weft/h1",
            Self::Http2 => b"weft/h2",
            Self::Tcp => b"weft/tcp",
        }
    }

    /// What a negotiated name stands for. `h2` and `http/1.1` are what other meshes' clients offer.
    pub fn of(alpn: &[u8]) -> Option<Self> {
        match alpn {
            b"weft/h1" | b"http/1.1" => Some(Self::Http1),
            b"weft/h2" | b"h2" => Some(Self::Http2),
            b"weft/tcp" => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// The names that a server accepts, in its order of preference.
const ACCEPTED: [&[u8]; 5] = [b"weft/h1", b"weft/h2", b"weft/tcp", b"h2", b"http/1.1"];

/// TLS 1.3 suites, the cheapest on machines with AES instructions first, and the post-quantum hybrid group first.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let groups: [&'static dyn SupportedKxGroup; 3] = [
        kx_group::X25519MLKEM768,
        kx_group::X25519,
        kx_group::SECP256R1,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    })
});

/// The cryptography of every connection of the mesh.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// What a finished handshake agreed on, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agreed {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The key exchange group, e.g. `X25519MLKEM768`.
    pub group: &'static str,
    /// `full` or `resumed`.
    pub kind: &'static str,
}

impl Agreed {
    fn of(connection: &rustls::CommonState) -> Self {
        let group = connection
            .negotiated_key_exchange_group()
            .map(SupportedKxGroup::name);
        Self {
            version: connection
                .protocol_version()
                .and_then(|v| v.as_str())
                .unwrap_or("unknown"),
            group: group.and_then(|g| g.as_str()).unwrap_or("unknown"),
            kind: match connection.handshake_kind() {
                Some(rustls::HandshakeKind::Resumed) => "resumed",
                _ => "full",
            },
        }
    }
}

/// Presents the one certificate there is, as client and as server.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
