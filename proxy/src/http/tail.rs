//! What happens when an exchange is over: its connection goes back to the pool, its endpoint is relieved, its line is logged.
//!
//! Travels with the response's body ([`super::body::Body::Response`]). [`Tail::complete`] marks the regular end; dropped
//! without it, the connection is closed with the unread response.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep, sleep_until};

use super::log::Line;

/// What an exchange holds until its response has passed: a connection, a place in the balancer and under the limits.
/// Dropped without [`Held::complete`], the exchange broke off.
pub trait Held: Debug {
    /// The exchange ended as it should: its connection can be used again.
    fn complete(self: Box<Self>);
}

/// What a response still has to do while its body passes.
#[derive(Debug)]
pub struct Tail {
    held: Option<Box<dyn Held>>,
    deadline: Option<Pin<Box<Sleep>>>,
    line: Option<Box<Line>>,
}

impl Tail {
    /// Of an exchange that holds `held`. `deadline` cuts the body off.
    pub fn new(held: Box<dyn Held>, deadline: Option<Instant>) -> Self {
        Self {
            held: Some(held),
            deadline: deadline.map(|d| Box::pin(sleep_until(d))),
            line: None,
        }
    }

    /// To be written when the body has ended.
    pub fn log(&mut self, line: Box<Line>) {
        self.line = Some(line);
    }

    /// The body has ended as it should.
    pub fn complete(&mut self) {
        if let Some(held) = self.held.take() {
            held.complete();
        }
        self.deadline = None;
        self.line = None;
    }

    /// So many bytes of the body passed.
    pub fn passed(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.sent += bytes as u64;
        }
    }

    /// Is the time up?
    pub fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let up = self
            .deadline
            .as_mut()
            .is_some_and(|d| d.as_mut().poll(cx).is_ready());
        if up && let Some(line) = &mut self.line {
            line.reason = "request_timeout";
        }
        up
    }
}
