//! Which message, and which pair of functions, each resource of the model goes through; and the few resources that
//! are not of the model.

use bytes::Bytes;
use prost::Message as _;
use weft_model::{Cluster, Destination, DnsRecord, Endpoints, HttpRoutes, InboundPort};

use super::listener::{capture, inbound, outbound};
use super::proto::{
    cluster as cluster_message, endpoint, listener as listener_message, route, tls,
};
use super::resource::{Resource, TRUST_BUNDLE, TrustBundle, dns_name, inbound_name};
use super::{DecodeError, Flavour, cluster, endpoints, routes, secret};
use crate::TypeUrl;

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

/// The backend that does not exist, for gRPC, which otherwise waits 15 s for it before it routes anything at all: its
/// name, its cluster and its endpoints, of which there are none.
pub(crate) fn invalid_backend() -> (&'static str, Bytes, Bytes) {
    let endpoints = endpoint::ClusterLoadAssignment {
        cluster_name: routes::INVALID_BACKEND.to_owned(),
        ..Default::default()
    };
    let cluster = cluster::without_policy(routes::INVALID_BACKEND);
    (
        routes::INVALID_BACKEND,
        cluster.encode_to_vec().into(),
        endpoints.encode_to_vec().into(),
    )
}

/// The cluster of what is outside the mesh, for Envoy: its name, and its message.
pub(crate) fn passthrough_cluster() -> (&'static str, Bytes) {
    (
        cluster::PASSTHROUGH,
        cluster::passthrough().encode_to_vec().into(),
    )
}
