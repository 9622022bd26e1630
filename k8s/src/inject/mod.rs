//! The sidecar, added to pods: a pure function of the pod, its namespace and the mesh's settings.
//!
//! Used by `weft inject`, by the local runner and by the admission webhook, so that all three give the same pod. [`annotations`] is what
//! a user can say, [`sidecar`] what is added, [`document`] finds the pods in a manifest.

pub mod annotations;
mod document;
mod sidecar;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Volume};

use self::annotations::{INJECT, STATUS};
use crate::problem::{Location, Problem, Severity, did_you_mean};

pub use document::{Outcome, inject_document};

/// The name of the sidecar's container.
pub const PROXY_CONTAINER: &str = "weft-proxy";
/// The name of the container that sets the redirect rules.
pub const INIT_CONTAINER: &str = "weft-init";
/// The label `weft.dev/meshed: "true"` of pods that have a sidecar, or speak the mesh's mutual TLS by themselves.
pub const MESHED_LABEL: &str = "weft.dev/meshed";
/// Namespaces whose pods never get a sidecar: the mesh depends on them.
const NEVER: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "weft-system",
];

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

impl NamespaceInfo {
    /// Of the object; of its name alone where there is none.
    pub fn of(objects: &crate::object::Objects, name: &str) -> Self {
        let stored = objects
            .namespaces
            .get(&crate::object::ObjectKey::new("", name));
        let metadata = stored.map(|n| &n.object.metadata);
        Self {
            name: name.to_owned(),
            labels: metadata.and_then(|m| m.labels.clone()).unwrap_or_default(),
            annotations: metadata
                .and_then(|m| m.annotations.clone())
                .unwrap_or_default(),
        }
    }
}

/// Was the sidecar added?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Unknown annotations, values that cannot be used.
    pub warnings: Vec<Problem>,
}

/// Adds the sidecar where labels and annotations want it. Twice is the same as once. Errors: pods that cannot be in the mesh.
pub fn inject(
    template: &PodTemplateSpec,
    namespace: &NamespaceInfo,
    config: &InjectConfig,
) -> Result<Injected, Vec<Problem>> {
    let (plan, warnings) = plan(template, namespace, config)?;
    let mut template = template.clone();
    let decision = match plan {
        Ok(additions) => {
            additions.add_to(&mut template);
            Decision::Injected
        }
        Err(reason) => Decision::Skipped(reason),
    };
    Ok(Injected {
        template,
        decision,
        warnings,
    })
}

