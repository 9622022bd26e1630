//! Connections that are not HTTP: one endpoint for the whole of it, then bytes both ways.
//!
//! [`open`] and [`forward`] are the last steps of [`super::serve`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weft_model::decide::{Reason, Refusal, outbound::draw};
use weft_model::{Origin, SniRoute, SpiffeId};

use crate::access_log::{Direction, Record};
use crate::backend::InFlight;
use crate::balance::limits::Permit;
use crate::connect::{self, Upstream};
use crate::discovery::DISCOVERY_PATIENCE;
use crate::error::Error;
use crate::listen::Captured;
use crate::metrics::TcpConnection;
use crate::prefixed::Prefixed;
use crate::tcp::{self, Copied};
use crate::tls::Inner;
use crate::worker::Worker;

/// Endpoints that are tried before a connection is given up.
const ATTEMPTS: u32 = 3;
/// Time for a connection to an address outside the mesh; what Linux gives up after is two minutes.
const OUTSIDE_TIMEOUT: Duration = Duration::from_secs(10);

/// An open connection to a server.
pub struct Server {
    /// The connection.
    pub io: Upstream,
    /// The route that led here.
    pub route: Origin,
    /// What the server has said already.
    pub greeting: Bytes,
    address: SocketAddr,
    label: String,
    identity: Option<SpiffeId>,
    attempts: u32,
    held: Option<(InFlight, Permit)>,
}

/// Picks a backend and an endpoint, and connects; elsewhere if that fails.
pub async fn open(route: &SniRoute, worker: &Worker) -> Result<Server, Error> {
    let (_, key) = draw(&route.backends, fastrand::u64(..)).ok_or_else(|| Refusal {
        reason: Reason::NoBackend,
        origin: route.meta.origin.clone(),
    })?;
    let backend = worker.backend(key);
    let cluster = backend
        .ready(|| tokio::time::Instant::now() + DISCOVERY_PATIENCE)
        .await?;
    let policy = &cluster.policy;
    let mut tried = Vec::new();
    for attempts in 1.. {
        let permit = backend.limits.connection(&policy.circuit_breaker)?;
        let mut in_flight = backend.pick(&cluster, &tried)?;
        let endpoint = Rc::clone(&in_flight.endpoint);
        let identity = endpoint.identity.as_ref();
        let (dialer, metrics) = (&worker.dialer, &worker.shared.metrics);
        let within = policy.connect_timeout;
        match connect::to_endpoint(
            dialer,
            metrics,
            endpoint.address,
            identity,
            Inner::Tcp,
            within,
        )
        .await
        {
            Ok(io) => {
                in_flight.answered();
                backend.metrics.attempted("success");
                return Ok(Server {
                    io,
                    route: route.meta.origin.clone(),
                    greeting: Bytes::new(),
                    address: endpoint.address,
                    label: backend.metrics.name.clone(),
                    identity: endpoint.identity.clone(),
                    attempts,
                    held: Some((in_flight, permit)),
                });
            }
            Err(error) => {
                let error = Error::from(error);
                in_flight.failed(false);
                backend.metrics.attempted(error.verdict().reason);
                tried.push(endpoint.address);
                if attempts >= ATTEMPTS {
                    return Err(error);
                }
                backend.metrics.retry("retried");
            }
        }
    }
    Err(crate::error::PickError::NoneReady.into())
}

/// Connects to where the client wanted to go.
pub async fn open_as_it_is(address: SocketAddr) -> Result<Server, Error> {
    let dialled = tokio::time::timeout(OUTSIDE_TIMEOUT, connect::dial(address)).await;
    let io = dialled.unwrap_or(Err(crate::error::ConnectError::Timeout))?;
    Ok(Server {
        io: Upstream::Plain(io),
        route: Origin::default_of("outbound-policy"),
        greeting: Bytes::new(),
        address,
        label: address.to_string(),
        identity: None,
        attempts: 1,
        held: None,
    })
}

/// Passes bytes both ways until both sides have ended.
pub async fn forward(
    conn: Captured<Prefixed<TcpStream>>,
    mut server: Server,
    name: Option<&str>,
    worker: &Worker,
) {
    let (time, began) = (SystemTime::now(), Instant::now());
    let metrics = &worker.shared.metrics;
    let labels = TcpConnection {
        direction: "outbound",
        destination: server.label.clone(),
        peer: server
            .identity
            .as_ref()
            .map_or_else(|| "plaintext".to_owned(), ToString::to_string),
    };
    metrics.tcp_connections.get(&labels).add(1);
    let counters = metrics.bytes("outbound", &server.label);
    let (mut client, mut copied) = (conn.io, Copied::default());
    let greeting = std::mem::take(&mut server.greeting);
    counters.add(0, greeting.len() as u64);
    let done = match client.write_all(&greeting).await {
        Ok(()) => tcp::copy(&mut client, &mut server.io, &counters, &mut copied).await,
        Err(error) => Err(tcp::CopyError::Client(error)),
    };
    copied.received += greeting.len() as u64;
    if let Err(error) = &done {
        tracing::debug!(destination = %server.label, %error, "a connection broke");
        tcp::pass_on_reset(client.get_ref(), error);
    }
    drop(server.held);
    let log = &worker.shared.access_log;
    if log.enabled() {
        let mut record = Record::new(
            time,
            Direction::Outbound,
            if name.is_some() { "tls" } else { "tcp" },
        );
        record.authority = name;
        record.bytes_received = copied.sent;
        record.bytes_sent = copied.received;
        record.duration = began.elapsed();
        record.peer_address = Some(conn.peer);
        record.upstream = Some(server.address);
        record.upstream_identity = server.identity.as_ref();
        record.destination = Some(conn.original_dst);
        record.route = Some(&server.route);
        record.attempts = server.attempts;
        record.reason = done.is_err().then_some("reset");
        log.write(&record);
    }
}
