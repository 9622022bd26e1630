//! From a signing certificate up to its root: which certificates lie on the way, and may it sign leaves at all?
//!
//! Pure; [`super::load`] reads the files and gives the errors their names. The rules are those of RFC 5280, section
//! 6.1, as far as peers will apply them to our leaves: names, signatures, validity, CA bit, key usage, path length.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

use crate::clock::{Rfc3339, from_unix_seconds};

/// More certificates than this between a leaf and its root are refused, as peers would.
pub const MAX_DEPTH: usize = 6;

/// The way from the signing certificate to its root.
#[derive(Debug)]
pub struct Path {
    /// From the signing certificate upwards, without the root.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// Signs itself.
    pub root: CertificateDer<'static>,
    /// The earliest end among all of them.
    pub not_after: SystemTime,
}

/// Why a certificate cannot be the mesh's authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// X.509 that does not parse.
    #[error("a certificate is malformed: {0}")]
    Malformed(String),
    /// A leaf was given.
    #[error(
        "{subject} is not a CA certificate: basicConstraints must say CA:TRUE and keyUsage must allow keyCertSign"
    )]
    NotCa {
        /// Its subject.
        subject: String,
    },
    /// Past its end.
    #[error("{subject} expired at {}", Rfc3339(*.at))]
    Expired {
        /// Its subject.
        subject: String,
        /// When.
        at: SystemTime,
    },
    /// Before its beginning.
    #[error("{subject} is not valid before {}; is the clock right?", Rfc3339(*.at))]
    NotYetValid {
        /// Its subject.
        subject: String,
        /// When.
        at: SystemTime,
    },
    /// Nobody above it was given.
    #[error(
        "the issuer of {subject} is missing: no certificate of {issuer} that signed it was given; add it to --ca-chain"
    )]
    IssuerMissing {
        /// The last certificate that was found.
        subject: String,
        /// Whom it names as its issuer.
        issuer: String,
    },
    /// `pathLenConstraint` of a certificate above is exceeded.
    #[error("{subject} allows {allowed} CA certificates below it, and there are {below}")]
    PathLength {
        /// Who says so.
        subject: String,
        /// How many it allows.
        allowed: u32,
        /// How many there are.
        below: usize,
    },
    /// Longer than [`MAX_DEPTH`], or a loop.
    #[error("more than {MAX_DEPTH} certificates and still no root")]
    TooDeep,
}

/// Finds the way from `signer` to a root among `pool`, in any order and with strangers between, and checks each step.
pub fn build(
    signer: &CertificateDer<'static>,
    pool: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<Path, ChainError> {
    let mut way: Vec<CertificateDer<'static>> = Vec::new();
    let mut current = signer.clone();
    let mut not_after = None::<SystemTime>;
    while way.len() < MAX_DEPTH {
        let (end, self_signed, parent) = {
            let certificate = parse(&current)?;
            let end = check(&certificate, way.len(), now)?;
            let self_signed = signed_by(&certificate, &certificate);
            let parent = if self_signed {
                None
            } else {
                find_issuer(&certificate, pool)
            };
            (end, self_signed, parent)
        };
        not_after = Some(not_after.map_or(end, |earliest| earliest.min(end)));
        if self_signed {
            return Ok(Path {
                intermediates: way,
                root: current,
                not_after: not_after.unwrap_or(end),
            });
        }
        let Some(parent) = parent else {
            let certificate = parse(&current)?;
            return Err(ChainError::IssuerMissing {
                subject: certificate.subject().to_string(),
                issuer: certificate.issuer().to_string(),
            });
        };
        way.push(std::mem::replace(&mut current, parent));
    }
    Err(ChainError::TooDeep)
}

/// May this certificate stand alone as a root? Gives its end.
pub fn check_root(root: &CertificateDer<'_>, now: SystemTime) -> Result<SystemTime, ChainError> {
    let certificate = parse(root)?;
    let end = check(&certificate, 0, now)?;
    if signed_by(&certificate, &certificate) {
        return Ok(end);
    }
    Err(ChainError::IssuerMissing {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
    })
}

/// The end of a certificate's validity, whether or not it has come.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, ChainError> {
    Ok(from_unix_seconds(
        parse(certificate)?.validity().not_after.timestamp(),
    ))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, ChainError> {
    match parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(ChainError::Malformed("bytes after its end".into())),
        Err(e) => Err(ChainError::Malformed(e.to_string())),
    }
}

/// What a certificate must be by itself, with `below` CA certificates between it and the leaves.
fn check(
    certificate: &X509Certificate<'_>,
    below: usize,
    now: SystemTime,
) -> Result<SystemTime, ChainError> {
    let subject = certificate.subject().to_string();
    let malformed = |e: x509_parser::error::X509Error| ChainError::Malformed(e.to_string());
    let constraints = certificate
        .basic_constraints()
        .map_err(malformed)?
        .map(|e| e.value);
    let may_sign = certificate
        .key_usage()
        .map_err(malformed)?
        .is_none_or(|usage| usage.value.key_cert_sign());
    let Some(constraints) = constraints.filter(|c| c.ca && may_sign) else {
        return Err(ChainError::NotCa { subject });
    };
    if let Some(allowed) = constraints
        .path_len_constraint
        .filter(|n| below > *n as usize)
    {
        return Err(ChainError::PathLength {
            subject,
            allowed,
            below,
        });
    }
    let validity = certificate.validity();
    let begin = from_unix_seconds(validity.not_before.timestamp());
    let end = from_unix_seconds(validity.not_after.timestamp());
    if now < begin {
        return Err(ChainError::NotYetValid { subject, at: begin });
    }
    if now >= end {
        return Err(ChainError::Expired { subject, at: end });
    }
    Ok(end)
}

fn signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

fn find_issuer(
    certificate: &X509Certificate<'_>,
    pool: &[CertificateDer<'static>],
) -> Option<CertificateDer<'static>> {
    pool.iter()
        .find(|candidate| parse(candidate).is_ok_and(|c| signed_by(certificate, &c)))
        .cloned()
}
