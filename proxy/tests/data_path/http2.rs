//! What hurts HTTP/2 stacks: early answers, resets from either side, clients that leave.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use weft_model::{MtlsMode, Protocol};
use weft_proxy::http::LocalExecutor;

use crate::app::{http2, listen, text};
use crate::mesh::{Pod, Virtual, World, endpoint, port, spiffe};
use crate::run;

/// An application whose answers may be errors, which become resets.
async fn resetting<F, E>(answer: impl Fn(Request<Incoming>) -> F + Clone + 'static) -> SocketAddr
where
    F: Future<Output = Result<Response<Full<Bytes>>, E>> + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    listen(move |io| {
        let answer = answer.clone();
        async move {
            let service = hyper::service::service_fn(answer);
            let _ = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .serve_connection(TokioIo::new(io), service)
                .await;
        }
    })
    .await
}

async fn meshed(application: SocketAddr) -> (Rc<World>, Rc<Pod>, Rc<Pod>, Virtual) {
    let world = World::new();
    let client = world
        .pod("client", port(Protocol::Grpc, MtlsMode::Strict))
        .await;
    let server = world
        .pod("web", port(Protocol::Grpc, MtlsMode::Strict))
        .await;
    let captured = server.capture(application).await;
    let service = world.service(
        "web",
        Protocol::Grpc,
        vec![endpoint(captured, Some(spiffe("web")))],
    );
    (world, client, server, service)
}

#[test]
fn an_early_answer_arrives_and_the_connection_goes_on() {
    run(async {
        let application = resetting(|request: Request<Incoming>| async move {
            let refuse = request.uri().path() == "/refuse";
            let status = if refuse { 413 } else { 200 };
            if !refuse {
                let _ = request.into_body().collect().await;
            }
            Ok::<_, Infallible>(
                Response::builder()
                    .status(status)
                    .body(Full::from("x"))
                    .unwrap(),
            )
        })
        .await;
        let (_world, client, _server, service) = meshed(application).await;
        let mut sender = http2(client.dial(service.address).await).await;
        let big = Bytes::from(vec![0; 4 << 20]);
        for round in 0..10 {
            let request = Request::post("http://web/refuse")
                .body(Full::new(big.clone()))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 413, "{round}");
            let request = Request::post("http://web/take")
                .body(Full::from("small"))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200, "{round}");
        }
    });
}

#[test]
fn a_refused_stream_is_sent_again_and_another_reset_passes() {
    run(async {
        let seen = Rc::new(Cell::new(0));
        let counter = Rc::clone(&seen);
        let application = resetting(move |request: Request<Incoming>| {
            counter.set(counter.get() + 1);
            let reason = match request.uri().path() {
                "/refused" if counter.get() < 3 => Some(h2::Reason::REFUSED_STREAM),
                "/cancelled" => Some(h2::Reason::CANCEL),
                _ => None,
            };
            async move {
                match reason {
                    Some(reason) => Err(h2::Error::from(reason)),
                    None => Ok(Response::new(Full::<Bytes>::from("done"))),
                }
            }
        })
        .await;
        // In plaintext: the client's sidecar sees the resets itself.
        let world = World::new();
        let client = world
            .pod("client", port(Protocol::Grpc, MtlsMode::Strict))
            .await;
        let service = world.service("web", Protocol::Grpc, vec![endpoint(application, None)]);
        let mut sender = http2(client.dial(service.address).await).await;
        let post = |path: &str| {
            Request::post(format!("http://web{path}"))
                .body(Full::from("body"))
                .unwrap()
        };
        let response = sender.send_request(post("/refused")).await.unwrap();
        assert_eq!(text(response).await, "done");
        assert_eq!(seen.take(), 3);
        let response = sender.send_request(post("/cancelled")).await.unwrap();
        assert_eq!(response.status(), 502);
        assert_eq!(
            seen.take(),
            1,
            "a POST that may have been processed is not sent again"
        );
    });
}

#[test]
fn a_client_that_leaves_is_noticed_at_the_other_end() {
    run(async {
        struct Noticed(Rc<Cell<u32>>);
        impl Drop for Noticed {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let left = Rc::new(Cell::new(0));
        let counter = Rc::clone(&left);
        let application = resetting(move |_| {
            let noticed = Noticed(Rc::clone(&counter));
            async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                drop(noticed);
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        })
        .await;
        let (_world, client, _server, service) = meshed(application).await;
        let sender = http2(client.dial(service.address).await).await;
        for wanted in 1..=5 {
            let request = Request::get("http://web/").body(Full::default()).unwrap();
            let asked = sender.clone().send_request(request);
            assert!(
                tokio::time::timeout(Duration::from_millis(100), asked)
                    .await
                    .is_err()
            );
            while left.get() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}
