//! PEM (RFC 7468): reading bundles, chains and keys with errors that say what is wrong, and writing them.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a PKCS #8 key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Certificates in one bundle or chain; more is a mistake or an attack.
const MOST: usize = 256;

/// What is wrong with a piece of PEM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The text is not PEM.
    #[error("it is not PEM: {0}")]
    Malformed(String),
    /// No certificate in it.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No private key in it.
    #[error("there is no private key in it")]
    NoKey,
    /// An unreasonable number of certificates.
    #[error("there are more than {MOST} certificates in it")]
    TooMany,
    /// A certificate that cannot be a root.
    #[error("certificate {0} is not usable as a root: {1}")]
    NotARoot(usize, String),
}

/// All certificates, in order; at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|e| PemError::Malformed(e.to_string()))?);
        if found.len() > MOST {
            return Err(PemError::TooMany);
        }
    }
    if found.is_empty() {
        Err(PemError::NoCertificate)
    } else {
        Ok(found)
    }
}

/// The first private key, PKCS #8, SEC 1 or PKCS #1.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => PemError::NoKey,
        other => PemError::Malformed(other.to_string()),
    })
}

/// Trust anchors of certificates; at least one, each usable, in their order.
pub fn store(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<RootCertStore, PemError> {
    let mut store = RootCertStore::empty();
    for (n, certificate) in certificates.into_iter().enumerate() {
        store
            .add(certificate)
            .map_err(|e| PemError::NotARoot(n + 1, e.to_string()))?;
    }
    if store.is_empty() {
        Err(PemError::NoCertificate)
    } else {
        Ok(store)
    }
}

/// One PEM block with lines of 64 characters.
pub fn encode(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes make a line of 64 characters.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b))
                << (8 * (3 - group.len()));
            for i in 0..4 {
                let sextet = (bits >> (18 - 6 * i)) as usize & 63;
                text.push(if i <= group.len() {
                    ALPHABET[sextet] as char
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for length in [1, 2, 3, 47, 48, 49, 96, 1000] {
            let der: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let text = encode(CERTIFICATE, &der);
            assert_eq!(certificates(text.as_bytes()).unwrap()[0].as_ref(), der);
            assert!(text.lines().all(|l| l.len() <= 64));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(certificates(b""), Err(PemError::NoCertificate));
        assert_eq!(private_key(b"text").unwrap_err(), PemError::NoKey);
        let half = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(
            certificates(half.as_bytes()),
            Err(PemError::Malformed(_))
        ));
        let garbage = encode(CERTIFICATE, b"garbage");
        assert!(matches!(
            store(certificates(garbage.as_bytes()).unwrap()),
            Err(PemError::NotARoot(1, _))
        ));
        assert_eq!(
            certificates(garbage.repeat(MOST + 1).as_bytes()),
            Err(PemError::TooMany)
        );
    }
}
