//! What follows from pods and services: endpoints, the node's rules, DNS, NodePorts, objects for the control plane,
//! and `state.json`.
//!
//! Each part is applied only when it changed. Called by [`super::Supervisor::run`] after [`super::reconcile`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use weft_k8s::{ObjectKey, Objects};

use super::status::with_status;
use super::Supervisor;
use crate::Error;
use crate::control_plane::{ADMIN_PORT, PORT};
use crate::dns::table::Table;
use crate::pod::logs;
use crate::pod::report::{Phase, PodReport, Role, State as Running};
use crate::service::{self, Backend, SERVICE_NAME, is_external_name, is_headless};
use crate::state::{ContainerState, ControlPlaneState, PodState, ServiceState, State, WorkloadState};
use crate::workload::{Desired, Rollout};

/// A service with addresses, and the slices that belong to it.
struct Served {
    key: ObjectKey,
    service: Service,
    /// Made by us, from its selector.
    own: Vec<EndpointSlice>,
    /// Written by the user, for a service without one.
    given: Vec<Arc<weft_k8s::Stored<EndpointSlice>>>,
}

impl Served {
    fn slices(&self) -> Vec<&EndpointSlice> {
        self.own.iter().chain(self.given.iter().map(|stored| &stored.object)).collect()
    }
}

impl Supervisor {
    /// Applies what changed.
    pub(super) fn publish(&mut self) {
        let objects = self.world.borrow().clone();
        let pods: Vec<(Pod, PodReport)> = self.pods.values().map(|m| {
            let report = m.task.report();
            (with_status(&m.task.context.pod, &report, m.task.ips(), &self.machine.node.addresses()), report)
        }).collect();
        let served = self.serve(&objects);
        self.apply_rules(&served);
        self.apply_names(&served);
        self.apply_node_ports(&served);
        if let Err(error) = self.write_objects(&objects, &pods, &served) {
            self.trouble.insert("write-back".into(), error.to_string());
        }
        let state = self.current(&objects, &served);
        let changed = self.state.send_if_modified(|old| {
            let changed = **old != state;
            *old = Arc::new(state);
            changed
        });
        if changed || !self.machine.layout.state_file().exists() {
            let state = self.state.borrow().clone();
            if let Err(error) = write_state(&state, &self.machine.layout.state_file()) {
                tracing::warn!(%error, "state.json could not be written");
            }
        }
    }

    fn serve(&mut self, objects: &Objects) -> Vec<Served> {
        let ipv6 = self.machine.node.subnet.ipv6;
        self.addresses.keep_services(|key| objects.services.keys().any(|known| known.to_string() == key));
        self.node_ports.keep(|key| objects.services.keys().any(|known| known.to_string() == key));
        let reports: Vec<PodReport> = self.pods.values().map(|managed| managed.task.report()).collect();
        let backends: Vec<Backend<'_>> = self
            .pods
            .values()
            .zip(&reports)
            .filter(|(_, report)| report.phase == Phase::Running)
            .map(|(managed, report)| Backend {
                pod: &managed.task.context.pod,
                ips: managed.task.ips(),
                ready: report.ready(),
                terminating: report.terminating,
            })
            .collect();
        let mut all = Vec::with_capacity(objects.services.len());
        for (key, stored) in &objects.services {
            match service::with_addresses(&stored.object, &mut self.addresses, &mut self.node_ports, ipv6) {
                Ok(service) => {
                    let own = service::slices(&service, &backends);
                    let given = if service.spec.as_ref().is_some_and(|s| s.selector.is_none()) {
                        given_slices(objects, key)
                    } else {
                        Vec::new()
                    };
                    all.push(Served { key: key.clone(), service, own, given });
                }
                Err(error) => {
                    self.trouble.insert(format!("Service {key}"), error.to_string());
                }
            }
        }
        all
    }

    fn apply_rules(&mut self, served: &[Served]) {
        let ports: Vec<_> = served.iter().flat_map(|s| service::ports(&s.service, &s.slices())).collect();
        if self.applied.as_ref() == Some(&ports) {
            return;
        }
        match self.machine.node.apply_services(&ports) {
            Ok(()) => {
                self.applied = Some(ports);
                self.trouble.remove("service rules");
            }
            Err(error) => {
                self.trouble.insert("service rules".into(), error.to_string());
            }
        }
    }

    fn apply_names(&self, served: &[Served]) {
        let mut table = Table::default();
        for one in served {
            table.add(&one.service, &one.slices());
        }
        self.names.send_if_modified(|old| {
            let changed = **old != table;
            if changed {
                *old = Arc::new(table);
            }
            changed
        });
    }

