//! Retries, timeouts, ejection, limits, drain.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use weft_model::route::ResetRetry;
use weft_model::{MtlsMode, OutlierDetection, Protocol, TrafficPolicy};

use crate::app::{ask, get, http2, named, nobody, text};
use crate::mesh::{Pod, Virtual, World, endpoint, forward, port, spiffe};
use crate::{app, run};

/// A client and a service over plaintext endpoints: what is tested here is on the client's side.
async fn plain(endpoints: &[SocketAddr]) -> (Rc<World>, Rc<Pod>, Virtual) {
    let world = World::new();
    let client = world
        .pod("client", port(Protocol::Http, MtlsMode::Strict))
        .await;
    let endpoints = endpoints.iter().map(|a| endpoint(*a, None)).collect();
    let service = world.service("web", Protocol::Http, endpoints);
    (world, client, service)
}

/// Answers 503 so many times, then 200; counts the requests.
async fn failing(times: u32, status: u16) -> (SocketAddr, Rc<Cell<u32>>) {
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    let address = app::http(move |_| {
        seen.set(seen.get() + 1);
        let status = if seen.get() <= times { status } else { 200 };
        async move {
            Response::builder()
                .status(status)
                .body(Full::from("x"))
                .unwrap()
        }
    })
    .await;
    (address, count)
}

#[test]
fn a_dead_endpoint_costs_no_request() {
    run(async {
        let (_world, client, service) = plain(&[named("alive").await, nobody().await]).await;
        let mut io = client.dial(service.address).await;
        for _ in 0..40 {
            assert!(ask(&mut io, &get("/")).await.ends_with("alive GET /"));
        }
        client
            .metric("weft_retries_total{destination=\"shop/web/80\",outcome=\"retried\"} ")
            .await;
    });
}

#[test]
fn an_application_that_is_down_behind_its_sidecar_is_left_for_another() {
    run(async {
        let world = World::new();
        let http = || port(Protocol::Http, MtlsMode::Strict);
        let client = world.pod("client", http()).await;
        let (a, b) = (world.pod("a", http()).await, world.pod("b", http()).await);
        let endpoints = vec![
            endpoint(a.capture(named("alive").await).await, Some(spiffe("a"))),
            endpoint(b.capture(nobody().await).await, Some(spiffe("b"))),
        ];
        let service = world.service("web", Protocol::Http, endpoints);
        let mut io = client.dial(service.address).await;
        for _ in 0..20 {
            assert!(
                ask(
                    &mut io,
                    "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\n\r\nx"
                )
                .await
                .ends_with("alive POST /")
            );
        }
    });
}

#[test]
fn statuses_are_retried_as_the_route_says() {
    run(async {
        let (address, count) = failing(2, 503).await;
        let (world, client, service) = plain(&[address]).await;
        let mut io = client.dial(service.address).await;
        assert!(
            ask(&mut io, &get("/")).await.starts_with("HTTP/1.1 503"),
            "not without a policy"
        );
        world.change(|mesh| {
            service.routes(mesh, |routes| {
                let retry = &mut forward(routes).retry;
                retry.codes = vec![503];
                retry.backoff = Duration::from_millis(1);
            });
        });
        count.set(0);
        loop {
            // The change is on its way.
            let answer = ask(
                &mut io,
                "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody",
            )
            .await;
            if answer.starts_with("HTTP/1.1 200") && count.get() == 3 {
                break;
            }
            count.set(0);
        }
    });
}

