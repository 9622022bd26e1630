//! An HTTP/1.1 server for the shop's services: accepts, answers `/healthz` itself, asks the [`Service`] for the rest,
//! and lets requests in flight finish when the process is asked to stop.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use crate::shutdown;

/// Bytes of a request body that are read before it is refused.
const BODY_LIMIT: usize = 64 * 1024;
/// How long requests in flight may go on once the process was asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// What becomes of a request.
pub(crate) enum Answer {
    /// A response.
    Reply(Response<Full<Bytes>>),
    /// None: the connection is reset (TCP RST), as a crashing server's kernel would do.
    Reset,
}

/// One of the shop's services over HTTP.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// The request cannot be answered, and the connection is to be cut off.
#[derive(Debug, thiserror::Error)]
#[error("connection reset on purpose")]
struct ResetOnPurpose;

/// Serves on every address, IPv6 included where there is IPv6, until [`shutdown::requested`].
pub(crate) async fn serve(port: u16, service: impl Service) -> io::Result<()> {
    let listener = listen(port).await?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    serve_on(listener, service, shutdown::requested()).await;
    Ok(())
}

/// Listens on `[::]`, which takes IPv4 as well, or on `0.0.0.0` where the kernel has no IPv6.
pub(crate) async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

async fn serve_on(listener: TcpListener, service: impl Service, stop: impl Future<Output = ()>) {
    let service = Arc::new(service);
    let connections = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve_connection(stream, service.clone(), &connections),
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests still in flight after {GRACE:?}");
    }
}

fn serve_connection(stream: TcpStream, service: Arc<impl Service>, connections: &GracefulShutdown) {
    let _ = stream.set_nodelay(true);
    // A second descriptor of the socket, because hyper owns the first when a service decides to reset.
    let socket = SockRef::from(&stream).try_clone().ok();
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request: Request<Incoming>| {
                let (service, socket) = (
                    service.clone(),
                    socket.as_ref().and_then(|s| s.try_clone().ok()),
                );
                async move {
                    if request.uri().path() == "/healthz" {
                        return Ok(text(StatusCode::OK, "ok\n"));
                    }
                    match service.call(request).await {
                        Answer::Reply(response) => Ok(response),
                        Answer::Reset => {
                            if let Some(socket) = socket {
                                // A close with a linger of zero sends RST rather than FIN.
                                let _ = socket.set_linger(Some(Duration::ZERO));
                            }
                            Err(ResetOnPurpose)
                        }
                    }
                }
            }),
        );
    let watched = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection");
        }
    });
}

/// Reads a JSON body. The error is the reply to send: 400, or 413 beyond 64 KiB.
pub(crate) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Answer> {
    match Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
    {
        Ok(collected) => serde_json::from_slice(&collected.to_bytes())
            .map_err(|error| failure(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(error) => Err(failure(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())),
    }
}

/// A 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => Answer::Reply(typed(
            StatusCode::OK,
            "application/json",
            Full::new(bytes.into()),
        )),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A 200 with an HTML page.
pub(crate) fn html(page: String) -> Answer {
    Answer::Reply(typed(
        StatusCode::OK,
        "text/html; charset=utf-8",
        Full::new(page.into()),
    ))
}

/// An error as `{"error": reason}`.
pub(crate) fn failure(status: StatusCode, reason: &str) -> Answer {
    let body = serde_json::json!({ "error": reason }).to_string();
    Answer::Reply(typed(status, "application/json", Full::new(body.into())))
}

/// The 404 every service gives for a path it does not have.
pub(crate) fn not_found() -> Answer {
    failure(StatusCode::NOT_FOUND, "no such page")
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain", Full::new(body.into()))
}

fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: Full<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}

/// The value of a query parameter, as written (the shop's own values need no escapes).
pub(crate) fn query<'a>(request: &'a Request<Incoming>, key: &str) -> Option<&'a str> {
    request
        .uri()
        .query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(k, value)| (k == key).then_some(value))
}

#[cfg(test)]
pub(crate) mod testing {
    //! A service on a loopback port of its own, for the tests of the services.

    use super::{Service, listen, serve_on};

    /// Serves until the test's runtime ends, and returns the base URL.
    #[allow(clippy::unwrap_used)]
    pub(crate) async fn start(service: impl Service) -> String {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve_on(listener, service, std::future::pending()));
        format!("http://127.0.0.1:{port}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http_client::{CallError, Client};

    struct Resets;

    impl Service for Resets {
        async fn call(&self, _: Request<Incoming>) -> Answer {
            Answer::Reset
        }
    }

    #[tokio::test]
    async fn health_is_answered_and_a_reset_is_no_answer() {
        let url = testing::start(Resets).await;
        let client = Client::new();
        assert_eq!(
            client.text(&format!("{url}/healthz")).await.unwrap(),
            "ok\n"
        );
        let error = client.text(&url).await.unwrap_err();
        assert!(matches!(error, CallError::Connection { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_request_in_flight_is_answered_after_the_stop() {
        use tokio::sync::oneshot::{Receiver, Sender, channel};

        struct Slow(std::sync::Mutex<Option<(Sender<()>, Receiver<()>)>>);
        impl Service for Slow {
            async fn call(&self, _: Request<Incoming>) -> Answer {
                let (entered, gate) = self.0.lock().unwrap().take().unwrap();
                entered.send(()).unwrap();
                gate.await.unwrap();
                json(&"done")
            }
        }
        let listener = listen(0).await.unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (entered, in_flight) = channel();
        let (open, gate) = channel();
        let (stop, stopped) = channel::<()>();
        let service = Slow(std::sync::Mutex::new(Some((entered, gate))));
        let server = tokio::spawn(serve_on(listener, service, async move {
            let _ = stopped.await;
        }));
        let call = tokio::spawn(async move { Client::new().text(&url).await });
        in_flight.await.unwrap();
        stop.send(()).unwrap();
        open.send(()).unwrap();
        assert_eq!(call.await.unwrap().unwrap(), "\"done\"");
        server.await.unwrap();
    }
}