/// What is added to one pod.
pub(crate) struct Additions {
    pub(crate) init_containers: [Container; 2],
    pub(crate) volumes: Vec<Volume>,
    pub(crate) labels: [(&'static str, String); 1],
    pub(crate) annotations: [(&'static str, String); 1],
}

/// Of an earlier injection: replaced.
pub(crate) fn is_ours(container: &str) -> bool {
    container == INIT_CONTAINER || container == PROXY_CONTAINER
}

/// The same for volumes.
pub(crate) fn is_our_volume(volume: &str) -> bool {
    sidecar::VOLUMES.contains(&volume)
}

impl Additions {
    fn add_to(self, template: &mut PodTemplateSpec) {
        let metadata = template.metadata.get_or_insert_default();
        let labels = metadata.labels.get_or_insert_default();
        labels.extend(self.labels.map(|(k, v)| (k.to_owned(), v)));
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.extend(self.annotations.map(|(k, v)| (k.to_owned(), v)));
        let spec = template.spec.get_or_insert_default();
        let own = spec
            .init_containers
            .take()
            .unwrap_or_default()
            .into_iter()
            .filter(|c| !is_ours(&c.name));
        spec.init_containers = Some(self.init_containers.into_iter().chain(own).collect());
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|v| !is_our_volume(&v.name));
        volumes.extend(self.volumes);
    }
}

/// What to add, or why nothing is; and what to warn of.
pub(crate) type Plan = (Result<Additions, &'static str>, Vec<Problem>);

/// Decides.
pub(crate) fn plan(
    template: &PodTemplateSpec,
    namespace: &NamespaceInfo,
    config: &InjectConfig,
) -> Result<Plan, Vec<Problem>> {
    let empty = BTreeMap::new();
    let metadata = template.metadata.as_ref();
    let labels = metadata.and_then(|m| m.labels.as_ref()).unwrap_or(&empty);
    let annotations = metadata
        .and_then(|m| m.annotations.as_ref())
        .unwrap_or(&empty);
    let name = metadata.and_then(|m| m.name.as_deref().or(m.generate_name.as_deref()));
    let object = format!("Pod {}/{}", namespace.name, name.unwrap_or("*"));
    if NEVER.contains(&namespace.name.as_str()) {
        return Ok((
            Err("pods in this namespace never get a sidecar"),
            Vec::new(),
        ));
    }
    let mut warnings = Vec::new();
    let settings =
        annotations::settings(&object, &namespace.annotations, annotations, &mut warnings);
    let wanted = |map: &BTreeMap<String, String>, field: &str, warnings: &mut Vec<Problem>| {
        let value = map.get(INJECT)?.as_str();
        if value != "enabled" && value != "disabled" {
            let hint = did_you_mean(value, ["enabled", "disabled"])
                .unwrap_or_else(|| "expected enabled or disabled".into());
            let reason = format!("{value:?} cannot be used; it is ignored");
            let problem = Problem::error(
                Location::default(),
                &*object,
                format!("{field}[{INJECT}]"),
                reason,
            );
            warnings.push(problem.hint(hint).severity(Severity::Warning));
            return None;
        }
        Some(value == "enabled")
    };
    let by_label = wanted(labels, "metadata.labels", &mut warnings);
    let by_annotation = annotations
        .get(INJECT)
        .and(settings.get(INJECT))
        .map(|v| v == "enabled");
    let by_namespace = wanted(
        &namespace.labels,
        "namespace metadata.labels",
        &mut warnings,
    );
    let decision = match (by_annotation.or(by_label), by_namespace) {
        (Some(true), _) | (None, Some(true)) => None,
        (Some(false), _) => Some("the pod is labelled or annotated weft.dev/inject: disabled"),
        (None, _) => Some("neither the namespace nor the pod is labelled weft.dev/inject: enabled"),
    };
    let default = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&default);
    let host_network = (spec.host_network == Some(true))
        .then_some("the pod uses the node's network (hostNetwork)");
    if let Some(reason) = decision.or(host_network) {
        return Ok((Err(reason), warnings));
    }
    let errors = impossible(spec, &object);
    if !errors.is_empty() {
        return Err(errors);
    }
    let image = settings.or(annotations::PROXY_IMAGE, &config.image);
    let status = serde_json::json!({ "image": image, "version": config.version }).to_string();
    let additions = Additions {
        init_containers: [
            sidecar::init(&settings, config),
            sidecar::proxy(&settings, config),
        ],
        volumes: sidecar::volumes(),
        labels: [(MESHED_LABEL, "true".into())],
        annotations: [(STATUS, status)],
    };
    Ok((Ok(additions), warnings))
}

/// Why the pod cannot be in the mesh.
fn impossible(spec: &PodSpec, object: &str) -> Vec<Problem> {
    let mut errors = Vec::new();
    let mut refuse = |field: String, reason: String, hint: &str| {
        errors.push(Problem::error(Location::default(), object, field, reason).hint(hint));
    };
    let inits = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| !is_ours(&c.name));
    let inits = inits
        .enumerate()
        .map(|(i, c)| (format!("spec.initContainers[{i}]"), c));
    let containers = spec
        .containers
        .iter()
        .enumerate()
        .map(|(i, c)| (format!("spec.containers[{i}]"), c));
    let pod_user = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    if pod_user == Some(sidecar::PROXY_UID) {
        let reason = format!(
            "the user {} is the proxy's: what runs as it is not captured",
            sidecar::PROXY_UID
        );
        refuse(
            "spec.securityContext.runAsUser".into(),
            reason,
            "run as another user",
        );
    }
    for (field, container) in inits.chain(containers) {
        if is_ours(&container.name) {
            refuse(
                format!("{field}.name"),
                format!(
                    "{:?} is the name of a container of the mesh",
                    container.name
                ),
                "rename it",
            );
        }
        if container
            .security_context
            .as_ref()
            .and_then(|s| s.run_as_user)
            == Some(sidecar::PROXY_UID)
        {
            let reason = format!(
                "the user {} is the proxy's: what runs as it is not captured",
                sidecar::PROXY_UID
            );
            refuse(
                format!("{field}.securityContext.runAsUser"),
                reason,
                "run as another user",
            );
        }
        for (i, port) in container.ports.iter().flatten().enumerate() {
            if sidecar::PROXY_PORTS
                .iter()
                .any(|p| i32::from(*p) == port.container_port)
            {
                let reason = format!("the sidecar listens on {}", port.container_port);
                refuse(
                    format!("{field}.ports[{i}].containerPort"),
                    reason,
                    "let the application listen on another port",
                );
            }
        }
    }
    errors
}
