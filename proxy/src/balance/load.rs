//! How loaded an endpoint looks from here: the peak of its recent latencies, times the requests in flight.
//!
//! Peak EWMA as in Finagle and Linkerd: a slower answer counts at once, a faster one only with time.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time after which an old latency counts for 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint is taken for before anything is known of any.
const UNKNOWN: Duration = Duration::from_millis(1);
/// What a failure costs: fast failures must not look attractive.
const PENALTY: Duration = Duration::from_secs(1);

/// The latency estimate of one endpoint.
#[derive(Debug)]
pub struct PeakEwma {
    nanos: Cell<f64>,
    at: Cell<Instant>,
}

impl PeakEwma {
    /// Begins with a guess.
    pub fn new(guess: Option<Duration>, now: Instant) -> Self {
        Self {
            nanos: Cell::new(guess.unwrap_or(UNKNOWN).as_nanos() as f64),
            at: Cell::new(now),
        }
    }

    /// An answer took this long.
    pub fn observe(&self, latency: Duration, now: Instant) {
        let (latency, old) = (latency.as_nanos() as f64, self.nanos.get());
        self.nanos.set(if latency > old {
            latency
        } else {
            let kept = self.kept(now);
            old * kept + latency * (1.0 - kept)
        });
        self.at.set(now);
    }

    /// There was no answer.
    pub fn penalize(&self, now: Instant) {
        self.observe(PENALTY, now);
    }

    /// The estimate, fading while nothing is heard, so that a slow endpoint is tried again.
    pub fn estimate(&self, now: Instant) -> f64 {
        self.nanos.get() * self.kept(now)
    }

    fn kept(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at.get());
        (-since.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_count_at_once_and_fade() {
        let begun = Instant::now();
        let load = PeakEwma::new(None, begun);
        let at = |s| begun + Duration::from_secs(s);
        load.observe(Duration::from_millis(100), at(0));
        assert!((load.estimate(at(0)) - 1e8).abs() < 1.0);
        load.observe(Duration::from_millis(1), at(1));
        assert!(
            load.estimate(at(1)) > 8e7,
            "one fast answer does not make it fast"
        );
        for s in 2..60 {
            load.observe(Duration::from_millis(1), at(s));
        }
        assert!(load.estimate(at(60)) < 2e6);
        load.penalize(at(60));
        assert!(load.estimate(at(60)) > 9e8);
        assert!(load.estimate(at(160)) < 1e5);
    }
}