    fn apply_node_ports(&mut self, served: &[Served]) {
        let mut wanted: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        if !self.stopping {
            for one in served {
                wanted.extend(service::host_ports(&one.service, &one.slices()));
            }
        }
        let problems = self.listeners.apply(wanted);
        self.trouble.retain(|about, _| about != "node ports");
        if !problems.is_empty() {
            self.trouble.insert("node ports".into(), problems.join("; "));
        }
    }

    fn write_objects(&mut self, objects: &Objects, pods: &[(Pod, PodReport)], served: &[Served]) -> Result<(), Error> {
        let user = self.observed.borrow().objects.clone();
        let store = &mut self.write_back;
        for (key, stored) in objects.namespaces.iter().filter(|(key, _)| !user.namespaces.contains_key(key)) {
            store.put("Namespace", "", &key.name, &stored.object)?;
        }
        for (key, stored) in objects.service_accounts.iter().filter(|(key, _)| !user.service_accounts.contains_key(key)) {
            store.put("ServiceAccount", &key.namespace, &key.name, &stored.object)?;
        }
        for (key, stored) in objects.nodes.iter().filter(|(key, _)| !user.nodes.contains_key(key)) {
            store.put("Node", "", &key.name, &stored.object)?;
        }
        for (pod, _) in pods {
            let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
            store.put("Pod", namespace.unwrap_or("default"), name.unwrap_or_default(), pod)?;
        }
        for one in served {
            store.put("Service", &one.key.namespace, &one.key.name, &one.service)?;
            let ours = one.given.iter().filter(|s| s.source == weft_k8s::Location::default()).map(|s| &s.object);
            for slice in one.own.iter().chain(ours) {
                store.put("EndpointSlice", &one.key.namespace, slice.metadata.name.as_deref().unwrap_or_default(), slice)?;
            }
        }
        store.sweep();
        Ok(())
    }

    fn current(&self, objects: &Objects, served: &[Served]) -> State {
        let observed = self.observed.borrow().clone();
        let mut problems: Vec<String> = observed.problems.iter().map(ToString::to_string).collect();
        problems.extend(objects.cron_jobs.keys().map(|key| format!("CronJob {key}: not run in local mode")));
        problems.extend(self.trouble.iter().map(|(about, reason)| format!("{about}: {reason}")));
        let old = self.state.borrow().clone();
        State {
            control_plane: self.control_plane_state(),
            pods: self.pods.iter().map(|(key, _)| self.pod_state(key)).flatten().collect(),
            workloads: Desired::all(objects).iter().map(|desired| self.workload_state(desired)).collect(),
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
            held_until: control_plane.held_until.filter(|until| *until > Timestamp::now()),
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
                spec: directory.join("containers").join(&container.name).join("spec.json"),
            }
        });
        Some(PodState {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            owner: if owner.kind == "Pod" { String::new() } else { format!("{}/{}", owner.kind, owner.key.name) },
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
            let good = if is_job { i.phase == Phase::Succeeded } else { i.ready || finished(desired, i.phase) };
            i.hash == desired.hash && !i.terminating && good
        };
        let ready = instances.iter().filter(counts).count() as u32;
        let wanted = desired.wanted();
        let left_over = instances.iter().any(|i| i.terminating || (i.hash != desired.hash));
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

fn given_slices(objects: &Objects, service: &ObjectKey) -> Vec<Arc<weft_k8s::Stored<EndpointSlice>>> {
    let own = |stored: &&Arc<weft_k8s::Stored<EndpointSlice>>| {
        let labels = stored.object.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(SERVICE_NAME)) == Some(&service.name)
    };
    let same = objects.endpoint_slices.iter().filter(|(key, _)| key.namespace == service.namespace);
    same.map(|(_, stored)| stored).filter(own).cloned().collect()
}

fn service_state(one: &Served) -> ServiceState {
    let spec = one.service.spec.as_ref();
    let kind = if is_headless(&one.service) && !is_external_name(&one.service) {
        "Headless".to_owned()
    } else {
        spec.and_then(|s| s.type_.clone()).unwrap_or_else(|| "ClusterIP".into())
    };
    let ports = spec.iter().flat_map(|s| s.ports.iter().flatten());
    ServiceState {
        namespace: one.key.namespace.clone(),
        name: one.key.name.clone(),
        kind,
        cluster_ips: spec.iter().flat_map(|s| s.cluster_ips.iter().flatten()).filter_map(|ip| ip.parse().ok()).collect(),
        ports: ports
            .map(|port| match port.node_port {
                Some(node_port) => format!("{}:{node_port}", port.port),
                None => port.port.to_string(),
            })
            .collect(),
    }
}

fn write_state(state: &State, path: &std::path::Path) -> Result<(), Error> {
    let next = path.with_extension("json.next");
    std::fs::write(&next, serde_json::to_vec_pretty(state)?).map_err(Error::at(&next))?;
    std::fs::rename(&next, path).map_err(Error::at(path))
}
