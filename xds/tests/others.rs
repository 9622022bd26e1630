//! Our server as Envoy's and gRPC's own messages see it: state of the world, and the finer points of delta.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status;
use support::{ControlPlane, add_service, key, mesh, set_endpoints};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_xds::TypeUrl;
use weft_xds::convert::{Flavour, Resource};

fn node(agent: &str) -> Node {
    Node {
        id: "someone".into(),
        user_agent_name: agent.into(),
        ..Default::default()
    }
}

struct Sotw {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    node: Option<Node>,
}

impl Sotw {
    async fn open(cp: &ControlPlane, agent: &str, first: (TypeUrl, &[&str])) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        requests
            .send(request(first, "", Some(node(agent))))
            .await
            .unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(cp.channel());
        let responses = client
            .stream_aggregated_resources(ReceiverStream::new(receiver))
            .await;
        Self {
            requests,
            responses: responses.unwrap().into_inner(),
            node: None,
        }
    }

    async fn ask(&mut self, what: (TypeUrl, &[&str]), nonce: &str) {
        let request = request(what, nonce, self.node.take());
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> DiscoveryResponse {
        let response = tokio::time::timeout(Duration::from_secs(5), self.responses.message()).await;
        response
            .expect("a response in time")
            .unwrap()
            .expect("an open stream")
    }

    async fn nothing(&mut self) {
        let response =
            tokio::time::timeout(Duration::from_millis(100), self.responses.message()).await;
        assert!(response.is_err(), "{response:?}");
    }
}

fn request((kind, names): (TypeUrl, &[&str]), nonce: &str, node: Option<Node>) -> DiscoveryRequest {
    DiscoveryRequest {
        node,
        type_url: kind.as_str().into(),
        resource_names: names.iter().map(|&n| n.to_owned()).collect(),
        response_nonce: nonce.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn envoy_gets_every_listener_and_cluster_and_keeps_getting_them_all() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let mut envoy = Sotw::open(&cp, "envoy", (TypeUrl::Cluster, &[])).await;
    let clusters = envoy.next().await;
    assert_eq!(
        clusters.resources.len(),
        2,
        "the service, and the passthrough"
    );
    envoy.ask((TypeUrl::Cluster, &[]), &clusters.nonce).await;
    envoy.ask((TypeUrl::Endpoints, &["shop/web/80"]), "").await;
    let endpoints = envoy.next().await;
    assert_eq!(
        (endpoints.type_url.as_str(), endpoints.resources.len()),
        (TypeUrl::Endpoints.as_str(), 1)
    );
    envoy
        .ask((TypeUrl::Endpoints, &["shop/web/80"]), &endpoints.nonce)
        .await;
    envoy.ask((TypeUrl::Listener, &[]), "").await;
    let listeners = envoy.next().await;
    assert_eq!(
        listeners.resources.len(),
        2,
        "the capture, and the address; no authority"
    );
    envoy.ask((TypeUrl::Listener, &[]), &listeners.nonce).await;
    envoy.nothing().await;

    // One more: all of them again, clusters before listeners.
    cp.change(|mesh| add_service(mesh, "cart", "10.96.0.2:80", &[]));
    let clusters = envoy.next().await;
    assert_eq!(
        (clusters.type_url.as_str(), clusters.resources.len()),
        (TypeUrl::Cluster.as_str(), 3)
    );
    // Envoy warms a cluster that it is sent: the endpoints it has of it come again only for those that changed.
    let listeners = envoy.next().await;
    assert_eq!(
        (listeners.type_url.as_str(), listeners.resources.len()),
        (TypeUrl::Listener.as_str(), 3)
    );

    // One less: the listener goes first, then the cluster.
    cp.change(|mesh| {
        mesh.destinations.retain(|_, d| d.key != key("web"));
        mesh.clusters.remove(&key("web"));
    });
    let listeners = envoy.next().await;
    assert_eq!(
        (listeners.type_url.as_str(), listeners.resources.len()),
        (TypeUrl::Listener.as_str(), 2)
    );
    let clusters = envoy.next().await;
    assert_eq!(
        (clusters.type_url.as_str(), clusters.resources.len()),
        (TypeUrl::Cluster.as_str(), 2)
    );
}

#[tokio::test]
async fn a_changed_cluster_is_warmed_with_its_endpoints() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let mut envoy = Sotw::open(&cp, "envoy", (TypeUrl::Cluster, &[])).await;
    envoy.next().await;
    envoy.ask((TypeUrl::Endpoints, &["shop/web/80"]), "").await;
    envoy.next().await;
    cp.change(|mesh| {
        let cluster = std::sync::Arc::make_mut(mesh.clusters.get_mut(&key("web")).unwrap());
        cluster.policy.circuit_breaker.max_requests = 7;
    });
    assert_eq!(envoy.next().await.type_url, TypeUrl::Cluster.as_str());
    assert_eq!(envoy.next().await.type_url, TypeUrl::Endpoints.as_str());
}

