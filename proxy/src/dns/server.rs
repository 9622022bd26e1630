//! The DNS proxy's sockets: reads questions over UDP and TCP, answers each in a task of its own.
//!
//! Started by `main` on its own thread. [`super::query`] says whose business a question is, [`Names`] knows the mesh,
//! [`super::upstream`] everything else. What is in flight is bounded: beyond the limit the answer is SERVFAIL, at once.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weft_model::Hostname;

use super::query::{self, Question, Request, Transport, Zone};
use super::upstream::{Upstream, read_framed, write_framed};
use super::wire;

/// Questions being answered at once.
const IN_FLIGHT: usize = 1024;
/// TCP connections at once.
const CONNECTIONS: usize = 128;
/// A TCP connection without a question is closed after this time (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// The longest query that is read over UDP; real ones have less than 300 bytes.
const LONGEST_QUERY: usize = 4096;

/// What the mesh knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It is the mesh's, with these addresses of both families, perhaps none.
    Addresses(Vec<IpAddr>),
    /// It is not the mesh's, or nobody could say in time.
    Unknown,
}

/// Knows the names of the mesh.
pub trait Names: Send + Sync + 'static {
    /// Looks one up. Has to answer within a second or so: the client is waiting.
    fn lookup(&self, name: &Hostname) -> impl Future<Output = Lookup> + Send;
}

/// Questions, by what became of them.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answered from the mesh.
    pub mesh: AtomicU64,
    /// Answered by an upstream resolver.
    pub forwarded: AtomicU64,
    /// No resolver answered, or too much was in flight.
    pub failed: AtomicU64,
    /// Malformed, or not a query that we serve.
    pub refused: AtomicU64,
}

/// Everything a question needs.
pub struct Server<N> {
    zone: Zone,
    names: N,
    upstream: Upstream,
    counts: Arc<Counts>,
    in_flight: Semaphore,
    connections: Arc<Semaphore>,
    turn: AtomicUsize,
}

/// The sockets that are listened on.
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Sockets {
    /// On loopback only, both families: redirected questions arrive there, and nobody else's do. A machine without
    /// IPv6 has only the other.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let mut sockets = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for ip in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            match sockets.add((ip, port).into()).await {
                Ok(()) => {}
                Err(error) if ip.is_ipv6() && no_ipv6(&error) => {
                    tracing::debug!("no IPv6 on loopback");
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("DNS on {ip} port {port}: {error}"),
                    ));
                }
            }
        }
        Ok(sockets)
    }

    async fn add(&mut self, address: SocketAddr) -> io::Result<()> {
        let udp = UdpSocket::bind(address).await?;
        // The same port for both, when a test lets the kernel choose.
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        self.udp.push(udp);
        self.tcp.push(tcp);
        Ok(())
    }

    #[cfg(test)]
    fn first(&self) -> SocketAddr {
        self.udp[0]
            .local_addr()
            .unwrap_or_else(|_| ([0, 0, 0, 0], 0).into())
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT]
        .contains(&Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

impl<N: Names> Server<N> {
    /// For this cluster domain.
    pub fn new(
        cluster_domain: &Hostname,
        names: N,
        upstream: Upstream,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            zone: Zone::new(cluster_domain),
            names,
            upstream,
            counts,
            in_flight: Semaphore::new(IN_FLIGHT),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            turn: AtomicUsize::new(0),
        })
    }

    /// Serves until the runtime ends.
    pub fn serve(self: &Arc<Self>, sockets: Sockets) {
        for udp in sockets.udp {
            tokio::spawn(Arc::clone(self).serve_udp(udp));
        }
        for tcp in sockets.tcp {
            tokio::spawn(Arc::clone(self).serve_tcp(tcp));
        }
    }

    async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; LONGEST_QUERY];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An earlier answer found its client gone (ICMP); the socket is as good as before.
                Err(error) => {
                    tracing::debug!(%error, "DNS receive failed");
                    continue;
                }
            };
            let query = buffer[..length].to_vec();
            let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
            tokio::spawn(async move {
                if let Some(answer) = server.answer(&query, Transport::Udp).await
                    && let Err(error) = socket.send_to(&answer, client).await
                {
                    tracing::debug!(%error, %client, "DNS answer not sent");
                }
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let permit = Arc::clone(&self.connections).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        server.converse(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "DNS accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Questions of one TCP connection, one after the other.
    async fn converse(&self, mut stream: TcpStream) {
        while let Ok(Ok(query)) = timeout(IDLE, read_framed(&mut stream)).await {
            let Some(answer) = self.answer(&query, Transport::Tcp).await else {
                return;
            };
            if !matches!(
                timeout(IDLE, write_framed(&mut stream, &answer)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }

    /// The answer to one message; `None` is silence.
    async fn answer(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            Self::count(&self.counts.failed);
            return wire::failure(message, ResponseCode::ServFail);
        };
        match query::read(message, &self.zone) {
            Request::Ignore => {
                Self::count(&self.counts.refused);
                None
            }
            Request::Reply(reply) => {
                Self::count(&self.counts.refused);
                Some(reply)
            }
            Request::Ask(question) => match self.ask_mesh(&question, transport).await {
                Some(answer) => Some(answer),
                None => self.ask_upstream(message, transport).await,
            },
            Request::Forward => self.ask_upstream(message, transport).await,
        }
    }

    async fn ask_mesh(&self, question: &Question, transport: Transport) -> Option<Vec<u8>> {
        let Lookup::Addresses(addresses) = self.names.lookup(&question.name).await else {
            return None;
        };
        Self::count(&self.counts.mesh);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        question.answer(&addresses, transport, turn)
    }

    async fn ask_upstream(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match self.upstream.forward(message, transport).await {
            Some(answer) => {
                Self::count(&self.counts.forwarded);
                Some(answer)
            }
            None => {
                Self::count(&self.counts.failed);
                wire::failure(message, ResponseCode::ServFail)
            }
        }
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
