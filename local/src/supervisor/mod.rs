//! The process behind a mesh: it owns all pods, and brings what runs in line with the manifests again and again.
//!
//! One task, one loop ([`Supervisor::run`]): wait for a change (manifests, a pod's report, the control plane, an order),
//! then [`reconcile`] the pods, then [`publish`] what follows from them. Everything else reports to it and takes no decisions.
//! Started by [`crate::up`].

mod objects;
mod publish;
mod reconcile;
mod served;
mod snapshot;
mod socket;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use weft_k8s::source::directory::{Directory, Options as SourceOptions};
use weft_k8s::source::{ObjectSource, Observed};
use weft_k8s::{ObjectKey, Objects};

use crate::control_plane::{self, Launch, Orders, Status as ControlPlaneStatus};
use crate::dns::table::Table;
use crate::issuer::Issuer;
use crate::names::Layout;
use crate::network::rules::ServicePort;
use crate::network::subnet::Addresses;
use crate::network::{Node, host};
use crate::options::UpOptions;
use crate::pod::{Machine, PodTask};
use crate::service::allocate::NodePorts;
use crate::service::node_port::NodePortListeners;
use crate::state::State;
use crate::workload::Owner;
use crate::write_back::WriteBack;
use crate::{Error, dns};

use socket::Request;
pub(crate) use socket::{Answer, Order};

/// Changes that come together are handled together.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// Retries of jobs and the like are due by the clock.
const TICK: Duration = Duration::from_secs(1);

/// A pod, and why it is there.
#[derive(Debug)]
struct Managed {
    task: PodTask,
    owner: Owner,
    hash: u64,
    slot: u32,
    meshed: bool,
}

/// The control plane, as the supervisor drives it.
#[derive(Debug)]
struct ControlPlane {
    status: watch::Receiver<ControlPlaneStatus>,
    orders: watch::Sender<Orders>,
    held_until: Option<Timestamp>,
    task: JoinHandle<()>,
}

/// All that a mesh consists of.
pub(crate) struct Supervisor {
    machine: Machine,
    _source: Directory,
    observed: watch::Receiver<Arc<Observed>>,
    world: watch::Sender<Arc<Objects>>,
    control_plane: Option<ControlPlane>,
    addresses: Addresses,
    node_ports: NodePorts,
    listeners: NodePortListeners,
    applied: Option<Vec<ServicePort>>,
    names: watch::Sender<Arc<Table>>,
    write_back: WriteBack,
    pods: BTreeMap<ObjectKey, Managed>,
    /// Trouble found while reconciling, by what it is about.
    trouble: BTreeMap<String, String>,
    state: watch::Sender<Arc<State>>,
    requests: mpsc::Receiver<Request>,
    stopping: bool,
}

impl Supervisor {
    /// Makes the node and everything on it, but no pod yet.
    pub(crate) fn start(options: &UpOptions, layout: &Layout) -> Result<Self, Error> {
        let files: Vec<PathBuf> = options
            .files
            .iter()
            .map(std::path::absolute)
            .collect::<Result<_, _>>()?;
        let source = Directory::start(SourceOptions {
            paths: files.clone(),
            write_back: None,
        })?;
        let observed = source.observe();
        let issuer = Arc::new(Issuer::open(&layout.issuer())?);
        let node = Node::up(layout)?;
        let write_back = WriteBack::new(layout.objects())?;
        let (world, objects) = watch::channel(Arc::new(Objects::default()));
        let changed = Arc::new(Notify::new());
        let programs = match &options.programs {
            Some(directory) => directory.clone(),
            None => std::env::current_exe()?
                .parent()
                .map_or_else(|| "/usr/bin".into(), PathBuf::from),
        };
        let machine = Machine {
            layout: layout.clone(),
            node,
            issuer,
            programs,
            objects,
            changed,
        };
        let (names, table) = watch::channel(Arc::new(Table::default()));
        dns::server::start(&layout.node_netns(), &machine.node.addresses(), table)?;
        let (sender, requests) = mpsc::channel(16);
        socket::listen(layout, sender)?;
        let control_plane = options.control_plane.as_ref().map(|program| {
            let env = options.control_plane_env.clone();
            ControlPlane::start(
                &machine,
                Launch {
                    program: program.clone(),
                    sources: files,
                    env,
                },
            )
        });
        let state = first_state(&machine);
        let mut trouble = BTreeMap::new();
        if machine.node.subnet.ipv6 && !host::forwards_ipv6() {
            tracing::info!(
                "pods cannot reach IPv6 addresses outside this machine: it does not forward IPv6"
            );
        }
        if options.control_plane.is_none() {
            trouble.insert(
                "mesh".into(),
                "no weft-control-plane was found: pods run without sidecars".into(),
            );
        }
        Ok(Self {
            machine,
            _source: source,
            observed,
            world,
            control_plane,
            addresses: Addresses::default(),
            node_ports: NodePorts::default(),
            listeners: NodePortListeners::default(),
            applied: None,
            names,
            write_back,
            pods: BTreeMap::new(),
            trouble,
            state: watch::channel(Arc::new(state)).0,
            requests,
            stopping: false,
        })
    }

