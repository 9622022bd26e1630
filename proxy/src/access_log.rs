//! The access log: one JSON line for each request, and for each connection that is not HTTP.
//!
//! Workers call [`AccessLog::write`]; a thread of its own writes to standard output. Between them is a bounded queue that
//! never blocks a worker: when the reader of our output is slow, lines are dropped and counted ([`AccessLog::dropped`]).

#![allow(
    clippy::ref_option,
    clippy::ref_option_ref,
    clippy::trivially_copy_pass_by_ref,
    reason = "the signatures that serde calls"
)]

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use weft_model::{Origin, SpiffeId};

/// Lines that may wait for the writer; at some 500 bytes a line this is at most 2 MiB.
const QUEUE: usize = 4096;
/// Lines are written together up to this many bytes, so that a busy proxy makes few system calls.
const BATCH: usize = 64 * 1024;

/// A cheap handle; disabled, it costs one check.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    lines: SyncSender<String>,
    dropped: AtomicU64,
}

/// Which side of the application the proxy stood on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The application called.
    Outbound,
    /// The application was called.
    Inbound,
}

/// One line. Empty fields are left out.
#[derive(Debug, Clone, Serialize)]
pub struct Record<'a> {
    /// When the request or connection began.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// Outbound or inbound.
    pub direction: Direction,
    /// What was spoken: `http/1.1`, `h2`, `tls`, `tcp`.
    pub protocol: &'static str,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// Path and query as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// `:authority`, `Host`, or the server name of a TLS connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<&'a str>,
    /// HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes from the client (HTTP: of the body).
    pub bytes_received: u64,
    /// Bytes to the client (HTTP: of the body).
    pub bytes_sent: u64,
    /// From the first byte of the request to the last of the answer, in milliseconds.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// The client's identity (inbound).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub peer: Option<&'a SpiffeId>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<SocketAddr>,
    /// The address that answered (outbound: the endpoint).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// The identity that the upstream proved.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub upstream_identity: Option<&'a SpiffeId>,
    /// The address that the client dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// The object whose rule decided.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub route: Option<&'a Origin>,
    /// How many times it was tried; 1 without a retry, 0 when nothing was dialled.
    pub attempts: u32,
    /// Why the proxy itself ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// A record with only what every line has.
    pub fn new(time: SystemTime, direction: Direction, protocol: &'static str) -> Record<'a> {
        Record {
            time,
            direction,
            protocol,
            method: None,
            path: None,
            authority: None,
            status: None,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            peer: None,
            peer_address: None,
            upstream: None,
            upstream_identity: None,
            destination: None,
            route: None,
            attempts: 0,
            reason: None,
        }
    }
}

impl AccessLog {
    /// Writes nothing.
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Writes to standard output, from a thread of its own.
    pub fn stdout() -> std::io::Result<Self> {
        Self::to(std::io::stdout())
    }

    /// Writes to `output`, from a thread of its own that ends with the last handle.
    pub fn to(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".into())
            .stack_size(64 * 1024)
            .spawn(move || drain(&queue, output))?;
        Ok(Self::over(lines))
    }

    fn over(lines: SyncSender<String>) -> Self {
        let dropped = AtomicU64::new(0);
        Self {
            shared: Some(Arc::new(Shared { lines, dropped })),
        }
    }

    /// Ask first: a record is only worth building when somebody reads it.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.shared.is_some()
    }

    /// Queues one line, or drops and counts it. Never blocks.
    pub fn write(&self, record: &Record<'_>) {
        let Some(shared) = &self.shared else { return };
        let sent = match serde_json::to_string(record) {
            Ok(mut line) => {
                line.push('\n');
                shared.lines.try_send(line).is_ok()
            }
            Err(_) => false,
        };
        if !sent {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines lost since the start.
    pub fn dropped(&self) -> u64 {
        self.shared
            .as_ref()
            .map_or(0, |s| s.dropped.load(Ordering::Relaxed))
    }
}

/// Writes what is queued, several lines at a time. Output that fails is given up: nobody reads it.
fn drain(queue: &Receiver<String>, mut output: impl Write) {
    while let Ok(mut batch) = queue.recv() {
        while batch.len() < BATCH {
            match queue.try_recv() {
                Ok(line) => batch.push_str(&line),
                Err(_) => break,
            }
        }
        if output
            .write_all(batch.as_bytes())
            .and_then(|()| output.flush())
            .is_err()
        {
            return;
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, s: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = time::OffsetDateTime::from_unix_timestamp_nanos(
        i128::from(since.as_millis() as u64) * 1_000_000,
    )
    .ok()
    .and_then(|t| {
        t.format(&time::format_description::well_known::Rfc3339)
            .ok()
    });
    s.serialize_str(text.as_deref().unwrap_or_default())
}

fn milliseconds<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: more digits say nothing and cost bytes.
    s.serialize_f64(d.as_micros() as f64 / 1000.0)
}

fn text<T: std::fmt::Display, S: Serializer>(value: &Option<&T>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => s.collect_str(value),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known() {
        let (lines, queue) = sync_channel(4);
        let log = AccessLog::over(lines);
        let peer: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let origin = Origin::object("HTTPRoute", "shop", "cart").rule(0);
        let mut record = Record::new(
            UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            Direction::Inbound,
            "h2",
        );
        record.path = Some("/a\"b");
        record.peer = Some(&peer);
        record.route = Some(&origin);
        record.duration = Duration::from_micros(1500);
        record.status = Some(200);
        log.write(&record);
        assert_eq!(
            queue.recv().unwrap(),
            "{\"time\":\"2023-11-14T22:13:20.123Z\",\"direction\":\"inbound\",\"protocol\":\"h2\",\"path\":\"/a\\\"b\",\
             \"status\":200,\"bytes_received\":0,\"bytes_sent\":0,\"duration_ms\":1.5,\
             \"peer\":\"spiffe://cluster.local/ns/shop/sa/web\",\"route\":\"HTTPRoute shop/cart rule 0\",\"attempts\":0}\n"
        );
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (lines, queue) = sync_channel(1);
        let log = AccessLog::over(lines);
        let record = Record::new(UNIX_EPOCH, Direction::Outbound, "tcp");
        for _ in 0..3 {
            log.write(&record);
        }
        assert_eq!(log.dropped(), 2);
        assert!(queue.try_recv().is_ok() && queue.try_recv().is_err());
        assert!(!AccessLog::disabled().enabled());
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        struct Pipe(std::sync::mpsc::Sender<Vec<u8>>);
        impl Write for Pipe {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.send(bytes.to_vec()).ok();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (tx, rx) = std::sync::mpsc::channel();
        let log = AccessLog::to(Pipe(tx)).unwrap();
        for n in 0..100 {
            let mut record = Record::new(UNIX_EPOCH, Direction::Outbound, "tcp");
            record.attempts = n;
            log.write(&record);
        }
        drop(log);
        let written = String::from_utf8(rx.iter().flatten().collect()).unwrap();
        let attempts = written
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        assert!(attempts.map(|v| v["attempts"].as_u64().unwrap()).eq(0..100));
    }
}
