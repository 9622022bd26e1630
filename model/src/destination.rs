//! What a captured destination means: the outbound listener of an address.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, parse_port};
use crate::route::WeightedBackend;
use crate::{BackendKey, Hostname, HostnameMatch, Meta, Protocol};

/// The name by which a destination is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenerName {
    /// A captured address: `weft/outbound/10.96.0.10:80`.
    Outbound(SocketAddr),
    /// A gRPC authority: `shop.default.svc.cluster.local:80`.
    Authority(Hostname, u16),
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbound(address) => write!(f, "weft/outbound/{address}"),
            Self::Authority(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for ListenerName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let wrong = || {
            NameError::new(
                "listener",
                s,
                "expected weft/outbound/<ip>:<port> or <host>:<port>",
            )
        };
        if let Some(address) = s.strip_prefix("weft/outbound/") {
            return address.parse().map(Self::Outbound).map_err(|_| wrong());
        }
        let (host, port) = s.rsplit_once(':').ok_or_else(wrong)?;
        Ok(Self::Authority(
            host.parse()?,
            parse_port(port).ok_or_else(wrong)?,
        ))
    }
}

impl TryFrom<String> for ListenerName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<ListenerName> for String {
    fn from(name: ListenerName) -> String {
        name.to_string()
    }
}

/// Everything at one captured address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// By which it was asked for.
    pub name: ListenerName,
    /// The service's port or the pod's behind it; names its HTTP route table too.
    pub key: BackendKey,
    /// What its port speaks.
    pub protocol: Protocol,
    /// For TCP and TLS: tried in order, the first whose names match forwards the connection. Never empty; the last one
    /// matches anything unless routes say otherwise.
    pub sni: Vec<SniRoute>,
    /// Origin (the Service or Pod) and age.
    pub meta: Meta,
}

/// Where connections go that are not HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SniRoute {
    /// Server names (RFC 6066, 3) of the client's TLS hello. Empty: any connection, TLS or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<HostnameMatch>,
    /// One is drawn by weight.
    pub backends: Vec<WeightedBackend>,
    /// Origin (a TLSRoute, TCPRoute or the Service) and age.
    pub meta: Meta,
}
