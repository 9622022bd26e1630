//! Is this certificate good, and whose is it? Pure functions over certificates; TLS verifiers call them.
//!
//! A chain is judged as an X.509-SVID (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>): it leads to one of
//! the roots, is valid now and for its use, and its leaf has exactly one URI name, which is the identity.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use webpki::{EndEntityCert, KeyUsage};
use weft_model::{NameError, SpiffeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::crypto::algorithms;

/// Certificates in a chain, leaf included; more is an attempt to keep us busy.
const LONGEST_CHAIN: usize = 10;

/// What a certificate is used for in a handshake (RFC 5280, 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Its owner dials.
    Client,
    /// Its owner is dialled.
    Server,
}

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// Its time has passed.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not come.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// It does not lead to any root that is trusted here.
    #[error("the certificate was not issued by a trusted root")]
    UnknownIssuer,
    /// It leads to a root, but breaks a rule on the way.
    #[error("the certificate is not acceptable: {0}")]
    Invalid(String),
    /// There is not exactly one URI name in it.
    #[error("the certificate has {0} URI names; an X.509-SVID has exactly one")]
    UriNames(usize),
    /// Its URI name is not an identity of the form the mesh uses.
    #[error("the certificate's identity is not usable: {0}")]
    Identity(#[from] NameError),
    /// It is somebody else's.
    #[error("the certificate is for {found}, expected {expected}")]
    WrongIdentity {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}

impl From<VerifyError> for rustls::Error {
    /// For TLS verifiers: picks the alert that the peer gets (RFC 8446, 6.2).
    fn from(error: VerifyError) -> Self {
        Self::InvalidCertificate(match error {
            VerifyError::Malformed(_) => CertificateError::BadEncoding,
            VerifyError::Expired => CertificateError::Expired,
            VerifyError::NotYetValid => CertificateError::NotValidYet,
            VerifyError::UnknownIssuer => CertificateError::UnknownIssuer,
            VerifyError::WrongIdentity { .. }
            | VerifyError::UriNames(_)
            | VerifyError::Identity(_) => {
                CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)))
            }
            VerifyError::Invalid(_) => {
                CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)))
            }
        })
    }
}

/// Verifies a peer's chain to the roots and returns whose it is. The caller decides whether that is welcome.
pub fn peer(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    usage: Usage,
) -> Result<SpiffeId, VerifyError> {
    chain(leaf, intermediates, roots, now, usage)?;
    spiffe_id(leaf)
}

/// Verifies a server's chain to the roots and that it is valid for a DNS name or address.
pub fn server(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    name: &ServerName<'_>,
) -> Result<(), VerifyError> {
    chain(leaf, intermediates, roots, now, Usage::Server)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|e| VerifyError::Malformed(e.to_string()))?;
    leaf.verify_is_valid_for_subject_name(name)
        .map_err(|_| VerifyError::WrongIdentity {
            found: leaf.valid_dns_names().collect::<Vec<_>>().join(", "),
            expected: name.to_str().into_owned(),
        })
}

/// Verifies that a chain leads to one of the roots and is valid at that time for that use. Says nothing of whose it is.
pub fn chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    usage: Usage,
) -> Result<(), VerifyError> {
    if intermediates.len() >= LONGEST_CHAIN {
        let reason = format!("its chain is longer than {LONGEST_CHAIN}");
        return Err(VerifyError::Invalid(reason));
    }
    let leaf = EndEntityCert::try_from(leaf).map_err(|e| VerifyError::Malformed(e.to_string()))?;
    let usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    leaf.verify_for_usage(
        algorithms().all,
        &roots.roots,
        intermediates,
        now,
        usage,
        None,
        None,
    )
    .map(|_| ())
    .map_err(from_webpki)
}

/// The identity that a certificate claims. Proves nothing by itself: verify the chain too.
pub fn spiffe_id(leaf: &CertificateDer<'_>) -> Result<SpiffeId, VerifyError> {
    let (_, certificate) = parse(leaf)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| VerifyError::Malformed(e.to_string()))?;
    let mut uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri.parse()?),
        (first, more) => Err(VerifyError::UriNames(usize::from(first.is_some()) + more)),
    }
}

/// From when to when a certificate is valid, both inclusive, to the second.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), VerifyError> {
    let (_, parsed) = parse(certificate)?;
    let time = |t: x509_parser::time::ASN1Time| {
        // Before 1970 only in certificates made to confuse.
        UNIX_EPOCH + Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or_default())
    };
    let validity = parsed.validity();
    Ok((time(validity.not_before), time(validity.not_after)))
}

fn parse<'c>(
    certificate: &'c CertificateDer<'_>,
) -> Result<(&'c [u8], X509Certificate<'c>), VerifyError> {
    X509Certificate::from_der(certificate).map_err(|e| VerifyError::Malformed(e.to_string()))
}

fn from_webpki(error: webpki::Error) -> VerifyError {
    match error {
        webpki::Error::CertExpired { .. } => VerifyError::Expired,
        webpki::Error::CertNotValidYet { .. } => VerifyError::NotYetValid,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            VerifyError::UnknownIssuer
        }
        webpki::Error::BadDer | webpki::Error::BadDerTime => {
            VerifyError::Malformed(error.to_string())
        }
        other => VerifyError::Invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
