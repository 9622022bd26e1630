//! A control plane, pods, and what the mesh knows of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::codegen::Service;
use weft_model::{
    BackendKey, Cluster, Destination, Endpoint, Endpoints, Health, HttpRoutes, InboundPort,
    ListenerName, Locality, Mesh, Meta, MtlsMode, Protocol, Scoped, SniRoute, SpiffeId,
    TrafficPolicy, Workload, WorkloadKey,
};
use weft_proxy::access_log::AccessLog;
use weft_proxy::config::{Config, Mistakes, Variables};
use weft_proxy::drain::Drain;
use weft_proxy::identity::{Credentials, Identity};
use weft_proxy::listen::Captured;
use weft_proxy::metrics::Metrics;
use weft_proxy::worker::{Shared, Worker};
use weft_proxy::{inbound, outbound};
use weft_xds::client::{Client, Options};
use weft_xds::server::{AdsServer, Clients, PeerIdentity, Snapshot};

use crate::pki::Ca;

pub(crate) fn key(text: &str) -> BackendKey {
    text.parse().unwrap()
}

pub(crate) fn spiffe(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

/// The mesh of one test.
pub(crate) struct World {
    pub ca: Ca,
    mesh: RefCell<Mesh>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    control_plane: RefCell<HashMap<String, SocketAddr>>,
}

impl World {
    pub(crate) fn new() -> Rc<Self> {
        let ca = Ca::new();
        let mesh = Mesh::default();
        let (snapshots, _) =
            watch::channel(Arc::new(Snapshot::build(&mesh, ca.pem.as_bytes(), None)));
        Rc::new(Self {
            ca,
            mesh: RefCell::new(mesh),
            snapshots,
            control_plane: RefCell::default(),
        })
    }

    /// Changes the mesh and publishes it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Mesh)) {
        let mut mesh = self.mesh.borrow_mut();
        change(&mut mesh);
        let previous = self.snapshots.borrow().clone();
        let next = Snapshot::build(&mesh, self.ca.pem.as_bytes(), Some(&previous));
        self.snapshots.send_replace(Arc::new(next));
    }

    /// A meshed pod whose ports are all as `port` says.
    pub(crate) async fn pod(self: &Rc<Self>, name: &str, port: InboundPort) -> Rc<Pod> {
        let credentials =
            self.ca
                .credentials(&spiffe(name), &[&self.ca], Duration::from_secs(3600), 1);
        self.pod_as(name, port, credentials).await
    }

    /// The same with credentials of its own.
    pub(crate) async fn pod_as(
        self: &Rc<Self>,
        name: &str,
        port: InboundPort,
        credentials: Credentials,
    ) -> Rc<Pod> {
        let workload = WorkloadKey {
            namespace: "shop".parse().unwrap(),
            name: name.parse().unwrap(),
        };
        self.change(|mesh| {
            let known = Workload {
                key: workload.clone(),
                identity: spiffe(name),
                ports: BTreeMap::new(),
                default: port,
            };
            mesh.workloads.insert(workload.clone(), Arc::new(known));
        });
        let address = self.serve_as(spiffe(name)).await;
        let client = Client::start(Options::new(format!("{name}.shop")), move || {
            tonic::transport::Endpoint::from_shared(format!("http://{address}"))
                .unwrap()
                .connect_lazy()
        });
        Pod::start(name, client, credentials)
    }

    /// The control plane, for a client that has proved to be `id`.
    async fn serve_as(&self, id: SpiffeId) -> SocketAddr {
        let known = self.control_plane.borrow().get(&id.to_string()).copied();
        if let Some(address) = known {
            return address;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.control_plane
            .borrow_mut()
            .insert(id.to_string(), address);
        let ads = Identified(
            AdsServer::new(self.snapshots.subscribe(), Clients::default()),
            id,
        );
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(ads)
                .serve_with_incoming(incoming),
        );
        address
    }

    /// A service at a virtual address, with these endpoints, and no routes of its own.
    pub(crate) fn service(
        &self,
        name: &str,
        protocol: Protocol,
        endpoints: Vec<Endpoint>,
    ) -> Virtual {
        let service = Virtual {
            key: key(&format!("shop/{name}/80")),
            address: SocketAddr::from(([10, 96, 0, name.len() as u8], 80)),
        };
        self.change(|mesh| {
            service.publish(mesh, protocol, TrafficPolicy::default());
            service.endpoints(mesh, endpoints);
        });
        service
    }
}

/// A service as the tests see it.
#[derive(Clone)]
pub(crate) struct Virtual {
    pub key: BackendKey,
    pub address: SocketAddr,
}

