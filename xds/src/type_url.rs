//! The resource types that Weft speaks, and the order in which they are pushed.

use std::fmt;

use serde::Serialize;

/// A type of xDS resource. Ordered as updates are sent, so that what refers to something comes after it
/// (xDS protocol, "Eventual consistency considerations": make before break).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TypeUrl {
    /// SDS: the trust bundle.
    Secret,
    /// CDS.
    Cluster,
    /// EDS; DNS names too.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
}

impl TypeUrl {
    /// All of them, in push order.
    pub const ALL: [Self; 5] = [
        Self::Secret,
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
    ];

    /// As it stands in requests and `Any`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type of that URL, if it is one of ours.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == url)
    }

    /// The short name that operators know: `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Secret => "SDS",
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Routes => "RDS",
        }
    }

    /// Must a state-of-the-world response hold every resource (xDS protocol, "How the client specifies what
    /// resources to return")? Only then can a client ask for a wildcard, too.
    pub const fn is_full_state(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}
