//! An [`Authority`] from files: given ones (as cert-manager lays out a `kubernetes.io/tls` Secret with `ca.crt`), or
//! the root that [`super::root`] made.

use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::warn;
use x509_parser::parse_x509_certificate;

use super::{Authority, CaError, chain};

/// Larger files than this are not certificates. Bytes.
const MAX_FILE: u64 = 1 << 20;

/// Where the authority's material lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// PEM: the signing certificate first, then in any order certificates above it (`tls.crt`).
    pub certificate: PathBuf,
    /// PEM: its private key (`tls.key`).
    pub key: PathBuf,
    /// PEM: more certificates above it, up to the root (`ca.crt`).
    pub chain: Option<PathBuf>,
    /// PEM: roots that the mesh trusts beside the one above the signing certificate.
    pub extra_roots: Option<PathBuf>,
}

impl CaFiles {
    /// Every file, for a watch.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [
            Some(&self.certificate),
            Some(&self.key),
            self.chain.as_ref(),
            self.extra_roots.as_ref(),
        ]
        .into_iter()
        .flatten()
    }
}

/// Reads and checks everything. Extra roots that have expired are left out with a warning, because no peer could
/// use them and a restart must not fail on them; every other fault is an error.
pub fn load(files: &CaFiles, now: SystemTime) -> Result<Authority, CaError> {
    let mut certificates = read_certificates(&files.certificate)?;
    let signer = certificates.remove(0);
    let mut pool = certificates;
    if let Some(file) = &files.chain {
        pool.extend(read_certificates(file)?);
    }
    let key = read_key(&files.key)?;
    if !is_pair(&signer, &key) {
        return Err(CaError::KeyMismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        });
    }
    let path = chain::build(&signer, &pool, now).map_err(|reason| CaError::Chain {
        file: files.certificate.clone(),
        reason,
    })?;
    let extra_roots = match &files.extra_roots {
        Some(file) => read_extra_roots(file, now)?,
        None => Vec::new(),
    };
    let issuer = Issuer::from_ca_cert_der(&signer, key).map_err(|e| CaError::BadCertificate {
        file: files.certificate.clone(),
        index: 1,
        reason: e.to_string(),
    })?;
    Ok(Authority::new(issuer, path, extra_roots))
}

/// At least one certificate; text between them is skipped, as OpenSSL does.
pub fn read_certificates(file: &FilePath) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let pem = read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .enumerate()
        .map(|(i, certificate)| {
            certificate.map_err(|e| CaError::BadCertificate {
                file: file.to_owned(),
                index: i + 1,
                reason: e.to_string(),
            })
        })
        .collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err(CaError::NoCertificate {
            file: file.to_owned(),
        });
    }
    for (i, certificate) in certificates.iter().enumerate() {
        parse_x509_certificate(certificate).map_err(|e| CaError::BadCertificate {
            file: file.to_owned(),
            index: i + 1,
            reason: e.to_string(),
        })?;
    }
    Ok(certificates)
}

fn read_extra_roots(
    file: &FilePath,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let mut roots = Vec::new();
    for root in read_certificates(file)? {
        match chain::check_root(&root, now) {
            Ok(_) => roots.push(root),
            Err(chain::ChainError::Expired { subject, .. }) => {
                warn!(file = %file.display(), root = subject, "an expired extra root is left out of the trust bundle");
            }
            Err(reason) => {
                return Err(CaError::Chain {
                    file: file.to_owned(),
                    reason,
                });
            }
        }
    }
    Ok(roots)
}

fn read_key(file: &FilePath) -> Result<KeyPair, CaError> {
    let bad = |reason: String| CaError::BadKey {
        file: file.to_owned(),
        reason,
    };
    let pem = read(file)?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| bad(e.to_string()))?;
    KeyPair::try_from(&der).map_err(|e| bad(e.to_string()))
}

fn is_pair(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    parse_x509_certificate(certificate)
        .is_ok_and(|(_, c)| c.public_key().raw == key.subject_public_key_info())
}

fn read(file: &FilePath) -> Result<Vec<u8>, CaError> {
    read_bounded(file).map_err(|source| CaError::Read {
        file: file.to_owned(),
        source,
    })
}

/// A whole file of at most 1 MiB.
pub(crate) fn read_bounded(file: &FilePath) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}
