//! Applications to talk to, and ways to talk to them.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::http::LocalExecutor;

/// A listener that hands each connection to `serve`.
pub(crate) async fn listen<F>(serve: impl Fn(TcpStream) -> F + 'static) -> SocketAddr
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((io, _)) = listener.accept().await {
            io.set_nodelay(true).unwrap();
            tokio::task::spawn_local(serve(io));
        }
    });
    address
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// An HTTP application of either version.
pub(crate) async fn http<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + 'static) -> SocketAddr
where
    F: Future<Output = Response<Full<Bytes>>> + 'static,
{
    listen(move |io| {
        let answer = answer.clone();
        async move {
            let mut preface = [0; 4];
            let n = io.peek(&mut preface).await.unwrap_or(0);
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let io = TokioIo::new(io);
            let _ = if &preface[..n] == b"PRI " {
                hyper::server::conn::http2::Builder::new(LocalExecutor)
                    .serve_connection(io, service)
                    .await
            } else {
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await
            };
        }
    })
    .await
}

/// Says who it is, and what it was asked.
pub(crate) async fn named(name: &'static str) -> SocketAddr {
    http(move |request| async move {
        let body = format!("{name} {} {}", request.method(), request.uri().path());
        Response::new(Full::from(body))
    })
    .await
}

/// Sends `request`, and reads one response of HTTP/1.1 with a `Content-Length` or chunked.
pub(crate) async fn ask(io: &mut TcpStream, request: &str) -> String {
    io.write_all(request.as_bytes()).await.unwrap();
    read_response(io).await
}

/// Reads one response.
pub(crate) async fn read_response(io: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut byte = [0; 1];
        if io.read(&mut byte).await.unwrap_or(0) == 0 {
            return String::from_utf8(text).unwrap();
        }
        text.push(byte[0]);
        let Some(head) = text.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head_text = String::from_utf8(text[..head].to_vec())
            .unwrap()
            .to_ascii_lowercase();
        let body = &text[head + 4..];
        let length = head_text
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let done = match length {
            Some(length) => body.len() >= length.parse::<usize>().unwrap(),
            None if head_text.contains("chunked") => {
                body.starts_with(b"0\r\n\r\n") || ends_chunked(body)
            }
            None => true,
        };
        if done {
            return String::from_utf8(text).unwrap();
        }
    }
}

fn ends_chunked(body: &[u8]) -> bool {
    let last = body.windows(5).position(|w| w == b"\r\n0\r\n");
    last.is_some_and(|at| body[at + 5..].ends_with(b"\r\n\r\n") || &body[at + 5..] == b"\r\n")
}

/// A request of HTTP/1.1.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")
}

/// An HTTP/2 client on a connection.
pub(crate) async fn http2(io: TcpStream) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(io))
            .await
            .unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    sender
}

/// The whole body as text.
pub(crate) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}
