//! Start and stop: everything is put together here, in the order in which it depends on one another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;
use weft_k8s::CompileOptions;
use weft_k8s::source::ObjectSource as _;
use weft_k8s::source::directory::{Directory, Options};
use weft_xds::server::{AdsServer, Clients};

use crate::admin::{self, Pages};
use crate::ca::{self, Authority, CaError, CaFiles};
use crate::compile::{self, CompileError, InForce};
use crate::config::{CaSource, Config};
use crate::convergence;
use crate::issue::Certificates;
use crate::metrics::Metrics;
use crate::problems::Problems;
use crate::serve::tls::{Names, TlsError};
use crate::serve::{self, Dispatch, Limits, tls};
use crate::token::keys::{self, KeySetError};
use crate::token::{KeySet, TokenReviewer};

/// The control plane cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The authority's files.
    #[error("certificate authority: {0}")]
    Authority(#[from] CaError),
    /// The token issuer's keys.
    #[error("token keys: {0}")]
    TokenKeys(#[from] KeySetError),
    /// The source of objects.
    #[error("the source of objects cannot be watched: {0}")]
    Source(io::Error),
    /// The first compilation.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The own certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port is taken, or the address is not ours.
    #[error("{flag}: cannot listen on {address}: {source}")]
    Listen {
        /// The flag with the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The compile loop is gone.
    #[error("the source of objects ended")]
    SourceEnded,
}

/// Runs until `shutdown` says so, and ends in good order.
pub async fn run(config: Config, shutdown: watch::Receiver<bool>) -> Result<(), RunError> {
    let metrics = Metrics::new();
    let problems = Problems::default();

    // 1 Who vouches for identities, and whose tokens are believed.
    let authority = authority(&config, problems.clone())?;
    let keys = keys::start(config.jwks.clone(), problems.clone())?;
    let tls = tls::start(
        authority.clone(),
        names(&config),
        metrics.clone(),
        problems.clone(),
    )?;

    // 2 From objects to snapshots.
    let source = start_source(&config)?;
    let options = CompileOptions {
        trust_domain: config.trust_domain.clone(),
        cluster_domain: config.cluster_domain.to_string(),
    };
    let running = compile::start(
        source.observe(),
        authority.clone(),
        options,
        metrics.clone(),
    )
    .await?;
    let clients = Clients::default();
    let followed = running.in_force.clone();
    tokio::spawn(convergence::observe(
        followed,
        clients.clone(),
        metrics.clone(),
    ));

    // 3 What the two ports answer.
    let (ready_sender, ready) = watch::channel(false);
    let pages = Pages {
        in_force: running.in_force.clone(),
        clients: clients.clone(),
        authority: authority.clone(),
        problems,
        metrics: metrics.clone(),
        ready,
    };
    let certificates = Certificates {
        reviewer: reviewer(&config, keys),
        authority,
        objects: source.observe(),
        trust_domain: config.trust_domain.clone(),
        max_lifetime: config.certificate_ttl,
        metrics: metrics.clone(),
    };
    let dispatch = Dispatch::new(AdsServer::new(running.snapshots, clients), certificates);

    // 4 Open them, and serve until the end.
    let (listener, address) = listen("--listen", config.listen).await?;
    let (admin_listener, admin_address) = listen("--admin", config.admin).await?;
    let limits = limits(&config);
    let (close, closing) = watch::channel(false);
    let (stop_admin, admin_stop) = watch::channel(false);
    let serving = tokio::spawn(serve::serve(
        listener, tls, dispatch, limits, metrics, closing,
    ));
    let admin = tokio::spawn(admin::serve(admin_listener, pages, admin_stop));
    ready_sender.send_replace(true);
    info!(listen = %address, admin = %admin_address, identity = %config.identity, "ready");
    let result = until_the_end(running.in_force, shutdown).await;

    // 5 Nothing new is accepted, what is open ends, and the admin port goes last.
    ready_sender.send_replace(false);
    info!("stopping");
    close.send_replace(true);
    let _ = serving.await;
    stop_admin.send_replace(true);
    let _ = admin.await;
    info!("stopped");
    result
}

/// The signal, or the end of the compile loop, which closes its channel.
async fn until_the_end(
    mut in_force: watch::Receiver<Arc<InForce>>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let ended = async { while in_force.changed().await.is_ok() {} };
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => Ok(()),
        () = ended => Err(RunError::SourceEnded),
    }
}

fn start_source(config: &Config) -> Result<Directory, RunError> {
    Directory::start(Options {
        paths: config.source.clone(),
        write_back: config.write_back.clone(),
    })
    .map_err(RunError::Source)
}

fn reviewer(config: &Config, keys: watch::Receiver<Arc<KeySet>>) -> TokenReviewer {
    TokenReviewer::KeySet {
        keys,
        expected: config.expected.clone(),
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        drain: config.drain,
        ..Limits::default()
    }
}

fn authority(
    config: &Config,
    problems: Problems,
) -> Result<watch::Receiver<Arc<Authority>>, CaError> {
    let files = match &config.ca {
        CaSource::Given(files) => files.clone(),
        CaSource::Own { root, extra_roots } => {
            ca::root::ensure(root, &config.trust_domain, SystemTime::now())?;
            CaFiles {
                certificate: root.certificate.clone(),
                key: root.key.clone(),
                chain: None,
                extra_roots: extra_roots.clone(),
            }
        }
    };
    ca::reload::start(files, problems)
}

fn names(config: &Config) -> Names {
    Names {
        identity: config.identity.clone(),
        dns: config.dns_names.clone(),
        lifetime: config.certificate_ttl,
    }
}

/// With the address that it really has, which differs when port 0 was asked for.
async fn listen(
    flag: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen {
        flag,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
