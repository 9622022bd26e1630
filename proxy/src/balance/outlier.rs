//! Takes an endpoint out after failures in a row, and lets one request probe it back.
//!
//! A state machine without a clock or a lock: [`crate::backend`] feeds it. It is kept with the endpoint's address, so that
//! a new snapshot does not forgive anybody.

use std::cell::Cell;
use std::time::{Duration, Instant};

use weft_model::OutlierDetection;

/// What is held against one endpoint.
#[derive(Debug, Default)]
pub struct Outlier {
    state: Cell<State>,
    /// Ejections in a row; the next one lasts `base * 2^times`.
    times: Cell<u32>,
    /// When the last ejection ended: after a healthy while the endpoint starts afresh.
    ended: Cell<Option<Instant>>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    In { failures: u32 },
    Out { until: Instant },
    Probing,
}

impl Default for State {
    fn default() -> Self {
        Self::In { failures: 0 }
    }
}

impl Outlier {
    /// May it be picked? After an ejection only for one probe at a time.
    pub fn available(&self, now: Instant) -> bool {
        match self.state.get() {
            State::In { .. } => true,
            State::Out { until } => now >= until,
            State::Probing => false,
        }
    }

    /// Is it out, or on probation?
    pub fn ejected(&self) -> bool {
        !matches!(self.state.get(), State::In { .. })
    }

    /// It was picked. True: this request is the probe, and must report one way or another.
    pub fn picked(&self, now: Instant) -> bool {
        let probe = matches!(self.state.get(), State::Out { until } if now >= until);
        if probe {
            self.state.set(State::Probing);
        }
        probe
    }

    /// An answer came.
    pub fn succeeded(&self, now: Instant) {
        match self.state.get() {
            // A request from before the ejection says nothing about now.
            State::Out { .. } => return,
            State::Probing => self.ended.set(Some(now)),
            State::In { .. } => {}
        }
        self.state.set(State::default());
    }

    /// The probe ended without a result: another may go.
    pub fn abandoned(&self, now: Instant) {
        if let State::Probing = self.state.get() {
            self.state.set(State::Out { until: now });
        }
    }

    /// A failure. True: it was ejected now. `may_eject`: the share of ejected endpoints allows one more.
    pub fn failed(
        &self,
        policy: &OutlierDetection,
        now: Instant,
        may_eject: impl FnOnce() -> bool,
    ) -> bool {
        let eject = match self.state.get() {
            State::Probing => true,
            State::Out { .. } => false,
            State::In { failures } => {
                let failures = failures.saturating_add(1);
                self.state.set(State::In { failures });
                failures >= policy.consecutive_failures.max(1) && may_eject()
            }
        };
        if eject {
            let healthy_for = self.ended.get().map(|e| now.saturating_duration_since(e));
            if healthy_for.is_some_and(|d| d > policy.max_ejection_time) {
                self.times.set(0);
            }
            let until = now + duration(policy, self.times.get());
            self.times.set(self.times.get().saturating_add(1));
            self.ended.set(Some(until));
            self.state.set(State::Out { until });
        }
        eject
    }
}

/// `base * 2^times`, at most the maximum.
fn duration(policy: &OutlierDetection, times: u32) -> Duration {
    let factor = 1u32.checked_shl(times).unwrap_or(u32::MAX);
    policy
        .base_ejection_time
        .saturating_mul(factor)
        .min(policy.max_ejection_time.max(policy.base_ejection_time))
}

/// Does the policy allow one more ejection, with `ejected` of `total` out already? One may always be.
pub fn may_eject(policy: &OutlierDetection, ejected: usize, total: usize) -> bool {
    ejected == 0 || (ejected + 1) * 100 <= total * policy.max_ejection_percent as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> OutlierDetection {
        OutlierDetection {
            consecutive_failures: 3,
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(35),
            max_ejection_percent: 50,
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_a_probe_brings_back() {
        let (policy, begun) = (policy(), Instant::now());
        let at = |s| begun + Duration::from_secs(s);
        let outlier = Outlier::default();
        let fail = |s| outlier.failed(&policy, at(s), || true);
        assert!(!fail(0) && !fail(0));
        outlier.succeeded(at(0));
        assert!(!fail(0) && !fail(0));
        assert!(outlier.available(at(0)) && !outlier.ejected());
        assert!(fail(0), "the third in a row");
        assert!(!outlier.available(at(9)));
        assert!(!fail(5), "requests that were in flight change nothing");
        assert!(outlier.available(at(10)));
        assert!(outlier.picked(at(10)), "a probe");
        assert!(!outlier.available(at(10)), "one at a time");
        assert!(fail(11), "the probe fails: out again, twice as long");
        assert!(!outlier.available(at(30)) && outlier.available(at(31)));
        assert!(outlier.picked(at(31)));
        outlier.abandoned(at(31));
        assert!(outlier.picked(at(31)));
        assert!(fail(31));
        assert!(
            !outlier.available(at(65)) && outlier.available(at(66)),
            "35 s at most"
        );
        assert!(outlier.picked(at(66)));
        outlier.succeeded(at(66));
        assert!(!outlier.ejected() && outlier.available(at(66)));
        assert!(!outlier.picked(at(66)));
    }

    #[test]
    fn a_healthy_while_is_rewarded() {
        let (policy, begun) = (policy(), Instant::now());
        let at = |s| begun + Duration::from_secs(s);
        let outlier = Outlier::default();
        for _ in 0..3 {
            outlier.failed(&policy, at(0), || true);
        }
        outlier.picked(at(10));
        outlier.succeeded(at(10));
        for _ in 0..3 {
            outlier.failed(&policy, at(100), || true);
        }
        assert!(outlier.available(at(110)));
    }

    #[test]
    fn not_everybody_goes() {
        let policy = policy();
        assert!(may_eject(&policy, 0, 1));
        assert!(may_eject(&policy, 0, 3));
        assert!(!may_eject(&policy, 1, 3));
        assert!(may_eject(&policy, 1, 4));
        assert!(!may_eject(&policy, 2, 4));
        let outlier = Outlier::default();
        for _ in 0..9 {
            assert!(!outlier.failed(&policy, Instant::now(), || false));
        }
    }
}
