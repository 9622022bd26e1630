//! Port 15012: one TLS port for discovery and certificates.
//!
//! [`accept`] takes connections and ends TLS with what [`tls`] holds ready; [`peer`] reads who is there from the client
//! certificate; [`dispatch`] sends each call to discovery, which wants an identity, or to the certificate service,
//! which wants a token; [`closing`] ends streams that would never end by themselves.

pub mod accept;
pub mod closing;
pub mod dispatch;
pub mod peer;
pub mod tls;

pub use accept::{Limits, serve};
pub use dispatch::Dispatch;
