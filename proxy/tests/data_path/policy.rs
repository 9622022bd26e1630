//! Who may talk to whom.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_model::{MtlsMode, Protocol};

use crate::app::{ask, get, named};
use crate::mesh::{World, endpoint, port, spiffe};
use crate::pki::Ca;
use crate::{app, run};

#[test]
fn strict_refuses_plaintext_and_permissive_admits_it() {
    run(async {
        let world = World::new();
        let strict = world
            .pod("strict", port(Protocol::Http, MtlsMode::Strict))
            .await;
        let mut io = TcpStream::connect(strict.capture(named("a").await).await)
            .await
            .unwrap();
        assert!(!ask(&mut io, &get("/")).await.contains("HTTP"));
        strict
            .metric("weft_refused_total{direction=\"inbound\",reason=\"plaintext\"} 1")
            .await;

        let open = world
            .pod("open", port(Protocol::Http, MtlsMode::Permissive))
            .await;
        let captured = open.capture(named("a").await).await;
        let mut io = TcpStream::connect(captured).await.unwrap();
        assert!(ask(&mut io, &get("/x")).await.ends_with("a GET /x"));
        // And the mesh's own clients still come with mutual TLS.
        let client = world
            .pod("client", port(Protocol::Http, MtlsMode::Strict))
            .await;
        let service = world.service(
            "open",
            Protocol::Http,
            vec![endpoint(captured, Some(spiffe("open")))],
        );
        let mut io = client.dial(service.address).await;
        assert!(ask(&mut io, &get("/y")).await.ends_with("a GET /y"));
        let text = open.metrics();
        assert!(
            text.contains("peer=\"plaintext\"} 1") && text.contains("sa/client\"} 1"),
            "{text}"
        );
    });
}

