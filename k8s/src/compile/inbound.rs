//! Which MutualTLSPolicy holds on which port of which pod.
//!
//! A policy's word on a port counts before its word on everything; then a pod before its Deployment, StatefulSet or DaemonSet,
//! before a Service that selects it, before its namespace; then the oldest, then the first by name. Nothing said: Strict, and every
//! identity of the trust domain may connect.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use weft_model::{IdentityPattern, InboundPort, Meta, MtlsMode, Origin, Protocol, UnixMillis};

use super::index::{Index, PodInfo};
use super::report::Report;
use super::status::{Condition, ParentStatus, Reason, Status};
use crate::crd::{IdentityText, Mode, MutualTLSPolicy, PortPolicy, WorkloadRef};
use crate::object::{Kind, ObjectKey, Stored};

/// All policies, by namespace, and what became of each target.
pub(super) struct Inbound<'a> {
    index: &'a Index<'a>,
    targets: Vec<Target<'a>>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
}

/// One target of one policy.
struct Target<'a> {
    key: &'a ObjectKey,
    policy: &'a Stored<MutualTLSPolicy>,
    position: usize,
    reference: &'a WorkloadRef,
    meta: Meta,
    /// Pods it is about.
    applies: usize,
    /// Of these, those where it decides something.
    holds: usize,
    /// Who decides instead.
    beaten_by: Option<ObjectKey>,
}

/// More specific is larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Namespace,
    Service,
    Owner,
    Pod,
}

/// The rules of one pod: the larger rank holds.
pub(super) struct Rules<'r, 'a> {
    inbound: &'r Inbound<'a>,
    /// Sorted, the strongest first.
    targets: Vec<(Tier, usize)>,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(index: &'a Index<'a>) -> Self {
        let mut targets = Vec::new();
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for (key, policy) in &index.objects.mutual_tls_policies {
            for (position, reference) in policy.object.spec.target_refs.iter().enumerate() {
                by_namespace
                    .entry(key.namespace.as_str())
                    .or_default()
                    .push(targets.len());
                let meta = policy.to_meta();
                targets.push(Target {
                    key,
                    policy,
                    position,
                    reference,
                    meta,
                    applies: 0,
                    holds: 0,
                    beaten_by: None,
                });
            }
        }
        Self {
            index,
            targets,
            by_namespace,
        }
    }

    /// The rules that hold for a pod.
    pub(super) fn of(&mut self, pod: &PodInfo<'_>) -> Rules<'_, 'a> {
        let candidates = self
            .by_namespace
            .get(pod.key.namespace.as_str())
            .map_or(&[][..], Vec::as_slice);
        let found = candidates
            .iter()
            .filter_map(|i| Some((self.tier(&self.targets[*i], pod)?, *i)));
        let mut targets: Vec<(Tier, usize)> = found.collect();
        targets.sort_by_key(|(tier, i)| {
            let target = &self.targets[*i];
            (
                Reverse(*tier),
                target.policy.created(),
                target.key,
                target.position,
            )
        });
        self.count(&targets);
        Rules {
            inbound: self,
            targets,
        }
    }

    /// Notes who decides: the first one everything it does not leave to `ports`, others the ports that only they name.
    fn count(&mut self, sorted: &[(Tier, usize)]) {
        let mut named = Vec::new();
        for (position, (tier, i)) in sorted.iter().enumerate() {
            let ports = self.targets[*i]
                .policy
                .object
                .spec
                .ports
                .iter()
                .flatten()
                .map(|p| p.port);
            let new: Vec<u16> = ports.filter(|p| !named.contains(p)).collect();
            let holds = position == 0 || !new.is_empty();
            named.extend(new);
            // One that is as specific says best why: it is only older.
            let peer = sorted[..position].iter().find(|(other, _)| other == tier);
            let winner = self.targets[peer.unwrap_or(&sorted[0]).1].key.clone();
            let target = &mut self.targets[*i];
            target.applies += 1;
            if holds {
                target.holds += 1;
            } else {
                target.beaten_by.get_or_insert(winner);
            }
        }
    }

    fn tier(&self, target: &Target<'_>, pod: &PodInfo<'_>) -> Option<Tier> {
        let name = target.reference.name.as_str();
        match target.reference.kind.as_str() {
            "Namespace" => (name == pod.key.namespace.as_str()).then_some(Tier::Namespace),
            "Pod" => (name == pod.key.name.as_str()).then_some(Tier::Pod),
            "Service" => {
                let service = self
                    .index
                    .services
                    .get(&ObjectKey::new(pod.key.namespace.as_str(), name))?;
                let selector = service
                    .stored
                    .object
                    .spec
                    .as_ref()?
                    .selector
                    .as_ref()
                    .filter(|s| !s.is_empty())?;
                let labels = pod.stored.object.metadata.labels.as_ref()?;
                selector
                    .iter()
                    .all(|(k, v)| labels.get(k) == Some(v))
                    .then_some(Tier::Service)
            }
            kind => owned_by(&pod.stored.object, kind, name).then_some(Tier::Owner),
        }
    }

