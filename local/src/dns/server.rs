//! Answers DNS queries over UDP and TCP: the cluster's names from [`super::table`], others from the host's name servers.
//!
//! The sockets are made inside the node's namespace and served from the supervisor's; queries are forwarded from the host's
//! own namespace, so that a name server on the host's loopback works too. Started by [`crate::supervisor`].

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use super::table::{Answer, Names, Table};
use crate::sys;

/// Seconds a client may keep our answers, as CoreDNS in clusters.
const TTL: u32 = 5;

/// How long one of the host's name servers gets.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle TCP client is kept.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Queries that may wait for the host's name servers at once.
const IN_FLIGHT: usize = 512;

/// What all tasks of the resolver share.
#[derive(Clone)]
struct Shared {
    table: watch::Receiver<Arc<Table>>,
    upstreams: Arc<Vec<SocketAddr>>,
    slots: Arc<Semaphore>,
}

/// Opens port 53 on the node's addresses and serves it until the runtime ends.
pub(crate) fn start(
    netns: &str,
    addresses: &[IpAddr],
    table: watch::Receiver<Arc<Table>>,
) -> io::Result<()> {
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let shared = Shared {
        table,
        upstreams: Arc::new(nameservers(&config)),
        slots: Arc::new(Semaphore::new(IN_FLIGHT)),
    };
    for ip in addresses {
        let address = SocketAddr::new(*ip, 53);
        let (udp, tcp) = sys::in_netns(netns, || {
            let udp = StdUdpSocket::bind(address)?;
            let tcp = std::net::TcpListener::bind(address)?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })?;
        tokio::spawn(serve_udp(UdpSocket::from_std(udp)?, shared.clone()));
        tokio::spawn(serve_tcp(TcpListener::from_std(tcp)?, shared.clone()));
    }
    Ok(())
}

/// The name servers of a `resolv.conf`.
fn nameservers(config: &str) -> Vec<SocketAddr> {
    config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        // A zone (`fe80::1%eth0`) is not carried.
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

async fn serve_udp(socket: UdpSocket, shared: Shared) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0_u8; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let query = buffer[..length].to_vec();
        let Ok(slot) = shared.slots.clone().try_acquire_owned() else {
            continue;
        };
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Some(answer) = answer(&query, false, &shared).await {
                let _ = socket.send_to(&answer, client).await;
            }
            drop(slot);
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Shared) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = shared.slots.clone().try_acquire_owned() else {
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _ = serve_stream(stream, &shared).await;
            drop(slot);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    while let Ok(query) = tokio::time::timeout(TCP_IDLE, read_framed(&mut stream)).await {
        let Some(answer) = answer(&query?, true, shared).await else {
            return Ok(());
        };
        write_framed(&mut stream, &answer).await?;
    }
    Ok(())
}

/// A message with its length in front (RFC 1035, 4.2.2).
async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    stream.write_all(&frame).await
}

/// The answer to a query; `None` for what is not one.
async fn answer(bytes: &[u8], tcp: bool, shared: &Shared) -> Option<Vec<u8>> {
    let query = Message::from_vec(bytes).ok()?;
    let question = query.queries.first()?.clone();
    let table = shared.table.borrow().clone();
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    match table.find(&question.name().to_ascii()) {
        Answer::Known(names) => {
            reply.metadata.authoritative = true;
            reply.add_answers(records(&question, names));
            if let Some(alias) = &names.alias {
                follow(&mut reply, alias, &question, &table, shared).await;
            }
        }
        Answer::Unknown => {
            reply.metadata.authoritative = true;
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        Answer::Elsewhere => {
            return match forward(bytes, tcp, &shared.upstreams).await {
                Some(answer) => Some(answer),
                None => {
                    reply.metadata.response_code = ResponseCode::ServFail;
                    reply.to_vec().ok()
                }
            };
        }
    }
    let whole = reply.to_vec().ok()?;
    if !tcp && whole.len() > usize::from(query.max_payload()) {
        return reply.truncate().to_vec().ok();
    }
    Some(whole)
}

/// The records of the asked type.
fn records(question: &Query, names: &Names) -> Vec<Record> {
    let owner = question.name();
    let record = |data: RData| Record::from_rdata(owner.clone(), TTL, data);
    let kind = question.query_type();
    let mut ips = names.ips.clone();
    fastrand::shuffle(&mut ips);
    let mut found: Vec<Record> = ips
        .into_iter()
        .filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(record(RData::A(A(ip)))),
            (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => {
                Some(record(RData::AAAA(AAAA(ip))))
            }
            _ => None,
        })
        .collect();
    if matches!(kind, RecordType::SRV | RecordType::ANY) {
        found.extend(names.services.iter().filter_map(|(port, target)| {
            let target = Name::from_ascii(format!("{target}.")).ok()?;
            Some(record(RData::SRV(SRV::new(0, 1, *port, target))))
        }));
    }
    if let Some(target) = names
        .alias
        .as_ref()
        .and_then(|alias| Name::from_ascii(format!("{alias}.")).ok())
    {
        found.push(record(RData::CNAME(CNAME(target))));
    }
    found
}

