//! A pod of a workload: the template (with its sidecar), a name, an owner, and what its kind adds.
//!
//! Pure but for the random uid. Called by the supervisor for each [`super::Action::Create`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvVar, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;

use super::plan::template_hash;
use super::{Desired, Rollout};
use crate::issuer::{stable_uuid, uuid};
use crate::names::NODE_NAME;

/// The label of a node's zone.
pub(crate) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Puts a pod into a zone, for trying out locality on one machine.
pub const ZONE_ANNOTATION: &str = "local.weft.dev/zone";

/// The pod with this name and slot. `template` is the workload's, after injection.
pub(crate) fn pod(desired: &Desired, mut template: PodTemplateSpec, name: &str, slot: u32) -> Pod {
    add_kind(desired, &mut template, name, slot);
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.name = Some(name.to_owned());
    metadata.namespace = Some(desired.owner.key.namespace.clone());
    metadata.uid = Some(uuid());
    metadata.creation_timestamp = Some(Time(Timestamp::now()));
    metadata.resource_version = None;
    metadata.owner_references = owner(desired).map(|owner| vec![owner]);
    let mut spec = template.spec.unwrap_or_default();
    spec.node_name = Some(node_of(metadata.annotations.as_ref(), spec.node_selector.as_ref()).0);
    spec.service_account_name.get_or_insert_with(|| {
        spec.service_account
            .clone()
            .unwrap_or_else(|| "default".into())
    });
    Pod {
        metadata,
        spec: Some(spec),
        status: None,
    }
}

/// The node a pod runs on, and its zone. There is one node, unless pods ask for zones by `nodeSelector` or annotation:
/// then each zone has one, all of them this machine.
pub(crate) fn node_of(
    annotations: Option<&BTreeMap<String, String>>,
    selector: Option<&BTreeMap<String, String>>,
) -> (String, Option<String>) {
    let wanted = selector
        .and_then(|s| s.get(ZONE_LABEL))
        .or_else(|| annotations.and_then(|a| a.get(ZONE_ANNOTATION)));
    match wanted {
        Some(zone) => (format!("{NODE_NAME}-{zone}"), Some(zone.clone())),
        None => (NODE_NAME.to_owned(), None),
    }
}

/// Labels, host names, claims and variables that the workload's controller adds.
fn add_kind(desired: &Desired, template: &mut PodTemplateSpec, name: &str, slot: u32) {
    let metadata = template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    let spec = template.spec.get_or_insert_default();
    match &desired.rollout {
        Rollout::Replicas { .. } => {
            labels.insert("pod-template-hash".into(), template_hash(desired));
        }
        Rollout::Ordinals {
            service, claims, ..
        } => {
            labels.insert("statefulset.kubernetes.io/pod-name".into(), name.to_owned());
            labels.insert("apps.kubernetes.io/pod-index".into(), slot.to_string());
            spec.hostname = Some(name.to_owned());
            spec.subdomain = Some(service.clone()).filter(|service| !service.is_empty());
            for claim in claims {
                let volume = claim.metadata.name.clone().unwrap_or_default();
                let source = PersistentVolumeClaimVolumeSource {
                    claim_name: format!("{volume}-{name}"),
                    read_only: None,
                };
                let volumes = spec.volumes.get_or_insert_default();
                volumes.retain(|v| v.name != volume);
                volumes.push(Volume {
                    name: volume,
                    persistent_volume_claim: Some(source),
                    ..Volume::default()
                });
            }
        }
        Rollout::Completions { indexed, .. } => {
            let job = &desired.owner.key.name;
            labels.insert("batch.kubernetes.io/job-name".into(), job.clone());
            labels.insert("job-name".into(), job.clone());
            if *indexed {
                let index = (slot & 0xffff).to_string();
                labels.insert(
                    "batch.kubernetes.io/job-completion-index".into(),
                    index.clone(),
                );
                spec.hostname = Some(format!("{job}-{index}"));
                let variable = EnvVar {
                    name: "JOB_COMPLETION_INDEX".into(),
                    value: Some(index),
                    ..EnvVar::default()
                };
                for container in &mut spec.containers {
                    container.env.get_or_insert_default().push(variable.clone());
                }
            }
        }
        Rollout::Single | Rollout::PerNode => {}
    }
}

