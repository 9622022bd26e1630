//! Who asks, and what they may ask for.
//!
//! Destinations, routes, clusters, endpoints and the trust bundle are open to every identity of the mesh. What a
//! workload admits on its own ports is its own business: those names are answered to nobody else.

use std::sync::Arc;

use tonic::Status;
use weft_model::{Namespace, SpiffeId, WorkloadKey};

use super::Snapshot;
use super::resource::Entry;
use crate::convert::Flavour;
use crate::{TypeUrl, wire};

const INBOUND: &str = "weft/inbound/";

/// The other end of a stream.
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) flavour: Flavour,
    pub(super) workload: Option<WorkloadKey>,
    pub(super) namespace: Option<Namespace>,
    identity: Option<SpiffeId>,
}

impl Peer {
    /// By what it says of itself, and by its certificate.
    pub(super) fn new(node: wire::Node, identity: Option<SpiffeId>) -> Self {
        let workload = workload(&node.id);
        let of_certificate = identity.as_ref().map(|id| id.namespace.clone());
        Self {
            flavour: Flavour::of_user_agent(&node.user_agent_name),
            namespace: of_certificate.or_else(|| workload.as_ref().map(|w| w.namespace.clone())),
            id: node.id,
            workload,
            identity,
        }
    }

    pub(super) fn is_inbound(name: &str) -> bool {
        name.starts_with(INBOUND)
    }

    /// Refuses what belongs to another workload.
    pub(super) fn may_ask(&self, snapshot: &Snapshot, name: &str) -> Result<(), Status> {
        if !Self::is_inbound(name) {
            return Ok(());
        }
        let Some(identity) = &self.identity else {
            return Err(Status::permission_denied(format!(
                "{name} is only for the workload itself, and this client has no certificate"
            )));
        };
        let Some(workload) = &self.workload else {
            return Err(Status::permission_denied(format!(
                "{name} is only for the workload itself, and node.id {:?} is not <pod>.<namespace>",
                self.id
            )));
        };
        let wanted = snapshot.workload(workload).map(|w| &w.identity);
        if identity.namespace != workload.namespace
            || wanted.is_some_and(|wanted| wanted != identity)
        {
            let wanted = wanted.map_or_else(
                || format!("an identity of {}", workload.namespace),
                ToString::to_string,
            );
            return Err(Status::permission_denied(format!(
                "{name} of {workload} is for {wanted}, and this client is {identity}"
            )));
        }
        Ok(())
    }

    /// What a name stands for, for this client. `None`: there is no such resource.
    pub(super) fn resolve(
        &self,
        snapshot: &Snapshot,
        kind: TypeUrl,
        name: &str,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let Some(port) = name
            .strip_prefix(INBOUND)
            .filter(|_| kind == TypeUrl::Listener)
        else {
            let special = (self.flavour == Flavour::Grpc)
                .then(|| snapshot.get_for_grpc(kind, name))
                .flatten();
            return Ok(special
                .or_else(|| snapshot.get(kind, name, self.namespace.as_ref()))
                .cloned());
        };
        // Again, because the workload may have become known, or another, since it was asked for.
        self.may_ask(snapshot, name)?;
        let workload = self.workload.as_ref().and_then(|w| snapshot.workload(w));
        let port = port.parse().ok().filter(|p: &u16| p.to_string() == port);
        Ok(workload
            .zip(port)
            .map(|(workload, port)| workload.inbound(port)))
    }
}

/// `<pod>.<namespace>`; a pod's name may have dots, a namespace's has none.
fn workload(id: &str) -> Option<WorkloadKey> {
    let (pod, namespace) = id.rsplit_once('.')?;
    Some(WorkloadKey {
        namespace: namespace.parse().ok()?,
        name: pod.parse().ok()?,
    })
}