#[test]
fn bad_certificates_are_refused_each_with_its_reason() {
    run(async {
        let world = World::new();
        let http = || port(Protocol::Http, MtlsMode::Strict);
        let server = world.pod("web", http()).await;
        let captured = server.capture(named("web").await).await;
        let service = world.service(
            "web",
            Protocol::Http,
            vec![endpoint(captured, Some(spiffe("web")))],
        );
        let (other, hour) = (Ca::new(), Duration::from_secs(3600));
        let foreign = "spiffe://other.local/ns/shop/sa/client".parse().unwrap();
        for (name, credentials, reason) in [
            (
                "stranger",
                other.credentials(&spiffe("stranger"), &[&world.ca, &other], hour, 1),
                "unknown_issuer",
            ),
            (
                "late",
                world.ca.expired(&spiffe("late"), &[&world.ca]),
                "expired",
            ),
            (
                "foreign",
                world.ca.credentials(&foreign, &[&world.ca], hour, 1),
                "wrong_identity",
            ),
        ] {
            let client = world.pod_as(name, http(), credentials).await;
            let mut io = client.dial(service.address).await;
            let answer = ask(&mut io, &get("/")).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{reason}: {answer}");
            server
                .metric(&format!(
                    "weft_refused_total{{direction=\"inbound\",reason=\"{reason}\"}}"
                ))
                .await;
        }
        // The endpoint should be somebody else.
        let client = world.pod("client", http()).await;
        world.change(|mesh| {
            service.endpoints(mesh, vec![endpoint(captured, Some(spiffe("payments")))]);
        });
        let mut io = client.dial(service.address).await;
        let answer = ask(&mut io, &get("/")).await;
        assert!(answer.contains("tls_wrong_identity"), "{answer}");
        client.metric("weft_tls_handshakes_total{direction=\"outbound\",peer=\"spiffe://cluster.local/ns/shop/sa/payments\",version=\"\",group=\"\",result=\"wrong_identity\"}").await;
        // No certificate at all.
        let mut io = tls_without_certificate(captured).await;
        assert!(!ask_tls(&mut io).await.contains("HTTP"));
        server
            .metric("weft_refused_total{direction=\"inbound\",reason=\"no_certificate\"} 1")
            .await;
    });
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

async fn tls_without_certificate(address: std::net::SocketAddr) -> Tls {
    #[derive(Debug)]
    struct Anybody;
    impl rustls::client::danger::ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            weft_proxy::tls::provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    let mut config = rustls::ClientConfig::builder_with_provider(weft_proxy::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"weft/h1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let io = TcpStream::connect(address).await.unwrap();
    connector
        .connect("web".try_into().unwrap(), io)
        .await
        .unwrap()
}

async fn ask_tls(io: &mut Tls) -> String {
    let _ = io.write_all(get("/").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn living_connections_are_judged_again() {
    run(async {
        let world = World::new();
        let allow = |account: &str| {
            let mut port = port(Protocol::Tcp, MtlsMode::Strict);
            port.allow = vec![spiffe(account).into()];
            port
        };
        let server = world.pod("db", allow("client")).await;
        let echo = app::listen(|mut io| async move {
            let (mut read, mut write) = io.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let captured = server.capture(echo).await;
        let service = world.service(
            "db",
            Protocol::Tcp,
            vec![endpoint(captured, Some(spiffe("db")))],
        );
        let client = world
            .pod("client", port(Protocol::Tcp, MtlsMode::Strict))
            .await;
        let mut io = client.dial(service.address).await;
        io.write_all(b"x").await.unwrap();
        io.read_exact(&mut [0]).await.unwrap();
        world.change(|mesh| {
            let workload = mesh
                .workloads
                .values_mut()
                .find(|w| w.identity == spiffe("db"))
                .unwrap();
            let mut changed = (**workload).clone();
            changed.default = allow("somebody-else");
            *workload = changed.into();
        });
        assert!(matches!(io.read(&mut [0]).await, Ok(0) | Err(_)));
        server
            .metric("weft_refused_total{direction=\"inbound\",reason=\"identity\"} 1")
            .await;
    });
}

#[test]
fn renewal_disturbs_nobody_and_a_lost_root_does() {
    run(async {
        let world = World::new();
        let server = world
            .pod("web", port(Protocol::Http, MtlsMode::Strict))
            .await;
        let captured = server.capture(named("web").await).await;
        let service = world.service(
            "web",
            Protocol::Http,
            vec![endpoint(captured, Some(spiffe("web")))],
        );
        let client = world
            .pod("client", port(Protocol::Http, MtlsMode::Strict))
            .await;
        let mut io = client.dial(service.address).await;
        for generation in 2..6 {
            assert!(ask(&mut io, &get("/")).await.starts_with("HTTP/1.1 200"));
            for (pod, name) in [(&client, "client"), (&server, "web")] {
                let renewed = world.ca.credentials(
                    &spiffe(name),
                    &[&world.ca],
                    Duration::from_secs(60),
                    generation,
                );
                pod.credentials.send_replace(renewed.into());
            }
        }
        let handshakes = "weft_tls_handshakes_total{direction=\"inbound\",peer=\"spiffe://cluster.local/ns/shop/sa/client\",version=\"TLSv1_3\",group=\"X25519MLKEM768\",result=\"full\"} 1";
        server.metric(handshakes).await;
        // The server's trust moves to another root: the client's connection is ended, and the next one refused.
        let other = Ca::new();
        let moved = world
            .ca
            .credentials(&spiffe("web"), &[&other], Duration::from_secs(60), 9);
        server.credentials.send_replace(moved.into());
        server
            .metric("weft_refused_total{direction=\"inbound\",reason=\"unknown_issuer\"}")
            .await;
        let mut io = client.dial(service.address).await;
        assert!(ask(&mut io, &get("/")).await.starts_with("HTTP/1.1 503"));
    });
}

#[test]
fn sessions_are_resumed() {
    run(async {
        let world = World::new();
        let server = world.pod("db", port(Protocol::Tcp, MtlsMode::Strict)).await;
        let echo = app::listen(|mut io| async move {
            let (mut read, mut write) = io.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let captured = server.capture(echo).await;
        let service = world.service(
            "db",
            Protocol::Tcp,
            vec![endpoint(captured, Some(spiffe("db")))],
        );
        let client = world
            .pod("client", port(Protocol::Tcp, MtlsMode::Strict))
            .await;
        for _ in 0..3 {
            let mut io = client.dial(service.address).await;
            io.write_all(b"x").await.unwrap();
            io.read_exact(&mut [0]).await.unwrap();
        }
        let text = server.metrics();
        assert!(text.contains("result=\"resumed\"} 2"), "{text}");
    });
}
