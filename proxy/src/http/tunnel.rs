//! After `101 Switching Protocols` or a successful `CONNECT`: the two connections become one stream of bytes.

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::drain::Guard;
use crate::metrics::ByteCounters;
use crate::tcp::{self, Copied};

/// Takes the client's side out of a request that asks for a tunnel.
pub fn of_request<B>(request: &mut Request<B>) -> OnUpgrade {
    hyper::upgrade::on(request)
}

/// Joins both sides once hyper has let go of them, and copies until both have ended.
pub fn join<B>(
    client: OnUpgrade,
    response: &mut Response<B>,
    counters: ByteCounters,
    guard: Guard,
) {
    let server = hyper::upgrade::on(response);
    tokio::task::spawn_local(async move {
        let both = tokio::try_join!(client, server);
        match both {
            Ok((client, server)) => {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                let mut copied = Copied::default();
                if let Err(error) =
                    tcp::copy(&mut client, &mut server, &counters, &mut copied).await
                {
                    tracing::debug!(%error, ?copied, "a tunnel broke");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
        }
        drop(guard);
    });
}
