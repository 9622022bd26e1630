//! One certificate from the authority: a new key, a request for it, and the answer checked before anybody sees it.
//!
//! Called by [`super::renewal`] and by the `fetch-identity` command. The API is Istio's `CreateCertificate`
//! ([`weft_xds::ca`]), so cert-manager's istio-csr can stand in for the control plane. The key is P-256, made for this request
//! alone; it leaves this process only as [`super::store`] explains.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::metadata::{Ascii, MetadataValue};
use weft_model::SpiffeId;
use weft_xds::ca::{IstioCertificateRequest, IstioCertificateServiceClient};

use super::channel::{self, Moment};
use super::credentials::{Credentials, CredentialsError, Unchecked};
use super::pem::{self, PemError};
use super::trust::Bundle;
use crate::config::{HostPort, ServerName};

/// From dialling to the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to ask, for what.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its address.
    pub address: HostPort,
    /// How it proves who it is.
    pub name: ServerName,
    /// The service-account token's file; read for each request, because the kubelet rotates it.
    pub token: std::path::PathBuf,
    /// The identity to ask for.
    pub id: SpiffeId,
    /// The lifetime to ask for.
    pub ttl: Duration,
}

/// A certificate as it was issued.
#[derive(Debug)]
pub struct Issued {
    /// Checked, ready for use.
    pub credentials: Credentials,
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivatePkcs8KeyDer<'static>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The token cannot be read.
    #[error("the service-account token {path} cannot be used: {reason}")]
    Token {
        /// Its file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// No key or request could be made.
    #[error("the certificate request cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The authority cannot be reached, or refuses.
    #[error("{authority} does not sign: {reason}")]
    Refused {
        /// Its address.
        authority: String,
        /// Its status, or the transport's error.
        reason: String,
    },
    /// No answer in time.
    #[error("{authority} did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// Its address.
        authority: String,
    },
    /// The answer cannot be read.
    #[error("the authority's answer cannot be used: {0}")]
    Answer(#[from] PemError),
    /// The answer is not what was asked for.
    #[error("the authority's certificate cannot be used: {0}")]
    Certificate(#[from] CredentialsError),
}

/// Asks once. `roots` judge both the authority's own certificate and the one that it issues.
pub async fn certificate(authority: &Authority, roots: Bundle) -> Result<Issued, RequestError> {
    let token = bearer(&authority.token)?;
    let key = KeyPair::generate()?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr: signing_request(&key, &authority.id)?,
        validity_duration: i64::try_from(authority.ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    request.metadata_mut().insert("authorization", token);

    // The token proves who asks; an own certificate, perhaps about to expire, adds nothing.
    let for_channel = Arc::clone(&roots.store);
    let moment = move || {
        Ok(Moment {
            roots: Arc::clone(&for_channel),
            key: None,
        })
    };
    let channel = channel::open(authority.address.clone(), authority.name.clone(), moment);
    let mut client = IstioCertificateServiceClient::new(channel);
    let address = || authority.address.to_string();
    let answer = tokio::time::timeout(TIMEOUT, client.create_certificate(request))
        .await
        .map_err(|_| RequestError::TimedOut {
            authority: address(),
        })?
        .map_err(|status| RequestError::Refused {
            authority: address(),
            reason: explain(&status),
        })?;
    let pem = answer.into_inner().cert_chain.join("\n");
    accept(
        pem.as_bytes(),
        key.serialize_der().into(),
        roots,
        &authority.id,
    )
}

/// Judges what an authority answered. Public for the fuzzer.
pub fn accept(
    pem: &[u8],
    key: PrivatePkcs8KeyDer<'static>,
    roots: Bundle,
    id: &SpiffeId,
) -> Result<Issued, RequestError> {
    let unchecked = Unchecked {
        chain: pem::certificates(pem)?,
        key: key.clone_key().into(),
        roots,
    };
    let credentials = unchecked.check(Some(id), SystemTime::now())?;
    Ok(Issued {
        chain: credentials.key.cert.clone(),
        credentials,
        key,
    })
}

fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, RequestError> {
    let wrong = |reason: String| RequestError::Token {
        path: path.display().to_string(),
        reason,
    };
    let token = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| wrong("it is not a token".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A PKCS #10 request whose only content is the SPIFFE ID as a URI name (X509-SVID, 2).
fn signing_request(key: &KeyPair, id: &SpiffeId) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    params.serialize_request(key)?.pem()
}

/// A status with what caused it: the transport's own message says no more than that there was an error.
fn explain(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
