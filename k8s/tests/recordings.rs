//! Services, EndpointSlices, pods and nodes as a real API server (1.36) had them: every endpoint has to come out as kube-proxy would use it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_k8s::{CompileOptions, Compiled, Objects, compile, parse};
use weft_model::{Health, UnixMillis};

fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/services")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The recording has of pods only what matters for endpoints.
fn pods() -> Vec<Value> {
    let of = |pod: &Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod["name"], "namespace": "svc", "labels": pod["labels"]},
            "spec": {"nodeName": pod["nodeName"], "containers": [{"name": "app", "ports": pod["ports"]}]},
            "status": {"phase": "Running", "podIP": pod["podIP"]},
        })
    };
    load("pods.json")
        .as_array()
        .unwrap()
        .iter()
        .map(of)
        .collect()
}

/// One recording with the pods and nodes of all.
fn compiled(name: &str) -> Compiled {
    let recorded = load(name);
    let with_kind = |list: Value, kind: &str| -> Vec<Value> {
        let items = list
            .get("items")
            .unwrap_or(&list)
            .as_array()
            .unwrap()
            .clone();
        items
            .into_iter()
            .map(|mut item| {
                item["kind"] = kind.into();
                item["apiVersion"] = if kind == "EndpointSlice" {
                    "discovery.k8s.io/v1"
                } else {
                    "v1"
                }
                .into();
                item
            })
            .collect()
    };
    let mut items = vec![recorded["service"].clone()];
    items.extend(with_kind(
        recorded["endpointSliceList"].clone(),
        "EndpointSlice",
    ));
    items.extend(pods());
    items.extend(with_kind(load("nodes.json"), "Node"));
    let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let parsed = parse::parse(&Arc::new(name.into()), &text, UnixMillis(1));
    assert!(parsed.problems.is_empty(), "{name}: {:#?}", parsed.problems);
    let mut objects = Objects::default();
    parsed
        .objects
        .into_iter()
        .for_each(|o| drop(objects.insert(o)));
    let options = CompileOptions {
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
    };
    compile(&objects, &options, None)
}

fn endpoints(compiled: &Compiled) -> Vec<String> {
    let services = compiled
        .mesh
        .endpoints
        .iter()
        .filter(|(k, _)| !k.to_string().contains('~'));
    services
        .flat_map(|(key, all)| {
            all.endpoints.iter().map(move |e| {
                let health = match e.health {
                    Health::Ready => "ready",
                    Health::Draining => "draining",
                    Health::NotReady => "not-ready",
                };
                format!("{key} {} {health} {}", e.address, e.locality.zone)
            })
        })
        .collect()
}

fn names(compiled: &Compiled) -> Vec<String> {
    compiled
        .mesh
        .names
        .values()
        .map(|n| format!("{} {:?}", n.name, n.addresses))
        .collect()
}

