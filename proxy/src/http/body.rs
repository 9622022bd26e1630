//! The one body type of the data path: nothing, a few bytes of our own, or what the other side sends.
//!
//! Bytes pass through as they came, by reference count. A request that may be sent again goes through [`super::replay`]; a
//! response carries its [`Tail`], which learns how the exchange ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::expect::Gate;
use super::passing::{BodyError, Passing};
use super::replay::Replay;
use super::tail::Tail;

/// A body.
#[derive(Debug)]
pub enum Body {
    /// No bytes.
    Empty,
    /// Bytes of our own; `None` once they are sent.
    Own(Option<Bytes>),
    /// Of a request: sent once.
    Once(Passing, Option<Gate>),
    /// Of a request: may be sent again.
    Replay(Replay),
    /// Of a response.
    Response(Passing, Option<Box<Tail>>),
}

impl Body {
    /// A request's body, to be sent once.
    pub fn once(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            Self::Empty
        } else {
            Self::Once(Passing::new(incoming), None)
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Once(passing, gate) => {
                if let Some(closed) = gate {
                    std::task::ready!(closed.poll_open(cx));
                    *gate = None;
                }
                passing.poll(cx)
            }
            Self::Replay(replay) => replay.poll(cx),
            Self::Response(passing, tail) => {
                if let Some(tail) = tail {
                    if tail.poll_deadline(cx) {
                        return Poll::Ready(Some(Err(BodyError::TimedOut)));
                    }
                    let frame = std::task::ready!(passing.poll(cx));
                    if let Some(Ok(frame)) = &frame {
                        tail.passed(frame.data_ref().map_or(0, Bytes::len));
                    }
                    if passing.is_end() {
                        tail.complete();
                    }
                    Poll::Ready(frame)
                } else {
                    passing.poll(cx)
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Own(bytes) => bytes.is_none(),
            Self::Once(passing, _) | Self::Response(passing, _) => passing.is_end(),
            Self::Replay(replay) => replay.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Once(passing, _) | Self::Response(passing, _) => passing.size_hint(),
            Self::Replay(replay) => replay.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Self::Response(passing, Some(tail)) = self
            && passing.is_end()
        {
            // Empty bodies are never polled.
            tail.complete();
        }
    }
}
