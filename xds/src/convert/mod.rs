//! Model values as Envoy xDS v3 resources, and back.
//!
//! Every value is expressed in xDS's own fields as far as they reach. What they cannot say exactly is kept beside them
//! in the resource's metadata under `weft` (see [`metadata`]), so that decoding gives back the very value that was
//! encoded, while other clients use the standard fields. [`crate::server`] encodes, [`crate::client`] decodes.

mod cluster;
mod endpoints;
mod error;
mod listener;
mod messages;
mod metadata;
mod proto;
mod resource;
mod routes;
mod secret;

pub use error::DecodeError;
pub(crate) use messages::{capture_listener, invalid_backend, passthrough_cluster};
pub use resource::{Resource, TRUST_BUNDLE, TrustBundle, dns_name, inbound_name};

use serde::Serialize;

/// What our proxy calls itself in `node.user_agent_name`.
pub const USER_AGENT: &str = "weft-proxy";

/// For whom a resource is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Our proxy: everything, losslessly.
    Weft,
    /// Envoy, as it understands it.
    Envoy,
    /// gRPC without a proxy: only what gRFCs A27 to A52 define.
    Grpc,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Weft, Self::Envoy, Self::Grpc];

    /// By the client's `node.user_agent_name`; who is unknown is taken for an Envoy.
    pub fn of_user_agent(name: &str) -> Self {
        if name == USER_AGENT {
            Self::Weft
        } else if name.starts_with("gRPC") {
            Self::Grpc
        } else {
            Self::Envoy
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
