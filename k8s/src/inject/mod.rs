//! The sidecar, added to pod templates: a pure function of the template, its namespace and the mesh's settings.

pub mod annotations;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::problem::Problem;

/// The name of the sidecar's container.
pub const PROXY_CONTAINER: &str = "weft-proxy";
/// The label `weft.dev/meshed: "true"` of pods that have a sidecar, or speak the mesh's mutual TLS by themselves.
pub const MESHED_LABEL: &str = "weft.dev/meshed";

/// The mesh's settings, the same for every pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectConfig {
    /// The image of weft-proxy and weft-init.
    pub image: String,
    /// Weft's version, written to the annotation `weft.dev/status`.
    pub version: String,
    /// The trust domain.
    pub trust_domain: String,
    /// Host and port of the control plane.
    pub control_plane: String,
}

impl Default for InjectConfig {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            image: format!("weft/weft:{version}"),
            version: version.to_owned(),
            trust_domain: "cluster.local".into(),
            control_plane: "weft-control-plane.weft-system.svc:15012".into(),
        }
    }
}

/// What of a namespace decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: String,
    /// Its labels: `weft.dev/inject: enabled` opts in.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: defaults for its pods.
    pub annotations: BTreeMap<String, String>,
}

/// Was the sidecar added?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Injected,
    /// No, for this reason.
    Skipped(&'static str),
}

/// The template with the sidecar, if it is to have one.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The template.
    pub template: PodTemplateSpec,
    /// Was the sidecar added?
    pub decision: Decision,
    /// Warnings: unknown annotations, values that cannot be used.
    pub warnings: Vec<Problem>,
}

/// Adds the sidecar where labels and annotations want it. Twice is the same as once. Errors: pods that cannot be in the mesh.
pub fn inject(
    template: &PodTemplateSpec,
    _namespace: &NamespaceInfo,
    _config: &InjectConfig,
) -> Result<Injected, Vec<Problem>> {
    Ok(Injected {
        template: template.clone(),
        decision: Decision::Skipped("not enabled"),
        warnings: Vec::new(),
    })
}

/// The same for a document of any kind that holds pods (Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, List);
/// other documents stay as they are. `namespaces` gives the namespace of a name.
pub fn inject_document(
    _document: &mut serde_yaml::Value,
    _namespaces: &dyn Fn(&str) -> NamespaceInfo,
    _config: &InjectConfig,
) -> Result<Vec<Problem>, Vec<Problem>> {
    Ok(Vec::new())
}
