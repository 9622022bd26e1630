//! Objects to the model: pure, from scratch each time, sharing what did not change with the mesh before.
//!
//! Called by the control plane for each new state of its source, and by `weft check`. In order: [`index`] for looking things up,
//! [`policy`] and [`inbound`] for what policies say, [`service`] with [`endpoint`], [`pod`], [`names`], and at last [`route`], which
//! writes over what services do by themselves.

mod endpoint;
mod inbound;
mod index;
mod names;
mod pod;
mod policy;
mod report;
pub(crate) mod route;
mod service;
pub mod status;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::{Mesh, TrustDomain};

use crate::object::Objects;
use crate::problem::Problem;

pub use status::{Condition, ParentStatus, Reason, Status};

/// What the compilation is told besides the objects.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS domain of the cluster, e.g. `cluster.local`.
    pub cluster_domain: String,
}

/// What the objects mean.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The mesh.
    pub mesh: Mesh,
    /// What is wrong, the worst first, then by file and line.
    pub problems: Vec<Problem>,
    /// What became of each route and policy.
    pub statuses: Vec<Status>,
}

/// Compiles the objects. Values equal to those in `previous` are shared with it, so that a change costs what it touches.
pub fn compile(objects: &Objects, options: &CompileOptions, previous: Option<&Mesh>) -> Compiled {
    let mut report = report::Report::default();
    let mut mesh = Mesh::default();
    let index = index::Index::build(objects, options);
    let policies = policy::TrafficPolicies::resolve(&index, &mut report);
    let uses = service::compile(&index, &policies, &mut mesh, &mut report);
    let mut inbound = inbound::Inbound::new(&index);
    pod::compile(&index, &uses, &mut inbound, &mut mesh);
    inbound.report(&mut report);
    names::compile(&index, &mut mesh);
    route::compile(&index, &mut mesh, &mut report);
    if let Some(previous) = previous {
        share(&mut mesh, previous);
    }
    report.problems.sort();
    report.problems.dedup();
    Compiled {
        mesh,
        problems: report.problems,
        statuses: report.statuses,
    }
}

fn share(mesh: &mut Mesh, previous: &Mesh) {
    keep(&mut mesh.destinations, &previous.destinations);
    keep(&mut mesh.clusters, &previous.clusters);
    keep(&mut mesh.endpoints, &previous.endpoints);
    keep(&mut mesh.names, &previous.names);
    keep(&mut mesh.workloads, &previous.workloads);
    for (key, scoped) in &mut mesh.routes {
        let Some(before) = previous.routes.get(key) else {
            continue;
        };
        if scoped.any == before.any {
            scoped.any = before.any.clone();
        }
        keep(&mut scoped.by_namespace, &before.by_namespace);
    }
}

/// Takes the old value where the new one is equal to it.
fn keep<K: Ord, T: PartialEq>(new: &mut BTreeMap<K, Arc<T>>, old: &BTreeMap<K, Arc<T>>) {
    for (key, value) in new {
        if let Some(before) = old.get(key).filter(|before| *before == value) {
            *value = before.clone();
        }
    }
}
