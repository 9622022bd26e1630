//! Ends response streams that would never end by themselves.
//!
//! A discovery stream lives as long as its connection. When the connection must go (shutdown, end of the client's
//! certificate), [`ClosingBody`] ends both directions: the request silently, so that the session behind it ends, and
//! the response with a proper `grpc-status`, so that the client reconnects at once and HTTP/2's GOAWAY completes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

/// Says that a connection is to be closed. Clones belong to the same connection.
#[derive(Debug, Clone)]
pub struct Closing(watch::Receiver<bool>);

/// The other end of [`Closing`].
#[derive(Debug)]
pub struct Close(watch::Sender<bool>);

/// A pair for one connection.
pub fn pair() -> (Close, Closing) {
    let (sender, receiver) = watch::channel(false);
    (Close(sender), Closing(receiver))
}

impl Close {
    /// From now on.
    pub fn now(&self) {
        self.0.send_replace(true);
    }
}

impl Closing {
    /// Returns when the connection is to be closed, at once if it already is.
    pub async fn wait(mut self) {
        // An error means that the connection is gone.
        let _ = self.0.wait_for(|closing| *closing).await;
    }
}

/// A body that ends when its connection closes.
pub struct ClosingBody {
    inner: Body,
    is_response: bool,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl ClosingBody {
    /// Wraps the messages of the client.
    pub fn request(inner: Body, closing: Closing) -> Self {
        Self::new(inner, false, closing)
    }

    /// Wraps the messages to the client; they end with `UNAVAILABLE`.
    pub fn response(inner: Body, closing: Closing) -> Self {
        Self::new(inner, true, closing)
    }

    fn new(inner: Body, is_response: bool, closing: Closing) -> Self {
        Self {
            inner,
            is_response,
            closing: Box::pin(closing.wait()),
            ended: false,
        }
    }
}

impl HttpBody for ClosingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        // First, because the session behind both directions ends as well, which would look like a regular end.
        if this.closing.as_mut().poll(cx).is_pending() {
            let polled = Pin::new(&mut this.inner).poll_frame(cx);
            this.ended = matches!(polled, Poll::Ready(None));
            return polled;
        }
        this.ended = true;
        this.inner = Body::default(); // drops the stream behind it
        if !this.is_response {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        let status = Status::unavailable("the control plane closes this connection; connect again");
        Poll::Ready(match status.add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(e) => Some(Err(e)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
