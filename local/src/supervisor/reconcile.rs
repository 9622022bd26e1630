//! Pods brought in line with the manifests: what is gone is forgotten, what is wanted is started, the rest is stopped.
//!
//! [`crate::workload::plan()`] decides; this carries it out, adding the sidecar exactly as the webhook would
//! ([`weft_k8s::inject`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::jiff::Timestamp;
use weft_k8s::inject::{Decision, InjectConfig, NamespaceInfo, inject};
use weft_k8s::{ObjectKey, Objects};

use super::objects::{Facts, world};
use super::{Managed, Supervisor};
use crate::pod::PodTask;
use crate::pod::report::State as ContainerState;
use crate::workload::{Action, Desired, Instance, Owner, instance, plan};

impl Supervisor {
    /// Does what may be done now. Called after every change.
    pub(super) fn reconcile(&mut self) {
        self.forget_gone();
        self.update_world();
        if self.stopping {
            return;
        }
        let objects = self.world.borrow().clone();
        let workloads = Desired::all(&objects);
        let wanted: BTreeSet<&Owner> = workloads.iter().map(|desired| &desired.owner).collect();
        for managed in self.pods.values() {
            if !wanted.contains(&managed.owner) && !managed.task.report().terminating {
                managed.task.stop(None);
            }
        }
        self.trouble.retain(|about, _| {
            !about.contains('/') || workloads.iter().any(|d| describe(&d.owner) == *about)
        });
        for desired in &workloads {
            let instances = self.instances(&desired.owner);
            for action in plan(desired, &instances) {
                match action {
                    Action::Delete { name } => {
                        let key = ObjectKey::new(desired.owner.key.namespace.clone(), name);
                        if let Some(managed) = self.pods.get(&key) {
                            managed.task.stop(None);
                        }
                    }
                    Action::Create { name, slot } => self.create(desired, &name, slot, &objects),
                }
            }
        }
    }

    fn forget_gone(&mut self) {
        let gone: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter(|(_, managed)| managed.task.is_gone())
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.pods.remove(&key);
            self.addresses.release_pod(&key.to_string());
        }
    }

    fn update_world(&mut self) {
        let observed = self.observed.borrow_and_update().clone();
        let roots = self
            .control_plane
            .as_ref()
            .and_then(|c| c.status.borrow().roots.clone());
        let node = self.machine.node.addresses();
        let facts = Facts {
            user: &observed.objects,
            node: &node,
            control_plane: self.control_plane.is_some(),
            roots: roots.as_deref(),
        };
        let new = world(&facts);
        self.world.send_if_modified(|old| {
            let changed = **old != new;
            if changed {
                *old = Arc::new(new);
            }
            changed
        });
    }

    /// The pods of a workload, as planning sees them.
    pub(super) fn instances(&self, owner: &Owner) -> Vec<Instance> {
        let now = Timestamp::now();
        let own = self
            .pods
            .iter()
            .filter(|(_, managed)| managed.owner == *owner);
        own.map(|(key, managed)| {
            let report = managed.task.report();
            let finished =
                report
                    .containers
                    .iter()
                    .filter_map(|container| match &container.state {
                        ContainerState::Terminated(ended) => Some(ended.finished),
                        _ => None,
                    });
            let since =
                |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
            Instance {
                name: key.name.clone(),
                hash: managed.hash,
                slot: managed.slot,
                ready: report.ready(),
                terminating: report.terminating,
                phase: report.phase,
                ended: finished.max().filter(|_| report.phase.is_over()).map(since),
            }
        })
        .collect()
    }

    fn create(&mut self, desired: &Desired, name: &str, slot: u32, objects: &Objects) {
        let key = ObjectKey::new(desired.owner.key.namespace.clone(), name);
        if self.pods.contains_key(&key) {
            // Its predecessor of the same name is still leaving.
            return;
        }
        let about = describe(&desired.owner);
        let (template, meshed) = match self.with_sidecar(desired, objects) {
            Ok(injected) => injected,
            Err(reason) => {
                self.trouble.insert(about, reason);
                return;
            }
        };
        let host = match self.addresses.pod(&key.to_string()) {
            Ok(host) => host,
            Err(error) => {
                self.trouble.insert(about, error.to_string());
                return;
            }
        };
        self.trouble.remove(&about);
        let pod = instance::pod(desired, template, name, slot);
        let task = PodTask::start(&self.machine, pod, host);
        let managed = Managed {
            task,
            owner: desired.owner.clone(),
            hash: desired.hash,
            slot,
            meshed,
        };
        self.pods.insert(key, managed);
    }

    fn with_sidecar(
        &self,
        desired: &Desired,
        objects: &Objects,
    ) -> Result<(PodTemplateSpec, bool), String> {
        if self.control_plane.is_none() {
            return Ok((desired.template.clone(), false));
        }
        let name = &desired.owner.key.namespace;
        let object = objects.namespaces.get(&ObjectKey::new("", name));
        let map = |values: Option<&BTreeMap<String, String>>| values.cloned().unwrap_or_default();
        let namespace = NamespaceInfo {
            name: name.clone(),
            labels: map(object.and_then(|n| n.object.metadata.labels.as_ref())),
            annotations: map(object.and_then(|n| n.object.metadata.annotations.as_ref())),
        };
        match inject(&desired.template, &namespace, &InjectConfig::default()) {
            Ok(injected) => {
                for warning in &injected.warnings {
                    tracing::warn!(owner = %describe(&desired.owner), %warning, "injection");
                }
                Ok((injected.template, injected.decision == Decision::Injected))
            }
            Err(problems) => Err(problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }
}

/// `Deployment shop/web`, for messages.
pub(super) fn describe(owner: &Owner) -> String {
    format!("{} {}", owner.kind, owner.key)
}
