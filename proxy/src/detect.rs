//! Which protocol is this connection speaking?
//!
//! Called by [`crate::outbound::serve`] and [`crate::inbound::serve`] for ports whose protocol nobody declared, or whose
//! first bytes decide something. [`crate::sniff`] judges; this adds the waiting, and gives back the bytes it read.
//! Owns nothing.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::prefixed::Prefixed;
use crate::sniff::{ClientHello, Sniffed, sniff};

/// How long a client may be silent before the server is asked, too. Few clients that speak first take longer: the bytes are
/// usually there when the connection is. A server that speaks first is held up by no more than this.
pub const QUIET: Duration = Duration::from_millis(10);
/// How long a client may take over an incomplete request line or TLS hello before it is taken for something else.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes asked for at first; a post-quantum TLS hello fits.
const FIRST_READ: usize = 2048;

/// What a connection turned out to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS.
    Tls(ClientHello),
    /// Anything else, in which the client speaks first.
    Opaque,
    /// Nothing came in the time given.
    Quiet,
    /// The client closed without a word.
    Closed,
}

impl Detected {
    /// Its metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Tls(_) => "tls",
            Self::Opaque => "tcp",
            Self::Quiet => "quiet",
            Self::Closed => "closed",
        }
    }
}

/// Reads until it is clear what the client speaks. Waits for the first byte no longer than `quiet`; `None`: as long as it
/// takes. Cancelled, it loses what it has read: use [`first_bytes`] in a `select!`.
pub async fn detect<I>(
    io: Prefixed<I>,
    quiet: Option<Duration>,
) -> io::Result<(Prefixed<I>, Detected)>
where
    I: AsyncRead + Unpin,
{
    let (prefix, mut io) = io.into_parts();
    let mut read = BytesMut::from(prefix);
    if read.is_empty() {
        let first = first_bytes(&mut io, &mut read);
        let ended = match quiet {
            Some(quiet) => match tokio::time::timeout(quiet, first).await {
                Ok(n) => n? == 0,
                Err(_) => return Ok((Prefixed::new(io), Detected::Quiet)),
            },
            None => first.await? == 0,
        };
        if ended {
            return Ok((Prefixed::new(io), Detected::Closed));
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let detected = loop {
        match sniff(&read) {
            Sniffed::Http1 => break Detected::Http1,
            Sniffed::Http2 => break Detected::Http2,
            Sniffed::Tls(hello) => break Detected::Tls(hello),
            Sniffed::Other => break Detected::Opaque,
            Sniffed::More => match timeout_at(deadline, first_bytes(&mut io, &mut read)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) => break Detected::Opaque,
                Ok(Err(e)) => return Err(e),
            },
        }
    };
    Ok((Prefixed::with(read.freeze(), io), detected))
}

/// Appends what arrives next. 0: the other side has ended. Cancel-safe.
pub async fn first_bytes<I: AsyncRead + Unpin>(
    io: &mut I,
    into: &mut BytesMut,
) -> io::Result<usize> {
    into.reserve(FIRST_READ);
    io.read_buf(into).await
}

/// Who speaks first on a connection whose client was quiet?
#[derive(Debug)]
pub enum First {
    /// The client did after all: look at its bytes.
    Client(BytesMut),
    /// The server did, and so the bytes are for the client.
    Server(BytesMut),
    /// One of them closed.
    Closed,
}

/// Waits for the first byte of either side.
pub async fn race<C, S>(client: &mut C, server: &mut S) -> io::Result<First>
where
    C: AsyncRead + Unpin,
    S: AsyncRead + Unpin,
{
    let (mut from_client, mut from_server) = (BytesMut::new(), BytesMut::new());
    tokio::select! {
        biased;
        n = first_bytes(client, &mut from_client) => Ok(if n? == 0 { First::Closed } else { First::Client(from_client) }),
        n = first_bytes(server, &mut from_server) => Ok(if n? == 0 { First::Closed } else { First::Server(from_server) }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::sniff::hello::tests::hello_of;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_given_back() {
        let (mut client, io) = duplex(4096);
        client.write_all(b"GET / HT").await.unwrap();
        let task = tokio::spawn(detect(Prefixed::new(io), Some(QUIET)));
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.write_all(b"TP/1.1\r\n\r\n").await.unwrap();
        let (mut io, detected) = task.await.unwrap().unwrap();
        assert_eq!(detected, Detected::Http1);
        let mut back = [0; 18];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"GET / HTTP/1.1\r\n\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_hello_are_noticed() {
        let (mut client, io) = duplex(4096);
        let (io, detected) = detect(Prefixed::new(io), Some(QUIET)).await.unwrap();
        assert_eq!(detected, Detected::Quiet);
        let hello = hello_of("a.example", &[]);
        client.write_all(&hello[..40]).await.unwrap();
        let begun = Instant::now();
        let (io, detected) = detect(io, None).await.unwrap();
        assert_eq!(detected, Detected::Opaque);
        assert_eq!(begun.elapsed(), PATIENCE);
        assert_eq!(io.prefix().len(), 40);
    }

    #[tokio::test]
    async fn a_hello_says_where_to_go() {
        let (mut client, io) = duplex(4096);
        client
            .write_all(&hello_of("a.example", &[b"h2"]))
            .await
            .unwrap();
        let (_, detected) = detect(Prefixed::new(io), None).await.unwrap();
        let Detected::Tls(hello) = detected else {
            panic!("{detected:?}")
        };
        assert_eq!(hello.server_name.as_deref(), Some("a.example"));
    }

    #[tokio::test]
    async fn the_side_that_speaks_first_is_heard() {
        let ((mut client, mut a), (mut b, mut server)) = (duplex(64), duplex(64));
        server.write_all(b"hello").await.unwrap();
        let First::Server(bytes) = race(&mut a, &mut b).await.unwrap() else {
            panic!()
        };
        assert_eq!(&bytes[..], b"hello");
        client.write_all(b"hi").await.unwrap();
        let First::Client(bytes) = race(&mut a, &mut b).await.unwrap() else {
            panic!()
        };
        assert_eq!(&bytes[..], b"hi");
        drop(server);
        assert!(matches!(race(&mut a, &mut b).await.unwrap(), First::Closed));
    }
}
