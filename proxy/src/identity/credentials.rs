//! From a chain, a key and roots to [`Credentials`] that are safe to use: nothing unchecked reaches a handshake.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use weft_model::SpiffeId;

use super::crypto::provider;
use super::trust::Bundle;
use super::verify::{self, Usage, VerifyError};

/// One certificate with its key, and the roots to judge peers by. Immutable; a renewal makes a new one.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The identity in the certificate.
    pub id: SpiffeId,
    /// The chain, leaf first, without the root, and its key.
    pub key: Arc<CertifiedKey>,
    /// Whom to trust.
    pub roots: Arc<RootCertStore>,
    /// The same, whole, for people to look at.
    pub root_certificates: Arc<[CertificateDer<'static>]>,
    /// The leaf's validity begins.
    pub not_before: SystemTime,
    /// The leaf's validity ends.
    pub not_after: SystemTime,
    /// Grows by one with each change of certificate or roots; derived TLS configurations are cached by it.
    pub generation: u64,
}

/// Why a chain and a key are not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No certificate at all.
    #[error("the chain is empty")]
    Empty,
    /// The chain does not stand the checks that every peer will make.
    #[error(transparent)]
    Chain(#[from] VerifyError),
    /// The key is of a kind that TLS cannot use.
    #[error("the private key is not usable: {0}")]
    Key(String),
    /// The certificate is for another key.
    #[error("the certificate does not belong to the private key")]
    KeyMismatch,
}

/// A chain and key as they came.
pub struct Unchecked {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// What the chain has to lead to.
    pub roots: Bundle,
}

impl Unchecked {
    /// Checks what every peer will check: that the chain leads to the roots, is valid now as a client's and a server's, that
    /// it is for `expected` (`None`: for any one identity), and that the key is the leaf's.
    pub fn check(
        self,
        expected: Option<&SpiffeId>,
        now: SystemTime,
    ) -> Result<Credentials, CredentialsError> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(CredentialsError::Empty)?;
        let unix = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = UnixTime::since_unix_epoch(unix);
        let id = verify::peer(leaf, intermediates, &self.roots.store, time, Usage::Server)?;
        verify::chain(leaf, intermediates, &self.roots.store, time, Usage::Client)?;
        if let Some(expected) = expected
            && *expected != id
        {
            return Err(VerifyError::WrongIdentity {
                found: id.to_string(),
                expected: expected.to_string(),
            }
            .into());
        }
        self.trusted(id)
    }

    /// Takes the chain's word for whose it is and when, but not for its key. Apart from tests, for [`Self::check`] only.
    pub(super) fn trusted(self, id: SpiffeId) -> Result<Credentials, CredentialsError> {
        let leaf = self.chain.first().ok_or(CredentialsError::Empty)?;
        let (not_before, not_after) = verify::validity(leaf)?;
        let signer = provider()
            .key_provider
            .load_private_key(self.key)
            .map_err(|e| CredentialsError::Key(e.to_string()))?;
        let key = CertifiedKey::new(without_roots(self.chain), signer);
        key.keys_match()
            .map_err(|_| CredentialsError::KeyMismatch)?;
        Ok(Credentials {
            id,
            key: Arc::new(key),
            roots: self.roots.store,
            root_certificates: self.roots.certificates,
            not_before,
            not_after,
            generation: 0,
        })
    }
}

/// Peers have the roots, so sending them is a waste (RFC 8446, 4.4.2 allows leaving them out).
fn without_roots(chain: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let self_issued = |certificate: &CertificateDer<'_>| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        X509Certificate::from_der(certificate).is_ok_and(|(_, c)| c.subject() == c.issuer())
    };
    let kept = chain.into_iter().enumerate();
    kept.filter(|(n, certificate)| *n == 0 || !self_issued(certificate))
        .map(|(_, certificate)| certificate)
        .collect()
}

impl Credentials {
    /// Would these roots accept our own certificate now?
    pub fn stands(&self, roots: &RootCertStore, now: SystemTime) -> Result<(), VerifyError> {
        let Some((leaf, intermediates)) = self.key.cert.split_first() else {
            return Err(VerifyError::Malformed("it is empty".into()));
        };
        let unix = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        verify::chain(
            leaf,
            intermediates,
            roots,
            UnixTime::since_unix_epoch(unix),
            Usage::Server,
        )
    }

    /// The same certificate with other roots.
    pub fn with_roots(&self, roots: Bundle) -> Self {
        Self {
            roots: roots.store,
            root_certificates: roots.certificates,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
