//! Our client against our server, over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::{ControlPlane, add_service, channel, key, mesh, set_endpoints};
use tokio::time::{Instant, timeout};
use weft_model::{Mesh, Protocol};
use weft_xds::TypeUrl;
use weft_xds::client::{Client, Known, Options, Watch};

const WEB: &str = "10.96.0.1:80";

fn options() -> Options {
    Options::new("web-0.shop")
}

fn client(options: Options, address: SocketAddr) -> Client {
    Client::start(options, move || channel(address))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

async fn present<T>(watch: &Watch<T>) -> Arc<T> {
    match watch.ready(Instant::now() + Duration::from_secs(5)).await {
        Known::Present(value) => value,
        Known::Pending => panic!("still pending"),
        Known::Absent => panic!("absent"),
    }
}

/// Waits for a value that is as wanted.
async fn becomes<T>(watch: &mut Watch<T>, wanted: impl Fn(&Known<T>) -> bool) {
    let found = timeout(Duration::from_secs(5), async {
        let mut now = watch.get();
        while !wanted(&now) {
            now = watch.changed().await;
        }
    });
    assert!(found.await.is_ok(), "it did not become as wanted");
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn asks_for_what_is_needed_and_follows_it() {
    let mut cp = ControlPlane::start(mesh(), Some("spiffe://cluster.local/ns/shop/sa/web")).await;
    let client = client(options(), cp.address);
    let destination = client.destination(address(WEB));
    let key = present(&destination).await.key.clone();
    let (routes, cluster, mut endpoints) = (
        client.routes(&key),
        client.cluster(&key),
        client.endpoints(&key),
    );
    assert_eq!(present(&routes).await.key, key);
    assert_eq!(present(&cluster).await.key, key);
    assert_eq!(present(&endpoints).await.endpoints.len(), 1);
    let name = client.name(&"web.shop.svc.cluster.local".parse().unwrap());
    assert_eq!(present(&name).await.addresses.len(), 1);
    assert!(present(&client.roots()).await.pem.contains("CERTIFICATE"));
    // A known port, and one that nothing is known about.
    assert_eq!(present(&client.inbound(8080)).await.port, 8080);
    assert_eq!(present(&client.inbound(9999)).await.port, 9999);

    cp.change(|mesh| set_endpoints(mesh, "web", &["10.244.0.1:8080", "10.244.0.2:8080"]));
    becomes(&mut endpoints, |e| {
        e.clone().present().is_some_and(|e| e.endpoints.len() == 2)
    })
    .await;

    // The server knows what was acknowledged, resource by resource.
    let status = cp
        .client(|c| {
            c.types
                .get(&TypeUrl::Endpoints)
                .is_some_and(|t| t.version_acked == 2 && t.version_sent == 2)
        })
        .await;
    assert_eq!(status.id, "web-0.shop");
    let resource = &status.types[&TypeUrl::Endpoints].resources["shop/web/80"];
    assert!(resource.version_sent.is_some());
    assert_eq!(resource.version_sent, resource.version_acked);
    // Nobody else was bothered.
    assert_eq!(status.types[&TypeUrl::Cluster].version_sent, 1);
}

#[tokio::test]
async fn what_does_not_exist_is_absent_and_may_come_and_go() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let client = client(options(), cp.address);
    let mut cart = client.destination(address("10.96.0.2:80"));
    becomes(&mut cart, |k| matches!(k, Known::Absent)).await;
    let name = client.name(&"example.com".parse().unwrap());
    assert!(matches!(
        name.ready(Instant::now() + Duration::from_secs(5)).await,
        Known::Absent
    ));

    cp.change(|mesh| add_service(mesh, "cart", "10.96.0.2:80", &[]));
    becomes(&mut cart, |k| matches!(k, Known::Present(_))).await;
    let mut cluster = client.cluster(&key("cart"));
    present(&cluster).await;

    cp.change(|mesh| {
        mesh.destinations.retain(|_, d| d.key != key("cart"));
        mesh.clusters.remove(&key("cart"));
    });
    becomes(&mut cart, |k| matches!(k, Known::Absent)).await;
    becomes(&mut cluster, |k| matches!(k, Known::Absent)).await;
}

#[tokio::test]
async fn goes_on_when_the_control_plane_is_gone_and_catches_up() {
    let cp = ControlPlane::start(mesh(), None).await;
    let at = cp.address;
    let client = client(options(), at);
    let mut endpoints = client.endpoints(&key("web"));
    present(&endpoints).await;
    drop(cp);
    eventually("disconnected", || !client.state().connected).await;
    assert!(client.state().last_error.is_some());
    assert!(matches!(endpoints.get(), Known::Present(_)));
    let pending = client.cluster(&key("web"));
    assert!(pending.get().is_pending());

    let mut changed = mesh();
    set_endpoints(&mut changed, "web", &[]);
    let _cp = ControlPlane::start_on(at, changed, None).await;
    becomes(&mut endpoints, |e| {
        e.clone().present().is_some_and(|e| e.endpoints.is_empty())
    })
    .await;
    present(&pending).await;
    assert!(client.state().connected);
}

#[tokio::test]
async fn a_reconnect_is_not_sent_what_it_has() {
    let cp = ControlPlane::start(mesh(), None).await;
    let at = cp.address;
    let client = client(options(), at);
    let cluster = client.cluster(&key("web"));
    let before = present(&cluster).await;
    drop(cp);
    eventually("disconnected", || !client.state().connected).await;
    let cp = ControlPlane::start_on(at, mesh(), None).await;
    let acked = |c: &weft_xds::server::ClientStatus| {
        let cluster = c.types.get(&TypeUrl::Cluster);
        cluster.is_some_and(|t| t.resources.values().any(|r| r.version_acked.is_some()))
    };
    cp.client(acked).await;
    assert!(
        Arc::ptr_eq(&before, &present(&cluster).await),
        "it was sent again"
    );
}

fn restored(dir: &Path, at: SocketAddr) -> Client {
    let options = Options {
        state_dir: Some(dir.to_owned()),
        save_after: Duration::from_millis(1),
        ..options()
    };
    client(options, at)
}

#[tokio::test]
async fn serves_from_disk_until_the_server_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let cp = ControlPlane::start(mesh(), None).await;
    let at = cp.address;
    {
        let client = restored(dir.path(), at);
        present(&client.destination(address(WEB))).await;
        let nowhere = client.destination(address("192.0.2.1:80"));
        assert!(matches!(
            nowhere.ready(Instant::now() + Duration::from_secs(5)).await,
            Known::Absent
        ));
        client.save().await;
    }
    drop(cp);

    let client = restored(dir.path(), at);
    let mut destination = client.destination(address(WEB));
    assert!(
        matches!(destination.get(), Known::Present(_)),
        "at once, without a server"
    );
    assert!(matches!(
        client.destination(address("192.0.2.1:80")).get(),
        Known::Absent
    ));
    assert!(client.state().resources.iter().all(|r| r.from_disk));

    let _cp = ControlPlane::start_on(at, Mesh::default(), None).await;
    becomes(&mut destination, |k| matches!(k, Known::Absent)).await;
    eventually("confirmed", || {
        client.state().resources.iter().all(|r| !r.from_disk)
    })
    .await;
}