#[tokio::test]
async fn grpc_asks_by_name_and_follows() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let authority = "web.shop.svc.cluster.local:80";
    let mut grpc = Sotw::open(&cp, "gRPC C-core", (TypeUrl::Listener, &[authority])).await;
    let listeners = grpc.next().await;
    assert_eq!(listeners.resources.len(), 1);
    grpc.ask((TypeUrl::Listener, &[authority]), &listeners.nonce)
        .await;
    grpc.ask((TypeUrl::Endpoints, &["shop/web/80", "shop/none/80"]), "")
        .await;
    let first = grpc.next().await;
    assert_eq!(first.resources.len(), 1);
    let nonce = first.nonce;
    grpc.ask(
        (TypeUrl::Endpoints, &["shop/web/80", "shop/none/80"]),
        &nonce,
    )
    .await;

    cp.change(|mesh| set_endpoints(mesh, "web", &["10.244.0.9:8080"]));
    let second = grpc.next().await;
    assert_ne!(second.nonce, nonce);
    // Out of date: the nonce is not the newest, so the changed names do not count.
    grpc.ask((TypeUrl::Endpoints, &[]), &nonce).await;
    grpc.ask(
        (TypeUrl::Endpoints, &["shop/web/80", "shop/none/80"]),
        &second.nonce,
    )
    .await;
    cp.change(|mesh| set_endpoints(mesh, "web", &["10.244.0.8:8080"]));
    grpc.next().await;
    // A name that appears later is sent then.
    cp.change(|mesh| add_service(mesh, "none", "10.96.0.3:80", &[]));
    assert_eq!(grpc.next().await.resources.len(), 1);
    let status = cp.client(|c| c.kind == Flavour::Grpc).await;
    assert!(!status.delta);
}

#[tokio::test]
async fn a_refusal_is_kept_with_its_words_until_something_else_is_accepted() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let mut envoy = Sotw::open(&cp, "envoy", (TypeUrl::Routes, &["shop/web/80"])).await;
    let routes = envoy.next().await;
    let mut refusal = request((TypeUrl::Routes, &["shop/web/80"]), &routes.nonce, None);
    refusal.error_detail = Some(Status {
        code: 3,
        message: "virtual_hosts[0]: no".into(),
        ..Default::default()
    });
    envoy.requests.send(refusal).await.unwrap();
    let status = cp
        .client(|c| {
            c.types
                .get(&TypeUrl::Routes)
                .is_some_and(|t| t.nack.is_some())
        })
        .await;
    let routes = &status.types[&TypeUrl::Routes];
    assert_eq!(
        routes.nack.as_ref().unwrap().message,
        "virtual_hosts[0]: no"
    );
    assert_eq!((routes.version_sent, routes.version_acked), (1, 0));
    assert_eq!(routes.resources["shop/web/80"].version_acked, None);
    envoy.nothing().await;

    cp.change(|mesh| {
        let routes = std::sync::Arc::make_mut(&mut mesh.routes.get_mut(&key("web")).unwrap().any);
        routes.hosts[0].rules.clear();
    });
    let routes = envoy.next().await;
    envoy
        .ask((TypeUrl::Routes, &["shop/web/80"]), &routes.nonce)
        .await;
    cp.client(|c| {
        c.types
            .get(&TypeUrl::Routes)
            .is_some_and(|t| t.nack.is_none() && t.version_acked == 2)
    })
    .await;
}

