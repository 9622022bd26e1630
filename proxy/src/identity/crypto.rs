//! The one cryptographic provider of the process: rustls over aws-lc-rs, TLS 1.3, X25519MLKEM768 first.
//!
//! Used by every TLS configuration, of the mesh and towards the control plane.

use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};

/// Shared by every TLS configuration.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            // AES-128 first: as strong as the P-256 certificates, and the cheapest with AES-NI.
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            // The classical groups are for other people's clients and servers.
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
            ],
            ..default_provider()
        })
    });
    Arc::clone(provider)
}

/// The signature algorithms that certificates and handshakes may use.
pub fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// SHA-256, for fingerprints.
#[allow(
    irrefutable_let_patterns,
    reason = "another crate of the build may switch TLS 1.2 on, and then there are two kinds"
)]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    let rustls::SupportedCipherSuite::Tls13(suite) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        return Vec::new();
    };
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}
