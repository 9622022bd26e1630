//! What a DNS message asks, whose business it is, and the answers we make ourselves. Pure.
//!
//! Called by [`super::server`]. Only names that can be services' or pods' are looked up in the mesh; every other question goes
//! to the upstream as it came. So the control plane is not asked for every name of the internet that an application looks up,
//! nor for what the search list makes of them: `www.example.com.shop.svc.cluster.local` has too many labels.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use weft_model::Hostname;

use super::wire;

/// How long clients may keep an answer, in seconds. Short, because endpoints of headless services come and go.
pub const TTL: u32 = 5;
/// The largest answer over UDP without EDNS (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;
/// The largest answer over UDP with it: fits the smallest IPv6 MTU, so it is never fragmented.
const LARGEST_UDP: usize = 1232;

/// How the question came, which limits the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Answers are cut short beyond what the client takes.
    Udp,
    /// Up to 65,535 bytes.
    Tcp,
}

/// What to do with a message.
#[derive(Debug)]
pub enum Request {
    /// Not a query; silence.
    Ignore,
    /// Answer this at once.
    Reply(Vec<u8>),
    /// Send it upstream as it is.
    Forward,
    /// Look the name up in the mesh.
    Ask(Question),
}

/// A question for addresses of a name that may be the mesh's.
#[derive(Debug)]
pub struct Question {
    /// In lower case, without the trailing dot.
    pub name: Hostname,
    message: Message,
}

/// The part of the name space that belongs to Kubernetes services: `svc.<cluster domain>`.
#[derive(Debug, Clone)]
pub struct Zone {
    suffix: String,
}

impl Zone {
    /// Of this cluster.
    pub fn new(cluster_domain: &Hostname) -> Self {
        Self {
            suffix: format!(".svc.{cluster_domain}"),
        }
    }

    /// `<service>.<namespace>.svc.<domain>` or `<pod>.<service>.<namespace>.svc.<domain>`; any letter case.
    fn hostname(&self, name: &str) -> Option<Hostname> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let labels = name.strip_suffix(&self.suffix)?.split('.').count();
        (2..=3)
            .contains(&labels)
            .then(|| name.parse().ok())
            .flatten()
    }
}

/// Reads a message. Total: any bytes have an answer.
pub fn read(message: &[u8], zone: &Zone) -> Request {
    if message.len() < wire::HEADER || wire::is_response(message) {
        return Request::Ignore;
    }
    let reply = |code| wire::failure(message, code).map_or(Request::Ignore, Request::Reply);
    if wire::operation(message) != 0 {
        return reply(ResponseCode::NotImp);
    }
    if wire::question(message).is_none() {
        return reply(ResponseCode::FormErr);
    }
    // What this parser does not like may still be good enough for the upstream.
    let Ok(parsed) = Message::from_vec(message) else {
        return Request::Forward;
    };
    let [query] = parsed.queries.as_slice() else {
        return Request::Forward;
    };
    let addresses = matches!(query.query_type, RecordType::A | RecordType::AAAA);
    if !addresses || query.query_class != DNSClass::IN || parsed.version() != 0 {
        return Request::Forward;
    }
    match zone.hostname(&query.name.to_ascii()) {
        Some(name) => Request::Ask(Question {
            name,
            message: parsed,
        }),
        None => Request::Forward,
    }
}

/// How large an answer over UDP the client takes: what it says in EDNS, 512 without.
pub fn udp_limit(message: &[u8]) -> usize {
    Message::from_vec(message).map_or(PLAIN_UDP, |m| usize::from(m.max_payload()))
}

impl Question {
    /// The answer: those of the addresses that are of the family asked for. None of them is an answer too: the name exists
    /// (NODATA, RFC 2308, 2.2). Cut short, with the TC bit, when it is too large for the transport. `start` turns the order, so that
    /// clients that always take the first address spread over all.
    pub fn answer(
        &self,
        addresses: &[IpAddr],
        transport: Transport,
        start: usize,
    ) -> Option<Vec<u8>> {
        let query = self.message.queries.first()?;
        let fits = |a: &&IpAddr| a.is_ipv4() == (query.query_type == RecordType::A);
        let mut chosen: Vec<IpAddr> = addresses.iter().filter(fits).copied().collect();
        if !chosen.is_empty() {
            let by = start % chosen.len();
            chosen.rotate_left(by);
        }
        let mut answer = self.response();
        answer.add_answers(chosen.iter().map(|address| {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            };
            Record::from_rdata(query.name.clone(), TTL, data)
        }));
        let bytes = answer.to_vec().ok()?;
        if bytes.len() <= self.limit(transport) {
            return Some(bytes);
        }
        let mut short = self.response();
        short.metadata.truncation = true;
        short.to_vec().ok()
    }

    fn limit(&self, transport: Transport) -> usize {
        match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp if self.message.edns.is_some() => {
                usize::from(self.message.max_payload()).min(LARGEST_UDP)
            }
            Transport::Udp => PLAIN_UDP,
        }
    }

    fn response(&self) -> Message {
        let asked = &self.message.metadata;
        let mut answer = Message::response(asked.id, asked.op_code);
        answer.metadata.recursion_desired = asked.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        answer.add_queries(self.message.queries.iter().cloned());
        if self.message.edns.is_some() {
            // RFC 6891, 6.1.1: who is asked with EDNS answers with it.
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST_UDP as u16);
            answer.set_edns(edns);
        }
        answer
    }
}

#[cfg(test)]
mod tests;
