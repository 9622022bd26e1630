//! Connections to one address that wait for their next request.
//!
//! HTTP/1.1: idle connections, the one used last first, so that surplus ones age and close. HTTP/2: one connection, and
//! another only when its streams are used up. A pool belongs to one worker and one endpoint or application port.
//! [`crate::http::client`] takes from it; [`Lease::give_back`] returns.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use hyper::client::conn::{http1, http2};

use crate::error::{ConnectError, Error, ExchangeError};
use crate::http::body::Body;
use crate::http::tail::Held;

/// A connection that takes one request at a time.
pub type Http1 = http1::SendRequest<Body>;

/// A connection that takes many.
#[derive(Debug, Clone)]
pub struct Http2 {
    /// The connection.
    pub sender: http2::SendRequest<Body>,
    /// Streams that the server allows at a time, as it says.
    pub limit: Rc<Cell<usize>>,
}

/// The connections to one address.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Multiplexed>>,
    connecting: RefCell<Option<Connecting>>,
    /// Grows when everything in it has become unusable; connections in use are then not taken back.
    generation: Cell<u64>,
}

/// A connection in the making, for everyone who waits for it.
type Connecting = Shared<LocalBoxFuture<'static, Result<(), Error>>>;

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: Instant,
}

#[derive(Debug)]
struct Multiplexed {
    connection: Http2,
    streams: Rc<Cell<usize>>,
    used: Cell<Instant>,
}

impl Pool {
    /// The connection that was used last, if it has not been idle for too long.
    pub fn take_http1(&self, now: Instant, idle_timeout: Duration) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        while let Some(candidate) = idle.pop() {
            if now.saturating_duration_since(candidate.since) >= idle_timeout {
                // Those below it are older still.
                idle.clear();
                return None;
            }
            if !candidate.sender.is_closed() {
                return Some(candidate.sender);
            }
        }
        None
    }

    fn put_http1(&self, sender: Http1, generation: u64) {
        if generation == self.generation.get() && !sender.is_closed() {
            let since = Instant::now();
            self.idle.borrow_mut().push(Idle { sender, since });
        }
    }

    /// A lease on a connection that was taken or made.
    pub fn lease_http1(self: &Rc<Self>, sender: Http1) -> Lease {
        Lease::Http1 {
            pool: Rc::clone(self),
            sender,
            generation: self.generation.get(),
        }
    }

    fn take_http2(&self, now: Instant) -> Option<(Http2, Lease)> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|c| !c.connection.sender.is_closed());
        let free = shared
            .iter()
            .find(|c| c.streams.get() < c.connection.limit.get())?;
        free.used.set(now);
        free.streams.set(free.streams.get() + 1);
        let streams = Rc::clone(&free.streams);
        Some((free.connection.clone(), Lease::Http2(Stream(streams))))
    }

    /// A connection with a free stream; made by `connect` if there is none. However many requests wait, one is made at a
    /// time, and it is finished even if they give up.
    pub async fn http2<F>(self: &Rc<Self>, connect: impl Fn() -> F) -> Result<(Http2, Lease), Error>
    where
        F: Future<Output = Result<Http2, Error>> + 'static,
    {
        /// A fresh connection may be full at once when many waited for it.
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            if let Some(taken) = self.take_http2(Instant::now()) {
                return Ok(taken);
            }
            let waiting = self.connecting.borrow().clone();
            let waiting = match waiting {
                Some(waiting) => waiting,
                None => self.begin(connect()),
            };
            waiting.await?;
        }
        Err(ExchangeError::NotTaken.into())
    }

    fn begin<F>(self: &Rc<Self>, connect: F) -> Connecting
    where
        F: Future<Output = Result<Http2, Error>> + 'static,
    {
        let pool = Rc::clone(self);
        let generation = self.generation.get();
        let task = tokio::task::spawn_local(async move {
            let made = connect.await;
            pool.connecting.borrow_mut().take();
            let connection = made?;
            if generation == pool.generation.get() {
                pool.shared.borrow_mut().push(Multiplexed {
                    connection,
                    streams: Rc::default(),
                    used: Cell::new(Instant::now()),
                });
            }
            Ok(())
        });
        let waiting = task
            .map(|joined| joined.unwrap_or(Err(ConnectError::Io(std::io::ErrorKind::Other).into())))
            .boxed_local()
            .shared();
        *self.connecting.borrow_mut() = Some(waiting.clone());
        waiting
    }

    /// Closes what has been idle for too long. True: something is left.
    pub fn sweep(&self, now: Instant, idle_timeout: Duration) -> bool {
        let young = |since: Instant| now.saturating_duration_since(since) < idle_timeout;
        let mut idle = self.idle.borrow_mut();
        idle.retain(|c| young(c.since) && !c.sender.is_closed());
        let mut shared = self.shared.borrow_mut();
        shared.retain(|c| {
            !c.connection.sender.is_closed() && (c.streams.get() > 0 || young(c.used.get()))
        });
        !idle.is_empty() || !shared.is_empty()
    }

    /// Uses nothing of it again: the roots by which its peers were judged have changed. Requests in flight end as they would.
    pub fn retire(&self) {
        self.generation.set(self.generation.get() + 1);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}

/// The right to use a connection, until the response has ended.
#[derive(Debug)]
pub enum Lease {
    /// The whole connection.
    Http1 {
        /// Where it goes back to.
        pool: Rc<Pool>,
        /// The connection.
        sender: Http1,
        /// Of the pool, when it was taken.
        generation: u64,
    },
    /// One stream of it.
    Http2(Stream),
}

impl Lease {
    /// The exchange has ended regularly: the connection can take another.
    pub fn give_back(self) {
        let Self::Http1 {
            pool,
            mut sender,
            generation,
        } = self
        else {
            return;
        };
        if sender.is_ready() {
            pool.put_http1(sender, generation);
        } else if !sender.is_closed() {
            // The end of the request's body is still being written.
            tokio::task::spawn_local(async move {
                if sender.ready().await.is_ok() {
                    pool.put_http1(sender, generation);
                }
            });
        }
    }
}

/// One stream of an HTTP/2 connection.
#[derive(Debug)]
pub struct Stream(Rc<Cell<usize>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
impl Held for Lease {
    fn complete(self: Box<Self>) {
        self.give_back();
    }
}
