//! What the other side sends, frame by frame, as it comes; and why it may break off.
//!
//! Wrapped by [`super::body::Body`], and by [`super::replay`] where it may be sent again.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its sender broke off. The source is kept: an HTTP/2 reset goes on with its own code.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// The request's time was up.
    #[error("the request took too long")]
    TimedOut,
    /// The attempt it belonged to was given up.
    #[error("another attempt has taken over the body")]
    Superseded,
}

/// What the other side sends, with perhaps one frame that was read ahead.
#[derive(Debug)]
pub struct Passing {
    incoming: Incoming,
    ahead: Option<Result<Frame<Bytes>, hyper::Error>>,
    ended: bool,
}

impl Passing {
    /// From the beginning.
    pub fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            ahead: None,
            ended: false,
        }
    }

    /// Gives the frame that is already here a chance to be written together with the head. Never waits for the network:
    /// hyper hands a body over only when it is asked for, one turn of its connection's task later.
    pub async fn read_ahead(&mut self) {
        if self.is_end() {
            return;
        }
        let mut turns = 0;
        std::future::poll_fn(|cx| match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(frame)) => {
                self.ahead = Some(frame);
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(())
            }
            Poll::Pending if turns == 0 => {
                turns += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(()),
        })
        .await;
    }

    /// The next frame.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.ahead.take() {
            Some(frame) => Some(frame),
            None if self.ended => None,
            None => std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)),
        };
        if frame
            .as_ref()
            .is_none_or(|f| f.as_ref().is_ok_and(Frame::is_trailers))
        {
            self.ended = true;
        }
        Poll::Ready(frame.map(|f| f.map_err(BodyError::Broken)))
    }

    /// Has everything been read?
    pub fn is_end(&self) -> bool {
        self.ahead.is_none() && (self.ended || self.incoming.is_end_stream())
    }

    /// What is left.
    pub fn size_hint(&self) -> SizeHint {
        let left = self.incoming.size_hint();
        let ahead = match &self.ahead {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => 0,
        };
        match left.exact() {
            Some(exact) => SizeHint::with_exact(exact + ahead),
            None => SizeHint::default(),
        }
    }
}
