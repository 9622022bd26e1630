//! Everything that can go wrong in the data path, and the one table that says what becomes of it.
//!
//! Each layer has its own small enum: where a connection goes ([`DestinationError`]), which endpoint ([`PickError`]), the
//! way there ([`ConnectError`]), the exchange itself ([`ExchangeError`]), what the client sent ([`RequestError`]).
//! [`Error::verdict`] maps each to a reply, a label and whether it may be tried again. `crate::http::reply` makes the reply.

use std::io;

use weft_model::Origin;
use weft_model::decide::{Reason, Refusal};

use crate::tls::HandshakeFailure;

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not known where to go.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A route or policy says no.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// No endpoint can be used.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// The endpoint cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The endpoint did not answer as it should.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The client's request cannot be served.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// It is not known where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// The mesh does not know the address, and unknown destinations are denied.
    #[error("the destination is not part of the mesh, and the outbound policy denies others")]
    Unknown,
    /// The control plane has not answered, and there is no earlier answer.
    #[error("the control plane cannot be reached, and this destination was never used before")]
    Pending,
    /// The address is this proxy's own.
    #[error("the destination is this proxy itself")]
    Loop,
    /// A route names a backend that the control plane does not know.
    #[error("the backend of the route does not exist")]
    NoSuchBackend,
}

/// No endpoint can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The backend has no endpoint that is ready or draining.
    #[error("no endpoint is ready")]
    NoneReady,
    /// The limit on connections is reached.
    #[error("the limit on open connections is reached")]
    Connections,
    /// The limit on waiting requests is reached.
    #[error("the limit on waiting requests is reached")]
    Pending,
    /// The limit on requests in flight is reached.
    #[error("the limit on requests in flight is reached")]
    Requests,
}

/// The endpoint cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No route to it.
    #[error("the endpoint cannot be reached")]
    Unreachable,
    /// Connect or handshake took longer than the connect timeout.
    #[error("connecting took too long")]
    Timeout,
    /// Another error of the operating system, e.g. out of ports or descriptors.
    #[error("connecting failed: {0}")]
    Io(io::ErrorKind),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(#[from] HandshakeFailure),
}

/// The endpoint did not answer as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Provably not processed: nothing was sent, REFUSED_STREAM, or a stream beyond GOAWAY.
    #[error("the endpoint did not take the request")]
    NotTaken,
    /// The connection or stream broke before a response began.
    #[error("the connection broke before the response")]
    Reset,
    /// What came is no HTTP response.
    #[error("the endpoint's response is malformed")]
    Malformed,
    /// One attempt took longer than its limit.
    #[error("the attempt took too long")]
    TryTimeout,
    /// All attempts together took longer than the request's limit.
    #[error("the request took too long")]
    RequestTimeout,
}

/// The client's request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No `Host`, or several, or one that is no authority (RFC 9112, 3.2).
    #[error("the Host header is missing, repeated or malformed")]
    Host,
    /// Its body broke off.
    #[error("the client went away")]
    ClientGone,
    /// The port is declared as HTTP, and the client speaks something else.
    #[error("the port is declared as HTTP, and the client speaks something else")]
    NotHttp,
}

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The calling application.
    Client,
    /// The application or pod that was called.
    Server,
    /// The mesh or its configuration.
    Mesh,
}

/// May the request be sent again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would end the same way.
    Never,
    /// Nothing was processed: always safe.
    Safe,
    /// Perhaps something was processed: as the route's policy says for resets.
    Reset,
    /// The attempt was given up: like any attempt that ran out of time.
    Timeout,
}

/// What becomes of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Status of the reply.
    pub status: u16,
    /// The same for gRPC.
    pub grpc: u8,
    /// Error type of `Proxy-Status` (RFC 9209, 2.3).
    pub proxy_status: &'static str,
    /// Metric label.
    pub reason: &'static str,
    /// Retryable or not.
    pub again: Again,
    /// Whose fault.
    pub fault: Fault,
}

/// gRPC status codes (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>).
mod grpc {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
}

