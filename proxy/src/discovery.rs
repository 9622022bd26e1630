//! The connection to the control plane: the xDS client over mutual TLS, with the identity of the moment.
//!
//! `main` starts it once there is an identity. The data path, DNS ([`crate::dns`]) and the admin port ask the client;
//! the trust bundle that it receives goes back to [`crate::identity`].

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_model::Hostname;
use weft_xds::client::{Client, Known, Options};

use crate::config::Config;
use crate::dns::{Lookup, Names};
use crate::identity::channel::{self, Moment};
use crate::identity::{Identity, pem, trust};

/// How long a connection or request waits for the control plane's first answer about where it goes.
pub const DISCOVERY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a resource nobody uses stays subscribed. Longer than the pauses between an application's calls, short enough that
/// memory follows what is used.
const IDLE: Duration = Duration::from_secs(300);
/// How long a name may take; after it the upstream resolver is asked, which in a cluster knows the same names.
const NAME_PATIENCE: Duration = Duration::from_millis(500);

/// Where trust bundles go.
pub type Bundles = watch::Sender<Option<Vec<CertificateDer<'static>>>>;

/// Starts the client's task on this runtime.
pub fn start(config: &Config, identity: &Identity) -> Client {
    let mut options = Options::new(config.node_id());
    options.state_dir = Some(config.state_dir.clone());
    options.idle = IDLE;
    let (address, name) = (
        config.control_plane.clone(),
        config.control_plane_identity.clone(),
    );
    let (bootstrap, identity) = (config.roots.clone(), identity.clone());
    Client::start(options, move || {
        let (bootstrap, identity) = (bootstrap.clone(), identity.clone());
        channel::open(address.clone(), name.clone(), move || {
            let current = identity.current();
            Ok(Moment {
                roots: trust::with_bootstrap(&current.roots, &bootstrap),
                key: Some(Arc::clone(&current.key)),
            })
        })
    })
}

/// Hands each trust bundle on to the identity, and returns with the first answer, from disk or from the control plane. What
/// comes later is handed on by a task on this runtime.
pub async fn follow_roots(client: &Client, bundles: Bundles) {
    let mut roots = client.roots();
    let mut known = roots.get();
    while known.is_pending() {
        known = roots.changed().await;
    }
    tokio::spawn(async move {
        loop {
            if let Known::Present(bundle) = &known {
                match pem::certificates(bundle.pem.as_bytes()) {
                    Ok(certificates) => {
                        bundles.send_replace(Some(certificates));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the trust bundle of the control plane is not used");
                    }
                }
            }
            known = roots.changed().await;
        }
    });
}

impl Names for Client {
    async fn lookup(&self, name: &Hostname) -> Lookup {
        let watch = self.name(name);
        match watch.ready(Instant::now() + NAME_PATIENCE).await {
            Known::Present(record) => Lookup::Addresses(record.addresses.clone()),
            Known::Absent | Known::Pending => Lookup::Unknown,
        }
    }
}
