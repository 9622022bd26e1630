//! Weft's own kinds in `weft.dev/v1alpha1`: what a user writes, and the CustomResourceDefinitions that an API server needs.
//!
//! Policies attach to what they mean by `targetRefs` (Gateway API, GEP-713). [`mod@crate::compile`] resolves them.

mod mutual_tls_policy;
mod text;
mod traffic_policy;

pub use mutual_tls_policy::{Mode, MutualTLSPolicy, MutualTLSPolicySpec, PortPolicy, WorkloadRef};
pub use text::{DurationText, IdentityText};
pub use traffic_policy::{
    Algorithm, CircuitBreaker, LoadBalancer, OutlierDetection, RetryBudget, ServiceRef,
    TrafficPolicy, TrafficPolicySpec,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of a policy, per target (GEP-713 `PolicyStatus`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyStatus {
    /// `Accepted` for the policy as a whole; the message names the targets it lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The definitions of all kinds of Weft's own.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![TrafficPolicy::crd(), MutualTLSPolicy::crd()]
}

/// The definitions as one YAML file.
pub fn definitions_yaml() -> Result<String, serde_yaml::Error> {
    let documents: Result<Vec<String>, _> =
        definitions().iter().map(serde_yaml::to_string).collect();
    Ok(documents?.join("---\n"))
}
