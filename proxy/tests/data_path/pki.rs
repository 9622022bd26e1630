//! Throw-away certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use weft_model::SpiffeId;
use weft_proxy::identity::Credentials;

/// A root.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub der: rustls::pki_types::CertificateDer<'static>,
    pub pem: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Credentials of this root that trust `roots`, valid for the next `lifetime`, from a minute ago.
    pub(crate) fn credentials(
        &self,
        id: &SpiffeId,
        roots: &[&Ca],
        lifetime: Duration,
        generation: u64,
    ) -> Credentials {
        let not_before = SystemTime::now() - Duration::from_secs(60);
        self.issue(
            id,
            roots,
            not_before,
            SystemTime::now() + lifetime,
            generation,
        )
    }

    /// Credentials that have expired a while ago.
    pub(crate) fn expired(&self, id: &SpiffeId, roots: &[&Ca]) -> Credentials {
        let ago = |s| SystemTime::now() - Duration::from_secs(s);
        self.issue(id, roots, ago(600), ago(300), 1)
    }

    fn issue(
        &self,
        id: &SpiffeId,
        roots: &[&Ca],
        not_before: SystemTime,
        not_after: SystemTime,
        generation: u64,
    ) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private).unwrap();
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.der.clone()).unwrap();
        }
        Credentials {
            id: id.clone(),
            key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)),
            roots: Arc::new(store),
            root_certificates: Arc::new([]),
            not_before,
            not_after,
            generation,
        }
    }
}
