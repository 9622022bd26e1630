//! The discovery messages on the wire, with resources as shared bytes.
//!
//! The same messages as `envoy.service.discovery.v3`, written by hand for one reason: the generated ones own a
//! `Vec<u8>` for every resource, so each stream would copy what these share. Fields that Weft does not use are left
//! out; protobuf skips them. [`crate::server`] answers and [`crate::client`] asks with these.

use std::collections::HashMap;

use bytes::Bytes;

/// The path of the delta method.
pub const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The path of the state-of-the-world method.
pub const SOTW_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Any {
    /// Names the message type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `envoy.config.core.v3.Node`, as far as it matters.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Node {
    /// `<pod>.<namespace>`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Which client it is: `weft-proxy`, `envoy`, `gRPC ...`.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeltaRequest {
    /// In the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The resource type.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to add to the subscription.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to take out of it.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// In the first request of a type: what the client still has, by name.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The response that is acknowledged or refused.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Set: the response is refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeltaResponse {
    /// The server's version as a whole; for people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New or changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be named in the acknowledgement.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that do not exist, or no longer.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resource {
    /// The version of this resource alone.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SotwRequest {
    /// The version that the client has accepted last.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// In the first request of a stream.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// The whole subscription.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The response that is acknowledged or refused.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Set: the response is refused.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SotwResponse {
    /// The version of this type's resources.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Clusters and listeners: all of them. Others: some of them.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be named in the acknowledgement.
    #[prost(string, tag = "5")]
    pub nonce: String,
}
