//! The xDS clients as the control plane lists them: what each asked for and what it acknowledged.

use std::collections::BTreeMap;

use serde::Deserialize;
use weft_model::WorkloadKey;

/// One stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) workload: Option<WorkloadKey>,
    /// By resource type: `LDS`, `RDS`, `CDS`, `EDS`, `SDS`.
    pub(crate) types: BTreeMap<String, TypeStatus>,
}

/// How it stands with one type.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeStatus {
    pub(crate) nack: Option<Nack>,
    pub(crate) resources: BTreeMap<String, ResourceStatus>,
}

/// What it refused.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Nack {
    pub(crate) message: String,
}

/// How it stands with one resource.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourceStatus {
    pub(crate) version_sent: Option<String>,
    pub(crate) version_acked: Option<String>,
}

impl ResourceStatus {
    /// Is the newest version in use there?
    pub(crate) fn acknowledged(&self) -> bool {
        self.version_sent.is_some() && self.version_sent == self.version_acked
    }
}

/// The stream of a pod's sidecar.
pub(crate) fn of<'a>(clients: &'a [Client], pod: &WorkloadKey) -> Option<&'a Client> {
    clients
        .iter()
        .rev()
        .find(|c| c.workload.as_ref() == Some(pod))
}

impl Client {
    /// How it stands with a resource of a type.
    pub(crate) fn resource(&self, kind: &str, name: &str) -> Option<&ResourceStatus> {
        self.types.get(kind)?.resources.get(name)
    }
}
