//! Which pods should exist: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and bare Pods, expanded.
//!
//! [`Desired::all`] reads the manifests; [`plan()`] compares one workload with its pods and says what to create and delete
//! next; [`instance`] makes a pod of a template. All pure; the supervisor carries it out, and asks again after each change.

pub(crate) mod instance;
pub(crate) mod plan;

use std::time::Duration;

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_k8s::{ObjectKey, Objects};

use crate::names::fnv;
use crate::pod::report::Phase;

pub(crate) use plan::plan;

/// A workload, by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner {
    /// `Deployment`, `Job` and so on.
    pub(crate) kind: &'static str,
    /// Namespace and name.
    pub(crate) key: ObjectKey,
}

/// How a workload's pods come and go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rollout {
    /// Any number of equal pods; a new template replaces the old step by step.
    Replicas {
        /// How many.
        count: u32,
        /// How many more there may be during an update.
        surge: u32,
        /// How many may be missing during an update.
        unavailable: u32,
        /// `strategy: Recreate`: all old ones go before a new one comes.
        recreate: bool,
    },
    /// Numbered pods.
    Ordinals {
        /// The first number.
        first: u32,
        /// How many.
        count: u32,
        /// Without waiting for each other.
        parallel: bool,
        /// The name of the governing service.
        service: String,
        /// A claim for each pod.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Pods that run to their end.
    Completions {
        /// How many must succeed.
        wanted: u32,
        /// How many may run at once.
        parallelism: u32,
        /// How many may fail.
        backoff_limit: u32,
        /// Each success has an index.
        indexed: bool,
    },
    /// One pod of a fixed name.
    Single,
    /// One pod a node, and there is one node.
    PerNode,
}

/// A workload as the manifests want it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Desired {
    /// Whose pods.
    pub(crate) owner: Owner,
    /// What a pod looks like. Its metadata holds labels and annotations, and for a bare pod its own.
    pub(crate) template: PodTemplateSpec,
    /// Changes with the template.
    pub(crate) hash: u64,
    /// How they come and go.
    pub(crate) rollout: Rollout,
}

/// One pod of a workload, as far as planning needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// The pod's name.
    pub(crate) name: String,
    /// The hash of the template it was made of.
    pub(crate) hash: u64,
    /// Its number among its workload's pods: replica, ordinal, attempt or completion index.
    pub(crate) slot: u32,
    /// It is ready.
    pub(crate) ready: bool,
    /// It was told to stop.
    pub(crate) terminating: bool,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// How long ago it ended, if it has.
    pub(crate) ended: Option<Duration>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Create a pod.
    Create {
        /// Its name.
        name: String,
        /// Its number.
        slot: u32,
    },
    /// Stop and remove a pod.
    Delete {
        /// Its name.
        name: String,
    },
}

impl Desired {
    /// Every workload of the manifests.
    pub(crate) fn all(objects: &Objects) -> Vec<Self> {
        let mut all = Vec::new();
        for (key, stored) in &objects.deployments {
            if let Some(spec) = &stored.object.spec {
                all.push(Self::new(
                    "Deployment",
                    key,
                    &spec.template,
                    deployment(spec),
                ));
            }
        }
        for (key, stored) in &objects.replica_sets {
            let Some(spec) = &stored.object.spec else {
                continue;
            };
            let Some(template) = &spec.template else {
                continue;
            };
            let rollout = Rollout::Replicas {
                count: count(spec.replicas, 1),
                surge: 1,
                unavailable: 0,
                recreate: false,
            };
            all.push(Self::new("ReplicaSet", key, template, rollout));
        }
        for (key, stored) in &objects.stateful_sets {
            let Some(spec) = &stored.object.spec else {
                continue;
            };
            let rollout = Rollout::Ordinals {
                first: count(spec.ordinals.as_ref().and_then(|o| o.start), 0),
                count: count(spec.replicas, 1),
                parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
                service: spec.service_name.clone().unwrap_or_default(),
                claims: spec.volume_claim_templates.clone().unwrap_or_default(),
            };
            all.push(Self::new("StatefulSet", key, &spec.template, rollout));
        }
        for (key, stored) in &objects.daemon_sets {
            if let Some(spec) = &stored.object.spec {
                all.push(Self::new(
                    "DaemonSet",
                    key,
                    &spec.template,
                    Rollout::PerNode,
                ));
            }
        }
        for (key, stored) in &objects.jobs {
            if let Some(spec) = &stored.object.spec {
                all.push(Self::new("Job", key, &spec.template, job(spec)));
            }
        }
        for (key, stored) in &objects.pods {
            let template = PodTemplateSpec {
                metadata: Some(stored.object.metadata.clone()),
                spec: stored.object.spec.clone(),
            };
            all.push(Self::new("Pod", key, &template, Rollout::Single));
        }
        all
    }

    fn new(
        kind: &'static str,
        key: &ObjectKey,
        template: &PodTemplateSpec,
        rollout: Rollout,
    ) -> Self {
        let text = serde_json::to_string(template).unwrap_or_default();
        let owner = Owner {
            kind,
            key: key.clone(),
        };
        Self {
            owner,
            template: template.clone(),
            hash: fnv(&[&text]),
            rollout,
        }
    }

    /// How many pods should be ready in the end; for a job, how many should succeed.
    pub(crate) fn wanted(&self) -> u32 {
        match &self.rollout {
            Rollout::Replicas { count, .. } | Rollout::Ordinals { count, .. } => *count,
            Rollout::Completions { wanted, .. } => *wanted,
            Rollout::Single | Rollout::PerNode => 1,
        }
    }
}

fn count(field: Option<i32>, default: u32) -> u32 {
    field.map_or(default, |n| u32::try_from(n).unwrap_or(0))
}

fn deployment(spec: &DeploymentSpec) -> Rollout {
    let count = count(spec.replicas, 1);
    let strategy = spec.strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = share(
        rolling
            .and_then(|r| r.max_surge.as_ref())
            .unwrap_or(&quarter),
        count,
        true,
    );
    let unavailable = share(
        rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .unwrap_or(&quarter),
        count,
        false,
    );
    Rollout::Replicas {
        count,
        surge,
        // With neither, an update could never begin (Kubernetes: ResolveFenceposts).
        unavailable: if surge == 0 {
            unavailable.max(1)
        } else {
            unavailable
        },
        recreate: strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate"),
    }
}

/// A number or a percentage of `count`.
fn share(value: &IntOrString, count: u32, round_up: bool) -> u32 {
    match value {
        IntOrString::Int(n) => u32::try_from(*n).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: u32 = text.trim_end_matches('%').parse().unwrap_or(25);
            let hundredths = count.saturating_mul(percent);
            if round_up {
                hundredths.div_ceil(100)
            } else {
                hundredths / 100
            }
        }
    }
}

fn job(spec: &JobSpec) -> Rollout {
    let suspended = spec.suspend == Some(true);
    let parallelism = count(spec.parallelism, 1);
    Rollout::Completions {
        wanted: count(
            spec.completions,
            if spec.parallelism.is_some() {
                parallelism
            } else {
                1
            },
        ),
        parallelism: if suspended { 0 } else { parallelism },
        backoff_limit: count(spec.backoff_limit, 6),
        indexed: spec.completion_mode.as_deref() == Some("Indexed"),
    }
}
