//! What the mesh means: names, services, endpoints, routes, policies and identities, and the decisions over them.
//!
//! Everything here is plain data and pure, synchronous functions. There is no I/O below this crate: other
//! crates translate Kubernetes objects ([`weft-k8s`]) and Envoy xDS ([`weft-xds`]) to and from these types, and
//! executors ([`weft-proxy`]) carry out the plans that [`decide`] returns.
//!
//! [`weft-k8s`]: https://kubernetes.io/docs/reference/kubernetes-api/
//! [`weft-xds`]: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
//! [`weft-proxy`]: decide

pub mod decide;
pub mod destination;
pub mod duration;
pub mod endpoint;
pub mod hostname;
pub mod identity;
pub mod inbound;
pub mod mesh;
pub mod meta;
pub mod name;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod protocol;
pub mod route;

pub use destination::{Destination, ListenerName, SniRoute};
pub use endpoint::{DnsRecord, Endpoint, Endpoints, Health, Locality};
pub use hostname::{Hostname, HostnameMatch};
pub use identity::{IdentityPattern, SpiffeId, TrustDomain};
pub use inbound::{InboundPort, MtlsMode};
pub use mesh::{Mesh, Scoped, View, Workload};
pub use meta::{Meta, Origin, UnixMillis};
pub use name::{BackendKey, Name, NameError, Namespace, Target, WorkloadKey};
pub use pattern::Pattern;
pub use policy::{Balancer, CircuitBreaker, Cluster, OutlierDetection, RetryBudget, TrafficPolicy};
pub use protocol::Protocol;
pub use route::{HttpRoutes, HttpRule, VirtualHost};
