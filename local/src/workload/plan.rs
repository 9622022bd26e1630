//! The next step of one workload: a pure comparison of what is wanted with what is there.
//!
//! Each call returns only what may happen now; the supervisor asks again when a pod changes. Called by
//! [`crate::supervisor`] with the types of [`super`].

use std::time::Duration;

use super::{Action, Desired, Instance, Rollout};
use crate::names::hash_suffix;
use crate::pod::report::Phase;

/// What to create and delete now.
pub(crate) fn plan(desired: &Desired, instances: &[Instance]) -> Vec<Action> {
    match &desired.rollout {
        Rollout::Replicas {
            count,
            surge,
            unavailable,
            recreate,
        } => replicas(
            desired,
            instances,
            *count as usize,
            *surge as usize,
            *unavailable as usize,
            *recreate,
        ),
        Rollout::Ordinals {
            first,
            count,
            parallel,
            ..
        } => ordinals(desired, instances, *first, *count, *parallel),
        Rollout::Completions {
            wanted,
            parallelism,
            backoff_limit,
            indexed,
        } => completions(
            desired,
            instances,
            *wanted,
            *parallelism,
            *backoff_limit,
            *indexed,
        ),
        Rollout::Single | Rollout::PerNode => single(desired, instances),
    }
}

/// A pod's name by the rules of its workload's kind. The same slot of the same template always has the same name.
pub(crate) fn pod_name(desired: &Desired, slot: u32) -> String {
    let key = &desired.owner.key;
    let (name, number) = (key.name.as_str(), slot.to_string());
    let unique = || {
        hash_suffix(
            &[&key.namespace, name, &desired.hash.to_string(), &number],
            5,
        )
    };
    match &desired.rollout {
        Rollout::Replicas { .. } if desired.owner.kind == "Deployment" => {
            format!("{name}-{}-{}", template_hash(desired), unique())
        }
        Rollout::Completions { indexed: true, .. } => {
            format!("{name}-{}-{}", slot & 0xffff, unique())
        }
        Rollout::Replicas { .. } | Rollout::Completions { .. } | Rollout::PerNode => {
            format!("{name}-{}", unique())
        }
        Rollout::Ordinals { .. } => format!("{name}-{number}"),
        Rollout::Single => name.to_owned(),
    }
}

/// The label `pod-template-hash`.
pub(crate) fn template_hash(desired: &Desired) -> String {
    hash_suffix(&[&desired.hash.to_string()], 10)
}

fn create(desired: &Desired, slot: u32) -> Action {
    Action::Create {
        name: pod_name(desired, slot),
        slot,
    }
}

fn delete(instance: &Instance) -> Action {
    Action::Delete {
        name: instance.name.clone(),
    }
}

fn replicas(
    desired: &Desired,
    instances: &[Instance],
    count: usize,
    surge: usize,
    unavailable: usize,
    recreate: bool,
) -> Vec<Action> {
    let live: Vec<&Instance> = instances
        .iter()
        .filter(|i| !i.terminating && !i.phase.is_over())
        .collect();
    let mut actions: Vec<Action> = instances
        .iter()
        .filter(|i| !i.terminating && i.phase.is_over())
        .map(delete)
        .collect();
    let (mut new, mut old): (Vec<&Instance>, Vec<&Instance>) =
        live.iter().partition(|i| i.hash == desired.hash);
    if recreate && instances.iter().any(|i| i.hash != desired.hash) {
        actions.extend(old.into_iter().map(delete));
        return actions;
    }
    // Those that serve least go first; among equals, the ones with the highest numbers.
    new.sort_by_key(|i| (i.ready, std::cmp::Reverse(i.slot)));
    old.sort_by_key(|i| (i.ready, std::cmp::Reverse(i.slot)));
    actions.extend(new.drain(..new.len().saturating_sub(count)).map(delete));
    let mut available = new.iter().chain(&old).filter(|i| i.ready).count();
    let least = count.saturating_sub(unavailable);
    let mut kept_old = 0;
    for instance in &old {
        if !instance.ready {
            actions.push(delete(instance));
        } else if available > least {
            available -= 1;
            actions.push(delete(instance));
        } else {
            kept_old += 1;
        }
    }
    let room = (count + surge).saturating_sub(new.len() + kept_old);
    let missing = count.saturating_sub(new.len()).min(room);
    let free = (0_u32..).filter(|slot| {
        !instances
            .iter()
            .any(|i| i.hash == desired.hash && i.slot == *slot)
    });
    actions.extend(free.take(missing).map(|slot| create(desired, slot)));
    actions
}

