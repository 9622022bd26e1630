//! Sends questions to the upstream resolvers, byte for byte, and believes only answers to what was asked.
//!
//! Called by [`super::server`] for every name that is not the mesh's. Each question has a fresh id and a socket of its own, so
//! a port of the kernel's choice, connected, so that only the resolver's address can answer (RFC 5452). Queries leave
//! under the proxy's own user, which the redirect rules exempt: they do not come back. What came over UDP goes over UDP, with
//! the client's own EDNS, so an answer that is cut short (TC) makes the client ask again over TCP, and that goes over TCP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::query::{Transport, udp_limit};
use super::wire;

/// One resolver's time for one answer.
const TRY: Duration = Duration::from_millis(1500);
/// How often the whole list is tried; applications give up after five seconds (resolv.conf(5), `timeout`).
const ROUNDS: usize = 2;
/// Resolvers that are used; resolv.conf(5) has three at most.
const MOST: usize = 3;

/// The resolvers, in order of preference.
#[derive(Debug, Clone)]
pub struct Upstream {
    servers: Vec<SocketAddr>,
}

impl Upstream {
    /// The first three of them.
    pub fn new(mut servers: Vec<SocketAddr>) -> Self {
        servers.truncate(MOST);
        Self { servers }
    }

    /// The resolvers in use.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The answer to a query, with the query's own id. `None`: no resolver gave one in time.
    pub async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        for server in self
            .servers
            .iter()
            .cycle()
            .take(self.servers.len() * ROUNDS)
        {
            let asked = async {
                match transport {
                    Transport::Udp => over_udp(*server, query).await,
                    Transport::Tcp => over_tcp(*server, query).await,
                }
            };
            match timeout(TRY, asked).await {
                Ok(Ok(mut answer)) => {
                    wire::set_id(&mut answer, wire::id(query)?);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "upstream resolver failed"),
                Err(_) => tracing::debug!(%server, "upstream resolver did not answer"),
            }
        }
        None
    }
}

/// The query under an id that nobody can know.
fn disguised(query: &[u8]) -> (Vec<u8>, u16) {
    let (mut query, id) = (query.to_vec(), unpredictable());
    wire::set_id(&mut query, id);
    (query, id)
}

/// Sixteen bits from the system's generator.
fn unpredictable() -> u16 {
    let mut bytes = [0; 2];
    match crate::identity::crypto::provider()
        .secure_random
        .fill(&mut bytes)
    {
        Ok(()) => u16::from_be_bytes(bytes),
        // It never fails on Linux once it is seeded; the source port alone still has to be guessed.
        Err(_) => fastrand::u16(..),
    }
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let (sent, id) = disguised(query);
    socket.send(&sent).await?;
    let mut answer = vec![0; udp_limit(query)];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Anything else is a forgery, or late: the true answer may still come.
        if wire::answers(&answer[..length], &sent, id) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (sent, id) = disguised(query);
    write_framed(&mut stream, &sent).await?;
    let answer = read_framed(&mut stream).await?;
    if wire::answers(&answer, &sent, id) {
        Ok(answer)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it answers another question",
        ))
    }
}

/// One message with its length before it (RFC 1035, 4.2.2), in one write.
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

/// One message.
pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The nameservers of a resolv.conf(5), in order.
pub fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    });
    servers.map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read() {
        let text = "# a comment\nsearch shop.svc.cluster.local\nnameserver 10.96.0.10\n nameserver\tfd77::a # two\noptions ndots:5\n\
                    nameserver nonsense\nnameserver";
        let servers: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd77::a]:53"]);
        let many = Upstream::new(vec![([10, 0, 0, 1], 53).into(); 5]);
        assert_eq!(many.servers().len(), MOST);
    }
}
