//! Why a TLS handshake came to nothing, in words that fit a metric label.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// The reasons that are told apart. [`HandshakeFailure::reason`] is the label of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeFailure {
    /// None of our roots vouches for the peer's certificate.
    #[error("the peer's certificate is signed by an unknown issuer")]
    UnknownIssuer,
    /// The peer's certificate is not valid yet, or no more.
    #[error("the peer's certificate is expired or not valid yet")]
    Expired,
    /// The peer's certificate is sound, but names somebody else.
    #[error("the peer's certificate carries another identity than expected")]
    WrongIdentity,
    /// The peer has no certificate.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// The peer's certificate cannot be used for another reason.
    #[error("the peer's certificate is malformed or not meant for this use")]
    BadCertificate,
    /// The peer did not speak TLS.
    #[error("the peer did not speak TLS")]
    Plaintext,
    /// No common version, cipher suite, group or ALPN protocol, or the peer broke the protocol.
    #[error("no common TLS parameters, or a protocol error")]
    Protocol,
    /// The peer refused our certificate.
    #[error("the peer refused our certificate")]
    RefusedByPeer,
    /// The peer sent another alert.
    #[error("the peer broke the handshake off")]
    Alert,
    /// The connection broke.
    #[error("the connection broke during the handshake")]
    Io,
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// Our own credentials cannot be used.
    #[error("this proxy's own credentials are unusable")]
    Credentials,
}

impl HandshakeFailure {
    /// Its metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::WrongIdentity => "wrong_identity",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Plaintext => "plaintext",
            Self::Protocol => "tls_protocol",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Alert => "tls_alert",
            Self::Io => "io",
            Self::Timeout => "timeout",
            Self::Credentials => "credentials",
        }
    }

    /// The reason in an error of tokio-rustls, which wraps rustls' own.
    pub fn of(error: &io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
        {
            Some(error) => Self::from(error),
            None if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            None => Self::Io,
        }
    }
}

impl From<&rustls::Error> for HandshakeFailure {
    fn from(error: &rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(error) => Self::from(error),
            E::NoCertificatesPresented => Self::NoCertificate,
            E::AlertReceived(alert) => match alert {
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied => Self::RefusedByPeer,
                _ => Self::Alert,
            },
            // A first byte that is no TLS content type, or a version that is none.
            E::InvalidMessage(_) => Self::Plaintext,
            _ => Self::Protocol,
        }
    }
}

impl From<&CertificateError> for HandshakeFailure {
    fn from(error: &CertificateError) -> Self {
        use CertificateError as C;
        match error {
            C::UnknownIssuer | C::BadSignature => Self::UnknownIssuer,
            C::Expired
            | C::ExpiredContext { .. }
            | C::NotValidYet
            | C::NotValidYetContext { .. } => Self::Expired,
            C::ApplicationVerificationFailure
            | C::NotValidForName
            | C::NotValidForNameContext { .. } => Self::WrongIdentity,
            _ => Self::BadCertificate,
        }
    }
}
