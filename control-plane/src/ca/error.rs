//! What can go wrong with the authority's own files, and when it signs.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::chain::ChainError;
use crate::clock::Rfc3339;

/// The signing certificate, its key, its chain or the extra roots cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file is missing or may not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory does not take the new root.
    #[error("{}: cannot be written: {source}; the state directory must be writable for uid {uid}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Who tried.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// There is not one certificate in it.
    #[error("{}: holds no certificate; expected PEM with \"-----BEGIN CERTIFICATE-----\"", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// PEM or DER that does not parse.
    #[error("{}: certificate {index} is malformed: {reason}", file.display())]
    BadCertificate {
        /// The file.
        file: PathBuf,
        /// Which one, from 1.
        index: usize,
        /// What the parser says.
        reason: String,
    },
    /// No private key, or one of a kind that cannot sign here.
    #[error(
        "{}: holds no usable private key: {reason}; expected unencrypted PEM (PKCS#8, SEC1 or PKCS#1) with an ECDSA P-256, \
         P-384, Ed25519 or RSA key",
        file.display()
    )]
    BadKey {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// Key and certificate belong to different pairs.
    #[error(
        "{}: is not the private key of the first certificate in {}; give the pair that was issued together",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The signing certificate is no CA, has expired, or does not lead to a root.
    #[error("{}: {reason}", file.display())]
    Chain {
        /// The file with the signing certificate.
        file: PathBuf,
        /// What is wrong, and what would be right.
        reason: ChainError,
    },
    /// Only one of the two files of the root that was made on first start is there.
    #[error(
        "{} is missing beside {}; restore it from a backup, or remove both to start with a new root (every proxy then \
         needs the new root)",
        missing.display(),
        present.display()
    )]
    HalfThere {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The new root could not be made.
    #[error("a new root cannot be made: {0}")]
    Make(#[from] IssueError),
}

/// A certificate cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The signing certificate, or one above it, has come to its end.
    #[error("the certificate authority expired at {}; give it a new certificate", Rfc3339(*.at))]
    Expired {
        /// When.
        at: SystemTime,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Randomness,
    /// The signature or encoding failed.
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
}
