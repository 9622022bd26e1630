//! Durations counted in buckets that grow by 5 %, so that a percentile is right to that much however many were counted.
//! [`crate::load`] counts in one; memory does not grow with time.

use std::time::Duration;

const GROWTH: f64 = 1.05;
/// Up to 1.05^380 us, which is 113 s.
const BUCKETS: usize = 380;

/// Counts durations.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, duration: Duration) {
        let micros = (duration.as_micros() as f64).max(1.0);
        let bucket = (micros.ln() / GROWTH.ln()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
    }

    /// The duration below which `share` (0 to 1) of those counted lie; zero if there are none.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let total: u64 = self.counts.iter().sum();
        let rank = (total as f64 * share).ceil() as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if *count > 0 && below >= rank {
                return Duration::from_micros(GROWTH.powf(bucket as f64 + 0.5) as u64);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_five_per_cent() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), Duration::ZERO);
        for ms in 1..=1000 {
            histogram.add(Duration::from_millis(ms));
        }
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.percentile(share).as_secs_f64() * 1000.0;
            assert!((found / ms - 1.0).abs() < 0.05, "{share}: {found}");
        }
        histogram.add(Duration::from_hours(1));
    }
}
