//! The aggregated discovery server: delta and state of the world, to our proxy, Envoy and gRPC.
//!
//! [`snapshot`] is what there is to serve, made anew whenever the mesh changed; [`clients`] is what is known of those
//! who ask. The transport in front ends TLS and puts the peer's [`PeerIdentity`] into each request's extensions.

mod clients;
mod snapshot;

use std::sync::Arc;

use tokio::sync::watch;
use weft_model::SpiffeId;

pub use clients::{ClientStatus, Clients, Nack, ResourceStatus, TypeStatus};
pub use snapshot::Snapshot;

/// Who the client's certificate says it is; an extension of the HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity(pub SpiffeId);

/// The service, for `tonic::transport::Server::add_service`.
#[derive(Clone)]
pub struct AdsServer {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clients: Clients,
}

impl AdsServer {
    /// Serves the newest snapshot, and every one that follows it.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, clients: Clients) -> Self {
        Self { snapshots, clients }
    }
}
