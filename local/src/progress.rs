//! What to tell the person who waits for a mesh: one line for each thing that changed.
//!
//! Pure; fed with one [`State`] after the other by [`crate::up`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::state::State;

/// Troubles shorter than this are not worth a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// Remembers what was told.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    ready: BTreeMap<String, bool>,
    reasons: BTreeMap<String, (String, Instant, bool)>,
    problems: BTreeSet<String>,
    control_plane: bool,
    settled: bool,
}

impl Progress {
    /// Nothing was told yet.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            ready: BTreeMap::new(),
            reasons: BTreeMap::new(),
            problems: BTreeSet::new(),
            control_plane: false,
            settled: false,
        }
    }

    /// The lines that are new with this state.
    pub(crate) fn lines(&mut self, state: &State) -> Vec<String> {
        let mut lines = Vec::new();
        let now = Instant::now();
        let problems: BTreeSet<String> = state.problems.iter().cloned().collect();
        lines.extend(
            problems
                .difference(&self.problems)
                .map(|problem| format!("  ! {problem}")),
        );
        self.problems = problems;
        let answers = state.control_plane.as_ref().is_some_and(|c| c.ready);
        if answers != self.control_plane {
            lines.push(if answers {
                "  control plane is ready".into()
            } else {
                "  ! control plane is down".into()
            });
            self.control_plane = answers;
        }
        let mut seen = BTreeSet::new();
        for pod in &state.pods {
            let key = format!("{}/{}", pod.namespace, pod.name);
            seen.insert(key.clone());
            let good = pod.ready || pod.phase == crate::Phase::Succeeded;
            let before = self.ready.insert(key.clone(), good);
            if good && before != Some(true) {
                let word = if pod.ready { "ready" } else { "completed" };
                lines.push(format!("  pod {key} {word}"));
                self.reasons.remove(&key);
            } else if !good && !state.stopping {
                if before == Some(true) && pod.status != "Terminating" {
                    lines.push(format!("  pod {key} is no longer ready"));
                }
                lines.extend(self.stuck(&key, &pod.status, pod.reason.as_deref(), now));
            }
        }
        for gone in self
            .ready
            .keys()
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.ready.remove(&gone);
            self.reasons.remove(&gone);
            lines.push(format!("  pod {gone} removed"));
        }
        if state.settled() != self.settled && !state.stopping {
            self.settled = state.settled();
            if self.settled {
                let seconds = self.started.elapsed().as_secs_f32();
                lines.push(format!(
                    "{} pods are as wanted ({seconds:.1} s since the start)",
                    state.pods.len()
                ));
            }
        }
        lines
    }

    /// Why a pod is not ready, once that has lasted a while.
    fn stuck(
        &mut self,
        key: &str,
        status: &str,
        reason: Option<&str>,
        now: Instant,
    ) -> Option<String> {
        let text = format!(
            "{status}{}{}",
            if reason.is_some() { ": " } else { "" },
            reason.unwrap_or_default()
        );
        let known = self
            .reasons
            .entry(key.to_owned())
            .or_insert_with(|| (text.clone(), now, false));
        if known.0 != text {
            *known = (text, now, false);
        }
        if known.2 || now.duration_since(known.1) < PATIENCE || reason.is_none() {
            return None;
        }
        known.2 = true;
        Some(format!("  ! pod {key} {}", known.0))
    }
}
