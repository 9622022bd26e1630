//! A tiny control plane for trying a real Envoy or gRPC client by hand: `serve LISTEN ROOTS.pem ENDPOINT...`.
//!
//! Serves `demo/echo` at 10.96.0.10:80 and `echo.demo.svc.cluster.local:80` with plaintext endpoints, a meshed copy of
//! it, and destinations of every protocol with rules of every kind. Prints how each client stands when that changes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a demonstration ends at the first surprise

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use weft_model::route::{Action, HttpRule, Mirror, ResetRetry};
use weft_model::route::{Forward, PathMatch, PathRewrite, Redirect, RetryPolicy, WeightedBackend};
use weft_model::{
    BackendKey, Balancer, Cluster, Destination, Endpoint, Endpoints, Health, HttpRoutes,
    ListenerName, Locality, Mesh, Meta, Origin, Protocol, Scoped, SniRoute, TrafficPolicy,
};
use weft_xds::server::{AdsServer, Clients, Snapshot};

fn meta() -> Meta {
    Meta {
        origin: Origin::object("Service", "demo", "echo"),
        changed_at: weft_model::UnixMillis(1_700_000_000_000),
    }
}

fn service(
    mesh: &mut Mesh,
    name: &str,
    ip: &str,
    protocol: Protocol,
    pods: &[SocketAddr],
    meshed: bool,
) {
    let key: BackendKey = format!("demo/{name}/80").parse().unwrap();
    let address = ListenerName::Outbound(format!("{ip}:80").parse().unwrap());
    let authority = ListenerName::Authority(
        format!("{name}.demo.svc.cluster.local").parse().unwrap(),
        80,
    );
    for name in [address, authority] {
        let mut sni = vec![SniRoute {
            names: Vec::new(),
            backends: vec![WeightedBackend::only(key.clone())],
            meta: meta(),
        }];
        if protocol == Protocol::Tls {
            let named = SniRoute {
                names: vec![
                    "a.example".parse().unwrap(),
                    "*.b.example".parse().unwrap(),
                    "*".parse().unwrap(),
                ],
                ..sni[0].clone()
            };
            sni.insert(0, named);
        }
        let destination = Destination {
            name: name.clone(),
            key: key.clone(),
            protocol,
            sni,
            meta: meta(),
        };
        mesh.destinations.insert(name, Arc::new(destination));
    }
    backend(mesh, &key, protocol, pods, meshed);
    let routes = HttpRoutes::direct(key.clone(), meta());
    mesh.routes.insert(key, Scoped::any(Arc::new(routes)));
}

fn backend(
    mesh: &mut Mesh,
    key: &BackendKey,
    protocol: Protocol,
    pods: &[SocketAddr],
    meshed: bool,
) {
    let identity = meshed.then(|| "spiffe://cluster.local/ns/demo/sa/echo".parse().unwrap());
    let balancer = match protocol {
        Protocol::Tcp => Balancer::Random,
        Protocol::Grpc => Balancer::RoundRobin,
        Protocol::Tls => Balancer::LeastRequest,
        _ => Balancer::PeakEwma,
    };
    let cluster = Cluster {
        key: key.clone(),
        protocol,
        identities: identity.iter().cloned().collect(),
        policy: TrafficPolicy {
            balancer,
            ..TrafficPolicy::default()
        },
        meta: meta(),
    };
    let states = [Health::Ready, Health::Draining, Health::NotReady];
    let endpoints = pods.iter().enumerate().map(|(i, address)| Endpoint {
        address: *address,
        health: states[i.min(2)],
        weight: 1,
        locality: Locality {
            region: "r".into(),
            zone: format!("z{i}"),
        },
        identity: identity.clone(),
        workload: None,
    });
    let endpoints = Endpoints {
        key: key.clone(),
        endpoints: endpoints.collect(),
        meta: meta(),
    };
    mesh.clusters.insert(key.clone(), Arc::new(cluster));
    mesh.endpoints.insert(key.clone(), Arc::new(endpoints));
}

