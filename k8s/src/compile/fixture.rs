//! Manifests for the tests of the compilation, and short forms of what comes out.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::format_collect, clippy::format_push_string)] // tests may be simple

use std::sync::Arc;

use weft_model::route::{Action, PathMatch, WeightedBackend};
use weft_model::{BackendKey, Health, HttpRoutes, ListenerName, UnixMillis};

use super::{CompileOptions, Compiled, compile};
use crate::object::Objects;

pub(super) fn objects(yaml: &str) -> Objects {
    let parsed = crate::parse::parse(&Arc::new("test.yaml".into()), yaml, UnixMillis(7));
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    let mut objects = Objects::default();
    for object in parsed.objects {
        let described = object.describe();
        assert!(
            objects.insert(object).is_none(),
            "{described} stands there twice"
        );
    }
    objects
}

pub(super) fn options() -> CompileOptions {
    CompileOptions {
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
    }
}

pub(super) fn compiled(yaml: &str) -> Compiled {
    compile(&objects(yaml), &options(), None)
}

/// A running pod with a sidecar, in the namespace `shop`.
pub(super) fn pod(name: &str, ip: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
         spec: {{serviceAccountName: {name}, nodeName: n1, initContainers: [{{name: weft-proxy}}], \
         containers: [{{name: app, ports: [{{containerPort: 8080, name: http}}]}}]{more}}}\n\
         status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n"
    )
}

/// A service with a slice of one endpoint for each address.
pub(super) fn service(
    namespace: &str,
    name: &str,
    cluster_ip: &str,
    ports: &str,
    endpoints: &[(&str, &str)],
) -> String {
    let list = endpoints
        .iter()
        .map(|(pod, ip)| format!("{{addresses: [{ip}], conditions: {{ready: true}}, nodeName: n1, targetRef: {{kind: Pod, namespace: {namespace}, name: {pod}}}}}"))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: {cluster_ip}, selector: {{app: {name}}}, ports: [{ports}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{list}]\n"
    )
}

/// `shop/web`, on 10.96.0.1:80, with two pods; and `shop/web-v2` without any.
pub(super) fn shop() -> String {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-1}}\n";
    let web = service(
        "shop",
        "web",
        "10.96.0.1",
        "{name: http, port: 80, targetPort: http}",
        &[("web", "10.244.0.1"), ("web-b", "10.244.0.2")],
    );
    let next = service(
        "shop",
        "web-v2",
        "10.96.0.2",
        "{name: http, port: 80, targetPort: http}",
        &[],
    );
    [
        node,
        &pod("web", "10.244.0.1", ""),
        &pod("web-b", "10.244.0.2", ""),
        &web,
        &next,
    ]
    .concat()
}

/// `10.244.0.1:8080 Ready eu/eu-1 spiffe://..`
pub(super) fn endpoints(compiled: &Compiled, key: &str) -> Vec<String> {
    let key: BackendKey = key.parse().unwrap();
    let all = &compiled.mesh.endpoints[&key].endpoints;
    all.iter()
        .map(|e| {
            let health = match e.health {
                Health::Ready => "ready",
                Health::Draining => "draining",
                Health::NotReady => "not-ready",
            };
            let id = e.identity.as_ref().map_or_else(
                || "plain".to_owned(),
                |id| format!("{}/{}", id.namespace, id.service_account),
            );
            format!(
                "{} {health} {}/{} {id}",
                e.address, e.locality.region, e.locality.zone
            )
        })
        .collect()
}

/// `weft/outbound/10.96.0.1:80 detect shop/web/80`
pub(super) fn destinations(compiled: &Compiled) -> Vec<String> {
    let all = compiled.mesh.destinations.iter();
    all.map(|(name, d)| {
        assert_eq!(name, &d.name);
        format!("{name} {} {}", d.protocol, d.key)
    })
    .collect()
}

/// The rules of a port as a client in that namespace gets them.
pub(super) fn rules(compiled: &Compiled, key: &str, client: &str) -> Vec<String> {
    let key: BackendKey = key.parse().unwrap();
    let scoped = &compiled.mesh.routes[&key];
    let namespace = client.parse().ok();
    describe(scoped.for_namespace(namespace.as_ref()))
}

fn describe(routes: &HttpRoutes) -> Vec<String> {
    let rules = routes.hosts.iter().flat_map(|h| &h.rules);
    rules
        .map(|r| {
            let m = &r.matches;
            let path = match &m.path {
                PathMatch::Exact(p) => format!("={p}"),
                PathMatch::Prefix(p) => p.clone(),
                PathMatch::Regex(p) => format!("~{p}"),
            };
            let method = m
                .method
                .as_ref()
                .map(|m| format!("{m} "))
                .unwrap_or_default();
            let headers: String = m.headers.iter().map(|h| format!(" {}", h.name)).collect();
            let query: String = m.query.iter().map(|q| format!(" ?{}", q.name)).collect();
            let action = match &r.action {
                Action::Redirect(redirect) => format!("{} {:?}", redirect.status, redirect.path),
                Action::Forward(f) => backends(&f.backends),
            };
            format!("{method}{path}{headers}{query} -> {action}")
        })
        .collect()
}

pub(super) fn backends(all: &[WeightedBackend]) -> String {
    let text = |b: &WeightedBackend| {
        let key = b
            .backend
            .as_ref()
            .map_or_else(|| "500".to_owned(), ToString::to_string);
        if b.weight == 1 {
            key
        } else {
            format!("{key}*{}", b.weight)
        }
    };
    let all: Vec<String> = all.iter().map(text).collect();
    if all.is_empty() {
        "500".into()
    } else {
        all.join(" + ")
    }
}

pub(super) fn listener(name: &str) -> ListenerName {
    name.parse().unwrap()
}

pub(super) fn problems(compiled: &Compiled) -> Vec<String> {
    compiled
        .problems
        .iter()
        .map(|p| p.to_string().replace("test.yaml:", ""))
        .collect()
}

/// `HTTPRoute shop/r: Service shop/web Accepted=true/Accepted ResolvedRefs=..`
pub(super) fn statuses(compiled: &Compiled) -> Vec<String> {
    let all = compiled
        .statuses
        .iter()
        .flat_map(|s| s.parents.iter().map(move |p| (s, p)));
    all.map(|(s, p)| {
        let conditions: String = p
            .conditions
            .iter()
            .map(|c| format!(" {}={}/{:?}", c.kind, c.status, c.reason))
            .collect();
        format!("{}: {}{conditions}", s.object, p.reference)
    })
    .collect()
}