fn ordinals(
    desired: &Desired,
    instances: &[Instance],
    first: u32,
    count: u32,
    parallel: bool,
) -> Vec<Action> {
    let at = |slot: u32| instances.iter().find(|i| i.slot == slot);
    let wanted = first..first.saturating_add(count);
    let mut actions = Vec::new();
    let mut settled = true;
    for slot in wanted.clone() {
        match at(slot) {
            None => {
                actions.push(create(desired, slot));
                settled = false;
            }
            // A finished pod is made anew; one with an old template that does not work anyway need not wait its turn.
            Some(i)
                if !i.terminating
                    && (i.phase.is_over() || (!i.ready && i.hash != desired.hash)) =>
            {
                actions.push(delete(i));
                settled = false;
            }
            Some(i) => settled &= i.ready && !i.terminating,
        }
        if !settled && !parallel {
            return actions;
        }
    }
    let mut surplus: Vec<&Instance> = instances
        .iter()
        .filter(|i| !wanted.contains(&i.slot))
        .collect();
    surplus.sort_by_key(|i| std::cmp::Reverse(i.slot));
    if parallel {
        actions.extend(surplus.iter().filter(|i| !i.terminating).map(|i| delete(i)));
    } else if let Some(highest) = surplus.first() {
        return if highest.terminating {
            actions
        } else {
            vec![delete(highest)]
        };
    }
    if settled && surplus.is_empty() {
        let outdated = instances
            .iter()
            .filter(|i| i.hash != desired.hash)
            .max_by_key(|i| i.slot);
        actions.extend(outdated.map(delete));
    }
    actions
}

/// How long to wait after the last of `failed` failures: 1 s doubling to a minute. (Kubernetes starts at 10 s.)
fn retry_wait(failed: u32) -> Duration {
    Duration::from_secs(1 << failed.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

fn completions(
    desired: &Desired,
    instances: &[Instance],
    wanted: u32,
    parallelism: u32,
    backoff_limit: u32,
    indexed: bool,
) -> Vec<Action> {
    let outdated: Vec<&Instance> = instances
        .iter()
        .filter(|i| i.hash != desired.hash)
        .collect();
    if !outdated.is_empty() {
        return outdated
            .into_iter()
            .filter(|i| !i.terminating)
            .map(delete)
            .collect();
    }
    let number = |phase: Phase| instances.iter().filter(|i| i.phase == phase).count() as u32;
    let (succeeded, failed) = (number(Phase::Succeeded), number(Phase::Failed));
    let active: Vec<&Instance> = instances
        .iter()
        .filter(|i| !i.phase.is_over() && !i.terminating)
        .collect();
    if failed > backoff_limit || parallelism == 0 {
        return active.into_iter().map(delete).collect();
    }
    let last_failure = instances
        .iter()
        .filter(|i| i.phase == Phase::Failed)
        .filter_map(|i| i.ended)
        .min();
    if last_failure.is_some_and(|ago| ago < retry_wait(failed)) {
        return Vec::new();
    }
    let missing = wanted
        .saturating_sub(succeeded)
        .min(parallelism)
        .saturating_sub(active.len() as u32);
    if indexed {
        // The low 16 bits are the completion index, the high ones count its attempts.
        let covered = |index: u32| {
            instances
                .iter()
                .any(|i| i.slot & 0xffff == index && i.phase != Phase::Failed)
        };
        let attempts = |index: u32| {
            instances
                .iter()
                .filter(|i| i.slot & 0xffff == index)
                .count() as u32
        };
        let open = (0..wanted).filter(|index| !covered(*index));
        return open
            .take(missing as usize)
            .map(|index| create(desired, attempts(index) << 16 | index))
            .collect();
    }
    let next = instances.iter().map(|i| i.slot + 1).max().unwrap_or(0);
    (next..next + missing)
        .map(|slot| create(desired, slot))
        .collect()
}

fn single(desired: &Desired, instances: &[Instance]) -> Vec<Action> {
    let outdated: Vec<&Instance> = instances
        .iter()
        .filter(|i| i.hash != desired.hash)
        .collect();
    if !outdated.is_empty() {
        return outdated
            .into_iter()
            .filter(|i| !i.terminating)
            .map(delete)
            .collect();
    }
    if instances.is_empty() {
        vec![create(desired, 0)]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
