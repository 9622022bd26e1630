//! What is not HTTP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{MtlsMode, Protocol};

use crate::mesh::{World, endpoint, port, spiffe};
use crate::{app, run};

/// Greets at once, then echoes in capitals until the client ends.
async fn greeter() -> SocketAddr {
    app::listen(|mut io| async move {
        io.write_all(b"5.5.5-MariaDB\n").await.unwrap();
        let mut heard = Vec::new();
        io.read_to_end(&mut heard).await.unwrap();
        heard.make_ascii_uppercase();
        io.write_all(&heard).await.unwrap();
    })
    .await
}

#[test]
fn a_server_that_speaks_first_is_not_held_up() {
    run(async {
        for protocol in [Protocol::Detect, Protocol::Tcp] {
            let world = World::new();
            let client = world.pod("client", port(protocol, MtlsMode::Strict)).await;
            let server = world.pod("db", port(protocol, MtlsMode::Strict)).await;
            let captured = server.capture(greeter().await).await;
            let service =
                world.service("db", protocol, vec![endpoint(captured, Some(spiffe("db")))]);
            for round in 0..3 {
                let begun = Instant::now();
                let mut io = client.dial(service.address).await;
                let mut greeting = [0; 14];
                io.read_exact(&mut greeting).await.unwrap();
                assert_eq!(&greeting, b"5.5.5-MariaDB\n");
                // The first connection asks the control plane, too.
                assert!(
                    round == 0 || begun.elapsed() < Duration::from_millis(50),
                    "{:?}",
                    begun.elapsed()
                );
                io.write_all(b"select 1").await.unwrap();
                io.shutdown().await.unwrap();
                let mut rest = String::new();
                io.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "SELECT 1");
            }
            if protocol == Protocol::Detect {
                client.metric("weft_protocol_detected_total{direction=\"outbound\",port=\"80\",protocol=\"server-first\"} 3").await;
            }
            client.metric("weft_tcp_bytes_total{direction=\"outbound\",destination=\"shop/db/80\",flow=\"received\"} 66").await;
            server
                .metric("weft_tcp_connections_total{direction=\"inbound\"")
                .await;
        }
    });
}

#[test]
fn a_client_that_speaks_first_but_late_is_understood() {
    run(async {
        let world = World::new();
        let client = world
            .pod("client", port(Protocol::Detect, MtlsMode::Strict))
            .await;
        let server = world
            .pod("web", port(Protocol::Detect, MtlsMode::Strict))
            .await;
        let captured = server.capture(app::named("web").await).await;
        let service = world.service(
            "web",
            Protocol::Detect,
            vec![endpoint(captured, Some(spiffe("web")))],
        );
        let mut io = client.dial(service.address).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        let answer = app::ask(&mut io, &app::get("/late")).await;
        assert!(answer.ends_with("web GET /late"), "{answer}");
        client
            .metric(
                "weft_outbound_requests_total{destination=\"shop/web/80\",protocol=\"http/1.1\"",
            )
            .await;
    });
}

#[test]
fn outside_the_mesh_traffic_passes_as_it_is() {
    run(async {
        let world = World::new();
        let client = world
            .pod("client", port(Protocol::Detect, MtlsMode::Strict))
            .await;
        let outside = greeter().await;
        let mut io = client.dial(outside).await;
        let mut greeting = [0; 14];
        io.read_exact(&mut greeting).await.unwrap();
        client
            .metric(&format!(
                "weft_tcp_connections_total{{direction=\"outbound\",destination=\"{outside}\""
            ))
            .await;
        // Nobody there: a reset, as without a mesh.
        let mut io = client.dial(app::nobody().await).await;
        let error = io.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        // And never to ourselves.
        let mut io = client.dial(([127, 0, 0, 1], 15001).into()).await;
        assert!(io.read(&mut [0]).await.is_err());
        client
            .metric("weft_refused_total{direction=\"outbound\",reason=\"loop\"} 1")
            .await;
    });
}

#[test]
fn tls_of_the_application_goes_by_its_server_name() {
    run(async {
        let world = World::new();
        let client = world
            .pod("client", port(Protocol::Tls, MtlsMode::Strict))
            .await;
        let (a, b) = (greeter_named("a").await, greeter_named("b").await);
        let service = world.service("tls", Protocol::Tls, vec![endpoint(a, None)]);
        let other = world.service("other", Protocol::Tls, vec![endpoint(b, None)]);
        world.change(|mesh| {
            let name = weft_model::ListenerName::Outbound(service.address);
            let mut destination = (*mesh.destinations[&name]).clone();
            let mut to_other = destination.sni[0].clone();
            to_other.names = vec!["b.example".parse().unwrap()];
            to_other.backends = vec![weft_model::route::WeightedBackend::only(other.key.clone())];
            destination.sni.insert(0, to_other);
            mesh.destinations.insert(name, destination.into());
        });
        for (name, wanted) in [("a.example", "a"), ("b.example", "b")] {
            let mut io = client.dial(service.address).await;
            io.write_all(&hello(name)).await.unwrap();
            let mut answer = [0; 1];
            io.read_exact(&mut answer).await.unwrap();
            assert_eq!(std::str::from_utf8(&answer).unwrap(), wanted);
        }
    });
}

/// Says its name once something has arrived.
async fn greeter_named(name: &'static str) -> SocketAddr {
    app::listen(move |mut io| async move {
        let mut hello = [0; 5];
        io.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello[0], 22);
        io.write_all(name.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await
}

fn hello(name: &str) -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder_with_provider(weft_proxy::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut connection =
        rustls::ClientConnection::new(config.into(), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}
