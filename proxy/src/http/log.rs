//! One line of the access log in the making. Exists only while the access log is on.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use http::{Method, Request, Uri, header};
use weft_model::{Origin, SpiffeId};

use crate::access_log::{AccessLog, Direction, Record};

/// Written when it is dropped.
#[derive(Debug)]
pub struct Line {
    log: AccessLog,
    direction: Direction,
    protocol: &'static str,
    time: SystemTime,
    began: Instant,
    method: Method,
    uri: Uri,
    host: Option<String>,
    /// HTTP status; 0: none was sent.
    pub status: u16,
    /// Bytes of the response's body.
    pub sent: u64,
    /// The client's identity.
    pub peer: Option<SpiffeId>,
    /// The client's address.
    pub peer_address: Option<SocketAddr>,
    /// Who answered.
    pub upstream: Option<SocketAddr>,
    /// The identity it proved.
    pub upstream_identity: Option<SpiffeId>,
    /// The address that was dialled.
    pub destination: Option<SocketAddr>,
    /// The rule that decided.
    pub route: Option<Origin>,
    /// Attempts made.
    pub attempts: u32,
    /// Why the proxy ended it itself; empty if it did not.
    pub reason: &'static str,
}

impl Line {
    /// Of a request; `None` when nobody reads the log.
    pub fn begin<B>(
        log: &AccessLog,
        direction: Direction,
        protocol: &'static str,
        request: &Request<B>,
    ) -> Option<Box<Self>> {
        if !log.enabled() {
            return None;
        }
        let host = request.headers().get(header::HOST);
        Some(Box::new(Self {
            log: log.clone(),
            direction,
            protocol,
            time: SystemTime::now(),
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: host.and_then(|h| h.to_str().ok()).map(str::to_owned),
            status: 0,
            sent: 0,
            peer: None,
            peer_address: None,
            upstream: None,
            upstream_identity: None,
            destination: None,
            route: None,
            attempts: 0,
            reason: "",
        }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut record = Record::new(self.time, self.direction, self.protocol);
        record.method = Some(self.method.as_str());
        record.path = self
            .uri
            .path_and_query()
            .map(http::uri::PathAndQuery::as_str);
        let authority = self.uri.authority().map(http::uri::Authority::as_str);
        record.authority = authority.or(self.host.as_deref());
        record.status = (self.status != 0).then_some(self.status);
        record.bytes_sent = self.sent;
        record.duration = self.began.elapsed();
        record.peer = self.peer.as_ref();
        record.peer_address = self.peer_address;
        record.upstream = self.upstream;
        record.upstream_identity = self.upstream_identity.as_ref();
        record.destination = self.destination;
        record.route = self.route.as_ref();
        record.attempts = self.attempts;
        record.reason = (!self.reason.is_empty()).then_some(self.reason);
        self.log.write(&record);
    }
}
