//! The store of typed objects, and the one table of kinds.
//!
//! Filled by [`crate::source`], read by [`mod@crate::compile`] and by the local runner. Each object is behind an `Arc`, so that a new
//! version of the store costs pointers, not copies.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};
use weft_model::{Meta, Origin, UnixMillis};

use crate::crd::{MutualTLSPolicy, TrafficPolicy};
use crate::problem::Location;

/// Gateway API types, of the experimental channel: retries are only there.
pub mod gateway {
    pub use gateway_api::experimental::grpcroutes::GrpcRoute;
    pub use gateway_api::experimental::httproutes::HttpRoute;
    pub use gateway_api::experimental::referencegrants::ReferenceGrant;
    pub use gateway_api::experimental::tcproutes::TcpRoute;
    pub use gateway_api::experimental::tlsroutes::TlsRoute;
}

/// Namespace and name of an object. The namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The namespace, or empty.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key of both.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object, where it stands and when it changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The object itself. Namespaced ones have a namespace, `default` where none was written.
    pub object: T,
    /// File and line.
    pub source: Location,
    /// When its source changed.
    pub changed_at: UnixMillis,
}

impl<T: Resource<DynamicType = ()>> Stored<T> {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        let meta = self.object.meta();
        ObjectKey {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// Its origin and age, for what is compiled from it.
    pub fn to_meta(&self) -> Meta {
        let ObjectKey { namespace, name } = self.key();
        Meta {
            origin: Origin::object(&T::kind(&()), &namespace, &name),
            changed_at: self.changed_at,
        }
    }

    /// Milliseconds since 1970 of its creation; objects from files have none and count as created at 0.
    pub fn created(&self) -> UnixMillis {
        let created = self.object.meta().creation_timestamp.as_ref();
        UnixMillis(created.map_or(0, |t| u64::try_from(t.0.as_millisecond()).unwrap_or(0)))
    }
}

/// Objects of one kind.
pub type Store<T> = BTreeMap<ObjectKey, Arc<Stored<T>>>;

/// The table of kinds: everything that differs by kind is made from it.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $field:ident: $type:ty = $kind:literal $group:literal [$($version:literal)+] $namespaced:literal;)+) => {
        /// A kind that Weft reads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $variant),+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in `kind`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $kind),+ }
            }

            /// The API group; empty for the core group.
            pub fn group(self) -> &'static str {
                match self { $(Self::$variant => $group),+ }
            }

            /// The versions that are read; the preferred one first.
            pub fn versions(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($version),+]),+ }
            }

            /// Do its objects live in namespaces?
            pub fn namespaced(self) -> bool {
                match self { $(Self::$variant => $namespaced),+ }
            }
        }

        /// An object of any kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AnyObject { $($(#[$doc])* $variant(Arc<Stored<$type>>)),+ }

        impl AnyObject {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$variant(_) => Kind::$variant),+ }
            }

            /// Namespace and name.
            pub fn key(&self) -> ObjectKey {
                match self { $(Self::$variant(o) => o.key()),+ }
            }

            /// Where it stands.
            pub fn source(&self) -> &Location {
                match self { $(Self::$variant(o) => &o.source),+ }
            }

            /// Is it the same object, wherever it stands and whenever it changed?
            pub fn same_object(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$variant(a), Self::$variant(b)) => a.object == b.object,)+
                    _ => false,
                }
            }

            /// It is the same object as before, so it is as old as it was.
            pub(crate) fn keep_age(&mut self, before: &Self) {
                match (self, before) {
                    $((Self::$variant(now), Self::$variant(before)) => {
                        Arc::make_mut(now).changed_at = before.changed_at;
                    })+
                    _ => {}
                }
            }

            /// Makes one from its parts, by `deserialize`, which is told what to read.
            pub(crate) fn read<E>(
                kind: Kind,
                source: Location,
                changed_at: UnixMillis,
                reader: impl Read<E>,
            ) -> Result<Self, E> {
                Ok(match kind {
                    $(Kind::$variant => {
                        let mut object: $type = reader.read()?;
                        if $namespaced {
                            object.meta_mut().namespace.get_or_insert_with(|| "default".into());
                        } else {
                            object.meta_mut().namespace = None;
                        }
                        Self::$variant(Arc::new(Stored { object, source, changed_at }))
                    })+
                })
            }
        }

        /// Every object that is known, by kind, namespace and name.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Objects { $($(#[$doc])* pub $field: Store<$type>),+ }

        impl Objects {
            /// Adds an object; returns the one that it replaces.
            pub fn insert(&mut self, object: AnyObject) -> Option<AnyObject> {
                match object {
                    $(AnyObject::$variant(o) => self.$field.insert(o.key(), o).map(AnyObject::$variant)),+
                }
            }

            /// Removes an object.
            pub fn remove(&mut self, kind: Kind, key: &ObjectKey) -> Option<AnyObject> {
                match kind {
                    $(Kind::$variant => self.$field.remove(key).map(AnyObject::$variant)),+
                }
            }

            /// Finds an object.
            pub fn get(&self, kind: Kind, key: &ObjectKey) -> Option<AnyObject> {
                match kind {
                    $(Kind::$variant => self.$field.get(key).cloned().map(AnyObject::$variant)),+
                }
            }

            /// How many there are of each kind that there are any of.
            pub fn counts(&self) -> BTreeMap<&'static str, usize> {
                let all = [$(($kind, self.$field.len())),+];
                all.into_iter().filter(|(_, n)| *n > 0).collect()
            }
        }
    };
}

