//! The control plane's own certificate and TLS settings, renewed and swapped while it runs.
//!
//! The certificate comes from the mesh's own authority, for `spiffe://<td>/ns/weft-system/sa/weft-control-plane` and
//! for DNS names, because Envoy and gRPC verify servers by name. Its key never leaves the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tracing::{info, warn};
use weft_model::SpiffeId;

use crate::ca::{Authority, IssueError};
use crate::clock::Rfc3339;
use crate::metrics::Metrics;
use crate::problems::{Facility, Problems};

/// After a failed renewal.
const RETRY: Duration = Duration::from_secs(30);

/// What the certificate says.
#[derive(Debug, Clone)]
pub struct Names {
    /// The control plane's own identity.
    pub identity: SpiffeId,
    /// The DNS names under which it is called.
    pub dns: Vec<String>,
    /// The lifetime of its certificate; renewed after two thirds.
    pub lifetime: Duration,
}

/// No TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority does not sign.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// rustls does not take the certificate, the key or the roots.
    #[error("the serving certificate cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// No root is usable.
    #[error("the trust bundle cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// aws-lc-rs with the hybrid post-quantum group first.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
        ],
        ..default_provider()
    }
}

/// Makes the first configuration and keeps it fresh: before the certificate ends, and when the authority changes.
pub fn start(
    authority: watch::Receiver<Arc<Authority>>,
    names: Names,
    metrics: Metrics,
    problems: Problems,
) -> Result<watch::Receiver<Arc<ServerConfig>>, TlsError> {
    let mut authority = authority;
    let first = authority.borrow_and_update().clone();
    let (config, not_after) = configure(&first, &names, &metrics)?;
    let (sender, receiver) = watch::channel(Arc::new(config));
    let mut renew_in = two_thirds(not_after);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(renew_in) => {}
                changed = authority.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            let current = authority.borrow_and_update().clone();
            renew_in = match configure(&current, &names, &metrics) {
                Ok((config, not_after)) => {
                    problems.clear(Facility::ServingCertificate);
                    info!(not_after = %Rfc3339(not_after), "own certificate renewed");
                    sender.send_replace(Arc::new(config));
                    two_thirds(not_after)
                }
                Err(e) => {
                    warn!(error = %e, "own certificate not renewed; the last one stays in use");
                    problems.set(Facility::ServingCertificate, e.to_string());
                    RETRY
                }
            };
        }
    });
    Ok(receiver)
}

fn two_thirds(not_after: SystemTime) -> Duration {
    let left = not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    (left * 2 / 3).max(Duration::from_secs(1))
}

fn configure(
    authority: &Authority,
    names: &Names,
    metrics: &Metrics,
) -> Result<(ServerConfig, SystemTime), TlsError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(IssueError::from)?;
    let issued = authority.issue(
        &key,
        &names.identity,
        &names.dns,
        names.lifetime,
        SystemTime::now(),
    )?;
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone())?;
    }
    let provider = Arc::new(provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated() // a workload's first call has only its token; `dispatch` asks the others for more
        .build()?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(issued.chain, key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a client certificate over its end and over a change of roots.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    metrics.serving_certificate(issued.not_after);
    metrics.authority(authority.not_after(), authority.roots().len());
    Ok((config, issued.not_after))
}
