//! HTTP through both sidecars.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{MtlsMode, Protocol};

use crate::app::{ask, get, http2, named, read_response, text};
use crate::mesh::{Pod, Virtual, World, endpoint, port, spiffe};
use crate::{app, run};

/// A client pod, and a service with one meshed endpoint in front of `application`.
async fn meshed(
    application: std::net::SocketAddr,
    protocol: Protocol,
) -> (Rc<World>, Rc<Pod>, Rc<Pod>, Virtual) {
    let world = World::new();
    let client = world.pod("client", port(protocol, MtlsMode::Strict)).await;
    let server = world.pod("web", port(protocol, MtlsMode::Strict)).await;
    let captured = server.capture(application).await;
    let service = world.service(
        "web",
        protocol,
        vec![endpoint(captured, Some(spiffe("web")))],
    );
    (world, client, server, service)
}

#[test]
fn requests_pass_with_the_clients_identity_and_nothing_else_added() {
    run(async {
        let application = app::http(|request: Request<_>| async move {
            let mut lines: Vec<String> = request
                .headers()
                .iter()
                .map(|(n, v)| format!("{n}={}", v.to_str().unwrap()))
                .collect();
            lines.sort();
            Response::new(Full::from(lines.join("\n")))
        })
        .await;
        let (_world, client, server, service) = meshed(application, Protocol::Http).await;
        let mut io = client.dial(service.address).await;
        for _ in 0..3 {
            let request = "GET /a HTTP/1.1\r\nHost: web\r\nX-Forwarded-Client-Cert: URI=spiffe://evil\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";
            let answer = ask(&mut io, request).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(
                body,
                format!(
                    "host=web\nx-forwarded-client-cert=By={};URI={}",
                    spiffe("web"),
                    spiffe("client")
                )
            );
        }
        client.metric("weft_outbound_requests_total{destination=\"shop/web/80\",protocol=\"http/1.1\",status=\"200\",reason=\"\"} 3").await;
        client.metric("weft_tls_handshakes_total{direction=\"outbound\",peer=\"spiffe://cluster.local/ns/shop/sa/web\",version=\"TLSv1_3\",group=\"X25519MLKEM768\",result=\"full\"} 1").await;
        let text = server.metrics();
        assert!(
            text.contains("status=\"200\",peer=\"spiffe://cluster.local/ns/shop/sa/client\"} 3"),
            "{text}"
        );
    });
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    run(async {
        let application = app::listen(|mut io| async move {
            let mut request = Vec::new();
            while !request.ends_with(b"0\r\nx-sum: 7\r\n\r\n") {
                if io.read_buf(&mut request).await.unwrap() == 0 {
                    return;
                }
            }
            assert!(String::from_utf8(request).unwrap().contains("transfer-encoding: chunked"));
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n";
            io.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let (_world, client, _server, service) = meshed(application, Protocol::Http).await;
        let mut io = client.dial(service.address).await;
        let request = "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 7\r\n\r\n";
        let answer = ask(&mut io, request).await;
        assert!(
            answer.ends_with("3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n"),
            "{answer}"
        );
    });
}

#[test]
fn http2_with_trailers_and_a_large_body() {
    run(async {
        let application = app::http(|request: Request<hyper::body::Incoming>| async move {
            assert_eq!(request.version(), http::Version::HTTP_2);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(Full::new(body))
        })
        .await;
        let (_world, client, _server, service) = meshed(application, Protocol::Grpc).await;
        let mut sender = http2(client.dial(service.address).await).await;
        let big = Bytes::from(vec![b'x'; 1 << 20]);
        for body in [Bytes::from_static(b"hello"), big] {
            let request = Request::post("http://web/echo")
                .body(Full::new(body.clone()))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                body
            );
        }
    });
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    run(async {
        let application = app::listen(|mut io| async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                io.read_buf(&mut request).await.unwrap();
            }
            let text = String::from_utf8(request).unwrap();
            assert!(text.contains("upgrade: websocket") && text.contains("connection: upgrade"), "{text}");
            io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
                .await
                .unwrap();
            let (mut read, mut write) = io.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
        let (_world, client, _server, service) = meshed(application, Protocol::Http).await;
        let mut io = client.dial(service.address).await;
        let request =
            "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let answer = ask(&mut io, request).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let mut hello = [0; 5];
        io.read_exact(&mut hello).await.unwrap();
        io.write_all(b"echo me").await.unwrap();
        io.shutdown().await.unwrap();
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&hello, rest.as_str()), (b"hello", "echo me"));
    });
}

