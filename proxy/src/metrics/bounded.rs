//! Families of series that are forgotten when idle, so that a long-lived proxy's metrics follow what it uses.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Sweeps without a change after which a series that nobody holds is forgotten: ten minutes of them.
const IDLE_SWEEPS: u32 = 10;

/// A value that only grows.
pub trait Value: Default + fmt::Debug + Send + Sync + 'static {
    /// What it is to Prometheus.
    const TYPE: MetricType;
    /// Changes whenever the value does.
    fn version(&self) -> u64;
    /// Writes it out.
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result;
}

/// Series by label set. Clones share them.
#[derive(Debug)]
pub struct Bounded<L, V> {
    series: Arc<Mutex<HashMap<L, Series<V>, foldhash::fast::RandomState>>>,
}

#[derive(Debug)]
struct Series<V> {
    value: Arc<V>,
    seen: u64,
    idle: u32,
}

impl<L, V> Clone for Bounded<L, V> {
    fn clone(&self) -> Self {
        let series = Arc::clone(&self.series);
        Self { series }
    }
}

impl<L, V> Default for Bounded<L, V> {
    fn default() -> Self {
        let series = Arc::default();
        Self { series }
    }
}

impl<L: Clone + Eq + Hash, V: Value> Bounded<L, V> {
    /// The series with these labels, begun if there is none. Takes a lock: keep what it returns.
    pub fn get(&self, labels: &L) -> Arc<V> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(labels) {
            return Arc::clone(&series.value);
        }
        let value = Arc::<V>::default();
        let series = Series {
            value: Arc::clone(&value),
            seen: 0,
            idle: 0,
        };
        all.insert(labels.clone(), series);
        value
    }

    /// Forgets what nobody holds and nothing has changed for [`IDLE_SWEEPS`] calls.
    pub fn sweep(&self) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, series| {
            let version = series.value.version();
            if Arc::strong_count(&series.value) > 1 || version != series.seen {
                series.seen = version;
                series.idle = 0;
            } else {
                series.idle += 1;
            }
            series.idle < IDLE_SWEEPS
        });
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<L, V> EncodeMetric for Bounded<L, V>
where
    L: EncodeLabelSet + Clone + Eq + Hash,
    V: Value,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, series) in all.iter() {
            series.value.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        V::TYPE
    }
}

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Value for Count {
    const TYPE: MetricType = MetricType::Counter;

    fn version(&self) -> u64 {
        self.get()
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }
}

/// Upper bounds in seconds; a last one, without a bound, is implied.
const BOUNDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A histogram of durations without a lock.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    /// Adds one observation.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = BOUNDS
            .iter()
            .position(|b| seconds <= *b)
            .unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros
            .fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

impl Value for Durations {
    const TYPE: MetricType = MetricType::Histogram;

    fn version(&self) -> u64 {
        self.count()
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::MAX]);
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(
            sum,
            buckets.iter().map(|b| b.1).sum(),
            &buckets,
            None,
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::super::{ByDestination, Metrics, Refused};
    use super::*;

    #[test]
    fn what_is_idle_and_held_by_nobody_is_forgotten() {
        let family = Bounded::<Refused, Count>::default();
        let labels = |reason| Refused {
            direction: "inbound",
            reason,
        };
        let held = family.get(&labels("held"));
        family.get(&labels("busy")).add(1);
        family.get(&labels("idle")).add(1);
        for _ in 0..=IDLE_SWEEPS {
            family.get(&labels("busy")).add(1);
            family.sweep();
        }
        assert_eq!(family.len(), 2);
        assert_eq!(held.get(), 0);
        assert_eq!(
            family.get(&labels("busy")).get(),
            u64::from(IDLE_SWEEPS) + 2
        );
    }

    #[test]
    fn prometheus_reads_it() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.refuse("inbound", "plaintext");
        let labels = ByDestination {
            destination: "shop/web/80".into(),
        };
        let durations = metrics.outbound_durations.get(&labels);
        durations.observe(Duration::from_millis(3));
        durations.observe(Duration::from_secs(20));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "weft_refused_total{direction=\"inbound\",reason=\"plaintext\"} 1",
            "weft_outbound_request_duration_seconds_count{destination=\"shop/web/80\"} 2",
            "weft_outbound_request_duration_seconds_bucket{le=\"0.005\",destination=\"shop/web/80\"} 1",
            "weft_outbound_request_duration_seconds_bucket{le=\"+Inf\",destination=\"shop/web/80\"} 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