/// The owner reference Kubernetes would set: a Deployment's pods belong to its ReplicaSet.
fn owner(desired: &Desired) -> Option<OwnerReference> {
    let key = &desired.owner.key;
    let (api_version, kind, name) = match desired.owner.kind {
        "Deployment" => (
            "apps/v1",
            "ReplicaSet",
            format!("{}-{}", key.name, template_hash(desired)),
        ),
        "Pod" => return None,
        "Job" => ("batch/v1", "Job", key.name.clone()),
        kind => ("apps/v1", kind, key.name.clone()),
    };
    Some(OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        uid: stable_uuid(&[kind, &key.namespace, &name]),
        name,
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

/// Whether labels match a selector of equalities; an empty selector matches nothing, as in a Service.
pub(crate) fn selects(
    selector: &BTreeMap<String, String>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::workload::Owner;
    use serde_json::json;
    use weft_k8s::ObjectKey;

    fn desired(kind: &'static str, rollout: Rollout) -> Desired {
        let template = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]},
        }))
        .unwrap();
        let owner = Owner {
            kind,
            key: ObjectKey::new("shop", "db"),
        };
        Desired {
            owner,
            template,
            hash: 7,
            rollout,
        }
    }

    #[test]
    fn stateful_pods_have_name_domain_and_claim() {
        let claims = vec![
            serde_json::from_value(json!({"metadata": {"name": "data"}, "spec": {}})).unwrap(),
        ];
        let rollout = Rollout::Ordinals {
            first: 0,
            count: 1,
            parallel: false,
            service: "db".into(),
            claims,
        };
        let desired = desired("StatefulSet", rollout);
        let pod = pod(&desired, desired.template.clone(), "db-0", 0);
        let spec = pod.spec.unwrap();
        assert_eq!(
            (spec.hostname.as_deref(), spec.subdomain.as_deref()),
            (Some("db-0"), Some("db"))
        );
        let claim = spec.volumes.unwrap()[0]
            .persistent_volume_claim
            .clone()
            .unwrap();
        assert_eq!(claim.claim_name, "data-db-0");
        assert_eq!(spec.service_account_name.as_deref(), Some("default"));
        assert_eq!(
            pod.metadata.owner_references.unwrap()[0].kind,
            "StatefulSet"
        );
    }

    #[test]
    fn deployment_pods_belong_to_a_replica_set() {
        let rollout = Rollout::Replicas {
            count: 1,
            surge: 1,
            unavailable: 0,
            recreate: false,
        };
        let desired = desired("Deployment", rollout);
        let pod = pod(&desired, desired.template.clone(), "db-x-y", 0);
        let hash = pod.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
        let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.name.clone()),
            ("ReplicaSet", format!("db-{hash}"))
        );
    }

    #[test]
    fn indexed_jobs_know_their_index() {
        let rollout = Rollout::Completions {
            wanted: 2,
            parallelism: 1,
            backoff_limit: 1,
            indexed: true,
        };
        let desired = desired("Job", rollout);
        let pod = pod(&desired, desired.template.clone(), "db-1-x", 1 | 1 << 16);
        let spec = pod.spec.unwrap();
        assert_eq!(
            spec.containers[0].env.as_ref().unwrap()[0].value.as_deref(),
            Some("1")
        );
        assert_eq!(spec.hostname.as_deref(), Some("db-1"));
    }

    #[test]
    fn empty_selectors_select_nothing() {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(selects(
            &map(&[("a", "1")]),
            Some(&map(&[("a", "1"), ("b", "2")]))
        ));
        assert!(!selects(&map(&[("a", "2")]), Some(&map(&[("a", "1")]))));
        assert!(!selects(&map(&[]), Some(&map(&[("a", "1")]))));
        assert!(!selects(&map(&[("a", "1")]), None));
    }
}
