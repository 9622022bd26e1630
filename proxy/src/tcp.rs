//! Copies bytes between two streams, each direction closing on its own.
//!
//! Called at the end of [`crate::outbound`] and [`crate::inbound`] for what is not HTTP, and for upgraded HTTP connections.
//! An idle connection holds no buffer: what is read goes through one scratch buffer of the thread straight into the
//! other stream, and only what that does not take at once is kept, until it does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::listen::close_with_reset;
use crate::metrics::ByteCounters;

/// Bytes read at once. Larger pieces save system calls in bulk transfers; four TLS records.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How much went each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// From the client to the server, in bytes.
    pub sent: u64,
    /// From the server to the client, in bytes.
    pub received: u64,
}

/// Which side ended a copy with an error.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The client's side broke.
    #[error("the client's connection broke: {0}")]
    Client(io::Error),
    /// The server's side broke.
    #[error("the server's connection broke: {0}")]
    Server(io::Error),
}

/// Copies until both directions have ended, or one side breaks. `counters` grow as bytes pass; `copied` too, so that it is
/// right even when the future is dropped.
pub async fn copy<C, S>(
    client: &mut C,
    server: &mut S,
    counters: &ByteCounters,
    copied: &mut Copied,
) -> Result<(), CopyError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Half::default(), Half::default());
    poll_fn(|cx| {
        let (before, sent) = (*copied, &mut copied.sent);
        let to_server = up.poll(cx, client, server, sent);
        let to_client = down.poll(cx, server, client, &mut copied.received);
        counters.add(copied.sent - before.sent, copied.received - before.received);
        match (to_server, to_client) {
            (Poll::Ready(Err(Side::Read(e))), _) | (_, Poll::Ready(Err(Side::Write(e)))) => {
                Poll::Ready(Err(CopyError::Client(e)))
            }
            (Poll::Ready(Err(Side::Write(e))), _) | (_, Poll::Ready(Err(Side::Read(e)))) => {
                Poll::Ready(Err(CopyError::Server(e)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

/// A server that broke off is seen as such by the client: a reset stays a reset.
pub fn pass_on_reset(client: &TcpStream, error: &CopyError) {
    if let CopyError::Server(_) = error {
        close_with_reset(client);
    }
}

enum Side {
    Read(io::Error),
    Write(io::Error),
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Read, and not taken by the writer yet.
    pending: Vec<u8>,
    written: usize,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    /// The reader has ended: the end is passed on.
    Closing,
    Closed,
}

/// Rounds of one poll, so that one busy connection does not starve the others of the thread.
const ROUNDS: usize = 16;

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        total: &mut u64,
    ) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(Side::Write)?;
                    self.state = State::Closed;
                }
                State::Copying => {
                    ready!(self.poll_pending(cx, writer)).map_err(Side::Write)?;
                    ready!(self.poll_round(cx, reader, writer, total))?;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was left over.
    fn poll_pending<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let n = ready!(Pin::new(&mut *writer).poll_write(cx, &self.pending[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.written = 0;
        self.pending = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what was read, as far as it is taken.
    fn poll_round<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        total: &mut u64,
    ) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *reader).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Side::Read(e))),
                Poll::Pending => {
                    // TLS keeps what the socket did not take.
                    ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(Side::Write)?;
                    return Poll::Pending;
                }
            }
            let read = buffer.filled();
            if read.is_empty() {
                self.state = State::Closing;
                return Poll::Ready(Ok(()));
            }
            *total += read.len() as u64;
            let taken = match Pin::new(&mut *writer).poll_write(cx, read) {
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Side::Write(e))),
                Poll::Pending => 0,
            };
            if taken < read.len() {
                self.pending = read[taken..].to_vec();
            }
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_closes_on_its_own() {
        let (mut client, mut a) = duplex(16);
        let (mut b, mut server) = duplex(16);
        let task = tokio::spawn(async move {
            let mut copied = Copied::default();
            copy(&mut a, &mut b, &ByteCounters::default(), &mut copied)
                .await
                .unwrap();
            copied
        });
        let request = vec![7; 100_000];
        let (sent, heard) = tokio::join!(
            async {
                client.write_all(&request).await.unwrap();
                client.shutdown().await.unwrap();
            },
            async {
                let mut heard = Vec::new();
                server.read_to_end(&mut heard).await.unwrap();
                heard
            }
        );
        let () = sent;
        assert_eq!(heard, request);
        // The other direction still works.
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        let copied = task.await.unwrap();
        assert_eq!(
            copied,
            Copied {
                sent: 100_000,
                received: 6
            }
        );
    }

    #[tokio::test]
    async fn a_dead_server_ends_it() {
        let (mut client, mut a) = duplex(16);
        let (mut b, server) = duplex(16);
        drop(server);
        client.write_all(b"x").await.unwrap();
        let mut copied = Copied::default();
        let error = copy(&mut a, &mut b, &ByteCounters::default(), &mut copied)
            .await
            .unwrap_err();
        assert!(matches!(error, CopyError::Server(_)), "{error}");
    }
}