#[test]
fn a_reset_is_retried_only_when_that_is_safe() {
    run(async {
        let seen = Rc::new(Cell::new(0));
        let counter = Rc::clone(&seen);
        let address = app::listen(move |io| {
            counter.set(counter.get() + 1);
            async move {
                let mut head = [0; 10];
                let _ = io.peek(&mut head).await;
                drop(io);
            }
        })
        .await;
        let (world, client, service) = plain(&[address]).await;
        let mut io = client.dial(service.address).await;
        let answer = ask(
            &mut io,
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert_eq!(seen.take(), 1);
        let answer = ask(&mut io, &get("/")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert_eq!(seen.take(), 3);
        world.change(|mesh| {
            service.routes(mesh, |routes| {
                forward(routes).retry.reset = ResetRetry::Always;
            });
        });
        while seen.take() != 3 {
            ask(
                &mut io,
                "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
        }
    });
}

#[test]
fn time_is_limited_for_each_try_and_for_all() {
    run(async {
        let slow = app::http(|_| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Response::new(Full::<Bytes>::default())
        })
        .await;
        let (world, client, service) = plain(&[slow]).await;
        let limits = |each: u64, all: u64| {
            world.change(|mesh| {
                service.routes(mesh, |routes| {
                    let forward = forward(routes);
                    forward.retry.per_try_timeout = Some(Duration::from_millis(each));
                    forward.request_timeout = Some(Duration::from_millis(all));
                    forward.retry.backoff = Duration::from_millis(1);
                });
            });
        };
        limits(50, 5000);
        let mut io = client.dial(service.address).await;
        let begun = Instant::now();
        let answer = ask(&mut io, &get("/")).await;
        assert!(
            answer.starts_with("HTTP/1.1 504") && answer.contains("try_timeout"),
            "{answer}"
        );
        assert!(
            (150..1000).contains(&begun.elapsed().as_millis()),
            "{:?}",
            begun.elapsed()
        );
        limits(5000, 50);
        loop {
            let answer = ask(&mut io, &get("/")).await;
            if answer.contains("request_timeout") {
                assert!(answer.starts_with("HTTP/1.1 504"));
                break;
            }
        }
    });
}

#[test]
fn weights_split_the_traffic() {
    run(async {
        let (world, client, service) = plain(&[named("one").await]).await;
        let second = world.service(
            "second",
            Protocol::Http,
            vec![endpoint(named("two").await, None)],
        );
        world.change(|mesh| {
            service.routes(mesh, |routes| {
                let backends = &mut forward(routes).backends;
                backends[0].weight = 90;
                let mut other = weft_model::route::WeightedBackend::only(second.key.clone());
                other.weight = 10;
                backends.push(other);
            });
        });
        let mut io = client.dial(service.address).await;
        let mut twos = 0;
        for _ in 0..500 {
            twos += u32::from(ask(&mut io, &get("/")).await.contains("two GET"));
        }
        assert!((20..90).contains(&twos), "{twos}");
    });
}

#[test]
fn copies_go_to_a_mirror_and_their_answers_nowhere() {
    run(async {
        let (shadow, copies) = failing(u32::MAX, 500).await;
        let (world, client, service) = plain(&[named("real").await]).await;
        let mirror = world.service("mirror", Protocol::Http, vec![endpoint(shadow, None)]);
        world.change(|mesh| {
            service.routes(mesh, |routes| {
                forward(routes).mirrors = vec![weft_model::route::Mirror {
                    backend: mirror.key.clone(),
                    numerator: 100,
                    denominator: 100,
                    meta: weft_model::Meta::default(),
                }];
            });
        });
        let mut io = client.dial(service.address).await;
        let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody";
        while copies.get() < 10 {
            assert!(ask(&mut io, &get("/")).await.ends_with("real GET /"));
            assert!(ask(&mut io, post).await.ends_with("real POST /"));
        }
    });
}

#[test]
fn requests_are_limited() {
    run(async {
        let slow = app::http(|_| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Response::new(Full::<Bytes>::from("done"))
        })
        .await;
        let (world, client, service) = plain(&[slow]).await;
        world.change(|mesh| {
            let mut policy = TrafficPolicy::default();
            policy.circuit_breaker.max_requests = 1;
            service.publish(mesh, Protocol::Http, policy);
        });
        let (mut first, mut second) = (
            client.dial(service.address).await,
            client.dial(service.address).await,
        );
        let late = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ask(&mut second, &get("/")).await
        };
        let first = get("/").clone_into_ask(&mut first);
        let (first, second) = tokio::join!(first, late);
        assert!(first.ends_with("done"), "{first}");
        assert!(
            second.starts_with("HTTP/1.1 503") && second.contains("overflow_requests"),
            "{second}"
        );
    });
}

/// Keeps the request alive while it is sent.
trait CloneIntoAsk {
    async fn clone_into_ask(self, io: &mut tokio::net::TcpStream) -> String;
}

