//! A control plane without Kubernetes: a mesh that tests change, served on loopback.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Server};
use weft_model::{
    BackendKey, Cluster, Destination, DnsRecord, Endpoints, Health, HttpRoutes, InboundPort,
    ListenerName, Locality, Mesh, Meta, MtlsMode, Origin, Protocol, Scoped, SniRoute, SpiffeId,
    TrafficPolicy, UnixMillis, Workload,
};
use weft_xds::server::{AdsServer, ClientStatus, Clients, PeerIdentity, Snapshot};

pub const ROOTS: &[u8] = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

pub struct ControlPlane {
    pub mesh: Mesh,
    pub clients: Clients,
    sender: watch::Sender<Arc<Snapshot>>,
    pub address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl ControlPlane {
    pub async fn start(mesh: Mesh, peer: Option<&str>) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), mesh, peer).await
    }

    pub async fn start_on(address: SocketAddr, mesh: Mesh, peer: Option<&str>) -> Self {
        // The one before may still hold the port for a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let address = listener.local_addr().unwrap();
        let (sender, snapshots) = watch::channel(Arc::new(Snapshot::build(&mesh, ROOTS, None)));
        let clients = Clients::default();
        let ads = AdsServer::new(snapshots, clients.clone());
        let peer: Option<SpiffeId> = peer.map(|p| p.parse().unwrap());
        let ads = InterceptedService::new(ads, move |mut request: tonic::Request<()>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(PeerIdentity(peer.clone()));
            }
            Ok(request)
        });
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            Server::builder()
                .add_service(ads)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            mesh,
            clients,
            sender,
            address,
            server,
        }
    }

    pub fn channel(&self) -> Channel {
        channel(self.address)
    }

    /// Changes the mesh and serves it.
    pub fn change(&mut self, change: impl FnOnce(&mut Mesh)) {
        change(&mut self.mesh);
        let next = Snapshot::build(&self.mesh, ROOTS, Some(&self.sender.borrow()));
        self.sender.send_replace(Arc::new(next));
    }

    /// Waits until the one client there is stands as wanted.
    pub async fn client(&self, wanted: impl Fn(&ClientStatus) -> bool) -> ClientStatus {
        let mut changes = self.clients.changes();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(client) = self.clients.list().into_iter().find(&wanted) {
                return client;
            }
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            assert!(
                changed.is_ok(),
                "no client stands as wanted: {:#?}",
                self.clients.list()
            );
        }
    }
}

pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// A mesh of one service `shop/web` on port 80 with one pod, `shop/web-0`.
pub fn mesh() -> Mesh {
    let mut mesh = Mesh::default();
    add_service(&mut mesh, "web", "10.96.0.1:80", &["10.244.0.1:8080"]);
    let workload = Workload {
        key: "shop/web-0".parse().unwrap(),
        identity: id("web"),
        ports: [(8080, inbound(8080))].into(),
        default: inbound(0),
    };
    mesh.workloads
        .insert(workload.key.clone(), Arc::new(workload));
    mesh
}

pub fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn inbound(port: u16) -> InboundPort {
    InboundPort {
        port,
        protocol: Protocol::Http,
        mtls: MtlsMode::Strict,
        allow: Vec::new(),
        meta: meta(1),
    }
}

pub fn meta(changed_at: u64) -> Meta {
    Meta {
        origin: Origin::object("Service", "shop", "web"),
        changed_at: UnixMillis(changed_at),
    }
}

pub fn key(name: &str) -> BackendKey {
    format!("shop/{name}/80").parse().unwrap()
}

pub fn add_service(mesh: &mut Mesh, name: &str, address: &str, pods: &[&str]) {
    let key = key(name);
    let destination = |listener: ListenerName| Destination {
        sni: vec![SniRoute {
            names: Vec::new(),
            backends: vec![weft_model::route::WeightedBackend::only(key.clone())],
            meta: meta(1),
        }],
        name: listener,
        key: key.clone(),
        protocol: Protocol::Http,
        meta: meta(1),
    };
    let host: weft_model::Hostname = format!("{name}.shop.svc.cluster.local").parse().unwrap();
    let at: SocketAddr = address.parse().unwrap();
    for listener in [
        ListenerName::Outbound(at),
        ListenerName::Authority(host.clone(), 80),
    ] {
        mesh.destinations
            .insert(listener.clone(), Arc::new(destination(listener)));
    }
    mesh.routes.insert(
        key.clone(),
        Scoped::any(Arc::new(HttpRoutes::direct(key.clone(), meta(1)))),
    );
    let cluster = Cluster {
        key: key.clone(),
        protocol: Protocol::Http,
        identities: vec![id(name)],
        policy: TrafficPolicy::default(),
        meta: meta(1),
    };
    mesh.clusters.insert(key.clone(), Arc::new(cluster));
    set_endpoints(mesh, name, pods);
    let record = DnsRecord {
        name: host.clone(),
        addresses: vec![at.ip()],
        meta: meta(1),
    };
    mesh.names.insert(host, Arc::new(record));
}

pub fn set_endpoints(mesh: &mut Mesh, name: &str, pods: &[&str]) {
    let endpoints = pods.iter().map(|pod| weft_model::Endpoint {
        address: pod.parse().unwrap(),
        health: Health::Ready,
        weight: 1,
        locality: Locality::default(),
        identity: Some(id(name)),
        workload: None,
    });
    let endpoints = Endpoints {
        key: key(name),
        endpoints: endpoints.collect(),
        meta: meta(1),
    };
    mesh.endpoints.insert(key(name), Arc::new(endpoints));
}
