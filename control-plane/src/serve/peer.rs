//! Who is at the other end of a connection, from its verified client certificate.

use std::net::SocketAddr;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use weft_model::SpiffeId;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::clock::from_unix_seconds;

/// One connection's other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What its certificate says; `None` when it showed none.
    pub certificate: Option<Certified>,
}

/// A client certificate that the trust bundle vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The SPIFFE ID, or why there is none.
    pub identity: Result<SpiffeId, &'static str>,
    /// When the certificate ends, and the connection with it.
    pub not_after: SystemTime,
}

/// Reads a leaf that rustls has verified. An SVID has exactly one URI, its SPIFFE ID
/// (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id>).
pub fn certified(leaf: &CertificateDer<'_>) -> Certified {
    let Ok((_, certificate)) = parse_x509_certificate(leaf) else {
        return Certified {
            identity: Err("the client certificate is malformed"),
            not_after: SystemTime::UNIX_EPOCH,
        };
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut uris = names.iter().flat_map(|san| {
        san.value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
    });
    let identity = match (uris.next(), uris.next()) {
        (Some(uri), None) => uri
            .parse()
            .map_err(|_| "the client certificate's URI is not an identity of the mesh"),
        (None, _) => Err("the client certificate has no SPIFFE ID"),
        (Some(_), Some(_)) => Err("the client certificate has more than one URI"),
    };
    Certified {
        identity,
        not_after: from_unix_seconds(certificate.validity().not_after.timestamp()),
    }
}
