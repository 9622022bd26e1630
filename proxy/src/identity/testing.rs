//! A certificate authority for tests of this crate: roots, intermediates and leaves, good and bad, made in memory.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use weft_model::SpiffeId;

use super::Credentials;
use super::credentials::Unchecked;
use super::trust::Bundle;

/// A self-signed root that signs leaves itself.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The root's certificate.
    pub(crate) root: CertificateDer<'static>,
}

/// When a leaf is valid, in seconds from now.
pub(crate) type Span = std::ops::Range<i64>;

/// A day, begun a minute ago.
pub(crate) const DAY: Span = -60..86400;

fn at(seconds: i64) -> time::OffsetDateTime {
    let now = SystemTime::now();
    let offset = Duration::from_secs(seconds.unsigned_abs());
    time::OffsetDateTime::from(if seconds < 0 {
        now - offset
    } else {
        now + offset
    })
}

impl Authority {
    /// A new root, different from every other.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The root alone.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.root.clone()).unwrap();
        store
    }

    /// The root alone, as it is distributed.
    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(vec![self.root.clone()]).unwrap()
    }

    /// The root as a PEM bundle.
    pub(crate) fn roots_pem(&self) -> String {
        super::pem::encode(super::pem::CERTIFICATE, &self.root)
    }

    /// What a leaf is like that carries these names.
    pub(crate) fn params(names: &[SanType], valid: Span) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        (params.not_before, params.not_after) = (at(valid.start), at(valid.end));
        params
    }

    /// A leaf and its key.
    pub(crate) fn leaf(
        &self,
        params: &CertificateParams,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (leaf.der().clone(), key.into())
    }

    /// A leaf for somebody else's key, as CSRs ask for it.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl rcgen::PublicKeyData,
    ) -> CertificateDer<'static> {
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// Ready credentials for an identity.
    pub(crate) fn issue(&self, id: &str, valid: Span) -> Credentials {
        let (leaf, key) = self.leaf(&Self::params(&[uri(id)], valid));
        let unchecked = Unchecked {
            chain: vec![leaf],
            key,
            roots: self.bundle(),
        };
        unchecked.trusted(id.parse::<SpiffeId>().unwrap()).unwrap()
    }
}

/// A URI name.
pub(crate) fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

impl super::Settings {
    /// All files in one directory; nothing listens at the authority's address.
    pub(crate) fn for_tests(directory: &std::path::Path, id: &str) -> Self {
        let address = crate::config::HostPort {
            host: "127.0.0.1".into(),
            port: 1,
        };
        Self {
            authority: super::request::Authority {
                address,
                name: crate::config::ServerName::Spiffe(CONTROL_PLANE.parse().unwrap()),
                token: directory.join("token"),
                id: id.parse().unwrap(),
                ttl: Duration::from_secs(86400),
            },
            roots: directory.join("bootstrap.pem"),
            state_dir: Some(directory.join("state")),
            renew_after: None,
            files: None,
        }
    }
}

/// Whom the tests expect at the other end.
pub(crate) const CONTROL_PLANE: &str =
    "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane";