/// Reads one typed object; a closure could not be generic over the type.
pub(crate) trait Read<E> {
    fn read<T: for<'de> Deserialize<'de>>(self) -> Result<T, E>;
}

kinds! {
    /// A namespace: labels and annotation defaults.
    Namespace namespaces: core::Namespace = "Namespace" "" ["v1"] false;
    /// A node: its region and zone.
    Node nodes: core::Node = "Node" "" ["v1"] false;
    /// A pod.
    Pod pods: core::Pod = "Pod" "" ["v1"] true;
    /// A service.
    Service services: core::Service = "Service" "" ["v1"] true;
    /// Endpoints of a service.
    EndpointSlice endpoint_slices: discovery::EndpointSlice = "EndpointSlice" "discovery.k8s.io" ["v1"] true;
    /// A service account.
    ServiceAccount service_accounts: core::ServiceAccount = "ServiceAccount" "" ["v1"] true;
    /// A config map; for the local runner.
    ConfigMap config_maps: core::ConfigMap = "ConfigMap" "" ["v1"] true;
    /// A secret; for the local runner.
    Secret secrets: core::Secret = "Secret" "" ["v1"] true;
    /// A deployment; for the local runner.
    Deployment deployments: apps::Deployment = "Deployment" "apps" ["v1"] true;
    /// A stateful set; for the local runner.
    StatefulSet stateful_sets: apps::StatefulSet = "StatefulSet" "apps" ["v1"] true;
    /// A daemon set; for the local runner.
    DaemonSet daemon_sets: apps::DaemonSet = "DaemonSet" "apps" ["v1"] true;
    /// A replica set; for the local runner.
    ReplicaSet replica_sets: apps::ReplicaSet = "ReplicaSet" "apps" ["v1"] true;
    /// A job; for the local runner.
    Job jobs: batch::Job = "Job" "batch" ["v1"] true;
    /// A cron job; for the local runner.
    CronJob cron_jobs: batch::CronJob = "CronJob" "batch" ["v1"] true;
    /// An HTTP route.
    HttpRoute http_routes: gateway::HttpRoute = "HTTPRoute" "gateway.networking.k8s.io" ["v1" "v1beta1"] true;
    /// A gRPC route.
    GrpcRoute grpc_routes: gateway::GrpcRoute = "GRPCRoute" "gateway.networking.k8s.io" ["v1" "v1alpha2"] true;
    /// A TLS route.
    TlsRoute tls_routes: gateway::TlsRoute = "TLSRoute" "gateway.networking.k8s.io" ["v1" "v1alpha3" "v1alpha2"] true;
    /// A TCP route.
    TcpRoute tcp_routes: gateway::TcpRoute = "TCPRoute" "gateway.networking.k8s.io" ["v1" "v1alpha2"] true;
    /// Allows routes of other namespaces to name services of this one.
    ReferenceGrant reference_grants: gateway::ReferenceGrant = "ReferenceGrant" "gateway.networking.k8s.io" ["v1" "v1beta1"] true;
    /// How traffic to a service is balanced and limited.
    TrafficPolicy traffic_policies: TrafficPolicy = "TrafficPolicy" "weft.dev" ["v1alpha1"] true;
    /// Who may connect, and whether mutual TLS is required.
    MutualTlsPolicy mutual_tls_policies: MutualTLSPolicy = "MutualTLSPolicy" "weft.dev" ["v1alpha1"] true;
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AnyObject {
    /// `HTTPRoute shop/web`.
    pub fn describe(&self) -> String {
        format!("{} {}", self.kind(), self.key())
    }
}
