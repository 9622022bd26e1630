//! What the control plane counts and measures, for Prometheus.
//!
//! Handles are cheap clones; gauges over clients and objects are set right before a scrape by [`crate::admin`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use weft_xds::TypeUrl;
use weft_xds::server::ClientStatus;

use crate::clock::unix_seconds;

/// Seconds: from a single change in a small mesh to a slow one in a large mesh.
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: String,
}

/// The registry and its handles.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    issued: Counter,
    refused: Family<Reason, Counter>,
    handshakes_failed: Family<Reason, Counter>,
    connections_refused: Counter,
    connections: Gauge,
    compile_seconds: Histogram,
    convergence_seconds: Histogram,
    clients: Family<KindLabel, Gauge>,
    clients_behind: Family<TypeLabel, Gauge>,
    clients_refusing: Family<TypeLabel, Gauge>,
    nacks: Family<TypeLabel, Counter>,
    objects: Family<KindLabel, Gauge>,
    problems: Family<KindLabel, Gauge>,
    authority_expiry: Gauge,
    serving_expiry: Gauge,
    roots: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With everything registered at zero.
    pub fn new() -> Self {
        let mut r = Registry::with_prefix("weft_control_plane");
        Self {
            issued: add(
                &mut r,
                "certificates_issued",
                "Certificates issued to workloads",
            ),
            refused: add(
                &mut r,
                "certificates_refused",
                "Certificate requests refused, by reason",
            ),
            handshakes_failed: add(
                &mut r,
                "handshakes_failed",
                "TLS handshakes that failed, by reason",
            ),
            connections_refused: add(
                &mut r,
                "connections_refused",
                "Connections closed at the limit",
            ),
            connections: add(&mut r, "connections", "Open connections on the TLS port"),
            compile_seconds: seconds(
                &mut r,
                "compile_seconds",
                "From changed objects to a new snapshot",
            ),
            convergence_seconds: seconds(
                &mut r,
                "convergence_seconds",
                "From a changed source to the last acknowledgement",
            ),
            clients: add(&mut r, "clients", "Connected xDS clients, by kind"),
            clients_behind: add(
                &mut r,
                "clients_behind",
                "Clients that owe an acknowledgement, by type",
            ),
            clients_refusing: add(
                &mut r,
                "clients_refusing",
                "Clients whose last answer was a NACK, by type",
            ),
            nacks: add(
                &mut r,
                "nacks",
                "Configurations that clients refused, by type",
            ),
            objects: add(&mut r, "objects", "Kubernetes objects in force, by kind"),
            problems: add(
                &mut r,
                "problems",
                "Problems with sources and objects, by severity",
            ),
            authority_expiry: add(
                &mut r,
                "authority_expiry_timestamp_seconds",
                "End of the signing certificate's chain",
            ),
            serving_expiry: add(
                &mut r,
                "serving_certificate_expiry_timestamp_seconds",
                "End of the own certificate",
            ),
            roots: add(&mut r, "roots", "Roots in the trust bundle"),
            registry: Arc::new(r),
        }
    }

    /// A workload got a certificate.
    pub fn certificate_issued(&self) {
        self.issued.inc();
    }

    /// A workload got none; the label is from [`crate::issue::Refusal::class`].
    pub fn certificate_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A TLS handshake came to nothing.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed
            .get_or_create(&Reason { reason })
            .inc();
    }

    /// A connection was closed at once, because there are too many.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a connection for as long as the guard lives.
    pub fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }

    /// A compilation took this long.
    pub fn compiled(&self, took: Duration) {
        self.compile_seconds.observe(took.as_secs_f64());
    }

    /// A change took this long to reach everyone.
    pub fn converged(&self, took: Duration) {
        self.convergence_seconds.observe(took.as_secs_f64());
    }

    /// A client refused what it was sent.
    pub fn refused_by_client(&self, kind: TypeUrl) {
        let r#type = kind.short().into();
        self.nacks.get_or_create(&TypeLabel { r#type }).inc();
    }

    /// The authority that is in force.
    pub fn authority(&self, not_after: SystemTime, roots: usize) {
        self.authority_expiry.set(unix_seconds(not_after));
        self.roots.set(i64::try_from(roots).unwrap_or(i64::MAX));
    }

    /// The serving certificate that is in force.
    pub fn serving_certificate(&self, not_after: SystemTime) {
        self.serving_expiry.set(unix_seconds(not_after));
    }

    /// Replaces the gauges of objects and problems.
    pub fn objects(
        &self,
        counts: impl IntoIterator<Item = (&'static str, usize)>,
        problems: impl IntoIterator<Item = (&'static str, usize)>,
    ) {
        fill(
            &self.objects,
            counts
                .into_iter()
                .map(|(kind, n)| (KindLabel { kind: kind.into() }, n)),
        );
        fill(
            &self.problems,
            problems
                .into_iter()
                .map(|(kind, n)| (KindLabel { kind: kind.into() }, n)),
        );
    }

    /// Replaces the gauges of clients.
    pub fn clients(&self, clients: &[ClientStatus]) {
        let mut kinds: BTreeMap<KindLabel, usize> = BTreeMap::new();
        let mut behind: BTreeMap<TypeLabel, usize> = BTreeMap::new();
        let mut refusing: BTreeMap<TypeLabel, usize> = BTreeMap::new();
        for client in clients {
            let kind = format!("{:?}", client.kind).to_lowercase();
            *kinds.entry(KindLabel { kind }).or_default() += 1;
            for (url, status) in &client.types {
                let label = TypeLabel {
                    r#type: url.short().into(),
                };
                *behind.entry(label.clone()).or_default() +=
                    usize::from(status.version_acked < status.version_sent);
                *refusing.entry(label).or_default() += usize::from(status.nack.is_some());
            }
        }
        fill(&self.clients, kinds.into_iter());
        fill(&self.clients_behind, behind.into_iter());
        fill(&self.clients_refusing, refusing.into_iter());
    }

    /// The registry in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Registers a metric at zero.
fn add<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a histogram of seconds.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let metric = Histogram::new(BUCKETS);
    registry.register(name, help, metric.clone());
    metric
}

fn fill<L>(family: &Family<L, Gauge>, values: impl Iterator<Item = (L, usize)>)
where
    L: Clone + std::hash::Hash + Eq,
{
    family.clear();
    for (label, n) in values {
        family
            .get_or_create(&label)
            .set(i64::try_from(n).unwrap_or(i64::MAX));
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
