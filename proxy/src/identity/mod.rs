//! Who this workload is: its key, its certificate and the roots it trusts, always current.
//!
//! [`Identity`] is what the rest of the proxy sees: a handle from which a handshake takes the credentials of the moment.
//! Open connections keep what they began with. `main` calls [`start`], which gets the first certificate and
//! keeps renewing it ([`renewal`]), or follows files ([`files`]). [`verify`] judges certificates, ours and the peers'.

pub mod channel;
pub mod credentials;
pub mod crypto;
pub mod files;
pub mod pem;
pub mod renewal;
pub mod request;
pub mod schedule;
pub mod status;
pub mod store;
pub mod trust;
pub mod verify;

#[cfg(test)]
pub(crate) mod testing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use credentials::Credentials;
pub use renewal::Distributed;
pub use status::Status;

use crate::config::Config;

/// A handle to the current credentials; cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    current: watch::Receiver<Arc<Credentials>>,
    /// With [`Identity::fixed`]: held so that waiting for a change never ends for want of a sender.
    _sender: Option<Arc<watch::Sender<Arc<Credentials>>>>,
}

impl Identity {
    /// Credentials that never change.
    pub fn fixed(credentials: Credentials) -> Self {
        let (sender, Self { current, .. }) = Self::new(credentials);
        Self {
            current,
            _sender: Some(Arc::new(sender)),
        }
    }

    /// Credentials that whoever holds the sender may replace.
    pub fn new(credentials: Credentials) -> (watch::Sender<Arc<Credentials>>, Self) {
        let (sender, current) = watch::channel(Arc::new(credentials));
        let identity = Self {
            current,
            _sender: None,
        };
        (sender, identity)
    }

    /// The credentials for the next handshake. Takes a read lock for the length of a reference count.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// To be told of each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.clone()
    }
}

/// What the identity's task has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to ask, for what.
    pub authority: request::Authority,
    /// The bootstrap trust bundle.
    pub roots: PathBuf,
    /// Where the last good certificate and trust bundle are kept. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// When to renew; `None` for two thirds of the lifetime.
    pub renew_after: Option<Duration>,
    /// Certificates from files instead.
    pub files: Option<PathBuf>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            authority: request::Authority {
                address: config.control_plane.clone(),
                name: config.control_plane_identity.clone(),
                token: config.token.clone(),
                id: config.identity(),
                ttl: config.certificate_ttl,
            },
            roots: config.roots.clone(),
            state_dir: Some(config.state_dir.clone()),
            renew_after: config.cert_renew_after,
            files: config.identity_files.clone(),
        }
    }
}

/// Returns as soon as there is an identity, however long that takes, and keeps it current from then on.
pub async fn start(settings: Settings, status: Arc<Status>, distributed: Distributed) -> Identity {
    match settings.files.clone() {
        Some(directory) => files::start(settings, directory, status).await,
        None => renewal::start(settings, status, distributed).await,
    }
}
