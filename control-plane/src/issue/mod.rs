//! Who gets which certificate: token, pod and address must tell one story, and the request must not tell another.
//!
//! [`authorize`] decides, [`service`] is the gRPC method around it, [`refusal`] the one table from refusal to status,
//! metric label and whether waiting helps.

pub mod authorize;
pub mod refusal;
pub mod service;

#[cfg(test)]
mod tests;

pub use authorize::authorize;
pub use refusal::Refusal;
pub use service::{Certificates, PeerAddress};