impl Error {
    /// The table. Every error has its line; there is no default.
    #[rustfmt::skip]
    pub fn verdict(&self) -> Verdict {
        use {Again as A, Fault as F};
        let (status, grpc, proxy_status, reason, again, fault) = match self {
            Self::Destination(e) => match e {
                DestinationError::Unknown => (502, grpc::UNAVAILABLE, "destination_ip_prohibited", "unknown_destination", A::Never, F::Client),
                DestinationError::Pending => (503, grpc::UNAVAILABLE, "proxy_configuration_error", "control_plane_unavailable", A::Never, F::Mesh),
                DestinationError::Loop => (502, grpc::INTERNAL, "proxy_loop_detected", "loop", A::Never, F::Client),
                DestinationError::NoSuchBackend => (500, grpc::UNAVAILABLE, "proxy_configuration_error", "no_such_backend", A::Never, F::Mesh),
            },
            Self::Refused(refusal) => match refusal.reason {
                Reason::NoRoute => (404, grpc::UNIMPLEMENTED, "destination_not_found", "no_route", A::Never, F::Client),
                Reason::NoBackend => (500, grpc::UNAVAILABLE, "proxy_configuration_error", "no_backend", A::Never, F::Mesh),
                Reason::NoSniRoute => (404, grpc::UNIMPLEMENTED, "destination_not_found", "no_sni_route", A::Never, F::Client),
                Reason::NotHttp => (400, grpc::INTERNAL, "http_request_error", "not_http", A::Never, F::Client),
                Reason::PlaintextRefused => (403, grpc::PERMISSION_DENIED, "http_request_denied", "plaintext", A::Never, F::Client),
                Reason::IdentityRefused => (403, grpc::PERMISSION_DENIED, "http_request_denied", "identity", A::Never, F::Client),
            },
            Self::Pick(e) => match e {
                PickError::NoneReady => (503, grpc::UNAVAILABLE, "destination_unavailable", "no_endpoint", A::Never, F::Server),
                PickError::Connections => (503, grpc::RESOURCE_EXHAUSTED, "connection_limit_reached", "overflow_connections", A::Never, F::Server),
                PickError::Pending => (503, grpc::RESOURCE_EXHAUSTED, "connection_limit_reached", "overflow_pending", A::Never, F::Server),
                PickError::Requests => (503, grpc::RESOURCE_EXHAUSTED, "connection_limit_reached", "overflow_requests", A::Never, F::Server),
            },
            Self::Connect(e) => match e {
                ConnectError::Refused => (503, grpc::UNAVAILABLE, "connection_refused", "connect_refused", A::Safe, F::Server),
                ConnectError::Unreachable => (503, grpc::UNAVAILABLE, "destination_ip_unroutable", "connect_unreachable", A::Safe, F::Server),
                ConnectError::Timeout => (504, grpc::UNAVAILABLE, "connection_timeout", "connect_timeout", A::Safe, F::Server),
                ConnectError::Io(_) => (503, grpc::UNAVAILABLE, "destination_unavailable", "connect_failed", A::Safe, F::Mesh),
                ConnectError::Tls(failure) => match failure {
                    HandshakeFailure::UnknownIssuer => (503, grpc::UNAVAILABLE, "tls_certificate_error", "tls_unknown_issuer", A::Safe, F::Server),
                    HandshakeFailure::Expired => (503, grpc::UNAVAILABLE, "tls_certificate_error", "tls_expired", A::Safe, F::Server),
                    HandshakeFailure::WrongIdentity => (503, grpc::UNAVAILABLE, "tls_certificate_error", "tls_wrong_identity", A::Safe, F::Server),
                    HandshakeFailure::NoCertificate => (503, grpc::UNAVAILABLE, "tls_certificate_error", "tls_no_certificate", A::Safe, F::Server),
                    HandshakeFailure::BadCertificate => (503, grpc::UNAVAILABLE, "tls_certificate_error", "tls_bad_certificate", A::Safe, F::Server),
                    HandshakeFailure::Plaintext => (503, grpc::UNAVAILABLE, "tls_protocol_error", "tls_plaintext", A::Safe, F::Server),
                    HandshakeFailure::Protocol => (503, grpc::UNAVAILABLE, "tls_protocol_error", "tls_protocol", A::Safe, F::Server),
                    HandshakeFailure::RefusedByPeer => (503, grpc::UNAVAILABLE, "tls_alert_received", "tls_refused_by_peer", A::Safe, F::Mesh),
                    HandshakeFailure::Alert => (503, grpc::UNAVAILABLE, "tls_alert_received", "tls_alert", A::Safe, F::Server),
                    HandshakeFailure::Io => (503, grpc::UNAVAILABLE, "connection_terminated", "tls_io", A::Safe, F::Server),
                    HandshakeFailure::Timeout => (504, grpc::UNAVAILABLE, "connection_timeout", "tls_timeout", A::Safe, F::Server),
                    HandshakeFailure::Credentials => (503, grpc::UNAVAILABLE, "proxy_internal_error", "tls_credentials", A::Never, F::Mesh),
                },
            },
            Self::Exchange(e) => match e {
                ExchangeError::NotTaken => (503, grpc::UNAVAILABLE, "connection_terminated", "not_taken", A::Safe, F::Server),
                ExchangeError::Reset => (502, grpc::UNAVAILABLE, "connection_terminated", "reset", A::Reset, F::Server),
                ExchangeError::Malformed => (502, grpc::INTERNAL, "http_protocol_error", "malformed_response", A::Never, F::Server),
                ExchangeError::TryTimeout => (504, grpc::DEADLINE_EXCEEDED, "http_response_timeout", "try_timeout", A::Timeout, F::Server),
                ExchangeError::RequestTimeout => (504, grpc::DEADLINE_EXCEEDED, "http_response_timeout", "request_timeout", A::Never, F::Server),
            },
            Self::Request(e) => match e {
                RequestError::Host => (400, grpc::INVALID_ARGUMENT, "http_request_error", "bad_host", A::Never, F::Client),
                RequestError::NotHttp => (400, grpc::INVALID_ARGUMENT, "http_request_error", "client_not_http", A::Never, F::Client),
                // Nobody reads this reply; 499 is what nginx writes to its log.
                RequestError::ClientGone => (499, grpc::CANCELLED, "http_request_error", "client_gone", A::Never, F::Client),
            },
        };
        Verdict { status, grpc, proxy_status, reason, again, fault }
    }