#[test]
fn connect_becomes_a_tunnel() {
    run(async {
        let application = app::listen(|mut io| async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                io.read_buf(&mut request).await.unwrap();
            }
            assert!(request.starts_with(b"CONNECT outside:443 HTTP/1.1\r\n"));
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let (mut read, mut write) = io.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
        let (_world, client, _server, service) = meshed(application, Protocol::Http).await;
        let mut io = client.dial(service.address).await;
        let answer = ask(
            &mut io,
            "CONNECT outside:443 HTTP/1.1\r\nHost: outside:443\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        io.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        io.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"ping");
    });
}

#[test]
fn the_application_decides_whether_it_wants_the_body() {
    run(async {
        let application = app::listen(|mut io| async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                io.read_buf(&mut request).await.unwrap();
            }
            let refuse = request.starts_with(b"PUT /refuse");
            if refuse {
                io.write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .await
                    .unwrap();
                return;
            }
            io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            io.read_exact(&mut body).await.unwrap();
            io.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        let (_world, client, _server, service) = meshed(application, Protocol::Http).await;
        let head = |path: &str| {
            format!(
                "PUT {path} HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            )
        };
        let mut io = client.dial(service.address).await;
        let refused = ask(&mut io, &head("/refuse")).await;
        assert!(refused.starts_with("HTTP/1.1 417"), "{refused}");
        let mut io = client.dial(service.address).await;
        let go_on = ask(&mut io, &head("/take")).await;
        assert!(go_on.starts_with("HTTP/1.1 100"), "{go_on}");
        let done = ask(&mut io, "data").await;
        assert!(done.starts_with("HTTP/1.1 201"), "{done}");
    });
}

#[test]
fn what_could_smuggle_is_refused() {
    run(async {
        let (_world, client, _server, service) = meshed(named("web").await, Protocol::Http).await;
        for head in [
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : web\r\n\r\n",
        ] {
            let mut io = client.dial(service.address).await;
            let answer = ask(&mut io, head).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
        }
        // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length, or the message is an error. Never both go on.
        let mut io = client.dial(service.address).await;
        let both = "POST /both HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let answer = ask(&mut io, both).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.ends_with("web POST /both"),
            "{answer}"
        );
        // Too large heads end here.
        let mut io = client.dial(service.address).await;
        let huge = format!(
            "GET / HTTP/1.1\r\nHost: web\r\nX: {}\r\n\r\n",
            "a".repeat(70_000)
        );
        let answer = ask(&mut io, &huge).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    });
}

#[test]
fn old_and_odd_clients_are_served() {
    run(async {
        let (_world, client, _server, service) = meshed(named("web").await, Protocol::Detect).await;
        let mut io = client.dial(service.address).await;
        let absolute = ask(
            &mut io,
            "GET http://web/abs HTTP/1.1\r\nHost: other\r\n\r\n",
        )
        .await;
        assert!(absolute.ends_with("web GET /abs"), "{absolute}");
        // Two requests at once.
        io.write_all(format!("{}{}", get("/1"), get("/2")).as_bytes())
            .await
            .unwrap();
        assert!(read_response(&mut io).await.ends_with("web GET /1"));
        assert!(read_response(&mut io).await.ends_with("web GET /2"));
        let head = ask(&mut io, "HEAD /h HTTP/1.0\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        let mut sender = http2(client.dial(service.address).await).await;
        let request = Request::get("http://web/two")
            .body(Full::default())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(text(response).await, "web GET /two");
        client.metric("weft_protocol_detected_total{direction=\"outbound\",port=\"80\",protocol=\"h2\"} 1").await;
    });
}

#[test]
fn errors_say_where_they_come_from() {
    run(async {
        let (world, client, _server, service) = meshed(named("web").await, Protocol::Http).await;
        world.change(|mesh| {
            service.routes(mesh, |routes| {
                routes.hosts[0].rules[0].matches.path =
                    weft_model::route::PathMatch::Exact("/only".into());
            });
        });
        let mut io = client.dial(service.address).await;
        assert!(ask(&mut io, &get("/only")).await.ends_with("web GET /only"));
        let answer = ask(&mut io, &get("/other")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(
            answer.contains("proxy-status: weft; error=destination_not_found"),
            "{answer}"
        );
        world.change(|mesh| service.endpoints(mesh, Vec::new()));
        loop {
            let answer = ask(&mut io, &get("/only")).await;
            if answer.starts_with("HTTP/1.1 503") {
                assert!(answer.contains("\"reason\":\"no_endpoint\""), "{answer}");
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // gRPC reads its own status.
        let mut sender = http2(client.dial(service.address).await).await;
        let request = Request::post("http://web/only")
            .header("content-type", "application/grpc")
            .body(Full::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["grpc-status"]
            ),
            (200, &http::HeaderValue::from(14))
        );
    });
}

#[test]
fn large_answers_stream() {
    run(async {
        let application =
            app::http(|_| async { Response::new(Full::from(vec![b'x'; 3 << 20])) }).await;
        let (_world, client, _server, service) = meshed(application, Protocol::Http).await;
        let mut io = client.dial(service.address).await;
        io.write_all(get("/").as_bytes()).await.unwrap();
        let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
        while total < 3 << 20 {
            total += io.read(&mut buffer).await.unwrap();
        }
        assert!(
            ask(&mut io, &get("/again"))
                .await
                .starts_with("HTTP/1.1 200")
        );
    });
}