/// One rule of every kind before the plain one.
fn rules(routes: &mut HttpRoutes) {
    let plain = routes.hosts[0].rules[0].clone();
    let Action::Forward(forward) = plain.action.clone() else {
        return;
    };
    let rule = |path: PathMatch, change: &dyn Fn(&mut HttpRule, &mut Forward)| {
        let (mut rule, mut forward) = (plain.clone(), forward.clone());
        rule.matches.path = path;
        change(&mut rule, &mut forward);
        if matches!(rule.action, Action::Forward(_)) {
            rule.action = Action::Forward(forward);
        }
        rule
    };
    let redirect = |path: Option<PathRewrite>| Redirect {
        scheme: None,
        hostname: Some("elsewhere.example".parse().unwrap()),
        path,
        port: None,
        status: 302,
    };
    let rewrite = |path: &'static str| {
        move |_: &mut HttpRule, f: &mut Forward| {
            f.rewrite.path = Some(PathRewrite::Prefix(path.into()));
        }
    };
    let mut all = vec![
        rule(PathMatch::prefix("/strip"), &rewrite("/")),
        rule(PathMatch::prefix("/swap"), &rewrite("/other/")),
        rule(PathMatch::Exact("/full".into()), &|_, f| {
            f.rewrite.path = Some(PathRewrite::Full("/whole\\path".into()));
            f.rewrite.hostname = Some("host.example".parse().unwrap());
        }),
        rule(PathMatch::prefix("/old"), &|r, _| {
            r.action = Action::Redirect(redirect(Some(PathRewrite::Prefix("/".into()))));
        }),
        rule(PathMatch::Exact("/gone".into()), &|r, _| {
            r.action = Action::Redirect(redirect(None));
        }),
        rule(PathMatch::prefix("/none"), &|_, f| f.backends.clear()),
        rule(PathMatch::prefix("/invalid"), &|_, f| {
            f.backends[0].backend = None;
        }),
        rule(PathMatch::Regex("/v[0-9]+/.*".parse().unwrap()), &|_, f| {
            f.mirrors.push(Mirror {
                backend: f.backends[0].backend.clone().unwrap(),
                numerator: 50,
                denominator: 100,
                meta: meta(),
            });
            f.request_timeout = Some(std::time::Duration::from_secs(3));
            f.retry = RetryPolicy {
                attempts: 5,
                reset: ResetRetry::Always,
                codes: vec![500, 503],
                per_try_timeout: Some(std::time::Duration::from_secs(1)),
                ..RetryPolicy::default()
            };
        }),
    ];
    all.append(&mut routes.hosts[0].rules);
    routes.hosts[0].rules = all;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: serve LISTEN ROOTS.pem ENDPOINT...";
    let listen = arguments.next().expect(usage);
    let roots = std::fs::read(arguments.next().expect(usage)).expect("the roots can be read");
    let pods: Vec<SocketAddr> = arguments.map(|a| a.parse().expect("ip:port")).collect();
    let mut mesh = Mesh::default();
    service(
        &mut mesh,
        "echo",
        "10.96.0.10",
        Protocol::Http,
        &pods,
        false,
    );
    service(
        &mut mesh,
        "meshed",
        "10.96.0.11",
        Protocol::Http,
        &pods,
        true,
    );
    service(
        &mut mesh,
        "grpc",
        "10.96.0.12",
        Protocol::Grpc,
        &pods,
        false,
    );
    service(&mut mesh, "tcp", "10.96.0.13", Protocol::Tcp, &pods, true);
    service(&mut mesh, "tls", "10.96.0.14", Protocol::Tls, &pods, false);
    service(
        &mut mesh,
        "detect",
        "10.96.0.15",
        Protocol::Detect,
        &pods,
        true,
    );
    for scoped in mesh.routes.values_mut() {
        rules(Arc::make_mut(&mut scoped.any));
    }
    let (_keep, snapshots) = watch::channel(Arc::new(Snapshot::build(&mesh, &roots, None)));
    let clients = Clients::default();
    let ads = AdsServer::new(snapshots, clients.clone());
    let mut changes = clients.changes();
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            for client in clients.list() {
                for (kind, status) in &client.types {
                    let (sent, acked) = (status.version_sent, status.version_acked);
                    println!(
                        "{:?} {} {kind}: sent {sent}, acknowledged {acked}, refused {:?}",
                        client.kind, client.id, status.nack
                    );
                }
            }
        }
    });
    let incoming = TcpListenerStream::new(TcpListener::bind(&listen).await.unwrap());
    Server::builder()
        .add_service(ads)
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}
