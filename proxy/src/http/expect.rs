//! `Expect: 100-continue` (RFC 9110, 10.1.1): the client's body waits until the server asks for it.
//!
//! hyper asks the client for the body (with `100 Continue`) when the body is first read. So a closed [`Gate`] before the body
//! is all it takes: it opens when the endpoint's own `100 Continue` arrives, or after a while, as the RFC wants it for
//! servers that do not know the mechanism.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, header};
use tokio::time::{Sleep, sleep};

/// How long an endpoint may take to answer `100 Continue`; curl waits as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Closed until the endpoint wants the body.
#[derive(Debug)]
pub struct Gate {
    key: Arc<Key>,
    patience: Pin<Box<Sleep>>,
}

#[derive(Debug, Default)]
struct Key {
    open: AtomicBool,
    waker: AtomicWaker,
}

/// Does the client wait for `100 Continue`?
pub fn expects_continue(headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    expect.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Gate {
    /// A gate that the endpoint's answer to `request` opens.
    pub fn before<B>(request: &mut Request<B>) -> Self {
        let key = Arc::new(Key::default());
        let opener = Arc::clone(&key);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == http::StatusCode::CONTINUE {
                opener.open.store(true, Ordering::Release);
                opener.waker.wake();
            }
        });
        let patience = Box::pin(sleep(PATIENCE));
        Self { key, patience }
    }

    /// Ready when the body may go.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.key.waker.register(cx.waker());
        if self.key.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}
