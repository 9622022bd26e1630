//! The certificate signing API: Istio's `istio.v1.auth.IstioCertificateService`, so that cert-manager's istio-csr can
//! stand in for our authority.
//!
//! Messages as in istio's `security/v1alpha1/ca.proto`. [`client`] is used by the proxy's identity, [`server`] by the
//! control plane. The caller's token goes in the `authorization` metadata as `Bearer <token>`.

pub mod client;
pub mod server;

pub use client::IstioCertificateServiceClient;
pub use server::{IstioCertificateService, IstioCertificateServiceServer};

use envoy_types::pb::google::protobuf::Struct;

/// The full name of the service.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// The path of its one method.
pub const CREATE_CERTIFICATE_PATH: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// A PKCS#10 request in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// The lifetime asked for, in seconds; the authority may grant less.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Free hints to the authority; unused by ours.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM certificates: the leaf first, then intermediates, the root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
