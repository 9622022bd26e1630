//! The certificate authority: who vouches for the mesh's workloads.
//!
//! [`load`] reads the signing certificate from files, or [`root`] makes one on first start; [`chain`] checks that it
//! leads to a root; [`request`] checks what a workload asks for; [`Authority::issue`] signs. [`reload`] keeps a watch
//! of the current [`Authority`], so that rotated files come into force without a restart.
//!
//! Called by [`crate::issue`] (workloads) and [`crate::serve::tls`] (the control plane's own certificate).

pub mod chain;
pub mod error;
pub mod load;
pub mod reload;
pub mod request;
pub mod root;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use weft_model::SpiffeId;

pub use error::{CaError, IssueError};
pub use load::CaFiles;

/// How far a certificate's `notBefore` lies in the past, so that a peer with a slow clock accepts it at once.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Below this, the rest of the signing certificate's life is not worth a certificate: [`IssueError::Expired`].
const SHORTEST: Duration = Duration::from_secs(1);

/// A signing certificate with its key, the chain up to its root, and the roots that the mesh trusts. Immutable; a
/// rotation makes a new one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// From the signing certificate upwards, without the root; empty when the root signs itself.
    intermediates: Vec<CertificateDer<'static>>,
    /// The root above the signing certificate first, then the extra roots.
    roots: Vec<CertificateDer<'static>>,
    bundle_pem: String,
    not_after: SystemTime,
}

/// A signed leaf.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf, then the intermediates; never a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it begins to be valid; [`CLOCK_SKEW`] before it was signed.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Authority {
    fn new(
        issuer: Issuer<'static, KeyPair>,
        path: chain::Path,
        extra_roots: Vec<CertificateDer<'static>>,
    ) -> Self {
        let mut roots = vec![path.root];
        for root in extra_roots {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        let bundle_pem = roots.iter().map(certificate_pem).collect();
        Self {
            issuer,
            intermediates: path.intermediates,
            roots,
            bundle_pem,
            not_after: path.not_after,
        }
    }

    /// Every root that the mesh trusts; the one above the signing certificate comes first.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as concatenated PEM, in the order of [`Authority::roots`].
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// When the first certificate on the way from the signing certificate to its root expires. No leaf outlives it.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a leaf for a workload: its SPIFFE ID as the only URI, for both ends of mutual TLS
    /// (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>). `dns_names` is for the control plane's
    /// own certificate, which Envoy and gRPC verify by name.
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
        dns_names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let not_after = (now + lifetime).min(self.not_after);
        if not_after.duration_since(now).unwrap_or_default() < SHORTEST {
            return Err(IssueError::Expired { at: self.not_after });
        }
        let not_before = now - CLOCK_SKEW;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new(); // an empty subject makes the SAN critical (RFC 5280, 4.2.1.6)
        params.subject_alt_names = subject_alt_names(identity, dns_names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number()?);
        params.not_before = OffsetDateTime::from(not_before);
        params.not_after = OffsetDateTime::from(not_after);
        let leaf = params.signed_by(key, &self.issuer)?;
        let chain = std::iter::once(leaf.der().clone())
            .chain(self.intermediates.iter().cloned())
            .collect();
        Ok(Issued {
            chain,
            not_before,
            not_after,
        })
    }
}

fn subject_alt_names(
    identity: &SpiffeId,
    dns_names: &[String],
) -> Result<Vec<SanType>, rcgen::Error> {
    let uri = SanType::URI(identity.to_string().try_into()?);
    let names = dns_names
        .iter()
        .map(|n| Ok(SanType::DnsName(n.as_str().try_into()?)));
    std::iter::once(Ok(uri)).chain(names).collect()
}

/// 128 random bits; rcgen's own choice, a hash of the key, would repeat at each renewal with the same key.
fn serial_number() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| IssueError::Randomness)?;
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and of one length
    Ok(SerialNumber::from_slice(&bytes))
}

/// One certificate as PEM (RFC 7468).
pub fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), config)
}