async fn delta(
    cp: &ControlPlane,
    first: DeltaDiscoveryRequest,
) -> (
    mpsc::Sender<DeltaDiscoveryRequest>,
    Streaming<DeltaDiscoveryResponse>,
) {
    let (requests, receiver) = mpsc::channel(16);
    requests.send(first).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(cp.channel());
    let responses = client
        .delta_aggregated_resources(ReceiverStream::new(receiver))
        .await;
    (requests, responses.unwrap().into_inner())
}

async fn next(responses: &mut Streaming<DeltaDiscoveryResponse>) -> DeltaDiscoveryResponse {
    let response = tokio::time::timeout(Duration::from_secs(5), responses.message()).await;
    response
        .expect("a response in time")
        .unwrap()
        .expect("an open stream")
}

#[tokio::test]
async fn a_delta_wildcard_drops_what_is_gone_since_the_last_stream() {
    let cp = ControlPlane::start(mesh(), None).await;
    let version = {
        let snapshot = weft_xds::server::Snapshot::build(&cp.mesh, support::ROOTS, None);
        snapshot
            .resource_version(TypeUrl::Cluster, "shop/web/80", None)
            .unwrap()
    };
    let versions = [
        ("shop/web/80".to_owned(), version),
        ("shop/old/80".to_owned(), "1".to_owned()),
    ];
    let first = DeltaDiscoveryRequest {
        node: Some(node("envoy")),
        type_url: TypeUrl::Cluster.as_str().into(),
        initial_resource_versions: versions.into(),
        ..Default::default()
    };
    let (_requests, mut responses) = delta(&cp, first).await;
    let response = next(&mut responses).await;
    let names: Vec<_> = response.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["weft/passthrough"], "what it has is not sent again");
    assert_eq!(response.removed_resources, ["shop/old/80"]);
}

#[tokio::test]
async fn references_are_broken_last() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let ask = |kind: TypeUrl, names: &[&str], node| DeltaDiscoveryRequest {
        node,
        type_url: kind.as_str().into(),
        resource_names_subscribe: names.iter().map(|&n| n.to_owned()).collect(),
        ..Default::default()
    };
    let (requests, mut responses) = delta(
        &cp,
        ask(TypeUrl::Cluster, &["shop/web/80"], Some(node("weft-proxy"))),
    )
    .await;
    next(&mut responses).await;
    requests
        .send(ask(TypeUrl::Routes, &["shop/web/80"], None))
        .await
        .unwrap();
    next(&mut responses).await;
    cp.change(|mesh| {
        mesh.clusters.remove(&key("web"));
        let routes = std::sync::Arc::make_mut(&mut mesh.routes.get_mut(&key("web")).unwrap().any);
        routes.hosts[0].rules.clear();
    });
    assert_eq!(
        next(&mut responses).await.type_url,
        TypeUrl::Routes.as_str()
    );
    let last = next(&mut responses).await;
    assert_eq!(
        (last.type_url.as_str(), last.removed_resources.len()),
        (TypeUrl::Cluster.as_str(), 1)
    );
}

#[tokio::test]
async fn a_resource_is_encoded_once_for_all_and_its_version_outlives_the_server() {
    use weft_xds::server::Snapshot;
    let mesh = mesh();
    let first = Snapshot::build(&mesh, support::ROOTS, None);
    let mut other = mesh.clone();
    set_endpoints(&mut other, "web", &[]);
    let second = Snapshot::build(&other, support::ROOTS, Some(&first));
    let restarted = Snapshot::build(&other, support::ROOTS, None);
    let version = |s: &Snapshot, kind| s.resource_version(kind, "shop/web/80", None).unwrap();
    assert_eq!(
        version(&first, TypeUrl::Cluster),
        version(&second, TypeUrl::Cluster)
    );
    assert_ne!(
        version(&first, TypeUrl::Endpoints),
        version(&second, TypeUrl::Endpoints)
    );
    assert_eq!(
        version(&second, TypeUrl::Endpoints),
        version(&restarted, TypeUrl::Endpoints)
    );
    assert_eq!((first.version(), second.version()), (1, 2));
    let cluster = &mesh.clusters[&key("web")];
    assert!(weft_model::Cluster::decode("shop/web/80", &cluster.encode(Flavour::Weft)).is_ok());
}
