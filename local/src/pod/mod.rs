//! One pod: what a kubelet does for it.
//!
//! ```text
//! run (the pod's task) -> volumes -> lifecycle (each container) -> build + env -> crate::container (inside)
//!                                                 \-> watching (probes), logs, backoff
//! ```
//!
//! The supervisor ([`crate::supervisor`]) starts a pod with [`PodTask::start`] and from then on reads its
//! [`report::PodReport`]; everything else is in here.

pub(crate) mod backoff;
pub(crate) mod build;
pub(crate) mod env;
pub(crate) mod exec;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod probe;
pub(crate) mod quantity;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod volumes;
pub(crate) mod watching;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weft_k8s::Objects;

use crate::container::spec::ContainerSpec;
use crate::issuer::Issuer;
use crate::names::Layout;
use crate::network::Node;
use build::Place;
use env::{Facts, NotYet};
use lifecycle::Stop;
use report::{ContainerReport, PodReport};
use volumes::{Places, Plan};

/// What all pods of a mesh share.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) layout: Layout,
    pub(crate) node: Node,
    pub(crate) issuer: Arc<Issuer>,
    /// The directory of Weft's programs.
    pub(crate) programs: PathBuf,
    /// Objects that pods refer to.
    pub(crate) objects: watch::Receiver<Arc<Objects>>,
    /// Rung whenever any pod's report changes.
    pub(crate) changed: Arc<Notify>,
}

/// A pod and its surroundings, shared by the tasks that run it.
#[derive(Debug, Clone)]
pub(crate) struct PodContext(Arc<Inner>);

/// The content of a [`PodContext`].
#[derive(Debug)]
pub(crate) struct Inner {
    /// The pod as it was injected and expanded; complete but for its status.
    pub(crate) pod: Pod,
    machine: Machine,
    /// Its network namespace.
    pub(crate) netns: String,
    /// Its directory below `/run/weft/<mesh>/pods`.
    pub(crate) directory: PathBuf,
    host_part: u8,
    ips: Vec<IpAddr>,
    plans: Mutex<Vec<Plan>>,
    /// Where its state goes.
    pub(crate) report: Reporter,
}

impl Deref for PodContext {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// The address probes dial.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ips
            .first()
            .copied()
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// `terminationGracePeriodSeconds`, 30 s unless given.
    pub(crate) fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(seconds.unsigned_abs())
    }

    fn facts<'a>(&'a self, objects: &'a Objects, host_ips: &'a [IpAddr]) -> Facts<'a> {
        Facts {
            pod: &self.pod,
            ips: &self.ips,
            host_ips,
            objects,
        }
    }

    fn plan_volumes(&self) -> Result<Vec<Plan>, NotYet> {
        let layout = &self.machine.layout;
        let places = Places {
            volumes: self.directory.join("volumes"),
            memory: layout.pod_memory(self.namespace(), self.name()),
            claims: layout.run().join("claims"),
        };
        let objects = self.machine.objects.borrow().clone();
        volumes::plan(
            &self.facts(&objects, &self.machine.node.addresses()),
            &places,
        )
    }

    fn container_spec(
        &self,
        container: &Container,
        scratch: PathBuf,
    ) -> Result<ContainerSpec, NotYet> {
        let objects = self.machine.objects.borrow().clone();
        let node = self.machine.node.addresses();
        let plans = self
            .plans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let place = Place {
            scratch,
            programs: &self.machine.programs,
            nameservers: &node,
        };
        build::container_spec(container, &self.facts(&objects, &node), &plans, place)
    }
}

/// Changes a pod's report and rings the bell.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    report: Arc<watch::Sender<PodReport>>,
    changed: Arc<Notify>,
}

impl Reporter {
    /// Changes the report; nobody is told if nothing changed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut PodReport)) {
        let told = self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            if report.ready() != before.ready() {
                report.ready_since = Timestamp::now();
            }
            *report != before
        });
        if told {
            self.changed.notify_one();
        }
    }

    /// Changes the report of one container.
    pub(crate) fn container(&self, name: &str, change: impl FnOnce(&mut ContainerReport)) {
        self.update(|report| {
            if let Some(container) = report.containers.iter_mut().find(|c| c.name == name) {
                change(container);
            }
        });
    }
}

/// A pod that runs, as its owner sees it.
#[derive(Debug)]
pub(crate) struct PodTask {
    /// The pod, with its addresses but without status.
    pub(crate) context: PodContext,
    report: watch::Receiver<PodReport>,
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
}

impl PodTask {
    /// Starts a pod. Its namespace, name and uid must be set.
    pub(crate) fn start(machine: &Machine, pod: Pod, host_part: u8) -> Self {
        let namespace = pod
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let name = pod.metadata.name.clone().unwrap_or_default();
        let (sender, report) = watch::channel(PodReport::new(run::roles(&pod)));
        let reporter = Reporter {
            report: Arc::new(sender),
            changed: machine.changed.clone(),
        };
        let context = PodContext(Arc::new(Inner {
            netns: machine.layout.pod_netns(&namespace, &name),
            directory: machine.layout.pod(&namespace, &name),
            ips: machine.node.subnet.both(host_part),
            machine: machine.clone(),
            plans: Mutex::new(Vec::new()),
            report: reporter,
            host_part,
            pod,
        }));
        let (stop, stopped) = watch::channel(None);
        let task = tokio::spawn(run::run(context.clone(), stopped));
        Self {
            context,
            report,
            stop,
            task,
        }
    }

    /// The newest report.
    pub(crate) fn report(&self) -> PodReport {
        self.report.borrow().clone()
    }

    /// Its addresses, IPv4 first.
    pub(crate) fn ips(&self) -> &[IpAddr] {
        &self.context.ips
    }

    /// Asks the pod to stop within its grace period, or within `limit` if that is shorter.
    pub(crate) fn stop(&self, limit: Option<Duration>) {
        let grace = self.context.grace();
        let until = Instant::now() + limit.map_or(grace, |limit| limit.min(grace));
        self.stop
            .send_modify(|stop| *stop = Some(stop.map_or(until, |earlier| earlier.min(until))));
        self.context
            .report
            .update(|report| report.terminating = true);
    }

    /// Its task has ended: removed, or broken.
    pub(crate) fn is_gone(&self) -> bool {
        self.task.is_finished()
    }
}
