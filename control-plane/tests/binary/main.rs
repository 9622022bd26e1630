//! The real binary on loopback: certificates for tokens, discovery over mutual TLS, changes, faults, restart.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod calls;
mod harness;

use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::Code;
use weft_xds::TypeUrl;

use calls::{Credentials, Delta, create_certificate};
use harness::{ControlPlane, Site, eventually};

/// What makes a token wrong.
type Edit = Box<dyn Fn(&mut Value)>;

const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/web";
const KEY: &str = "shop/web/80";

fn problems_of(status: &Value, file: &str) -> Vec<String> {
    let problems = status["problems"].as_array().unwrap();
    let of_file = |p: &&Value| {
        p["source"]["file"]
            .as_str()
            .is_some_and(|f| f.ends_with(file))
    };
    problems
        .iter()
        .filter(of_file)
        .map(Value::to_string)
        .collect()
}

#[tokio::test]
async fn a_token_becomes_a_certificate_and_discovery() {
    let site = Site::new();
    let plane = ControlPlane::start(&site).await;
    assert_eq!(plane.get("/healthz").await.0, 200);
    assert_eq!(plane.get("/readyz").await.0, 200);

    // A certificate for a token, over TLS without a client certificate.
    let mine = create_certificate(&plane, &site.token(|_| {}), &Credentials::request())
        .await
        .unwrap();
    assert_eq!(mine.identity(), IDENTITY);
    assert!(mine.roots_pem.contains("BEGIN CERTIFICATE"));
    assert_eq!(mine.roots_pem, plane.get("/roots").await.1);

    // Discovery is for identities only.
    let refused = Delta::open(&plane, None).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");

    // Discovery over mutual TLS, and the post-quantum group.
    let mut stream = Delta::open(&plane, Some(&mine)).await.unwrap();
    assert_eq!(stream.group, "X25519MLKEM768");
    stream.subscribe(TypeUrl::Endpoints, &[KEY]).await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.resources.len(), 1);
    assert_eq!(first.resources[0].name, KEY);
    stream.acknowledge(&first).await;

    // A change arrives, is acknowledged, and the control plane knows.
    let began = Instant::now();
    site.write_endpoints(&["10.244.0.7", "10.244.0.8"]);
    let second = stream.next().await.unwrap();
    stream.acknowledge(&second).await;
    eprintln!("change to response: {:?}", began.elapsed());
    assert_eq!(second.resources[0].name, KEY);
    assert_ne!(second.resources[0].version, first.resources[0].version);
    let clients = eventually("the acknowledgement to be seen", async || {
        let clients = plane.json("/clients").await;
        let eds = clients[0]["types"]["endpoints"].clone();
        (eds["versionAcked"] == eds["versionSent"] && eds["versionSent"].as_u64() > Some(0))
            .then_some(clients)
    })
    .await;
    assert_eq!(clients[0]["id"], "web-0.shop");
    assert_eq!(clients[0]["kind"], "weft");
    let lag = plane.json("/lag").await;
    assert_eq!(
        lag[0]["types"]["endpoints"]["pending"],
        serde_json::json!([])
    );
    let converged = eventually("the convergence to be measured", async || {
        let metrics = plane.get("/metrics").await.1;
        metrics
            .contains("weft_control_plane_convergence_seconds_count 1")
            .then_some(metrics)
    })
    .await;
    assert!(
        converged.contains("weft_control_plane_clients{kind=\"weft\"} 1"),
        "{converged}"
    );
    assert!(
        converged.contains("weft_control_plane_certificates_issued_total 1"),
        "{converged}"
    );
}

#[tokio::test]
async fn refusals_have_reasons() {
    let site = Site::new();
    let plane = ControlPlane::start(&site).await;
    let cases: [(&str, Code, &str, Edit); 4] = [
        (
            "another audience",
            Code::Unauthenticated,
            "token_audience",
            Box::new(|c| c["aud"] = "x".into()),
        ),
        (
            "expired",
            Code::Unauthenticated,
            "token_expired",
            Box::new(|c| c["exp"] = 1_000_000.into()),
        ),
        (
            "another account",
            Code::PermissionDenied,
            "pod_account",
            Box::new(|c| {
                c["sub"] = "system:serviceaccount:shop:cart".into();
                c["kubernetes.io"]["serviceaccount"]["name"] = "cart".into();
            }),
        ),
        (
            "a pod elsewhere",
            Code::PermissionDenied,
            "pod_address",
            Box::new(|c| {
                c["kubernetes.io"]["pod"]["name"] = "web-1".into();
                c["kubernetes.io"]["pod"]["uid"] = harness::UID_1.into();
            }),
        ),
    ];
    for (what, code, reason, edit) in cases {
        let refused = create_certificate(&plane, &site.token(edit), &Credentials::request())
            .await
            .err()
            .unwrap();
        assert_eq!(refused.code(), code, "{what}: {refused}");
        let counted =
            format!("weft_control_plane_certificates_refused_total{{reason=\"{reason}\"}} 1");
        let metrics = plane.get("/metrics").await.1;
        assert!(metrics.contains(&counted), "{what}: {metrics}");
    }
    let refused = create_certificate(&plane, "", &Credentials::request())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let other_name = Credentials::request_for("spiffe://cluster.local/ns/shop/sa/cart");
    let refused = create_certificate(&plane, &site.token(|_| {}), &other_name)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(plane.get("/nothing").await.0, 404);
    assert_eq!(plane.get("/view?namespace=Shop").await.0, 400);
}

