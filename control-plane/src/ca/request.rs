//! Certificate signing requests (PKCS#10, RFC 2986): what a workload asks for, checked before anything is signed.
//!
//! The identity never comes from here. A request may name the identity that its token proves, or no name at all;
//! any other name is refused, so that a misconfigured client hears of it. [`parse`] is also a fuzz target.

use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use weft_model::SpiffeId;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

/// A longer request is refused unread. Bytes of PEM.
pub const MAX_REQUEST: usize = 16 << 10;

/// RSA keys from 2048 to 4096 bits: below is weak, above costs every peer's handshake.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A well-formed request, signed with the key that it carries.
#[derive(Debug)]
pub struct CertificateRequest {
    key: SubjectPublicKeyInfo,
    names: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Over [`MAX_REQUEST`].
    #[error("the certificate signing request has {0} bytes; at most {MAX_REQUEST} are allowed")]
    TooLong(usize),
    /// Not PEM.
    #[error("the request is not PEM with \"-----BEGIN CERTIFICATE REQUEST-----\": {0}")]
    NotPem(String),
    /// Not PKCS#10.
    #[error("the certificate signing request is malformed: {0}")]
    Malformed(String),
    /// The sender does not hold the key, or it was altered.
    #[error("the request is not signed with the key that it carries")]
    BadSignature,
    /// A weak or unusual key.
    #[error("the key is {0}; use ECDSA P-256 (best), P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    KeyKind(String),
    /// CA:TRUE was asked for.
    #[error("the request asks for a CA certificate; workloads get leaves only")]
    AsksForCa,
    /// A name that is not the identity of the token.
    #[error("the request names {name:?}, but the token proves {identity}")]
    OtherName {
        /// The first such name.
        name: String,
        /// Who asks.
        identity: String,
    },
}

/// Takes a PEM request apart, and checks its size, its signature, its key and that it wants no CA certificate.
pub fn parse(pem: &str) -> Result<CertificateRequest, RequestError> {
    if pem.len() > MAX_REQUEST {
        return Err(RequestError::TooLong(pem.len()));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| RequestError::NotPem(e.to_string()))?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|e| RequestError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(RequestError::Malformed("bytes after its end".into()));
    }
    let key = check_key(&request)?;
    request
        .verify_signature()
        .map_err(|_| RequestError::BadSignature)?;
    let names = check_extensions(&request)?;
    Ok(CertificateRequest { key, names })
}

impl CertificateRequest {
    /// The key to certify.
    pub fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    /// Names asked for must all be the identity itself.
    pub fn check_identity(&self, identity: &SpiffeId) -> Result<(), RequestError> {
        let identity = identity.to_string();
        match self.names.iter().find(|name| **name != identity) {
            None => Ok(()),
            Some(name) => Err(RequestError::OtherName {
                name: name.chars().take(256).collect(),
                identity,
            }),
        }
    }
}

fn check_key(request: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, RequestError> {
    let info = &request.certification_request_info.subject_pki;
    let kind = |what: &str| RequestError::KeyKind(what.to_owned());
    if let Ok(PublicKey::RSA(rsa)) = info.parsed() {
        let bits = rsa.key_size();
        if !RSA_BITS.contains(&bits) {
            return Err(RequestError::KeyKind(format!("RSA of {bits} bits")));
        }
    }
    let key = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| kind("of an unknown kind"))?;
    let allowed = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    if allowed.contains(&key.algorithm()) {
        Ok(key)
    } else {
        Err(kind("of a kind that TLS 1.3 peers may not know"))
    }
}

/// Alternative names become text; other requested extensions have no effect, because the authority writes its own.
fn check_extensions(request: &X509CertificationRequest<'_>) -> Result<Vec<String>, RequestError> {
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(san) => {
                names.extend(san.general_names.iter().map(name_text));
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(RequestError::AsksForCa);
            }
            ParsedExtension::ParseError { error } => {
                return Err(RequestError::Malformed(error.to_string()));
            }
            _ => {}
        }
    }
    Ok(names)
}

/// A URI stands for itself; every other kind carries its kind, so that it can equal no identity.
fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => other.to_string(),
    }
}
