//! Connections that are not HTTP, to the application.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::judge::Judge;
use crate::access_log::{Direction, Record};
use crate::connect;
use crate::error::Error;
use crate::listen::Captured;
use crate::metrics::TcpConnection;
use crate::tcp::{self, Copied, CopyError};
use crate::worker::Worker;

/// Time for a connection to the application: it is on this machine.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the application.
pub(super) async fn open<I>(conn: &Captured<I>) -> Result<TcpStream, Error> {
    Ok(connect::to_application(conn.original_dst, CONNECT_TIMEOUT).await?)
}

/// Connects to the application and passes bytes.
pub(super) async fn serve<I>(
    conn: Captured<I>,
    judge: Judge,
    worker: &Rc<Worker>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let server = open(&conn).await?;
    forward(conn, server, Bytes::new(), judge, worker).await;
    Ok(())
}

/// Passes bytes both ways until both sides have ended, or the peer is not allowed any more.
pub(super) async fn forward<I>(
    conn: Captured<I>,
    mut server: TcpStream,
    greeting: Bytes,
    judge: Judge,
    worker: &Rc<Worker>,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (time, began) = (SystemTime::now(), Instant::now());
    let metrics = &worker.shared.metrics;
    let destination = conn.original_dst.port().to_string();
    let labels = TcpConnection {
        direction: "inbound",
        destination: destination.clone(),
        peer: judge.peer_label(),
    };
    metrics.tcp_connections.get(&labels).add(1);
    let counters = metrics.bytes("inbound", &destination);
    counters.add(0, greeting.len() as u64);
    let (mut client, mut copied) = (conn.io, Copied::default());
    let done = match client.write_all(&greeting).await {
        Ok(()) => tokio::select! {
            done = tcp::copy(&mut client, &mut server, &counters, &mut copied) => done.err().map(|e| ("reset", Some(e))),
            () = judge.revoked(false) => Some(("revoked", None)),
        },
        Err(error) => Some(("reset", Some(CopyError::Client(error)))),
    };
    copied.received += greeting.len() as u64;
    if let Some((_, Some(error))) = &done {
        tracing::debug!(port = %destination, %error, "a connection broke");
    }
    let log = &worker.shared.access_log;
    if log.enabled() {
        let mut record = Record::new(time, Direction::Inbound, "tcp");
        record.bytes_received = copied.sent;
        record.bytes_sent = copied.received;
        record.duration = began.elapsed();
        record.peer = judge.peer.as_ref().map(|p| &p.id);
        record.peer_address = Some(conn.peer);
        record.upstream = Some(conn.original_dst);
        record.destination = Some(conn.original_dst);
        record.attempts = 1;
        record.reason = done.as_ref().map(|(reason, _)| *reason);
        log.write(&record);
    }
}
