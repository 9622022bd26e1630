//! What follows from pods and services: endpoints, the node's rules, DNS, NodePorts, objects for the control plane,
//! and `state.json`.
//!
//! Each part is applied only when it changed. Called by [`super::Supervisor::run`] after [`super::reconcile`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use weft_k8s::{ObjectKey, Objects};

use super::Supervisor;
use super::served::Served;
use super::snapshot::write_state;
use super::status::with_status;
use crate::Error;
use crate::dns::table::Table;
use crate::pod::report::{Phase, PodReport};
use crate::service::{self, Backend, SERVICE_NAME};

impl Supervisor {
    /// Applies what changed.
    pub(super) fn publish(&mut self) {
        let objects = self.world.borrow().clone();
        let pods: Vec<(Pod, PodReport)> = self
            .pods
            .values()
            .map(|m| {
                let report = m.task.report();
                (
                    with_status(
                        &m.task.context.pod,
                        &report,
                        m.task.ips(),
                        &self.machine.node.addresses(),
                    ),
                    report,
                )
            })
            .collect();
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
        self.addresses.keep_services(|key| {
            objects
                .services
                .keys()
                .any(|known| known.to_string() == key)
        });
        self.node_ports.keep(|key| {
            objects
                .services
                .keys()
                .any(|known| known.to_string() == key)
        });
        let reports: Vec<PodReport> = self
            .pods
            .values()
            .map(|managed| managed.task.report())
            .collect();
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
            match service::allocate::with_addresses(
                &stored.object,
                &mut self.addresses,
                &mut self.node_ports,
                ipv6,
            ) {
                Ok(service) => {
                    let own = service::slices(&service, &backends);
                    let given = if service.spec.as_ref().is_some_and(|s| s.selector.is_none()) {
                        given_slices(objects, key)
                    } else {
                        Vec::new()
                    };
                    all.push(Served {
                        key: key.clone(),
                        service,
                        own,
                        given,
                    });
                }
                Err(error) => {
                    self.trouble
                        .insert(format!("Service {key}"), error.to_string());
                }
            }
        }
        all
    }

    fn apply_rules(&mut self, served: &[Served]) {
        let ports: Vec<_> = served
            .iter()
            .flat_map(|s| service::ports(&s.service, &s.slices()))
            .collect();
        if self.applied.as_ref() == Some(&ports) {
            return;
        }
        match self.machine.node.apply_services(&ports) {
            Ok(()) => {
                self.applied = Some(ports);
                self.trouble.remove("service rules");
            }
            Err(error) => {
                self.trouble
                    .insert("service rules".into(), error.to_string());
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
            self.trouble
                .insert("node ports".into(), problems.join("; "));
        }
    }

    fn write_objects(
        &mut self,
        objects: &Objects,
        pods: &[(Pod, PodReport)],
        served: &[Served],
    ) -> Result<(), Error> {
        let user = self.observed.borrow().objects.clone();
        let store = &mut self.write_back;
        for (key, stored) in objects
            .namespaces
            .iter()
            .filter(|(key, _)| !user.namespaces.contains_key(key))
        {
            store.put("Namespace", "", &key.name, &stored.object)?;
        }
        for (key, stored) in objects
            .service_accounts
            .iter()
            .filter(|(key, _)| !user.service_accounts.contains_key(key))
        {
            store.put("ServiceAccount", &key.namespace, &key.name, &stored.object)?;
        }
        for (key, stored) in objects
            .nodes
            .iter()
            .filter(|(key, _)| !user.nodes.contains_key(key))
        {
            store.put("Node", "", &key.name, &stored.object)?;
        }
        for (pod, _) in pods {
            let (namespace, name) = (
                pod.metadata.namespace.as_deref(),
                pod.metadata.name.as_deref(),
            );
            store.put(
                "Pod",
                namespace.unwrap_or("default"),
                name.unwrap_or_default(),
                pod,
            )?;
        }
        for one in served {
            store.put("Service", &one.key.namespace, &one.key.name, &one.service)?;
            let ours = one
                .given
                .iter()
                .filter(|s| s.source == weft_k8s::Location::default())
                .map(|s| &s.object);
            for slice in one.own.iter().chain(ours) {
                store.put(
                    "EndpointSlice",
                    &one.key.namespace,
                    slice.metadata.name.as_deref().unwrap_or_default(),
                    slice,
                )?;
            }
        }
        store.sweep();
        Ok(())
    }
}

fn given_slices(
    objects: &Objects,
    service: &ObjectKey,
) -> Vec<Arc<weft_k8s::Stored<EndpointSlice>>> {
    let own = |stored: &&Arc<weft_k8s::Stored<EndpointSlice>>| {
        let labels = stored.object.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(SERVICE_NAME)) == Some(&service.name)
    };
    let same = objects
        .endpoint_slices
        .iter()
        .filter(|(key, _)| key.namespace == service.namespace);
    same.map(|(_, stored)| stored)
        .filter(own)
        .cloned()
        .collect()
}
