//! What is known of a running pod: the state of each container, and what follows for the pod.
//!
//! Pure. Written by [`super::run`] and [`super::lifecycle`], read by the supervisor for Pod objects, endpoints and `ps`.

use k8s_openapi::jiff::Timestamp;

/// When a container runs in a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then runs as long as the pod.
    Sidecar,
    /// One of `containers`.
    Main,
}

/// The state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Not running.
    Waiting {
        /// One word, as on Kubernetes.
        reason: &'static str,
        /// More words, or none.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        since: Timestamp,
        /// Its process 1, as the host numbers it.
        init_pid: u32,
        /// The process of the command itself, once the helper has started it.
        pid: Option<u32>,
    },
    /// Ended.
    Terminated(Ended),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code; 128 and the signal where a signal ended it.
    pub(crate) code: i32,
    /// One word, as on Kubernetes.
    pub(crate) reason: &'static str,
    /// More words, or none.
    pub(crate) message: String,
    /// When it started.
    pub(crate) started: Timestamp,
    /// When it ended.
    pub(crate) finished: Timestamp,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerReport {
    /// Its name.
    pub(crate) name: String,
    /// When it runs.
    pub(crate) role: Role,
    /// Its state.
    pub(crate) state: State,
    /// How it ended the time before.
    pub(crate) last: Option<Ended>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Its startup probe passed, or it has none and runs.
    pub(crate) started: bool,
    /// Its readiness probe passes, or it has none and is started.
    pub(crate) ready: bool,
    /// Why the last probe failed, while it does.
    pub(crate) probe_failure: Option<String>,
}

/// The phases of a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Phase {
    /// Not all init containers are done, or no container runs yet.
    Pending,
    /// Its containers were started.
    Running,
    /// All ended well, and none will be started again.
    Succeeded,
    /// All ended, at least one badly.
    Failed,
}

impl Phase {
    /// As in `status.phase`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A pod as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodReport {
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Its init containers first, in the order of the spec.
    pub(crate) containers: Vec<ContainerReport>,
    /// All init containers are done and all sidecars started.
    pub(crate) initialized: bool,
    /// It was told to stop.
    pub(crate) terminating: bool,
    /// Its task is over and everything of it removed.
    pub(crate) gone: bool,
    /// When it was accepted.
    pub(crate) created: Timestamp,
    /// When it last became ready, or stopped being so.
    pub(crate) ready_since: Timestamp,
    /// A trouble of the pod as a whole (volumes, network).
    pub(crate) trouble: Option<String>,
}

impl PodReport {
    /// A pod that was just accepted.
    pub(crate) fn new(containers: impl IntoIterator<Item = (String, Role)>) -> Self {
        let waiting = |role: Role| match role {
            Role::Main => State::Waiting {
                reason: "PodInitializing",
                message: String::new(),
            },
            Role::Init | Role::Sidecar => State::Waiting {
                reason: "ContainerCreating",
                message: String::new(),
            },
        };
        let now = Timestamp::now();
        Self {
            phase: Phase::Pending,
            containers: containers
                .into_iter()
                .map(|(name, role)| ContainerReport {
                    name,
                    role,
                    state: waiting(role),
                    last: None,
                    restarts: 0,
                    started: false,
                    ready: false,
                    probe_failure: None,
                })
                .collect(),
            initialized: false,
            terminating: false,
            gone: false,
            created: now,
            ready_since: now,
            trouble: None,
        }
    }

    /// Sidecars and main containers, which `READY n/m` counts.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &ContainerReport> {
        self.containers.iter().filter(|c| c.role != Role::Init)
    }

    /// All lasting containers are ready.
    pub(crate) fn containers_ready(&self) -> bool {
        self.lasting().all(|c| c.ready)
    }

    /// The condition Ready.
    pub(crate) fn ready(&self) -> bool {
        self.initialized && self.phase == Phase::Running && self.containers_ready()
    }

    /// The word in the STATUS column of `kubectl get pods`.
    pub(crate) fn status(&self) -> String {
        if self.terminating {
            return "Terminating".into();
        }
        if self.phase == Phase::Succeeded {
            return "Completed".into();
        }
        let inits: Vec<_> = self
            .containers
            .iter()
            .filter(|c| c.role != Role::Main)
            .collect();
        for (n, container) in inits.iter().enumerate() {
            let done = match (&container.state, container.role) {
                (State::Terminated(ended), Role::Init) => ended.code == 0,
                (_, Role::Sidecar) => container.started || self.initialized,
                _ => false,
            };
            if done {
                continue;
            }
            return match &container.state {
                State::Waiting { reason, .. }
                    if !["ContainerCreating", "PodInitializing"].contains(reason) =>
                {
                    format!("Init:{reason}")
                }
                State::Terminated(ended) => format!("Init:{}", ended.reason),
                _ => format!("Init:{n}/{}", inits.len()),
            };
        }
        for container in self.containers.iter().filter(|c| c.role == Role::Main) {
            match &container.state {
                State::Waiting { reason, .. } => return (*reason).to_owned(),
                State::Terminated(ended) if ended.code != 0 => return ended.reason.to_owned(),
                _ => {}
            }
        }
        self.phase.as_str().to_owned()
    }

    /// In words why the pod is not ready, or `None` if nothing is known to be wrong.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        self.containers.iter().find_map(|container| {
            let name = &container.name;
            match &container.state {
                State::Waiting { reason, message } if !message.is_empty() => {
                    Some(format!("{name}: {reason}: {message}"))
                }
                State::Terminated(ended) if ended.code != 0 => Some(format!(
                    "{name}: exit code {} ({}) {}",
                    ended.code, ended.reason, ended.message
                )),
                State::Running { .. } if !container.ready => container
                    .probe_failure
                    .as_ref()
                    .map(|failure| format!("{name}: probe: {failure}")),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn report() -> PodReport {
        let roles = [("i", Role::Init), ("s", Role::Sidecar), ("m", Role::Main)];
        PodReport::new(roles.map(|(name, role)| (name.to_owned(), role)))
    }

    fn ended(code: i32, reason: &'static str) -> Ended {
        Ended {
            code,
            reason,
            message: String::new(),
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn status_reads_like_kubectl() {
        let mut pod = report();
        assert_eq!(pod.status(), "Init:0/2");
        pod.containers[0].state = State::Terminated(ended(1, "Error"));
        assert_eq!(pod.status(), "Init:Error");
        pod.containers[0].state = State::Terminated(ended(0, "Completed"));
        assert_eq!(pod.status(), "Init:1/2");
        pod.containers[1].started = true;
        assert_eq!(pod.status(), "PodInitializing");
        pod.initialized = true;
        pod.containers[2].state = State::Waiting {
            reason: "CrashLoopBackOff",
            message: "back-off".into(),
        };
        assert_eq!(pod.status(), "CrashLoopBackOff");
        assert_eq!(
            pod.why_not_ready().unwrap(),
            "m: CrashLoopBackOff: back-off"
        );
        pod.phase = Phase::Succeeded;
        assert_eq!(pod.status(), "Completed");
        pod.terminating = true;
        assert_eq!(pod.status(), "Terminating");
    }

    #[test]
    fn ready_needs_sidecars_too() {
        let mut pod = report();
        (pod.initialized, pod.phase) = (true, Phase::Running);
        pod.containers[2].ready = true;
        assert!(!pod.ready());
        pod.containers[1].ready = true;
        assert!(pod.ready());
        assert_eq!(pod.lasting().count(), 2);
    }
}
