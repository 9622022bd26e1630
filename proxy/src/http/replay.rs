//! A request body that can be sent again, up to a limit.
//!
//! [`crate::outbound::http`] makes one for each request that its route may retry; each attempt sends a [`Replay`] of it.
//! Chunks are kept as they came, by reference count. Beyond [`LIMIT`] they are let go, and with them further attempts.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::expect::Gate;
use super::passing::{BodyError, Passing};

/// Bytes that are kept for another attempt.
pub const LIMIT: usize = 64 * 1024;

/// The body itself; attempts share it.
#[derive(Debug)]
pub struct Replayable {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug)]
struct Shared {
    passing: Passing,
    chunks: Vec<Bytes>,
    kept: usize,
    trailers: Option<HeaderMap>,
    /// Chunks were let go.
    overflown: bool,
    /// The newest attempt; older ones get nothing more.
    attempt: u32,
}

/// One attempt's view of it.
#[derive(Debug)]
pub struct Replay {
    shared: Rc<RefCell<Shared>>,
    attempt: u32,
    next: usize,
    trailers_sent: bool,
    gate: Option<Gate>,
}

impl Replayable {
    /// Wraps a body.
    pub fn new(incoming: Incoming) -> Self {
        let shared = Shared {
            passing: Passing::new(incoming),
            chunks: Vec::new(),
            kept: 0,
            trailers: None,
            overflown: false,
            attempt: 0,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
        }
    }

    /// Can another attempt still send the whole body?
    pub fn can_replay(&self) -> bool {
        !self.shared.borrow().overflown
    }

    /// Begins another attempt; earlier ones get an error from now on.
    pub fn attempt(&self, gate: Option<Gate>) -> Replay {
        let attempt = {
            let mut shared = self.shared.borrow_mut();
            shared.attempt += 1;
            shared.attempt
        };
        Replay {
            shared: Rc::clone(&self.shared),
            attempt,
            next: 0,
            trailers_sent: false,
            gate,
        }
    }

    /// The whole body in memory, for a copy. `None`: it is longer than [`LIMIT`], or broke off; what was read stays.
    pub async fn collect(&self) -> Option<Bytes> {
        let mut probe = self.attempt(None);
        loop {
            match std::future::poll_fn(|cx| probe.poll(cx)).await {
                Some(Ok(_)) if self.can_replay() && self.shared.borrow().kept <= LIMIT => {}
                None => break,
                Some(_) => return None,
            }
        }
        let shared = self.shared.borrow();
        (!shared.overflown).then(|| match shared.chunks.as_slice() {
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        })
    }
}

impl Replay {
    /// The next frame: one that is kept, else the next from the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            std::task::ready!(gate.poll_open(cx));
            self.gate = None;
        }
        let mut shared = self.shared.borrow_mut();
        if shared.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(chunk) = shared.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if !shared.passing.is_end() {
            match std::task::ready!(shared.passing.poll(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        shared.keep(&data);
                        self.next = shared.chunks.len();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => shared.trailers = frame.into_trailers().ok(),
                },
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => {}
            }
        }
        match &shared.trailers {
            Some(trailers) if !self.trailers_sent => {
                self.trailers_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))))
            }
            _ => Poll::Ready(None),
        }
    }

    /// Has this attempt sent everything?
    pub fn is_end(&self) -> bool {
        let shared = self.shared.borrow();
        self.next >= shared.chunks.len()
            && shared.passing.is_end()
            && (self.trailers_sent || shared.trailers.is_none())
    }

    /// What this attempt has still to send.
    pub fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let kept: usize = shared.chunks.iter().skip(self.next).map(Bytes::len).sum();
        match shared.passing.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + kept as u64),
            None => SizeHint::default(),
        }
    }
}

impl Shared {
    fn keep(&mut self, data: &Bytes) {
        if self.overflown {
            return;
        }
        self.kept += data.len();
        if self.kept > LIMIT {
            self.overflown = true;
            self.chunks = Vec::new();
        } else {
            self.chunks.push(data.clone());
        }
    }
}
