//! What the data path counts. Every name that `/metrics` shows for traffic is here.
//!
//! Handles are resolved once, when a connection or backend is set up, and counting is one atomic addition.
//! [`bounded`] drops series that nobody holds and nothing has touched for ten minutes.

pub mod bounded;
pub mod destination;

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;

pub use bounded::{Bounded, Count, Durations};
pub use destination::DestinationMetrics;

/// A handle to one counter.
pub type Counter = Arc<Count>;

/// Every family, shared by all workers.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Requests of the application, by their final answer.
    pub outbound_requests: Bounded<OutboundRequest, Count>,
    /// Attempts, retries included.
    pub outbound_attempts: Bounded<Attempt, Count>,
    /// From the request's head to the response's, retries included, in seconds.
    pub outbound_durations: Bounded<ByDestination, Durations>,
    /// Requests to the application.
    pub inbound_requests: Bounded<InboundRequest, Count>,
    /// Connections that are not HTTP.
    pub tcp_connections: Bounded<TcpConnection, Count>,
    /// Their bytes.
    pub tcp_bytes: Bounded<TcpBytes, Count>,
    /// TLS handshakes with other members of the mesh.
    pub tls_handshakes: Bounded<Handshake, Count>,
    /// What undeclared ports turned out to speak.
    pub protocol_detected: Bounded<Detected, Count>,
    /// Connections that were refused.
    pub refused: Bounded<Refused, Count>,
    /// Endpoints taken out for a while.
    pub ejections: Bounded<ByDestination, Count>,
    /// Retries, and those that the budget or the body forbade.
    pub retries: Bounded<Attempt, Count>,
}

/// Final answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutboundRequest {
    /// The backend, or the captured destination where none was chosen.
    pub destination: String,
    /// `http/1.1` or `h2`.
    pub protocol: &'static str,
    /// HTTP status.
    pub status: u32,
    /// Why the proxy answered itself; empty when it did not.
    pub reason: &'static str,
}

/// Attempts and retries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Attempt {
    /// The backend.
    pub destination: String,
    /// `success`, or the reason.
    pub outcome: &'static str,
}

/// By backend alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByDestination {
    /// The backend.
    pub destination: String,
}

/// Requests to the application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InboundRequest {
    /// The application's port.
    pub port: u32,
    /// `http/1.1` or `h2`.
    pub protocol: &'static str,
    /// HTTP status.
    pub status: u32,
    /// The client's identity, or `plaintext`.
    pub peer: String,
}

/// Connections that are not HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TcpConnection {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// The backend, the address outside the mesh, or the application's port.
    pub destination: String,
    /// The peer's identity, or `plaintext`.
    pub peer: String,
}

/// Bytes of connections that are not HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TcpBytes {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// As in [`TcpConnection`].
    pub destination: String,
    /// `sent`: from the client to the server; `received`: back.
    pub flow: &'static str,
}

/// Handshakes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Handshake {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// The peer's identity; outbound the one that was expected; `unknown` where none was proved.
    pub peer: String,
    /// `TLSv1_3`; empty when it failed.
    pub version: &'static str,
    /// Key exchange group; empty when it failed.
    pub group: &'static str,
    /// `full`, `resumed`, or the failure's reason.
    pub result: &'static str,
}

/// Detection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Detected {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// The port that the client dialled.
    pub port: u32,
    /// `http/1.1`, `h2`, `tls`, `tcp`, or `server-first`.
    pub protocol: &'static str,
}

/// Refusals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// As in the error table.
    pub reason: &'static str,
}

impl Metrics {
    /// Every family, known to `registry` too.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self::default();
        macro_rules! register {
            ($($field:ident $name:literal $help:literal;)*) => {
                $(registry.register($name, $help, metrics.$field.clone());)*
            };
        }
        // The encoder adds `_total` to the names of counters.
        register! {
            outbound_requests "weft_outbound_requests" "Requests of the application by their final answer";
            outbound_attempts "weft_outbound_attempts" "Attempts of requests, retries included";
            outbound_durations "weft_outbound_request_duration_seconds" "From the head of a request to the head of its response";
            inbound_requests "weft_inbound_requests" "Requests to the application";
            tcp_connections "weft_tcp_connections" "Connections that are not HTTP";
            tcp_bytes "weft_tcp_bytes" "Bytes of connections that are not HTTP";
            tls_handshakes "weft_tls_handshakes" "TLS handshakes with other members of the mesh";
            protocol_detected "weft_protocol_detected" "What ports without a declared protocol turned out to speak";
            refused "weft_refused" "Connections that were refused";
            ejections "weft_ejections" "Endpoints taken out for a while";
            retries "weft_retries" "Retries, and those that the budget or the body forbade";
        }
        Arc::new(metrics)
    }

    /// Forgets idle series. To be called once a minute.
    pub fn sweep(&self) {
        self.outbound_requests.sweep();
        self.outbound_attempts.sweep();
        self.outbound_durations.sweep();
        self.inbound_requests.sweep();
        self.tcp_connections.sweep();
        self.tcp_bytes.sweep();
        self.tls_handshakes.sweep();
        self.protocol_detected.sweep();
        self.refused.sweep();
        self.ejections.sweep();
        self.retries.sweep();
    }

    /// A connection was refused.
    pub fn refuse(&self, direction: &'static str, reason: &'static str) {
        self.refused.get(&Refused { direction, reason }).add(1);
    }

    /// A port was detected.
    pub fn detect(&self, direction: &'static str, port: u16, protocol: &'static str) {
        let port = port.into();
        let labels = Detected {
            direction,
            port,
            protocol,
        };
        self.protocol_detected.get(&labels).add(1);
    }

    /// The byte counters of a destination.
    pub fn bytes(&self, direction: &'static str, destination: &str) -> ByteCounters {
        let flow = |flow| {
            self.tcp_bytes.get(&TcpBytes {
                direction,
                destination: destination.to_owned(),
                flow,
            })
        };
        ByteCounters {
            sent: flow("sent"),
            received: flow("received"),
        }
    }
}

/// Where the bytes of a connection are counted.
#[derive(Debug, Default)]
pub struct ByteCounters {
    sent: Counter,
    received: Counter,
}

impl ByteCounters {
    /// Adds what passed since the last call.
    pub fn add(&self, sent: u64, received: u64) {
        if sent > 0 {
            self.sent.add(sent);
        }
        if received > 0 {
            self.received.add(received);
        }
    }
}
