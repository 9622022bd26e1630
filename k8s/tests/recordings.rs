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
    items.extend(with_kind(load("pods.json"), "Pod"));
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

#[test]
fn print_all() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/services");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|f| !["pods.json", "nodes.json"].contains(&f.as_str()))
    {
        let compiled = compiled(file);
        println!(
            "== {file}\n{:#?}\n{:#?}\n{:?}",
            endpoints(&compiled),
            names(&compiled),
            compiled.problems
        );
    }
}
