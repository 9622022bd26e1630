//! How long a container that ended waits before it is started again.
//!
//! As the kubelet: at once the first time, then 10 s doubling to 5 min; ten good minutes start the count anew
//! (kubelet `MaxContainerBackOff`). Pure. Used by [`super::lifecycle`].

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const GOOD_RUN: Duration = Duration::from_secs(600);

/// The state between restarts of one container.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a run that lasted `ran`.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            n => FIRST.saturating_mul(1 << (n - 2).min(8)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_once_then_doubling_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut waits = || backoff.after(Duration::from_secs(1)).as_secs();
        let seen: Vec<_> = (0..8).map(|_| waits()).collect();
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after(GOOD_RUN), Duration::ZERO);
    }
}
