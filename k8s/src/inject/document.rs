//! Pods inside manifests: the injection into documents as they are written, keeping everything else as it is.

use serde_yaml::{Mapping, Value};

use super::{Additions, Decision, InjectConfig, NamespaceInfo, is_our_volume, is_ours, plan};
use crate::problem::{Location, Problem};

/// What became of one object that holds pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// E.g. `Deployment shop/web`.
    pub object: String,
    /// Was the sidecar added?
    pub decision: Decision,
    /// Unknown annotations, values that cannot be used.
    pub warnings: Vec<Problem>,
}

/// Injects into a document of any kind that holds pods (Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, List);
/// other documents stay as they are. `namespaces` gives the namespace of a name. With errors, the document may be half changed.
pub fn inject_document(
    document: &mut Value,
    namespaces: &dyn Fn(&str) -> NamespaceInfo,
    config: &InjectConfig,
) -> Result<Vec<Outcome>, Vec<Problem>> {
    let kind = document
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if kind == "List" {
        let items = document.get_mut("items").and_then(Value::as_sequence_mut);
        let (mut outcomes, mut errors) = (Vec::new(), Vec::new());
        for item in items.into_iter().flatten() {
            match inject_document(item, namespaces, config) {
                Ok(all) => outcomes.extend(all),
                Err(all) => errors.extend(all),
            }
        }
        return if errors.is_empty() {
            Ok(outcomes)
        } else {
            Err(errors)
        };
    }
    match template_path(&kind) {
        Some(path) => one(document, &kind, path, namespaces, config).map(|outcome| vec![outcome]),
        None => Ok(Vec::new()),
    }
}

/// One object with its pod template at that path.
fn one(
    document: &mut Value,
    kind: &str,
    path: &[&str],
    namespaces: &dyn Fn(&str) -> NamespaceInfo,
    config: &InjectConfig,
) -> Result<Outcome, Vec<Problem>> {
    let text = |field: &str| {
        document
            .get("metadata")
            .and_then(|m| m.get(field))
            .and_then(Value::as_str)
    };
    let namespace = text("namespace")
        .filter(|n| !n.is_empty())
        .unwrap_or("default")
        .to_owned();
    let object = format!(
        "{kind} {namespace}/{}",
        text("name").or(text("generateName")).unwrap_or("*")
    );
    let mut template = &mut *document;
    for field in path {
        template = template.get_mut(*field).ok_or_else(|| {
            vec![Problem::error(
                Location::default(),
                &*object,
                path.join("."),
                "there is no pod template",
            )]
        })?;
    }
    let under = path.join(".");
    let named = |mut problem: Problem| {
        problem.object.clone_from(&object);
        if !under.is_empty()
            && !problem.field.is_empty()
            && !problem.field.starts_with("namespace ")
        {
            problem.field = format!("{under}.{}", problem.field);
        }
        problem
    };
    let typed = read(template).map_err(|error| {
        let path = error.path().to_string();
        vec![named(Problem::error(
            Location::default(),
            "",
            path,
            error.into_inner().to_string(),
        ))]
    })?;
    let (plan, warnings) = plan(&typed, &namespaces(&namespace), config)
        .map_err(|errors| errors.into_iter().map(named).collect::<Vec<_>>())?;
    let decision = match plan {
        Ok(additions) => {
            add(template, &additions).map_err(|error| {
                vec![named(Problem::error(
                    Location::default(),
                    "",
                    "",
                    error.to_string(),
                ))]
            })?;
            Decision::Injected
        }
        Err(reason) => Decision::Skipped(reason),
    };
    let warnings = warnings.into_iter().map(named).collect();
    Ok(Outcome {
        object,
        decision,
        warnings,
    })
}

/// Where a kind has its pod template. A Pod is its own.
fn template_path(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&[]),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => {
            Some(&["spec", "template"])
        }
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

type PathError = serde_path_to_error::Error<serde_yaml::Error>;

fn read(template: &Value) -> Result<k8s_openapi::api::core::v1::PodTemplateSpec, PathError> {
    serde_path_to_error::deserialize(template)
}

/// The same as [`Additions::add_to`](super::Additions), on the tree.
fn add(template: &mut Value, additions: &Additions) -> Result<(), serde_yaml::Error> {
    for (field, entries) in [
        ("labels", &additions.labels),
        ("annotations", &additions.annotations),
    ] {
        let map = mapping(mapping(template, "metadata"), field);
        for (name, text) in entries {
            if let Some(map) = map.as_mapping_mut() {
                map.insert((*name).into(), text.as_str().into());
            }
        }
    }
    let spec = mapping(template, "spec");
    let mut init_containers: Vec<Value> = Vec::new();
    for container in &additions.init_containers {
        init_containers.push(serde_yaml::to_value(container)?);
    }
    init_containers.extend(others(spec, "initContainers", is_ours));
    let mut volumes = others(spec, "volumes", is_our_volume);
    for volume in &additions.volumes {
        volumes.push(serde_yaml::to_value(volume)?);
    }
    if let Some(spec) = spec.as_mapping_mut() {
        spec.insert("initContainers".into(), init_containers.into());
        spec.insert("volumes".into(), volumes.into());
    }
    Ok(())
}

/// The mapping in a field, made where there is none.
fn mapping<'v>(parent: &'v mut Value, field: &str) -> &'v mut Value {
    if !parent.is_mapping() {
        *parent = Value::Mapping(Mapping::new());
    }
    let child = &mut parent[field];
    if !child.is_mapping() {
        *child = Value::Mapping(Mapping::new());
    }
    child
}

/// The items of a list that are not of an earlier injection.
fn others(spec: &Value, field: &str, ours: fn(&str) -> bool) -> Vec<Value> {
    let items = spec
        .get(field)
        .and_then(Value::as_sequence)
        .into_iter()
        .flatten();
    items
        .filter(|item| !item.get("name").and_then(Value::as_str).is_some_and(ours))
        .cloned()
        .collect()
}
