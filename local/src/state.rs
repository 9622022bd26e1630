//! What runs, as `/run/weft/<mesh>/state.json` tells it to other programs.
//!
//! Written by [`crate::supervisor`] after every change, read by `ps`, `logs`, `exec` and by tests. The format is JSON with
//! the field names of these types.

use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::network::Subnet;
pub use crate::pod::report::Phase;

/// One mesh on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// The supervisor's process.
    pub supervisor_pid: u32,
    /// Its address ranges.
    pub subnet: Subnet,
    /// The node's network namespace.
    pub node_netns: String,
    /// The node's addresses (bridge, cluster DNS, control plane), IPv4 first.
    pub node_ips: Vec<IpAddr>,
    /// The control plane, if the mesh has one.
    pub control_plane: Option<ControlPlaneState>,
    /// Every pod, by namespace and name.
    pub pods: Vec<PodState>,
    /// Every workload, by kind, namespace and name.
    pub workloads: Vec<WorkloadState>,
    /// Every service, by namespace and name.
    pub services: Vec<ServiceState>,
    /// What is wrong with the manifests or this machine, one line each; what was good before stays in force.
    pub problems: Vec<String>,
    /// Everything is being taken down.
    pub stopping: bool,
}

/// The control plane's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlaneState {
    /// Its process; none while it is down.
    pub pid: Option<u32>,
    /// `host:port` of ADS and certificate signing, on the node.
    pub address: String,
    /// `host:port` of its admin interface, on the node.
    pub admin: String,
    /// It answers.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// It is kept down by an order until this moment.
    pub held_until: Option<Timestamp>,
    /// Its log.
    pub log: PathBuf,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `Deployment/web`; empty for a bare pod.
    pub owner: String,
    /// Its network namespace, for `ip netns exec`.
    pub netns: String,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Where it is in its life.
    pub phase: Phase,
    /// The word kubectl would show: `Running`, `CrashLoopBackOff`, `Init:0/1`.
    pub status: String,
    /// Its condition Ready.
    pub ready: bool,
    /// Why it is not ready, if that is known.
    pub reason: Option<String>,
    /// It has a sidecar of the mesh.
    pub meshed: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerState>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its name.
    pub name: String,
    /// `init`, `sidecar` or `main`.
    pub role: String,
    /// `waiting`, `running` or `terminated`.
    pub state: String,
    /// The command's process, as the host numbers it.
    pub pid: Option<u32>,
    /// The container's process 1; all its processes end with it.
    pub init_pid: Option<u32>,
    /// Its readiness.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// The exit code of its last end.
    pub exit_code: Option<i32>,
    /// The log of the current start.
    pub log: PathBuf,
    /// What the helper needs to join it.
    pub spec: PathBuf,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadState {
    /// `Deployment`, `Job` and so on.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Pods that are ready and up to date; for a job, pods that succeeded.
    pub ready: u32,
    /// How many of them are wanted.
    pub wanted: u32,
    /// It is as wanted, with nothing left over from before.
    pub settled: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ClusterIP`, `Headless`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub kind: String,
    /// Its cluster IPs, IPv4 first.
    pub cluster_ips: Vec<IpAddr>,
    /// `port` or `port:nodePort`.
    pub ports: Vec<String>,
}

impl State {
    /// Every workload is as wanted, and so is the control plane.
    pub fn settled(&self) -> bool {
        self.control_plane.as_ref().is_none_or(|c| c.ready)
            && self.workloads.iter().all(|w| w.settled)
    }
}

/// A row of `weft local ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Ready containers of those that should be, `2/2`.
    pub ready: String,
    /// The word kubectl would show.
    pub status: String,
    /// Restarts of all its containers.
    pub restarts: u32,
    /// Seconds since it was made.
    pub age_seconds: u64,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Its network namespace.
    pub netns: String,
    /// It has a sidecar of the mesh.
    pub meshed: bool,
    /// Why it is not ready, if that is known.
    pub reason: Option<String>,
}

impl PodRow {
    pub(crate) fn new(pod: &PodState, now: Timestamp) -> Self {
        let lasting = || pod.containers.iter().filter(|c| c.role != "init");
        let age = now.as_second() - pod.created.as_second();
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            ready: format!(
                "{}/{}",
                lasting().filter(|c| c.ready).count(),
                lasting().count()
            ),
            status: pod.status.clone(),
            restarts: pod.containers.iter().map(|c| c.restarts).sum(),
            age_seconds: u64::try_from(age).unwrap_or(0),
            ips: pod.ips.clone(),
            netns: pod.netns.clone(),
            meshed: pod.meshed,
            reason: pod.reason.clone(),
        }
    }
}
