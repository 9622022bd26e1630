//! `state.json`: everything that runs, at one moment.
//!
//! Reads what the supervisor holds and changes nothing. Called by [`super::publish`].

use k8s_openapi::jiff::Timestamp;
use weft_k8s::{ObjectKey, Objects};

use super::Supervisor;
use super::served::Served;
use crate::Error;
use crate::control_plane::{ADMIN_PORT, PORT};
use crate::pod::logs;
use crate::pod::report::{Phase, Role, State as Running};
use crate::service::{is_external_name, is_headless};
use crate::state::{
    ContainerState, ControlPlaneState, PodState, ServiceState, State, WorkloadState,
};
use crate::workload::{Desired, Rollout};

impl Supervisor {
    /// The state to tell.
    pub(super) fn current(&self, objects: &Objects, served: &[Served]) -> State {
        let observed = self.observed.borrow().clone();
        let mut problems: Vec<String> = observed.problems.iter().map(ToString::to_string).collect();
        problems.extend(
            objects
                .cron_jobs
                .keys()
                .map(|key| format!("CronJob {key}: not run in local mode")),
        );
        problems.extend(
            self.trouble
                .iter()
                .map(|(about, reason)| format!("{about}: {reason}")),
        );
        let old = self.state.borrow().clone();
        State {
            control_plane: self.control_plane_state(),
            pods: self
                .pods
                .keys()
                .filter_map(|key| self.pod_state(key))
                .collect(),
            workloads: Desired::all(objects)
                .iter()
                .map(|desired| self.workload_state(desired))
                .collect(),
            services: served.iter().map(service_state).collect(),
            problems,
            stopping: self.stopping,
            ..(*old).clone()
        }
    }

    fn control_plane_state(&self) -> Option<ControlPlaneState> {
        let control_plane = self.control_plane.as_ref()?;
        let status = control_plane.status.borrow().clone();
        let ip = self.machine.node.addresses().first().copied()?;
        Some(ControlPlaneState {
            pid: status.pid,
            address: format!("{ip}:{PORT}"),
            admin: format!("{ip}:{ADMIN_PORT}"),
            ready: status.ready,
            restarts: status.restarts,
            held_until: control_plane
                .held_until
                .filter(|until| *until > Timestamp::now()),
            log: self.machine.layout.logs().join("control-plane.log"),
        })
    }

    fn pod_state(&self, key: &ObjectKey) -> Option<PodState> {
        let managed = self.pods.get(key)?;
        let report = managed.task.report();
        let directory = &managed.task.context.directory;
        let owner = &managed.owner;
        let containers = report.containers.iter().map(|container| {
            let (state, pid, init_pid) = match &container.state {
                Running::Waiting { .. } => ("waiting", None, None),
                Running::Running { pid, init_pid, .. } => ("running", *pid, Some(*init_pid)),
                Running::Terminated(_) => ("terminated", None, None),
            };
            let exit_code = match &container.state {
                Running::Terminated(ended) => Some(ended.code),
                _ => container.last.as_ref().map(|ended| ended.code),
            };
            let role = match container.role {
                Role::Init => "init",
                Role::Sidecar => "sidecar",
                Role::Main => "main",
            };
            ContainerState {
                name: container.name.clone(),
                role: role.to_owned(),
                state: state.to_owned(),
                pid,
                init_pid,
                ready: container.ready,
                restarts: container.restarts,
                exit_code,
                log: logs::path(directory, &container.name, container.restarts),
                spec: directory
                    .join("containers")
                    .join(&container.name)
                    .join("spec.json"),
            }
        });
        Some(PodState {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            owner: if owner.kind == "Pod" {
                String::new()
            } else {
                format!("{}/{}", owner.kind, owner.key.name)
            },
            netns: managed.task.context.netns.clone(),
            ips: managed.task.ips().to_vec(),
            phase: report.phase,
            status: report.status(),
            ready: report.ready(),
            reason: report.why_not_ready(),
            meshed: managed.meshed,
            created: report.created,
            containers: containers.collect(),
        })
    }

    fn workload_state(&self, desired: &Desired) -> WorkloadState {
        let instances = self.instances(&desired.owner);
        let is_job = matches!(desired.rollout, Rollout::Completions { .. });
        let counts = |i: &&crate::workload::Instance| {
            let good = if is_job {
                i.phase == Phase::Succeeded
            } else {
                i.ready || finished(desired, i.phase)
            };
            i.hash == desired.hash && !i.terminating && good
        };
        let ready = instances.iter().filter(counts).count() as u32;
        let wanted = desired.wanted();
        let left_over = instances
            .iter()
            .any(|i| i.terminating || (i.hash != desired.hash));
        WorkloadState {
            kind: desired.owner.kind.to_owned(),
            namespace: desired.owner.key.namespace.clone(),
            name: desired.owner.key.name.clone(),
            ready,
            wanted,
            settled: ready >= wanted && (is_job || instances.len() as u32 == wanted) && !left_over,
        }
    }
}

/// A bare pod that ran to its end is as wanted.
fn finished(desired: &Desired, phase: Phase) -> bool {
    desired.rollout == Rollout::Single && phase == Phase::Succeeded
}

fn service_state(one: &Served) -> ServiceState {
    let spec = one.service.spec.as_ref();
    let kind = if is_headless(&one.service) && !is_external_name(&one.service) {
        "Headless".to_owned()
    } else {
        spec.and_then(|s| s.type_.clone())
            .unwrap_or_else(|| "ClusterIP".into())
    };
    let ports = spec.iter().flat_map(|s| s.ports.iter().flatten());
    ServiceState {
        namespace: one.key.namespace.clone(),
        name: one.key.name.clone(),
        kind,
        cluster_ips: spec
            .iter()
            .flat_map(|s| s.cluster_ips.iter().flatten())
            .filter_map(|ip| ip.parse().ok())
            .collect(),
        ports: ports
            .map(|port| match port.node_port {
                Some(node_port) => format!("{}:{node_port}", port.port),
                None => port.port.to_string(),
            })
            .collect(),
    }
}

/// Replaces the file by a rename, so that readers see the old state or the new.
pub(super) fn write_state(state: &State, path: &std::path::Path) -> Result<(), Error> {
    let next = path.with_extension("json.next");
    std::fs::write(&next, serde_json::to_vec_pretty(state)?).map_err(Error::at(&next))?;
    std::fs::rename(&next, path).map_err(Error::at(path))
}