    /// Does the target exist, so that its pods are merely not there yet (or there is no cluster to have them)?
    fn may_have_pods(&self, target: &Target<'_>) -> bool {
        let kind = match target.reference.kind.as_str() {
            "Namespace" => return true,
            "Deployment" => Kind::Deployment,
            "StatefulSet" => Kind::StatefulSet,
            "DaemonSet" => Kind::DaemonSet,
            "Service" => Kind::Service,
            _ => return false,
        };
        let key = ObjectKey::new(target.key.namespace.as_str(), &target.reference.name);
        self.index.objects.get(kind, &key).is_some()
    }

    /// What became of each policy.
    pub(super) fn report(&self, report: &mut Report) {
        let mut parents: BTreeMap<&ObjectKey, (&Stored<MutualTLSPolicy>, Vec<ParentStatus>)> =
            BTreeMap::new();
        for target in &self.targets {
            let reference = target.reference;
            let condition = match &target.beaten_by {
                Some(winner) if target.holds == 0 => {
                    let reason = format!(
                        "MutualTLSPolicy {winner} is more specific or older, and holds instead"
                    );
                    report.warning(
                        target.policy,
                        format!("spec.targetRefs[{}]", target.position),
                        reason.clone(),
                        None,
                    );
                    Condition::refused(Reason::Conflicted, reason)
                }
                _ if target.applies == 0 && !self.may_have_pods(target) => {
                    let reason = format!(
                        "no pod in the mesh belongs to {} {}",
                        reference.kind, reference.name
                    );
                    report.warning(
                        target.policy,
                        format!("spec.targetRefs[{}]", target.position),
                        reason.clone(),
                        None,
                    );
                    Condition::refused(Reason::TargetNotFound, reason)
                }
                _ => Condition::accepted(),
            };
            let status = ParentStatus {
                index: target.position,
                reference: format!("{} {}", reference.kind, reference.name),
                conditions: vec![condition],
                keys: Vec::new(),
            };
            parents
                .entry(target.key)
                .or_insert_with(|| (target.policy, Vec::new()))
                .1
                .push(status);
        }
        for (_, (stored, parents)) in parents {
            let generation = stored.object.metadata.generation.unwrap_or(0);
            report.statuses.push(Status {
                object: stored.to_meta().origin,
                generation,
                parents,
            });
        }
    }
}

/// Is the pod the child of that object? A Deployment's pods belong to a ReplicaSet that is called after it and their hash.
fn owned_by(pod: &Pod, kind: &str, name: &str) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| {
        if owner.kind == kind {
            return owner.name == name;
        }
        kind == "Deployment"
            && owner.kind == "ReplicaSet"
            && owner
                .name
                .rsplit_once('-')
                .is_some_and(|(deployment, _)| deployment == name)
    })
}

impl Rules<'_, '_> {
    /// Ports that a policy names.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.targets
            .iter()
            .flat_map(|(_, i)| {
                self.inbound.targets[*i]
                    .policy
                    .object
                    .spec
                    .ports
                    .iter()
                    .flatten()
            })
            .map(|p| p.port)
    }

    /// What holds on a port.
    pub(super) fn port(&self, port: u16, protocol: Protocol) -> InboundPort {
        let named = self.targets.iter().find_map(|(_, i)| {
            let target = &self.inbound.targets[*i];
            let entry = target
                .policy
                .object
                .spec
                .ports
                .iter()
                .flatten()
                .find(|p| p.port == port)?;
            Some((target, Some(entry)))
        });
        let general = || {
            self.targets
                .first()
                .map(|(_, i)| (&self.inbound.targets[*i], None))
        };
        match named.or_else(general) {
            Some((target, entry)) => self.by_policy(port, protocol, target, entry),
            None => InboundPort {
                port,
                protocol,
                mtls: MtlsMode::Strict,
                allow: Vec::new(),
                meta: Meta {
                    origin: Origin::default_of("mutual-tls"),
                    changed_at: UnixMillis(0),
                },
            },
        }
    }

    fn by_policy(
        &self,
        port: u16,
        protocol: Protocol,
        target: &Target<'_>,
        entry: Option<&PortPolicy>,
    ) -> InboundPort {
        let spec = &target.policy.object.spec;
        let mode = entry.and_then(|e| e.mode).or(spec.mode).unwrap_or_default();
        let allowed = entry
            .and_then(|e| e.allowed_identities.as_ref())
            .or(spec.allowed_identities.as_ref());
        InboundPort {
            port,
            protocol,
            mtls: match mode {
                Mode::Strict => MtlsMode::Strict,
                Mode::Permissive => MtlsMode::Permissive,
            },
            allow: allowed.map(|all| self.patterns(all)).unwrap_or_default(),
            meta: target.meta.clone(),
        }
    }

    fn patterns(&self, identities: &[IdentityText]) -> Vec<IdentityPattern> {
        let trust_domain = &self.inbound.index.options.trust_domain;
        identities
            .iter()
            .filter_map(|i| i.in_domain(trust_domain))
            .collect()
    }
}
