//! The on-demand delta client of our proxy: it asks for what traffic needs, and forgets what has been idle.
//!
//! [`Client`] is the handle that the proxy's workers share; [`watch`] is what they hold. One task ([`stream`]) speaks
//! delta ADS over a channel that the caller makes, [`table`] is what both sides share, [`disk`] keeps the last good
//! resources over a restart.
//!
//! # Round trips
//! A new destination takes two in the usual case: `destination` first, then `routes`, `cluster` and `endpoints` of
//! [`Destination::key`] at once, without waiting for one another. A third only when the routes name other backends
//! ([`HttpRoutes::backends`], [`Destination::sni`]): ask for all their clusters and endpoints at once as well.

pub mod watch;

mod cell;
mod disk;
mod state;
mod stream;
mod table;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;
use weft_model::{
    BackendKey, Cluster, Destination, DnsRecord, Endpoints, Hostname, HttpRoutes, InboundPort,
    ListenerName,
};

use crate::convert::{TRUST_BUNDLE, TrustBundle, dns_name, inbound_name};

pub use state::{ClientState, Known as KnownState, ResourceState};
pub use watch::{Known, Watch};

pub use crate::convert::USER_AGENT;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// `<pod>.<namespace>`.
    pub node_id: String,
    /// Where the last good resources are kept; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// How long a resource that nobody watches stays subscribed, while the control plane is there.
    pub idle: Duration,
    /// How many names may be subscribed at once. Beyond it idle ones are dropped early, then new ones stay pending.
    pub max_resources: usize,
    /// How long changes are gathered before they are written to disk.
    pub save_after: Duration,
}

impl Options {
    /// Without a disk, five minutes idle, 16,384 names.
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            node_id: node_id.into(),
            state_dir: None,
            idle: Duration::from_secs(300),
            max_resources: 16_384,
            save_after: Duration::from_secs(1),
        }
    }
}

/// A handle to the client; clones share it. Its task ends when the last handle and the last [`Watch`] are dropped.
#[derive(Clone)]
pub struct Client {
    table: Arc<table::Table>,
    alive: Arc<table::Alive>,
}

impl Client {
    /// Reads what is on disk and starts the client's task on the current runtime.
    ///
    /// `connect` makes a channel for each attempt, lazily connected, with keep-alive pings
    /// (`http2_keep_alive_interval`), and with the certificate that is current then.
    pub fn start<F>(options: Options, connect: F) -> Self
    where
        F: Fn() -> Channel + Send + Sync + 'static,
    {
        let table = Arc::new(table::Table::new(options));
        if let Some(dir) = &table.options.state_dir {
            table.restore(disk::read(dir));
        }
        let alive = Arc::new(table::Alive::new(()));
        tokio::spawn(stream::run(Arc::clone(&table), connect, alive.subscribe()));
        tokio::spawn(writer::run(Arc::clone(&table), alive.subscribe()));
        Self { table, alive }
    }

    /// Writes what is known to disk now, instead of some time after the last change. For an orderly shutdown.
    pub async fn save(&self) {
        writer::save(&self.table).await;
    }

    /// What is at a captured address.
    pub fn destination(&self, address: SocketAddr) -> Watch<Destination> {
        self.table
            .watch(&self.alive, ListenerName::Outbound(address).to_string())
    }

    /// The HTTP routes of a destination.
    pub fn routes(&self, key: &BackendKey) -> Watch<HttpRoutes> {
        self.table.watch(&self.alive, key.to_string())
    }

    /// A backend.
    pub fn cluster(&self, key: &BackendKey) -> Watch<Cluster> {
        self.table.watch(&self.alive, key.to_string())
    }

    /// The endpoints of a backend.
    pub fn endpoints(&self, key: &BackendKey) -> Watch<Endpoints> {
        self.table.watch(&self.alive, key.to_string())
    }

    /// The addresses of a name. Absent: not a name of the mesh.
    pub fn name(&self, name: &Hostname) -> Watch<DnsRecord> {
        self.table.watch(&self.alive, dns_name(name))
    }

    /// The policy of one of the workload's own ports.
    pub fn inbound(&self, port: u16) -> Watch<InboundPort> {
        self.table.watch(&self.alive, inbound_name(port))
    }

    /// The roots that vouch for identities.
    pub fn roots(&self) -> Watch<TrustBundle> {
        self.table.watch(&self.alive, TRUST_BUNDLE.to_owned())
    }

    /// What is subscribed and how it stands; for the admin port.
    pub fn state(&self) -> ClientState {
        self.table.state()
    }
}
