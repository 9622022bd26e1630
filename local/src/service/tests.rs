//! Tables on addresses, slices and ports.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::allocate::{NodePorts, with_addresses};
use super::*;
use crate::network::subnet::Addresses;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))
        .unwrap()
}

fn filled(spec: Value) -> Service {
    with_addresses(
        &service(spec),
        &mut Addresses::default(),
        &mut NodePorts::default(),
        true,
    )
    .unwrap()
}

fn pod(name: &str, port: u16) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"hostname": name, "subdomain": "web",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
    }))
    .unwrap()
}

fn ips(last: u8) -> Vec<IpAddr> {
    vec![
        IpAddr::from([10, 244, 1, last]),
        format!("fd77:77:1::{last}").parse().unwrap(),
    ]
}

fn backend<'a>(pod: &'a Pod, ips: &'a [IpAddr], ready: bool, terminating: bool) -> Backend<'a> {
    Backend {
        pod,
        ips,
        ready,
        terminating,
    }
}

fn web_ports() -> Value {
    json!([{"name": "http", "port": 80, "targetPort": "http"}])
}

#[test]
fn one_family_unless_asked() {
    let of = |spec: Value| filled(spec).spec.unwrap();
    let plain = of(json!({"ports": [{"port": 80}]}));
    assert_eq!(plain.ip_families.unwrap(), ["IPv4"]);
    assert_eq!(plain.cluster_ips.unwrap().len(), 1);
    let dual = of(json!({"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"}));
    let dual_ips = dual.cluster_ips.unwrap();
    assert!(dual_ips[0].starts_with("10.96.") && dual_ips[1].starts_with("fd77:96::"));
    let six = of(json!({"ports": [{"port": 80}], "ipFamilies": ["IPv6"]}));
    assert!(six.cluster_ip.unwrap().starts_with("fd77:96::"));
    assert_eq!(
        of(json!({"clusterIP": "10.96.7.7", "ports": []}))
            .cluster_ip
            .unwrap(),
        "10.96.7.7"
    );
    assert_eq!(
        of(json!({"clusterIP": "None", "ports": []}))
            .cluster_ips
            .unwrap(),
        ["None"]
    );
    assert_eq!(
        of(json!({"type": "ExternalName", "externalName": "example.org"})).cluster_ip,
        None
    );
}

#[test]
fn node_ports_are_kept_and_distinct() {
    let mut node_ports = NodePorts::default();
    let mut take = |name: &str, given: Value| {
        let mut service =
            service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": given}]}));
        service.metadata.name = Some(name.into());
        let filled =
            with_addresses(&service, &mut Addresses::default(), &mut node_ports, false).unwrap();
        filled.spec.unwrap().ports.unwrap()[0].node_port.unwrap()
    };
    assert_eq!(take("a", Value::Null), 30_000);
    assert_eq!(take("b", Value::Null), 30_001);
    assert_eq!(take("a", Value::Null), 30_000);
    assert_eq!(take("c", json!(31_000)), 31_000);
}

#[test]
fn slices_follow_readiness_and_named_ports() {
    let service = filled(json!({"selector": {"app": "web"}, "ports": web_ports()}));
    let (a, b, c) = (pod("a", 8080), pod("b", 8080), pod("c", 9090));
    let (ip_a, ip_b, ip_c) = (ips(2), ips(3), ips(4));
    let backends = [
        backend(&a, &ip_a, true, false),
        backend(&b, &ip_b, true, true),
        backend(&c, &ip_c, false, false),
    ];
    let slices = slices(&service, &backends);
    assert_eq!(slices.len(), 2, "one for each target port");
    let first = &slices[0];
    assert_eq!(first.ports.as_ref().unwrap()[0].port, Some(8080));
    let endpoints: Vec<&Endpoint> = first.endpoints.iter().flatten().collect();
    let conditions = endpoints[1].conditions.as_ref().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
    assert_eq!(endpoints[0].hostname.as_deref(), Some("a"));
    let all: Vec<&EndpointSlice> = slices.iter().collect();
    let ports = ports(&service, &all);
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0].endpoints, ["10.244.1.2:8080".parse().unwrap()]);
}

#[test]
fn the_last_ones_serve_while_they_stop() {
    let service =
        filled(json!({"selector": {"app": "web"}, "ports": web_ports(), "type": "NodePort"}));
    let (a, ip) = (pod("a", 8080), ips(2));
    let slices = slices(&service, &[backend(&a, &ip, true, true)]);
    let all: Vec<&EndpointSlice> = slices.iter().collect();
    assert_eq!(ports(&service, &all)[0].endpoints.len(), 1);
    assert_eq!(
        host_ports(&service, &all),
        [(30_000, vec!["10.244.1.2:8080".parse().unwrap()])]
    );
}

#[test]
fn not_ready_addresses_are_published_on_request() {
    let service = filled(
        json!({"selector": {"app": "web"}, "ports": web_ports(), "publishNotReadyAddresses": true}),
    );
    let (a, ip) = (pod("a", 8080), ips(2));
    let slices = slices(&service, &[backend(&a, &ip, false, false)]);
    assert_eq!(
        slices[0]
            .endpoints
            .iter()
            .flatten()
            .next()
            .unwrap()
            .conditions
            .as_ref()
            .unwrap()
            .ready,
        Some(true)
    );
}
