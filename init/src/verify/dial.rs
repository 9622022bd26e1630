//! Sockets of a verification: listeners that tell what was redirected to them, and dials as somebody else.
//!
//! Used by [`crate::verify`]; [`dial`] is also what the hidden subcommand `weft-init dial` runs, because a user is a
//! property of a process and the sidecar's must be another one.

use super::Proof;
use crate::Family;
use crate::error::Error;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, getsockopt, sockopt};
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For what should happen at once, or not at all.
pub const BRIEFLY: Duration = Duration::from_millis(300);

/// For a connection that may need its SYN sent twice.
pub const PATIENTLY: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(5);

/// How a dial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// Somebody accepted.
    Connected,
    /// The host or the namespace refused, or the time was up.
    Failed(String),
}

impl fmt::Display for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("somebody else accepted it"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Dialled {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Self::Failed("nobody answered".to_owned())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Does the namespace know a way to `target`? Without one, nothing is sent and the rules see nothing. Connecting a UDP
/// socket asks for the route and sends nothing, so that an "unreachable" from the network is not mistaken for this.
pub fn has_route(target: SocketAddr) -> bool {
    let any = SocketAddr::new(Family::of(target.ip()).any(), 0);
    UdpSocket::bind(any)
        .and_then(|socket| socket.connect(target))
        .is_ok()
}

/// A TCP listener that asks each connection where it was meant to go.
#[derive(Debug)]
pub struct Trap(TcpListener);

impl Trap {
    /// Listens; IPv6 sockets take no IPv4, so that each version has its own.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let what = || format!("listening on {address}");
        let listener = listen(address).map_err(Error::io(what()))?;
        listener.set_nonblocking(true).map_err(Error::io(what()))?;
        Ok(Self(listener))
    }

    /// The address listened on.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.0
            .local_addr()
            .map_err(Error::io("reading the listener's address"))
    }

    /// Dials `target` from this process.
    pub fn dial(&self, target: SocketAddr) -> Dialled {
        match TcpStream::connect_timeout(&target, PATIENTLY) {
            Ok(_) => Dialled::Connected,
            Err(error) => Dialled::of(&error),
        }
    }

    /// Does a connection arrive that was meant for `target`? Others, of other containers perhaps, are dropped.
    pub fn catches(&self, target: SocketAddr, within: Duration) -> bool {
        self.accepts(within, |stream, _| {
            original_destination(stream).ok() == Some(target)
        })
    }

    /// Does a connection from `source` arrive?
    pub fn accepts_from(&self, source: IpAddr, within: Duration) -> bool {
        self.accepts(within, |_, peer| peer.ip() == source)
    }

    fn accepts(&self, within: Duration, right: impl Fn(&TcpStream, SocketAddr) -> bool) -> bool {
        let deadline = Instant::now() + within;
        loop {
            match self.0.accept() {
                Ok((stream, peer)) if right(&stream, peer) => return true,
                Ok(_) => {}
                Err(_) if Instant::now() >= deadline => return false,
                Err(_) => sleep(POLL),
            }
        }
    }
}

/// By way of nix, because the standard library listens on both IP versions at once.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        nix::sys::socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // Connections of an earlier verification may still be closing.
    nix::sys::socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(16)?)?;
    Ok(TcpListener::from(socket))
}

/// Where a redirected connection was meant to go (`SO_ORIGINAL_DST`). Fails when it was not redirected.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    if stream.local_addr()?.is_ipv4() {
        let name = getsockopt(stream, sockopt::OriginalDst)?;
        let address = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
        Ok(SocketAddr::from((address, u16::from_be(name.sin_port))))
    } else {
        let name: libc::sockaddr_in6 = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
        let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
        Ok(SocketAddr::from((address, u16::from_be(name.sin6_port))))
    }
}

/// A UDP socket in the place of the sidecar's DNS server.
#[derive(Debug)]
pub struct UdpTrap(UdpSocket);

impl UdpTrap {
    /// Binds; the address must be a loopback one, see the crate's documentation.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let what = || format!("listening on {address}, UDP");
        let socket = UdpSocket::bind(address).map_err(Error::io(what()))?;
        socket
            .set_read_timeout(Some(PATIENTLY))
            .map_err(Error::io(what()))?;
        Ok(Self(socket))
    }

    /// Sends a datagram to `target`; it must arrive here, and the answer must seem to come from `target`.
    pub fn exchange(&self, target: SocketAddr) -> Proof {
        match self.try_exchange(target) {
            Ok(true) => Proof::Proved(format!(
                "{target} arrived at the DNS port, and the answer came back"
            )),
            Ok(false) => Proof::Failed(format!(
                "something else than the query to {target} arrived at the DNS port"
            )),
            Err(error) => Proof::Failed(format!(
                "the query to {target} or its answer did not arrive: {error}"
            )),
        }
    }

    fn try_exchange(&self, target: SocketAddr) -> io::Result<bool> {
        let client = UdpSocket::bind((Family::of(target.ip()).any(), 0))?;
        client.set_read_timeout(Some(PATIENTLY))?;
        client.connect(target)?;
        client.send(b"weft-init verify")?;
        let mut buffer = [0u8; 64];
        let (length, from) = self.0.recv_from(&mut buffer)?;
        let query = buffer.get(..length).unwrap_or_default();
        self.0.send_to(query, from)?;
        let mut answer = [0u8; 64];
        let length = client.recv(&mut answer)?;
        Ok(answer.get(..length) == Some(b"weft-init verify"))
    }
}

/// The sidecar's user, for dialling as it would.
#[derive(Clone, Copy, Debug)]
pub struct Proxy {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Proxy {
    /// Dials as the sidecar, from a child process that runs this very program. Fails when the user cannot be changed.
    pub fn dial(
        &self,
        target: SocketAddr,
        from: Option<IpAddr>,
        within: Duration,
    ) -> io::Result<Dialled> {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["dial", "--no-answer"])
            .arg("--timeout-ms")
            .arg(within.as_millis().to_string());
        if let Some(from) = from {
            command.arg("--from").arg(from.to_string());
        }
        let output = command
            .arg(target.to_string())
            .uid(self.uid)
            .gid(self.gid)
            .env_clear()
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(match output.status.code() {
            Some(0) => Dialled::Connected,
            _ if said.is_empty() => Dialled::Failed(output.status.to_string()),
            _ => Dialled::Failed(said),
        })
    }
}

/// Dials `target` from `from`, whose address and port may be unspecified, over UDP with one empty line. Returns what it
/// is told until the peer closes or `within` is up.
pub fn dial(
    target: SocketAddr,
    from: SocketAddr,
    udp: bool,
    within: Duration,
) -> io::Result<String> {
    let mut told = vec![0u8; 512];
    let length = if udp {
        let socket = UdpSocket::bind(from)?;
        socket.set_read_timeout(Some(within))?;
        socket.connect(target)?;
        socket.send(b"\n")?;
        socket.recv(&mut told)?
    } else {
        let mut stream = connect(target, from, within)?;
        stream.set_read_timeout(Some(within))?;
        // Who listens need not say anything; being connected is the answer then.
        stream.read(&mut told).unwrap_or(0)
    };
    told.truncate(length);
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// Connects over TCP from `from`, whose address and port may be unspecified, within `within`.
pub fn connect(target: SocketAddr, from: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // A send timeout bounds connect(2) too, see socket(7).
    let seconds = within.as_secs().cast_signed();
    let timeout = nix::sys::time::TimeVal::new(seconds, i64::from(within.subsec_micros()));
    nix::sys::socket::setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(target))?;
    Ok(TcpStream::from(socket))
}