/// A recording, its endpoints, its names.
type Expected = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const RECORDINGS: &[Expected] = &[
    (
        "cluster-ip.json",
        &[
            "svc/cluster-ip/80 10.244.2.12:8080 ready zone-a",
            "svc/cluster-ip/80 10.244.2.14:8080 not-ready zone-a",
            "svc/cluster-ip/80 10.244.3.13:8080 ready zone-b",
        ],
        &["cluster-ip.svc.svc.cluster.local [10.96.141.196]"],
    ),
    (
        "node-port.json",
        &[
            "svc/node-port/80 10.244.2.12:8080 ready zone-a",
            "svc/node-port/80 10.244.2.14:8080 not-ready zone-a",
            "svc/node-port/80 10.244.3.13:8080 ready zone-b",
        ],
        &["node-port.svc.svc.cluster.local [10.96.100.167]"],
    ),
    (
        "dual-stack-preferred.json",
        &[
            "svc/dual-stack-preferred/80 10.244.2.12:8080 ready zone-a",
            "svc/dual-stack-preferred/80 10.244.2.14:8080 not-ready zone-a",
            "svc/dual-stack-preferred/80 10.244.3.13:8080 ready zone-b",
        ],
        &["dual-stack-preferred.svc.svc.cluster.local [10.96.237.247]"],
    ),
    (
        "headless.json",
        &[
            "svc/headless/80 10.244.2.12:8080 ready zone-a",
            "svc/headless/80 10.244.2.14:8080 not-ready zone-a",
            "svc/headless/80 10.244.3.13:8080 ready zone-b",
        ],
        &["headless.svc.svc.cluster.local [10.244.2.12, 10.244.3.13]"],
    ),
    (
        "headless-publish-not-ready.json",
        &[
            "svc/headless-publish-not-ready/80 10.244.2.12:8080 ready zone-a",
            "svc/headless-publish-not-ready/80 10.244.2.14:8080 ready zone-a",
            "svc/headless-publish-not-ready/80 10.244.3.13:8080 ready zone-b",
        ],
        &[
            "headless-publish-not-ready.svc.svc.cluster.local [10.244.2.12, 10.244.2.14, 10.244.3.13]",
        ],
    ),
    (
        "multi-port.json",
        &[
            "svc/multi-port/53 10.244.2.12:5353 ready zone-a",
            "svc/multi-port/53 10.244.2.14:5353 not-ready zone-a",
            "svc/multi-port/53 10.244.3.13:5353 ready zone-b",
            "svc/multi-port/80 10.244.2.12:8080 ready zone-a",
            "svc/multi-port/80 10.244.2.14:8080 not-ready zone-a",
            "svc/multi-port/80 10.244.3.13:8080 ready zone-b",
            "svc/multi-port/9090 10.244.2.12:9090 ready zone-a",
            "svc/multi-port/9090 10.244.2.14:9090 not-ready zone-a",
            "svc/multi-port/9090 10.244.3.13:9090 ready zone-b",
        ],
        &["multi-port.svc.svc.cluster.local [10.96.240.67]"],
    ),
    (
        "named-port-two-numbers.json",
        &[
            "svc/named-port-two-numbers/80 10.244.2.15:8080 ready zone-a",
            "svc/named-port-two-numbers/80 10.244.3.16:9090 ready zone-b",
        ],
        &["named-port-two-numbers.svc.svc.cluster.local [10.96.27.130]"],
    ),
    (
        "terminating.json",
        &[
            "svc/terminating/80 10.244.2.19:8080 draining zone-a",
            "svc/terminating/80 10.244.2.21:8080 ready zone-a",
            "svc/terminating/80 10.244.3.20:8080 not-ready zone-b",
        ],
        &["terminating.svc.svc.cluster.local [10.96.157.63]"],
    ),
    (
        "all-terminating.json",
        &[
            "svc/all-terminating/80 10.244.2.19:8080 draining zone-a",
            "svc/all-terminating/80 10.244.2.21:8080 draining zone-a",
            "svc/all-terminating/80 10.244.3.20:8080 not-ready zone-b",
        ],
        &["all-terminating.svc.svc.cluster.local [10.96.254.238]"],
    ),
    (
        "selector-less.json",
        &[
            "svc/selector-less/80 192.0.2.21:8080 ready zone-a",
            "svc/selector-less/80 192.0.2.22:8080 not-ready ",
            "svc/selector-less/80 192.0.2.23:8080 ready ",
        ],
        &["selector-less.svc.svc.cluster.local [10.96.15.217]"],
    ),
    (
        "with-finished-pod.json",
        &["svc/with-finished-pod/80 10.244.2.23:8080 ready zone-a"],
        &["with-finished-pod.svc.svc.cluster.local [10.96.32.140]"],
    ),
    (
        "udp.json",
        &[],
        &["udp.svc.svc.cluster.local [10.96.243.229]"],
    ),
    ("external-name.json", &[], &[]),
];

#[test]
fn endpoints_and_names() {
    for (file, expected, expected_names) in RECORDINGS {
        let compiled = compiled(file);
        assert_eq!(endpoints(&compiled), *expected, "{file}");
        assert_eq!(names(&compiled), *expected_names, "{file}");
        assert_eq!(compiled.problems, [], "{file}");
    }
}

#[test]
fn every_recording_is_used() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/services");
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let shared = ["pods.json", "nodes.json", "app-protocols.json"].contains(&file.as_str());
        assert!(
            shared || RECORDINGS.iter().any(|(name, ..)| *name == file),
            "{file}"
        );
    }
}

#[test]
fn protocols_by_app_protocol() {
    let compiled = compiled("app-protocols.json");
    let found: Vec<String> = compiled
        .mesh
        .clusters
        .iter()
        .filter(|(key, _)| !key.to_string().contains('~'))
        .map(|(key, cluster)| format!("{} {}", key.port, cluster.protocol))
        .collect();
    assert_eq!(
        found,
        [
            "8000 http",
            "8001 http2",
            "8002 http",
            "8003 tls",
            "8004 tls",
            "8005 grpc",
            "8006 tls",
            "8007 tcp",
            "8008 tcp",
            "8009 detect",
            "8010 http2",
            "8011 tcp",
            "9000 detect"
        ]
    );
}
