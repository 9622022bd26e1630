//! What can be a resource: a model value with a type, a name, and both directions of conversion.

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use weft_model::{Cluster, Destination, DnsRecord, Endpoints, Hostname, HttpRoutes, InboundPort};

use super::listener::{capture, inbound, outbound};
use super::proto::{
    cluster as cluster_message, endpoint, listener as listener_message, route, tls,
};
use super::{DecodeError, Flavour, cluster, endpoints, routes, secret};
use crate::TypeUrl;

/// The name of the trust bundle's secret.
pub const TRUST_BUNDLE: &str = "weft/trust-bundle";

/// The name of a DNS record among the endpoint resources: `weft/dns/<fqdn>`.
pub fn dns_name(name: &Hostname) -> String {
    format!("weft/dns/{name}")
}

/// The name of an inbound port among the listeners: `weft/inbound/<port>`.
pub fn inbound_name(port: u16) -> String {
    format!("weft/inbound/{port}")
}

/// The roots that vouch for the mesh's identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrustBundle {
    /// PEM certificates, one after the other; at least one.
    pub pem: String,
}

/// A model value that is a resource of xDS.
pub trait Resource: Sized + Send + Sync + 'static {
    /// Its type.
    const TYPE: TypeUrl;

    /// Its name.
    fn name(&self) -> String;

    /// As that client understands it; an encoded message of [`Self::TYPE`].
    fn encode(&self, flavour: Flavour) -> Bytes;

    /// From [`Flavour::Weft`]. Never panics, whatever the bytes; the value's own name has to be `name`.
    fn decode(name: &str, bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// A resource that is its encoder and decoder; the name inside is compared with the one it came under.
macro_rules! resource {
    ($model:ty, $kind:ident, $message:ty, $encode:path, $decode:path, |$value:ident| $name:expr) => {
        impl Resource for $model {
            const TYPE: TypeUrl = TypeUrl::$kind;

            fn name(&self) -> String {
                let $value = self;
                $name
            }

            fn encode(&self, flavour: Flavour) -> Bytes {
                $encode(self, flavour).encode_to_vec().into()
            }

            fn decode(name: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
                let value = $decode(&<$message>::decode(bytes)?)?;
                let own = value.name();
                if own == name {
                    Ok(value)
                } else {
                    Err(
                        DecodeError::new(format_args!("the resource names itself {own:?}"))
                            .inside("name"),
                    )
                }
            }
        }
    };
}

use listener_message::Listener;

resource!(
    Destination,
    Listener,
    Listener,
    outbound::encode,
    outbound::decode,
    |d| d.name.to_string()
);
resource!(
    InboundPort,
    Listener,
    Listener,
    inbound::encode,
    inbound::decode,
    |p| inbound_name(p.port)
);
resource!(
    HttpRoutes,
    Routes,
    route::RouteConfiguration,
    routes::encode,
    routes::decode,
    |r| r.key.to_string()
);
resource!(
    Cluster,
    Cluster,
    cluster_message::Cluster,
    cluster::encode,
    cluster::decode,
    |c| c.key.to_string()
);
resource!(
    Endpoints,
    Endpoints,
    endpoint::ClusterLoadAssignment,
    endpoints::encode,
    endpoints::decode,
    |e| e.key.to_string()
);
resource!(
    DnsRecord,
    Endpoints,
    endpoint::ClusterLoadAssignment,
    endpoints::encode_name,
    endpoints::decode_name,
    |d| dns_name(&d.name)
);
resource!(
    TrustBundle,
    Secret,
    tls::Secret,
    secret::encode,
    secret::decode,
    |_b| TRUST_BUNDLE.to_owned()
);

/// The listener where an Envoy's captured connections arrive: its name, and its message.
pub(crate) fn capture_listener() -> (&'static str, Bytes) {
    (capture::NAME, capture::encode().encode_to_vec().into())
}

/// The cluster of what is outside the mesh, for Envoy: its name, and its message.
pub(crate) fn passthrough_cluster() -> (&'static str, Bytes) {
    (
        cluster::PASSTHROUGH,
        cluster::passthrough().encode_to_vec().into(),
    )
}
