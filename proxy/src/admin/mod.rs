//! What operators see: health and metrics on every address (15020), administration on loopback (15000).
//!
//! `main` makes the [`State`] first thing and starts both ports with [`start`], so that they say what the proxy is waiting for
//! before it can do anything else. [`server`] is the HTTP of both; [`health`] and [`control`] are their paths, [`metrics`],
//! [`views`] and [`explain`] what they show.

pub mod control;
pub mod explain;
pub mod health;
pub mod metrics;
pub mod process;
pub mod server;
pub mod views;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use prometheus_client::registry::Registry;
use weft_xds::client::Client;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::dns;
use crate::drain::Drain;
use crate::identity::{Identity, Status};
use crate::readiness::Readiness;
use crate::telemetry::LogLevel;

/// Everything that is shown or can be switched.
pub struct State {
    /// As read from the environment.
    pub config: Config,
    /// What is still awaited.
    pub readiness: Readiness,
    /// Starts with POST /drain.
    pub drain: Drain,
    /// Changes with PUT /log-level.
    pub log: LogLevel,
    /// How renewal is doing.
    pub identity_status: Arc<Status>,
    /// Questions answered.
    pub dns: Arc<dns::Counts>,
    /// For its lost lines.
    pub access_log: AccessLog,
    /// What exists only after a while.
    pub running: OnceLock<Running>,
}

/// What there is once the proxy has an identity.
#[derive(Clone)]
pub struct Running {
    /// The credentials of the moment.
    pub identity: Identity,
    /// The resources in force.
    pub client: Client,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Listens on both ports and serves them on this runtime. `registry` holds the metrics of the data path.
pub fn start(state: &Arc<State>, mut registry: Registry) -> io::Result<()> {
    registry.register_collector(Box::new(metrics::Collected(Arc::clone(state))));
    let (registry, ports) = (Arc::new(registry), state.config.ports);
    let any = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    let loopback = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ];
    for listener in server::bind(any, ports.health)? {
        let (state, registry) = (Arc::clone(state), Arc::clone(&registry));
        server::serve(listener, move |request| {
            std::future::ready(health::answer(&request, &state, &registry))
        });
    }
    for listener in server::bind(loopback, ports.admin)? {
        let state = Arc::clone(state);
        server::serve(listener, move |request| {
            control::answer(request, Arc::clone(&state))
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