    /// Follows what runs.
    pub(crate) fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Runs until asked to stop by an order or by `stop`, then until every pod is gone.
    pub(crate) async fn run(mut self, stop: impl Future<Output = Duration>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changed = self.machine.changed.clone();
        tokio::pin!(stop);
        loop {
            self.reconcile();
            self.publish();
            if self.stopping && self.pods.is_empty() {
                break;
            }
            tokio::select! {
                grace = &mut stop, if !self.stopping => self.stop(grace),
                Some(request) = self.requests.recv() => self.obey(request),
                Ok(()) = self.observed.changed() => {}
                () = changed.notified() => tokio::time::sleep(DEBOUNCE).await,
                _ = tick.tick() => {}
            }
        }
        if let Some(control_plane) = self.control_plane.take() {
            control_plane
                .orders
                .send_modify(|orders| orders.stop = true);
            let _ = control_plane.task.await;
        }
    }

    /// Stops all pods, within `grace` at most.
    fn stop(&mut self, grace: Duration) {
        self.stopping = true;
        for managed in self.pods.values() {
            managed.task.stop(Some(grace));
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Stop { grace } => self.stop(grace),
            Request::Hold { hold, done } => {
                let answer = match &mut self.control_plane {
                    None => Err("this mesh has no control plane".to_owned()),
                    Some(control_plane) => {
                        control_plane.hold(hold);
                        Ok(())
                    }
                };
                // The asker may have gone.
                let _ = done.send(answer);
            }
        }
    }
}

/// What is known before anything runs.
fn first_state(machine: &Machine) -> State {
    State {
        name: machine.layout.mesh().to_owned(),
        supervisor_pid: std::process::id(),
        subnet: machine.node.subnet,
        node_netns: machine.layout.node_netns(),
        node_ips: machine.node.addresses(),
        control_plane: None,
        pods: Vec::new(),
        workloads: Vec::new(),
        services: Vec::new(),
        problems: Vec::new(),
        stopping: false,
    }
}

impl ControlPlane {
    fn start(machine: &Machine, launch: Launch) -> Self {
        let (status, receiver) = watch::channel(ControlPlaneStatus::default());
        let (orders, ordered) = watch::channel(Orders::default());
        let task = tokio::spawn(control_plane::keep(
            machine.clone(),
            launch,
            status,
            ordered,
            machine.changed.clone(),
        ));
        Self {
            status: receiver,
            orders,
            held_until: None,
            task,
        }
    }

    /// Ends the process and keeps it down for so long; zero lets it start again.
    fn hold(&mut self, hold: Duration) {
        let until = (!hold.is_zero()).then(|| Instant::now() + hold);
        self.held_until = until.and_then(|_| Timestamp::now().checked_add(hold).ok());
        self.orders.send_modify(|orders| orders.held_until = until);
    }
}
