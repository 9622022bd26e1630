//! Whom to trust: the bundle that the control plane distributes, and the one the pod was started with.
//!
//! Peers are judged by the distributed bundle alone once there is one (from the control plane, or kept on disk from the last
//! time): it is authoritative, so dropping a root from it takes effect. The control plane itself is judged by that bundle
//! and the bootstrap file together, because the kubelet keeps the file current even where the kept bundle is old.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::pem::{self, PemError};

/// Roots as the control plane distributes them.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// As certificates.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// As trust anchors.
    pub store: Arc<RootCertStore>,
}

impl Bundle {
    /// Checks that each certificate can be a root, and that there is one.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, PemError> {
        let store = Arc::new(pem::store(certificates.iter().cloned())?);
        let certificates = certificates.into();
        Ok(Self {
            certificates,
            store,
        })
    }

    /// From PEM.
    pub fn read(pem: &[u8]) -> Result<Self, PemError> {
        Self::new(pem::certificates(pem)?)
    }

    /// Both, without repetition.
    pub fn joined(&self, other: &Self) -> Self {
        let mut store = RootCertStore::clone(&self.store);
        let mut certificates = self.certificates.to_vec();
        for (certificate, root) in other.certificates.iter().zip(&other.store.roots) {
            if !certificates.contains(certificate) {
                certificates.push(certificate.clone());
                store.roots.push(root.clone());
            }
        }
        Self {
            certificates: certificates.into(),
            store: Arc::new(store),
        }
    }
}

/// Both bundles.
#[derive(Debug, Clone)]
pub struct Trust {
    bootstrap: PathBuf,
    distributed: Option<Bundle>,
}

/// The bootstrap bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the trust bundle {path} cannot be used: {reason}")]
pub struct BootstrapError {
    path: String,
    reason: String,
}

impl Trust {
    /// With the file's roots only, until [`Self::set`].
    pub fn new(bootstrap: PathBuf) -> Self {
        Self {
            bootstrap,
            distributed: None,
        }
    }

    /// Puts a distributed bundle in force. Says whether that changes anything.
    pub fn set(&mut self, bundle: Bundle) -> bool {
        let changed = self
            .distributed
            .as_ref()
            .is_none_or(|d| d.certificates != bundle.certificates);
        if changed {
            self.distributed = Some(bundle);
        }
        changed
    }

    /// Roots for peers.
    pub fn peers(&self) -> Result<Bundle, BootstrapError> {
        match &self.distributed {
            Some(bundle) => Ok(bundle.clone()),
            None => bootstrap(&self.bootstrap),
        }
    }

    /// Roots for the control plane.
    pub fn control_plane(&self) -> Result<Bundle, BootstrapError> {
        match (&self.distributed, bootstrap(&self.bootstrap)) {
            (Some(bundle), Ok(bootstrap)) => Ok(bundle.joined(&bootstrap)),
            (Some(bundle), Err(_)) => Ok(bundle.clone()),
            (None, bootstrap) => bootstrap,
        }
    }
}

/// Reads the bootstrap file, which the kubelet may replace at any time.
pub fn bootstrap(path: &Path) -> Result<Bundle, BootstrapError> {
    let wrong = |reason: String| BootstrapError {
        path: path.display().to_string(),
        reason,
    };
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    Bundle::read(&text).map_err(|e| wrong(e.to_string()))
}

/// What a connection to the control plane trusts: the peers' roots and those of the bootstrap file, if it can be read.
pub fn with_bootstrap(peers: &Arc<RootCertStore>, path: &Path) -> Arc<RootCertStore> {
    let Ok(bootstrap) = bootstrap(path) else {
        return Arc::clone(peers);
    };
    let mut all = RootCertStore::clone(peers);
    let more = bootstrap
        .store
        .roots
        .iter()
        .filter(|root| !peers.roots.contains(root));
    all.roots.extend(more.cloned());
    Arc::new(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::identity::testing::Authority;

    #[test]
    fn a_distributed_bundle_replaces_the_bootstrap_for_peers_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("root-cert.pem");
        let mut trust = Trust::new(file.clone());
        assert!(
            trust
                .peers()
                .unwrap_err()
                .to_string()
                .contains("root-cert.pem")
        );
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        std::fs::write(&file, old.roots_pem()).unwrap();
        assert_eq!(trust.peers().unwrap().store.roots, old.roots().roots);
        let bundle = Bundle::new(vec![new.root.clone()]).unwrap();
        assert!(trust.set(bundle.clone()) && !trust.set(bundle));
        assert_eq!(trust.peers().unwrap().store.roots, new.roots().roots);
        assert_eq!(trust.control_plane().unwrap().store.roots.len(), 2);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            trust.control_plane().unwrap().store.roots,
            new.roots().roots
        );
        assert_eq!(Bundle::new(vec![]).unwrap_err(), PemError::NoCertificate);
    }
}
