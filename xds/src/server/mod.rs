//! The aggregated discovery server: delta and state of the world, to our proxy, Envoy and gRPC.
//!
//! [`snapshot`] is what there is to serve, made anew whenever the mesh changed, of [`resource`]s that are encoded once;
//! [`session`] runs one stream, with a [`subscription`] for each type; [`peer`] says who may ask for what; [`clients`]
//! is what is known of all streams. The transport in front ends TLS and puts the peer's [`PeerIdentity`] into each
//! request's extensions.

mod clients;
mod peer;
mod protocol;
mod request;
mod resource;
mod respond;
mod service;
mod session;
mod snapshot;
mod subscription;

pub use clients::{ClientStatus, Clients, Nack, ResourceStatus, TypeStatus};
pub use service::{AdsServer, PeerIdentity};
pub use snapshot::Snapshot;