#[tokio::test]
async fn a_pod_that_appears_a_moment_later_gets_its_certificate() {
    let site = Site::new();
    let plane = ControlPlane::start(&site).await;
    let token = site.token(|c| {
        c["kubernetes.io"]["pod"]["name"] = "web-2".into();
        c["kubernetes.io"]["pod"]["uid"] = harness::UID_2.into();
    });
    let request = Credentials::request();
    let call = create_certificate(&plane, &token, &request);
    let (answer, ()) = tokio::join!(call, async {
        tokio::time::sleep(Duration::from_millis(300)).await; // the call is waiting by now, or comes later: both are right
        site.write_pod("web-2", harness::UID_2, "127.0.0.1");
    });
    assert_eq!(answer.unwrap().identity(), IDENTITY);
}

#[tokio::test]
async fn bad_manifests_leave_the_rest() {
    let site = Site::new();
    let plane = ControlPlane::start(&site).await;
    let mine = create_certificate(&plane, &site.token(|_| {}), &Credentials::request())
        .await
        .unwrap();
    let mut stream = Delta::open(&plane, Some(&mine)).await.unwrap();
    stream.subscribe(TypeUrl::Endpoints, &[KEY]).await;
    let first = stream.next().await.unwrap();
    stream.acknowledge(&first).await;

    site.write(
        "broken.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: [\n",
    );
    site.write(
        "unknown.yaml",
        "apiVersion: v1\nkind: Servise\nmetadata: {name: a, namespace: shop}\n",
    );
    let status = eventually("both problems", async || {
        let status = plane.json("/status").await;
        let all = ["broken.yaml", "unknown.yaml"]
            .iter()
            .all(|f| !problems_of(&status, f).is_empty());
        all.then_some(status)
    })
    .await;
    assert!(status["objects"]["Service"].as_u64() >= Some(1), "{status}");
    let view = plane.json("/view?workload=shop/web-0").await;
    assert!(view["endpoints"].to_string().contains(KEY), "{view}");

    // A good file that becomes bad keeps its last good version; one that is repaired is in force again.
    site.write(
        "endpoints.yaml",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: [",
    );
    eventually("the third problem", async || {
        (!problems_of(&plane.json("/status").await, "endpoints.yaml").is_empty()).then_some(())
    })
    .await;
    assert!(
        plane.json("/view").await["endpoints"]
            .to_string()
            .contains("10.244.0.7")
    );
    site.write_endpoints(&["10.244.0.9"]);
    let second = stream.next().await.unwrap();
    assert_eq!(second.resources[0].name, KEY);
    assert!(
        plane.json("/view").await["endpoints"]
            .to_string()
            .contains("10.244.0.9")
    );
    site.remove("broken.yaml");
    eventually("the problem to go", async || {
        problems_of(&plane.json("/status").await, "broken.yaml")
            .is_empty()
            .then_some(())
    })
    .await;
    let log = plane.log();
    assert_eq!(
        log.matches("unknown.yaml").count(),
        1,
        "each problem is logged once:\n{log}"
    );
    assert!(log.contains("no longer: error"), "{log}");
}

#[tokio::test]
async fn a_restart_keeps_the_root_and_ends_streams_in_good_order() {
    let site = Site::new();
    let plane = ControlPlane::start(&site).await;
    let roots = plane.get("/roots").await.1;
    let mine = create_certificate(&plane, &site.token(|_| {}), &Credentials::request())
        .await
        .unwrap();
    let mut stream = Delta::open(&plane, Some(&mine)).await.unwrap();
    stream.subscribe(TypeUrl::Endpoints, &[KEY]).await;
    stream.next().await.unwrap();
    let began = Instant::now();
    let (code, ended) = tokio::join!(plane.stop(), stream.next());
    assert_eq!(code, Some(0));
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "no connection had to be cut: {:?}",
        began.elapsed()
    );

    let plane = ControlPlane::start(&site).await;
    assert_eq!(plane.get("/roots").await.1, roots);
    let mut stream = Delta::open(&plane, Some(&mine)).await.unwrap();
    stream.subscribe(TypeUrl::Endpoints, &[KEY]).await;
    assert_eq!(stream.next().await.unwrap().resources[0].name, KEY);
}

#[tokio::test]
async fn strangers_are_turned_away_in_the_handshake() {
    let site = Site::new();
    let plane = ControlPlane::start(&site).await;
    let stranger = Credentials::of_another_root();
    // In TLS 1.3 the client learns of it from its first read or write, whichever is earlier.
    assert!(Delta::open(&plane, Some(&stranger)).await.is_err());
    eventually("the reason in a metric", async || {
        let metrics = plane.get("/metrics").await.1;
        metrics
            .contains("handshakes_failed_total{reason=\"certificate_unknown_issuer\"}")
            .then_some(())
    })
    .await;
}

#[test]
fn mistakes_in_the_arguments_are_listed() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weft-control-plane"))
        .args(["--listen", "nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for flag in [
        "--source",
        "--listen",
        "--state-dir",
        "--jwks",
        "--token-issuer",
    ] {
        assert!(
            text.contains(&format!("weft-control-plane: {flag}: ")),
            "{flag} in {text}"
        );
    }
}
