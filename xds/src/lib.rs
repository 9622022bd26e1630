//! Weft's model as Envoy xDS v3, the aggregated discovery server and the on-demand delta client.
//!
//! [`convert`] turns model values into the resources of Envoy's xDS v3 and back. [`server`] is what the control plane
//! serves them with, to our proxy, to Envoy and to gRPC; [`client`] is what our proxy asks with. [`ca`] is the
//! certificate signing API that both sides use. No socket is opened here: the transport, its TLS and the peer's
//! identity come from the caller.

pub mod ca;
pub mod client;
pub mod convert;
pub mod server;
pub mod type_url;
pub mod wire;

pub use type_url::TypeUrl;