    /// The object that is the cause, where one is known.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Refused(refusal) => Some(&refusal.origin),
            Self::Destination(_)
            | Self::Pick(_)
            | Self::Connect(_)
            | Self::Exchange(_)
            | Self::Request(_) => None,
        }
    }

    /// The stage of a connection's way at which it happened.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Destination(_) => "destination",
            Self::Refused(_) => "route",
            Self::Pick(_) => "balance",
            Self::Connect(_) => "connect",
            Self::Exchange(_) => "exchange",
            Self::Request(_) => "request",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<HandshakeFailure> for Error {
    fn from(failure: HandshakeFailure) -> Self {
        Self::Connect(ConnectError::Tls(failure))
    }
}

impl From<&io::Error> for ConnectError {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::Timeout,
            kind => Self::Io(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Error> {
        use HandshakeFailure as H;
        let mut all: Vec<Error> = Vec::new();
        all.extend(
            [
                DestinationError::Unknown,
                DestinationError::Pending,
                DestinationError::Loop,
                DestinationError::NoSuchBackend,
            ]
            .map(Error::from),
        );
        all.extend(
            [
                Reason::NoRoute,
                Reason::NoBackend,
                Reason::NoSniRoute,
                Reason::NotHttp,
                Reason::PlaintextRefused,
                Reason::IdentityRefused,
            ]
            .map(|reason| {
                let origin = Origin::default_of("test");
                Error::from(Refusal { reason, origin })
            }),
        );
        all.extend(
            [
                PickError::NoneReady,
                PickError::Connections,
                PickError::Pending,
                PickError::Requests,
            ]
            .map(Error::from),
        );
        all.extend(
            [
                ConnectError::Refused,
                ConnectError::Unreachable,
                ConnectError::Timeout,
                ConnectError::Io(io::ErrorKind::Other),
            ]
            .map(Error::from),
        );
        all.extend(
            [
                H::UnknownIssuer,
                H::Expired,
                H::WrongIdentity,
                H::NoCertificate,
                H::BadCertificate,
                H::Plaintext,
                H::Protocol,
                H::RefusedByPeer,
                H::Alert,
                H::Io,
                H::Timeout,
                H::Credentials,
            ]
            .map(Error::from),
        );
        all.extend(
            [
                ExchangeError::NotTaken,
                ExchangeError::Reset,
                ExchangeError::Malformed,
                ExchangeError::TryTimeout,
                ExchangeError::RequestTimeout,
            ]
            .map(Error::from),
        );
        all.extend(
            [
                RequestError::Host,
                RequestError::ClientGone,
                RequestError::NotHttp,
            ]
            .map(Error::from),
        );
        all
    }

    /// RFC 9209, 2.3: the registered error types.
    const REGISTERED: [&str; 32] = [
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    ];

    #[test]
    fn every_error_has_a_line_of_its_own() {
        let mut reasons = std::collections::BTreeSet::new();
        for error in all() {
            let verdict = error.verdict();
            assert!(
                (400..=599).contains(&verdict.status),
                "{error}: {verdict:?}"
            );
            assert!((1..=16).contains(&verdict.grpc), "{error}: {verdict:?}");
            assert!(
                REGISTERED.contains(&verdict.proxy_status),
                "{error}: {verdict:?}"
            );
            assert!(
                verdict
                    .reason
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{verdict:?}"
            );
            assert!(
                reasons.insert(verdict.reason),
                "{} is used twice",
                verdict.reason
            );
            assert!(!error.stage().is_empty());
        }
    }

    #[test]
    fn only_what_was_not_processed_is_always_retried() {
        for error in all() {
            let safe = error.verdict().again == Again::Safe;
            let unprocessed = match &error {
                Error::Connect(e) => *e != ConnectError::Tls(HandshakeFailure::Credentials),
                Error::Exchange(e) => *e == ExchangeError::NotTaken,
                _ => false,
            };
            assert_eq!(safe, unprocessed, "{error}");
        }
    }
}
