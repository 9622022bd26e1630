//! `MutualTLSPolicy`: what workloads admit.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IdentityText, PolicyStatus};

/// Whether workloads require mutual TLS, and of whom. The most specific holds (port, workload, namespace), then the oldest.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "MutualTLSPolicy",
    plural = "mutualtlspolicies",
    shortname = "mtlsp",
    category = "weft",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct MutualTLSPolicySpec {
    /// The policy's own namespace as a whole, or workloads in it; 1 to 16.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<WorkloadRef>,
    /// For all ports that `ports` does not name; default Strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Who may connect; everyone in the mesh's trust domain where it is missing or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_identities: Option<Vec<IdentityText>>,
    /// What differs by port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortPolicy>>,
}

/// A namespace or workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// The API group: empty for Namespace, Pod and Service, `apps` for the others; may be left out.
    #[serde(default)]
    pub group: String,
    /// `Namespace`, `Deployment`, `StatefulSet`, `DaemonSet`, `Pod` or `Service` (the pods it selects).
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Is mutual TLS required?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Only mutual TLS.
    #[default]
    Strict,
    /// Plaintext too.
    Permissive,
}

/// What differs on one port. What it does not say is as in the rest of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortPolicy {
    /// The container's port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Is mutual TLS required?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Who may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_identities: Option<Vec<IdentityText>>,
}