impl CloneIntoAsk for String {
    async fn clone_into_ask(self, io: &mut tokio::net::TcpStream) -> String {
        ask(io, &self).await
    }
}

#[test]
fn connections_are_shared_when_they_are_few() {
    run(async {
        let open = Rc::new(Cell::new(0));
        let most = Rc::clone(&open);
        let address = app::listen(move |io| {
            most.set(most.get() + 1);
            async move {
                let service = hyper::service::service_fn(|_| async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("done")))
                });
                let io = hyper_util::rt::TokioIo::new(io);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            }
        })
        .await;
        let (world, client, service) = plain(&[address]).await;
        world.change(|mesh| {
            let mut policy = TrafficPolicy::default();
            policy.circuit_breaker.max_connections = 2;
            service.publish(mesh, Protocol::Http, policy);
        });
        let asks = (0..10).map(|_| async {
            let mut io = client.dial(service.address).await;
            ask(&mut io, &get("/")).await
        });
        for answer in futures_util::future::join_all(asks).await {
            assert!(answer.ends_with("done"), "{answer}");
        }
        assert_eq!(open.get(), 2);
    });
}

#[test]
fn an_ejected_endpoint_is_probed_back() {
    run(async {
        let (bad, count) = failing(3, 500).await;
        let (world, client, service) = plain(&[bad, named("good").await]).await;
        world.change(|mesh| {
            let policy = TrafficPolicy {
                balancer: weft_model::Balancer::RoundRobin,
                outlier_detection: Some(OutlierDetection {
                    consecutive_failures: 3,
                    base_ejection_time: Duration::from_millis(200),
                    ..OutlierDetection::default()
                }),
                ..TrafficPolicy::default()
            };
            service.publish(mesh, Protocol::Http, policy);
        });
        let mut io = client.dial(service.address).await;
        for _ in 0..20 {
            ask(&mut io, &get("/")).await;
        }
        assert_eq!(count.get(), 3, "three failures, then nothing");
        tokio::time::sleep(Duration::from_millis(250)).await;
        for _ in 0..10 {
            assert!(ask(&mut io, &get("/")).await.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(count.get(), 8, "half of ten");
    });
}

#[test]
fn http2_streams_share_a_connection_and_survive_its_end() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let counter = Rc::clone(&connections);
        let address = app::listen(move |io| {
            counter.set(counter.get() + 1);
            async move {
                let service = hyper::service::service_fn(|_| async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("done")))
                });
                let io = hyper_util::rt::TokioIo::new(io);
                let server = hyper::server::conn::http2::Builder::new(weft_proxy::http::LocalExecutor)
                    .serve_connection(io, service);
                let mut server = std::pin::pin!(server);
                tokio::select! {
                    _ = server.as_mut() => return,
                    () = tokio::time::sleep(Duration::from_millis(150)) => server.as_mut().graceful_shutdown(),
                }
                let _ = server.await;
            }
        })
        .await;
        let (_world, client, service) = plain(&[address]).await;
        let sender = http2(client.dial(service.address).await).await;
        for _ in 0..10 {
            let asks = (0..20).map(|_| {
                let mut sender = sender.clone();
                async move {
                    let request = Request::get("http://web/").body(Full::default()).unwrap();
                    text(sender.send_request(request).await.unwrap()).await
                }
            });
            for answer in futures_util::future::join_all(asks).await {
                assert_eq!(answer, "done");
            }
        }
        assert!(
            (2..=4).contains(&connections.get()),
            "{}",
            connections.get()
        );
    });
}

#[test]
fn a_drain_ends_connections_politely() {
    run(async {
        let world = World::new();
        let server = world
            .pod("web", port(Protocol::Http, MtlsMode::Permissive))
            .await;
        let slow = app::http(|_| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Response::new(Full::<Bytes>::from("done"))
        })
        .await;
        let captured = server.capture(slow).await;
        let mut io = tokio::net::TcpStream::connect(captured).await.unwrap();
        let drain = server.drain.clone();
        let request = get("/");
        let (answer, ()) = tokio::join!(ask(&mut io, &request), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drain.start(tokio::time::Instant::now() + Duration::from_secs(5));
        });
        assert!(
            answer.ends_with("done") && answer.contains("connection: close"),
            "{answer}"
        );
    });
}
