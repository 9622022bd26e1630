//! The whole proxy on loopback, with a table for the mesh and a fake resolver behind it.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use hickory_proto::op::{Edns, Message, OpCode, Query};
use hickory_proto::rr::RecordType;

use super::*;

/// The mesh.
struct Table(HashMap<Hostname, Vec<IpAddr>>);

impl Names for Table {
    fn lookup(&self, name: &Hostname) -> impl Future<Output = Lookup> + Send {
        let found = self
            .0
            .get(name)
            .cloned()
            .map_or(Lookup::Unknown, Lookup::Addresses);
        std::future::ready(found)
    }
}

fn mesh() -> Table {
    let many = (0..=255u8).map(|n| IpAddr::from([10, 244, 0, n])).collect();
    let table = [
        ("web.shop.svc.cluster.local", vec![[10, 96, 0, 7].into()]),
        ("pods.shop.svc.cluster.local", many),
        ("none.shop.svc.cluster.local", vec![]),
    ]
    .map(|(name, addresses)| (name.parse().unwrap(), addresses))
    .into();
    Table(table)
}

async fn start(upstream: &[SocketAddr]) -> (SocketAddr, Arc<Counts>) {
    let sockets = Sockets::bind(0).await.unwrap();
    let (address, counts) = (sockets.first(), Arc::<Counts>::default());
    let upstream = Upstream::new(upstream.to_vec());
    let server = Server::new(
        &"cluster.local".parse().unwrap(),
        mesh(),
        upstream,
        Arc::clone(&counts),
    );
    server.serve(sockets);
    (address, counts)
}

/// A resolver that answers what `reply` makes of each query, over UDP and TCP on the same port.
async fn resolver(reply: impl Fn(Message) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let reply = Arc::new(reply);
    let over_tcp = Arc::clone(&reply);
    tokio::spawn(async move {
        loop {
            let mut buffer = [0; 4096];
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            for answer in reply(Message::from_vec(&buffer[..length]).unwrap()) {
                udp.send_to(&answer, client).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let query = read_framed(&mut stream).await.unwrap();
            for answer in over_tcp(Message::from_vec(&query).unwrap()) {
                write_framed(&mut stream, &answer).await.unwrap();
            }
        }
    });
    address
}

fn response(query: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.response_code = code;
    answer.add_queries(query.queries.iter().cloned());
    answer
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name.parse().unwrap(), kind));
    message
}

async fn udp(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket
        .send_to(&query.to_vec().unwrap(), server)
        .await
        .unwrap();
    let mut buffer = vec![0; 65535];
    let received = timeout(Duration::from_secs(10), socket.recv_from(&mut buffer)).await;
    let (length, from) = received.unwrap().unwrap();
    assert_eq!(from, server, "clients drop answers from elsewhere");
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.id, query.metadata.id);
    answer
}

async fn tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    write_framed(&mut stream, &query.to_vec().unwrap())
        .await
        .unwrap();
    Message::from_vec(&read_framed(&mut stream).await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_mesh_answers_for_its_own() {
    let (server, counts) = start(&[]).await;
    let web = udp(
        server,
        &question("web.shop.svc.cluster.local.", RecordType::A),
    )
    .await;
    assert_eq!(
        web.answers[0].data.ip_addr().unwrap().to_string(),
        "10.96.0.7"
    );
    assert_eq!(web.answers[0].ttl, query::TTL);
    let v6 = udp(
        server,
        &question("web.shop.svc.cluster.local.", RecordType::AAAA),
    )
    .await;
    assert_eq!(
        (v6.metadata.response_code, v6.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let none = udp(
        server,
        &question("none.shop.svc.cluster.local.", RecordType::A),
    )
    .await;
    assert_eq!(
        (none.metadata.response_code, none.answers.len()),
        (ResponseCode::NoError, 0)
    );

    let pods = question("pods.shop.svc.cluster.local.", RecordType::A);
    assert!(udp(server, &pods).await.metadata.truncation);
    assert_eq!(tcp(server, &pods).await.answers.len(), 256);
    assert_eq!(counts.mesh.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn the_rest_is_forwarded_as_it_is() {
    let upstream = resolver(|query| {
        let mut answer = response(&query, ResponseCode::NXDomain);
        // The client's EDNS arrives at the resolver.
        answer.metadata.authentic_data = query.edns.is_some();
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let (server, counts) = start(&[upstream]).await;
    let mut query = question("example.com.", RecordType::TXT);
    query.set_edns(Edns::new());
    for answer in [udp(server, &query).await, tcp(server, &query).await] {
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(answer.metadata.authentic_data);
    }
    // A name that could be a service's, but is not.
    let unknown = udp(
        server,
        &question("other.shop.svc.cluster.local.", RecordType::A),
    )
    .await;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(counts.forwarded.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn truncated_answers_send_the_client_to_tcp() {
    let upstream = resolver(|query| {
        let mut answer = response(&query, ResponseCode::NoError);
        answer.metadata.truncation = true;
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let (server, _) = start(&[upstream]).await;
    assert!(
        udp(server, &question("example.com.", RecordType::A))
            .await
            .metadata
            .truncation
    );
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let upstream = resolver(|query| {
        let mut wrong_id = response(&query, ResponseCode::Refused);
        wrong_id.metadata.id = query.metadata.id.wrapping_add(1);
        let mut wrong_name = response(&query, ResponseCode::Refused);
        wrong_name.queries = question("evil.example.", RecordType::A).queries;
        let right = response(&query, ResponseCode::NoError);
        [wrong_id, wrong_name, right]
            .map(|m| m.to_vec().unwrap())
            .into()
    })
    .await;
    let (server, _) = start(&[upstream]).await;
    let answer = udp(server, &question("example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn a_silent_resolver_is_left_for_the_next_one() {
    let silent = resolver(|_| vec![]).await;
    let good =
        resolver(|query| vec![response(&query, ResponseCode::NoError).to_vec().unwrap()]).await;
    let (server, _) = start(&[silent, good]).await;
    let answer = udp(server, &question("example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn without_a_resolver_it_is_a_failure_not_silence() {
    // Nothing listens there: refused at once.
    let gone = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (server, counts) = start(&[gone]).await;
    for answer in [
        udp(server, &question("example.com.", RecordType::A)).await,
        tcp(server, &question("example.com.", RecordType::A)).await,
    ] {
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(counts.failed.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn garbage_does_not_disturb_it() {
    let (server, _) = start(&[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for garbage in [&b""[..], b"x", &[0xFF; 12], &[0; 4096]] {
        socket.send_to(garbage, server).await.unwrap();
    }
    let mut stream = TcpStream::connect(server).await.unwrap();
    write_framed(&mut stream, b"x").await.unwrap();
    let web = udp(
        server,
        &question("web.shop.svc.cluster.local.", RecordType::A),
    )
    .await;
    assert_eq!(web.answers.len(), 1);
}