#[tokio::test]
async fn a_corrupt_file_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let cp = ControlPlane::start(mesh(), None).await;
    let client = restored(dir.path(), cp.address);
    present(&client.destination(address(WEB))).await;
    client.save().await;
    drop(client);
    let file = dir.path().join("resources.bin");
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [
        &flipped[..],
        &good[..good.len() - 1],
        &good[..5],
        b"",
        b"something else entirely",
    ] {
        std::fs::write(&file, bad).unwrap();
        let client = restored(dir.path(), "127.0.0.1:9".parse().unwrap());
        assert!(client.state().resources.is_empty());
    }
}

#[tokio::test]
async fn forgets_what_is_idle_but_not_while_the_server_is_away() {
    let cp = ControlPlane::start(mesh(), None).await;
    let at = cp.address;
    let idle = Options {
        idle: Duration::from_millis(60),
        ..options()
    };
    let client = client(idle, at);
    let kept = client.cluster(&key("web"));
    let dropped = client.endpoints(&key("web"));
    present(&dropped).await;
    present(&kept).await;
    drop(dropped);
    eventually("forgotten", || client.state().resources.len() == 1).await;
    let unsubscribed = |c: &weft_xds::server::ClientStatus| {
        c.types
            .get(&TypeUrl::Endpoints)
            .is_some_and(|t| t.subscribed.is_empty())
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while !cp.clients.list().iter().any(unsubscribed) {
        assert!(Instant::now() < deadline, "the server was not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Asked for again, it comes again.
    present(&client.endpoints(&key("web"))).await;
    drop(cp);
    eventually("disconnected", || !client.state().connected).await;
    drop(kept);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        client.state().resources.len(),
        2,
        "nothing is forgotten while the server is away"
    );
}

#[tokio::test]
async fn too_many_names_push_out_idle_ones_and_then_wait() {
    let cp = ControlPlane::start(mesh(), None).await;
    let few = Options {
        max_resources: 2,
        ..options()
    };
    let client = client(few, cp.address);
    let first = client.cluster(&key("web"));
    drop(client.cluster(&key("idle")));
    let second = client.endpoints(&key("web"));
    present(&first).await;
    present(&second).await;
    let third = client.routes(&key("web"));
    let soon = Instant::now() + Duration::from_millis(50);
    assert!(third.ready(soon).await.is_pending());
}

#[tokio::test]
async fn inbound_is_for_the_workload_itself() {
    for (peer, node, reason) in [
        (
            Some("spiffe://cluster.local/ns/shop/sa/cart"),
            "web-0.shop",
            "is for spiffe://cluster.local/ns/shop/sa/web",
        ),
        (
            Some("spiffe://cluster.local/ns/other/sa/web"),
            "web-0.shop",
            "is for spiffe://cluster.local/ns/shop/sa/web",
        ),
        (
            Some("spiffe://cluster.local/ns/shop/sa/web"),
            "web-0",
            "is not <pod>.<namespace>",
        ),
        (None, "web-0.shop", "has no certificate"),
    ] {
        let cp = ControlPlane::start(mesh(), peer).await;
        let client = client(Options::new(node), cp.address);
        let inbound = client.inbound(8080);
        eventually("refused", || {
            let error = client.state().last_error.unwrap_or_default();
            error.starts_with("PermissionDenied") && error.contains(reason)
        })
        .await;
        assert!(inbound.get().is_pending());
    }
}

#[tokio::test]
async fn routes_depend_on_who_asks() {
    let mut mesh = mesh();
    let scoped = mesh.routes.get_mut(&key("web")).unwrap();
    let mut own = (*scoped.any).clone();
    own.hosts.clear();
    scoped
        .by_namespace
        .insert("shop".parse().unwrap(), Arc::new(own));
    for (peer, hosts) in [
        ("spiffe://cluster.local/ns/shop/sa/web", 0),
        ("spiffe://cluster.local/ns/other/sa/web", 1),
    ] {
        let cp = ControlPlane::start(mesh.clone(), Some(peer)).await;
        let client = client(Options::new("x.somewhere"), cp.address);
        assert_eq!(
            present(&client.routes(&key("web"))).await.hosts.len(),
            hosts,
            "{peer}"
        );
    }
}

#[tokio::test]
async fn many_changes_end_in_the_newest() {
    let mut cp = ControlPlane::start(mesh(), None).await;
    let client = client(options(), cp.address);
    let mut cluster = client.cluster(&key("web"));
    present(&cluster).await;
    for i in 0..200 {
        cp.change(|mesh| {
            let cluster = Arc::make_mut(mesh.clusters.get_mut(&key("web")).unwrap());
            cluster.policy.circuit_breaker.max_requests = i;
            cluster.protocol = if i % 2 == 0 {
                Protocol::Http
            } else {
                Protocol::Grpc
            };
        });
    }
    becomes(&mut cluster, |c| {
        let cluster = c.clone().present();
        cluster.is_some_and(|c| {
            c.policy.circuit_breaker.max_requests == 199 && c.protocol == Protocol::Grpc
        })
    })
    .await;
}
