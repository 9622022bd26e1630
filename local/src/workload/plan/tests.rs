//! Tables on the next step of each kind of workload.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use weft_k8s::ObjectKey;

use super::*;
use crate::workload::Owner;

const NEW: u64 = 2;
const OLD: u64 = 1;

fn desired(kind: &'static str, rollout: Rollout) -> Desired {
    let owner = Owner {
        kind,
        key: ObjectKey::new("default", "web"),
    };
    Desired {
        owner,
        template: k8s_openapi::api::core::v1::PodTemplateSpec::default(),
        hash: NEW,
        rollout,
    }
}

fn instance(slot: u32, hash: u64, ready: bool) -> Instance {
    Instance {
        name: format!("{hash}-{slot}"),
        hash,
        slot,
        ready,
        terminating: false,
        phase: Phase::Running,
        ended: None,
    }
}

fn over(slot: u32, phase: Phase, ago: u64) -> Instance {
    Instance {
        ready: false,
        phase,
        ended: Some(Duration::from_secs(ago)),
        ..instance(slot, NEW, false)
    }
}

/// `+slot` for a creation, `-name` for a deletion.
fn steps(desired: &Desired, instances: &[Instance]) -> Vec<String> {
    let mut steps: Vec<String> = plan(desired, instances)
        .into_iter()
        .map(|action| match action {
            Action::Create { slot, .. } => format!("+{slot}"),
            Action::Delete { name } => format!("-{name}"),
        })
        .collect();
    steps.sort();
    steps
}

fn deployment(count: u32, surge: u32, unavailable: u32) -> Desired {
    desired(
        "Deployment",
        Rollout::Replicas {
            count,
            surge,
            unavailable,
            recreate: false,
        },
    )
}

#[test]
fn replicas_scale() {
    let two = deployment(2, 1, 0);
    assert_eq!(steps(&two, &[]), ["+0", "+1"]);
    assert_eq!(steps(&two, &[instance(1, NEW, true)]), ["+0"]);
    let three = [
        instance(0, NEW, false),
        instance(1, NEW, true),
        instance(2, NEW, true),
    ];
    assert_eq!(steps(&two, &three), ["-2-0"]);
    assert_eq!(
        steps(&deployment(0, 1, 0), &three),
        ["-2-0", "-2-1", "-2-2"]
    );
    let mut going = instance(0, NEW, true);
    going.terminating = true;
    assert_eq!(steps(&deployment(1, 1, 0), &[going]), ["+1"]);
}

#[test]
fn a_new_template_replaces_step_by_step() {
    let two = deployment(2, 1, 0);
    let old = [instance(0, OLD, true), instance(1, OLD, true)];
    assert_eq!(steps(&two, &old), ["+0"]);
    let mut half = old.to_vec();
    half.push(instance(0, NEW, false));
    assert_eq!(steps(&two, &half), [""; 0]);
    half[2].ready = true;
    assert_eq!(steps(&two, &half), ["+1", "-1-1"]);
    let unready = [instance(0, OLD, false), instance(1, OLD, true)];
    assert_eq!(steps(&two, &unready), ["+0", "+1", "-1-0"]);
    assert_eq!(
        steps(&deployment(2, 0, 1), &old),
        ["-1-1"]
            .map(String::from)
            .into_iter()
            .chain(["+0".into()])
            .rev()
            .collect::<Vec<_>>()
    );
}

#[test]
fn recreate_waits_until_the_old_are_gone() {
    let one = desired(
        "Deployment",
        Rollout::Replicas {
            count: 1,
            surge: 0,
            unavailable: 1,
            recreate: true,
        },
    );
    assert_eq!(steps(&one, &[instance(0, OLD, true)]), ["-1-0"]);
    let mut going = instance(0, OLD, true);
    going.terminating = true;
    assert_eq!(steps(&one, &[going]), [""; 0]);
    assert_eq!(steps(&one, &[]), ["+0"]);
}

fn stateful(count: u32, parallel: bool) -> Desired {
    let rollout = Rollout::Ordinals {
        first: 0,
        count,
        parallel,
        service: "web".into(),
        claims: Vec::new(),
    };
    desired("StatefulSet", rollout)
}

#[test]
fn ordinals_come_and_go_in_order() {
    let three = stateful(3, false);
    assert_eq!(steps(&three, &[]), ["+0"]);
    assert_eq!(steps(&three, &[instance(0, NEW, false)]), [""; 0]);
    assert_eq!(steps(&three, &[instance(0, NEW, true)]), ["+1"]);
    assert_eq!(steps(&stateful(3, true), &[]), ["+0", "+1", "+2"]);
    let all: Vec<_> = (0..3).map(|slot| instance(slot, NEW, true)).collect();
    assert_eq!(steps(&stateful(1, false), &all), ["-2-2"]);
    assert_eq!(steps(&stateful(1, true), &all), ["-2-1", "-2-2"]);
    let old: Vec<_> = (0..3).map(|slot| instance(slot, OLD, true)).collect();
    assert_eq!(steps(&three, &old), ["-1-2"]);
    assert_eq!(steps(&three, &[instance(0, OLD, false)]), ["-1-0"]);
    assert_eq!(pod_name(&three, 2), "web-2");
}

fn job(wanted: u32, parallelism: u32, indexed: bool) -> Desired {
    desired(
        "Job",
        Rollout::Completions {
            wanted,
            parallelism,
            backoff_limit: 2,
            indexed,
        },
    )
}

#[test]
fn jobs_complete_retry_and_give_up() {
    let three = job(3, 2, false);
    assert_eq!(steps(&three, &[]), ["+0", "+1"]);
    assert_eq!(
        steps(
            &three,
            &[over(0, Phase::Succeeded, 1), instance(1, NEW, true)]
        ),
        ["+2"]
    );
    let done: Vec<_> = (0..3).map(|slot| over(slot, Phase::Succeeded, 1)).collect();
    assert_eq!(steps(&three, &done), [""; 0]);
    let one = job(1, 1, false);
    assert_eq!(steps(&one, &[over(0, Phase::Failed, 0)]), [""; 0]);
    assert_eq!(steps(&one, &[over(0, Phase::Failed, 2)]), ["+1"]);
    let failed: Vec<_> = (0..3).map(|slot| over(slot, Phase::Failed, 100)).collect();
    assert_eq!(steps(&one, &failed), [""; 0]);
}

#[test]
fn indexed_jobs_cover_each_index() {
    let two = job(2, 2, true);
    assert_eq!(steps(&two, &[]), ["+0", "+1"]);
    assert_eq!(
        steps(
            &two,
            &[over(0, Phase::Succeeded, 9), over(1, Phase::Failed, 9)]
        ),
        [format!("+{}", 1 << 16 | 1)]
    );
}

#[test]
fn a_changed_pod_is_made_anew_under_its_name() {
    let pod = desired("Pod", Rollout::Single);
    assert_eq!(steps(&pod, &[]), ["+0"]);
    assert_eq!(steps(&pod, &[instance(0, NEW, true)]), [""; 0]);
    assert_eq!(steps(&pod, &[instance(0, OLD, true)]), ["-1-0"]);
    assert_eq!(pod_name(&pod, 0), "web");
}

#[test]
fn names_are_stable_and_distinct() {
    let web = deployment(1, 1, 0);
    let name = pod_name(&web, 0);
    assert_eq!(name, pod_name(&web, 0));
    assert_ne!(name, pod_name(&web, 1));
    assert!(
        name.starts_with(&format!("web-{}-", template_hash(&web))),
        "{name}"
    );
}