/// Adds what the target of an ExternalName resolves to.
async fn follow(
    reply: &mut Message,
    alias: &str,
    question: &Query,
    table: &Table,
    shared: &Shared,
) {
    let Ok(target) = Name::from_ascii(format!("{alias}.")) else {
        return;
    };
    let next = Query::query(target, question.query_type());
    match table.find(alias) {
        Answer::Known(names) => {
            reply.add_answers(records(&next, names));
        }
        Answer::Unknown => {}
        Answer::Elsewhere => {
            let mut query = Message::query();
            query.metadata.recursion_desired = true;
            query.add_query(next);
            let Ok(bytes) = query.to_vec() else { return };
            if let Some(answer) = forward(&bytes, false, &shared.upstreams).await
                && let Ok(message) = Message::from_vec(&answer)
            {
                reply.add_answers(message.answers);
            }
        }
    }
}

/// Asks the host's name servers, one after the other, by the transport the client chose.
async fn forward(query: &[u8], tcp: bool, upstreams: &[SocketAddr]) -> Option<Vec<u8>> {
    for upstream in upstreams {
        let exchange = async {
            if tcp {
                let mut stream = TcpStream::connect(upstream).await?;
                write_framed(&mut stream, query).await?;
                return read_framed(&mut stream).await;
            }
            let any: SocketAddr = if upstream.is_ipv4() {
                ([0, 0, 0, 0], 0).into()
            } else {
                ([0_u16; 8], 0).into()
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(upstream).await?;
            socket.send(query).await?;
            let mut buffer = vec![0; 4096];
            loop {
                let length = socket.recv(&mut buffer).await?;
                // A late answer to another query from the same port cannot be, but costs nothing to check.
                if buffer.get(..2) == query.get(..2) {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
            }
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(UPSTREAM_TIMEOUT, exchange).await {
            return Some(answer);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    fn shared(upstreams: Vec<SocketAddr>) -> Shared {
        let mut table = Table::default();
        for (name, spec) in [
            (
                "web",
                json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1", "fd77:96::1"]}),
            ),
            (
                "alias",
                json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}),
            ),
        ] {
            let service: Service = serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
            )
            .unwrap();
            table.add(&service, &[]);
        }
        let (_, table) = watch::channel(Arc::new(table));
        Shared {
            table,
            upstreams: Arc::new(upstreams),
            slots: Arc::new(Semaphore::new(1)),
        }
    }

    async fn ask(name: &str, kind: RecordType, shared: &Shared) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let bytes = answer(&query.to_vec().unwrap(), false, shared)
            .await
            .unwrap();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.id, query.metadata.id);
        reply
    }

    #[tokio::test]
    async fn answers_by_type() {
        let shared = shared(vec![]);
        let name = "web.default.svc.cluster.local.";
        assert_eq!(ask(name, RecordType::A, &shared).await.answers.len(), 1);
        assert_eq!(ask(name, RecordType::AAAA, &shared).await.answers.len(), 1);
        let none = ask(name, RecordType::MX, &shared).await;
        assert_eq!(
            (none.answers.len(), none.metadata.response_code),
            (0, ResponseCode::NoError)
        );
        let missing = ask("nope.default.svc.cluster.local.", RecordType::A, &shared).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        let alias = ask("alias.default.svc.cluster.local.", RecordType::A, &shared).await;
        assert_eq!(
            alias
                .answers
                .iter()
                .map(Record::record_type)
                .collect::<Vec<_>>(),
            [RecordType::CNAME, RecordType::A]
        );
        assert_eq!(
            ask("example.org.", RecordType::A, &shared)
                .await
                .metadata
                .response_code,
            ResponseCode::ServFail
        );
    }

    #[tokio::test]
    async fn other_names_are_forwarded_as_they_are() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let shared = shared(vec![upstream.local_addr().unwrap()]);
        let server = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, client) = upstream.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
            let name = query.queries[0].name().clone();
            reply.add_answer(Record::from_rdata(
                name,
                1,
                RData::A(A([192, 0, 2, 1].into())),
            ));
            upstream
                .send_to(&reply.to_vec().unwrap(), client)
                .await
                .unwrap();
        });
        assert_eq!(
            ask("example.org.", RecordType::A, &shared)
                .await
                .answers
                .len(),
            1
        );
        server.await.unwrap();
    }

    #[test]
    fn resolv_conf_is_read() {
        let config = "# x\nnameserver 192.0.2.53\n nameserver ::1\nnameserver fe80::1%eth0\nsearch nameserver\n";
        assert_eq!(
            nameservers(config),
            [
                "192.0.2.53:53".parse().unwrap(),
                "[::1]:53".parse().unwrap()
            ]
        );
    }
}