impl Virtual {
    pub(crate) fn publish(&self, mesh: &mut Mesh, protocol: Protocol, policy: TrafficPolicy) {
        let name = ListenerName::Outbound(self.address);
        let route = SniRoute {
            names: Vec::new(),
            backends: vec![weft_model::route::WeightedBackend::only(self.key.clone())],
            meta: Meta::default(),
        };
        let destination = Destination {
            name: name.clone(),
            key: self.key.clone(),
            protocol,
            sni: if protocol.is_http() {
                Vec::new()
            } else {
                vec![route]
            },
            meta: Meta::default(),
        };
        mesh.destinations.insert(name, Arc::new(destination));
        if matches!(protocol, Protocol::Detect) || protocol.is_http() {
            let routes = HttpRoutes::direct(self.key.clone(), Meta::default());
            mesh.routes
                .insert(self.key.clone(), Scoped::any(Arc::new(routes)));
        }
        let cluster = Cluster {
            key: self.key.clone(),
            protocol,
            identities: Vec::new(),
            policy,
            meta: Meta::default(),
        };
        mesh.clusters.insert(self.key.clone(), Arc::new(cluster));
    }

    pub(crate) fn endpoints(&self, mesh: &mut Mesh, mut endpoints: Vec<Endpoint>) {
        endpoints.sort_by_key(|e| e.address);
        let endpoints = Endpoints {
            key: self.key.clone(),
            endpoints,
            meta: Meta::default(),
        };
        mesh.endpoints.insert(self.key.clone(), Arc::new(endpoints));
    }

    pub(crate) fn routes(&self, mesh: &mut Mesh, change: impl FnOnce(&mut HttpRoutes)) {
        let mut routes = HttpRoutes::direct(self.key.clone(), Meta::default());
        change(&mut routes);
        mesh.routes
            .insert(self.key.clone(), Scoped::any(Arc::new(routes)));
    }
}

/// Its one rule that forwards.
pub(crate) fn forward(routes: &mut HttpRoutes) -> &mut weft_model::route::Forward {
    match &mut routes.hosts[0].rules[0].action {
        weft_model::route::Action::Forward(forward) => forward,
        weft_model::route::Action::Redirect(_) => unreachable!(),
    }
}

pub(crate) fn endpoint(address: SocketAddr, identity: Option<SpiffeId>) -> Endpoint {
    Endpoint {
        address,
        health: Health::Ready,
        weight: 1,
        locality: Locality::default(),
        identity,
        workload: None,
    }
}

pub(crate) fn port(protocol: Protocol, mtls: MtlsMode) -> InboundPort {
    InboundPort {
        port: 0,
        protocol,
        mtls,
        allow: Vec::new(),
        meta: Meta::default(),
    }
}

/// Puts the client's identity where the transport would.
#[derive(Clone)]
struct Identified(AdsServer, SpiffeId);

impl tonic::server::NamedService for Identified {
    const NAME: &'static str = AdsServer::NAME;
}

impl Service<::http::Request<tonic::body::Body>> for Identified {
    type Response = ::http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: ::http::Request<tonic::body::Body>) -> Self::Future {
        request
            .extensions_mut()
            .insert(PeerIdentity(self.1.clone()));
        self.0.call(request)
    }
}

/// A pod's sidecar.
pub(crate) struct Pod {
    pub worker: Rc<Worker>,
    pub credentials: watch::Sender<Arc<Credentials>>,
    pub drain: Drain,
    registry: Registry,
}

struct Environment(HashMap<&'static str, String>);

impl Variables for Environment {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

fn config(name: &str) -> Result<Config, Mistakes> {
    let values = [
        ("POD_NAME", name),
        ("POD_NAMESPACE", "shop"),
        ("POD_SERVICE_ACCOUNT", name),
        ("WEFT_WORKERS", "1"),
    ];
    Config::read(&Environment(values.map(|(k, v)| (k, v.to_owned())).into()))
}

impl Pod {
    fn start(name: &str, client: Client, credentials: Credentials) -> Rc<Self> {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (sender, identity) = Identity::new(credentials);
        let drain = Drain::new();
        let shared = Shared::new(
            config(name).unwrap(),
            client,
            identity,
            drain.clone(),
            AccessLog::disabled(),
            metrics,
        );
        let worker = Worker::new(shared);
        tokio::task::spawn_local(Rc::clone(&worker).keep_house());
        Rc::new(Self {
            worker,
            credentials: sender,
            drain,
            registry,
        })
    }

    /// The application of this pod connects to `to`.
    pub(crate) async fn dial(self: &Rc<Self>, to: SocketAddr) -> TcpStream {
        let (client, io, peer) = pair().await;
        let worker = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move {
            let original_dst = to;
            outbound::serve(
                Captured {
                    io,
                    original_dst,
                    peer,
                },
                &worker,
            )
            .await;
        });
        client
    }

    /// Where connections to the application at `application` are captured.
    pub(crate) async fn capture(self: &Rc<Self>, application: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let worker = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move {
            while let Ok((io, peer)) = listener.accept().await {
                let worker = Rc::clone(&worker);
                io.set_nodelay(true).unwrap();
                tokio::task::spawn_local(async move {
                    let original_dst = application;
                    inbound::serve(
                        Captured {
                            io,
                            original_dst,
                            peer,
                        },
                        &worker,
                    )
                    .await;
                });
            }
        });
        address
    }

    /// The pod's metrics as text.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until a line of the metrics begins with `wanted`.
    pub(crate) async fn metric(&self, wanted: &str) {
        for _ in 0..500 {
            if self.metrics().lines().any(|l| l.starts_with(wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{wanted} never came\n{}", self.metrics());
    }
}

/// Both ends of a connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    (client, server, peer)
}
