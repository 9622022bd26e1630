//! Both ports over real sockets on loopback, with a control plane that is not there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_xds::client::Options;

use super::*;
use crate::identity::testing::{Authority, DAY};
use crate::readiness::Gate;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

struct Fixture {
    state: Arc<State>,
    gate: Option<Gate>,
    health: u16,
    admin: u16,
}

/// Two ports that nobody has at the moment.
fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|s| s.local_addr().unwrap().port())
}

fn start_fixture() -> Fixture {
    let variables = [
        ("POD_NAME", "web-0"),
        ("POD_NAMESPACE", "shop"),
        ("POD_SERVICE_ACCOUNT", "web"),
    ];
    let variables: BTreeMap<String, String> = variables.map(|(k, v)| (k.into(), v.into())).into();
    let mut config = Config::read(&variables).unwrap();
    let [health, admin] = free_ports();
    (config.ports.health, config.ports.admin) = (health, admin);
    let readiness = Readiness::default();
    let gate = Some(readiness.gate("the workload's certificate"));
    let state = Arc::new(State {
        config,
        readiness,
        drain: Drain::new(),
        log: LogLevel::detached().0,
        identity_status: Arc::default(),
        dns: Arc::default(),
        access_log: AccessLog::disabled(),
        running: OnceLock::new(),
    });
    start(&state, Registry::default()).unwrap();
    Fixture {
        state,
        gate,
        health,
        admin,
    }
}

impl Fixture {
    /// Gives it an identity and a client.
    fn run(&mut self) {
        let client = Client::start(Options::new("web-0.shop"), || {
            tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        });
        let identity = Identity::fixed(Authority::new("root").issue(ID, DAY));
        self.state
            .running
            .get_or_init(|| Running { identity, client });
        self.gate.take().unwrap().open();
    }
}

async fn call(port: u16, method: &str, path: &str) -> (StatusCode, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "proxy");
    let answer = sender
        .send_request(request.body(Empty::<&[u8]>::new()).unwrap())
        .await
        .unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_says_what_is_missing_and_ends_with_the_drain() {
    let mut proxy = start_fixture();
    assert_eq!(
        call(proxy.health, "GET", "/healthz").await,
        (StatusCode::OK, "alive\n".into())
    );
    let (status, reason) = call(proxy.health, "GET", "/ready").await;
    assert_eq!(
        (status, reason.as_str()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the workload's certificate\n"
        )
    );
    let (status, _) = call(proxy.admin, "GET", "/certs").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    proxy.run();
    assert_eq!(call(proxy.health, "GET", "/ready").await.0, StatusCode::OK);
    assert_eq!(
        call(proxy.admin, "POST", "/drain").await.0,
        StatusCode::ACCEPTED
    );
    assert!(proxy.state.drain.is_draining());
    let (status, reason) = call(proxy.health, "GET", "/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.starts_with("draining"), "{reason}");
    assert_eq!(
        call(proxy.health, "GET", "/healthz").await.0,
        StatusCode::OK,
        "still alive"
    );
}

#[tokio::test]
async fn metrics_are_in_the_exposition_format() {
    let mut proxy = start_fixture();
    proxy.run();
    let (status, text) = call(proxy.health, "GET", "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "weft_identity_info{spiffe_id=\"spiffe://cluster.local/ns/shop/sa/web\"} 1.0",
        "weft_certificate_renewals_total{result=\"success\"} 0",
        "weft_dns_queries_total{result=\"mesh\"} 0",
        "weft_access_log_dropped_total 0",
        "weft_xds_connected 0.0",
        "weft_xds_resources{type=\"EDS\"} 0.0",
        "weft_ready 1.0",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing in\n{text}"
        );
    }
    for name in [
        "weft_certificate_expiration_timestamp_seconds ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
        "weft_build_info{version=",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(name)),
            "{name} is missing in\n{text}"
        );
    }
}

#[tokio::test]
async fn the_admin_port_shows_and_switches() {
    let mut proxy = start_fixture();
    proxy.run();
    let (_, certificates) = call(proxy.admin, "GET", "/certs").await;
    let certificates: serde_json::Value = serde_json::from_str(&certificates).unwrap();
    assert_eq!(certificates["spiffeId"], ID);
    assert_eq!(certificates["chain"].as_array().unwrap().len(), 1);
    assert_eq!(certificates["roots"][0]["subject"], "CN=root");
    assert_eq!(
        certificates["chain"][0]["fingerprint"]
            .as_str()
            .unwrap()
            .len(),
        64
    );

    let (_, config) = call(proxy.admin, "GET", "/config?full=true").await;
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(
        (config["nodeId"].as_str(), config["connected"].as_bool()),
        (Some("web-0.shop"), Some(false))
    );
    let (_, memory) = call(proxy.admin, "GET", "/memory").await;
    assert!(memory.contains("\"resident\""), "{memory}");

    let (status, level) = call(
        proxy.admin,
        "PUT",
        "/log-level?level=warn,weft_proxy%3Ddebug",
    )
    .await;
    // The test's log is detached, so that the change cannot take hold; it was understood all the same.
    assert!(
        status == StatusCode::OK || level.contains("subscriber"),
        "{level}"
    );
    let (status, error) = call(proxy.admin, "PUT", "/log-level?level=loud%3Dvery").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    for (method, path, expected) in [
        ("GET", "/drain", StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", "/config", StatusCode::METHOD_NOT_ALLOWED),
        ("PUT", "/log-level", StatusCode::BAD_REQUEST),
        ("GET", "/explain?destination=web", StatusCode::BAD_REQUEST),
        ("GET", "/nothing", StatusCode::NOT_FOUND),
        ("GET", "/", StatusCode::OK),
    ] {
        assert_eq!(
            call(proxy.admin, method, path).await.0,
            expected,
            "{method} {path}"
        );
    }
    assert!(!proxy.state.drain.is_draining());
}

#[tokio::test]
async fn explaining_an_unknown_destination_does_not_wait_for_ever() {
    let mut proxy = start_fixture();
    proxy.run();
    let (status, error) = call(proxy.admin, "GET", "/explain?destination=10.0.0.1:80").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        error.contains("has not answered about 10.0.0.1:80"),
        "{error}"
    );
}

#[tokio::test]
async fn heads_are_bounded_and_garbage_is_refused() {
    let proxy = start_fixture();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.admin))
        .await
        .unwrap();
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    // It may be cut off before all of it is sent.
    stream.write_all(head.as_bytes()).await.ok();
    let mut answer = String::new();
    let read =
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
    assert!(
        read.is_ok() && !answer.starts_with("HTTP/1.1 200"),
        "{answer}"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.health))
        .await
        .unwrap();
    stream
        .write_all(b"\x16\x03\x01garbage\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
