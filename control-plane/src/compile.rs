//! The loop from objects to what is served: observe, wait a moment for more, compile, encode, publish.
//!
//! Between [`weft_k8s::source`] and [`weft_xds::server`]. Compilation is per object: a bad one is left out, or its last
//! good version stays, and everything else is in force. Problems are logged when they appear and when they are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{error, info, warn};
use weft_k8s::source::Observed;
use weft_k8s::{CompileOptions, Compiled, Problem, Severity, compile};
use weft_model::{Mesh, UnixMillis};
use weft_xds::server::Snapshot;

use crate::ca::Authority;
use crate::metrics::Metrics;

/// After a change, how long to wait for more of the same: one `kubectl apply` or editor touches several objects.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// What is in force.
pub struct InForce {
    /// The encoded snapshot that clients are served.
    pub snapshot: Arc<Snapshot>,
    /// The objects it was made from, and the source's own problems.
    pub observed: Arc<Observed>,
    /// The mesh, problems and statuses.
    pub compiled: Compiled,
    /// When it was published.
    pub published_at: UnixMillis,
    /// When the one before was; 0 for the first.
    pub before: UnixMillis,
    /// How long compiling and building took.
    pub took: Duration,
}

impl InForce {
    /// All problems, of the source and of the compilation, the worst first.
    pub fn problems(&self) -> Vec<&Problem> {
        let mut all: Vec<_> = self
            .observed
            .problems
            .iter()
            .chain(&self.compiled.problems)
            .collect();
        all.sort();
        all
    }
}

/// The outputs of the loop.
pub struct Running {
    /// For [`weft_xds::server::AdsServer`].
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// For the admin port.
    pub in_force: watch::Receiver<Arc<InForce>>,
}

/// Compiles what the source holds now, then follows it and the authority's roots. The loop ends when the source ends or
/// nobody listens.
pub async fn start(
    mut source: watch::Receiver<Arc<Observed>>,
    mut authority: watch::Receiver<Arc<Authority>>,
    options: CompileOptions,
    metrics: Metrics,
) -> Result<Running, CompileError> {
    let mut log = ProblemLog::default();
    let observed = source.borrow_and_update().clone();
    let roots = authority.borrow_and_update().clone();
    let first = Arc::new(step(observed, roots, options.clone(), None).await?);
    publish(&first, &mut log, &metrics);
    let (snapshot_sender, snapshots) = watch::channel(first.snapshot.clone());
    let (sender, in_force) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = source.changed() => changed,
                changed = authority.changed() => changed,
                () = snapshot_sender.closed() => return,
            };
            if changed.is_err() {
                error!("the source of objects ended");
                return;
            }
            tokio::time::sleep(DEBOUNCE).await;
            let observed = source.borrow_and_update().clone();
            let roots = authority.borrow_and_update().clone();
            let previous = sender.borrow().clone();
            match step(observed, roots, options.clone(), Some(previous)).await {
                Ok(next) => {
                    let next = Arc::new(next);
                    snapshot_sender.send_replace(next.snapshot.clone());
                    sender.send_replace(next.clone());
                    publish(&next, &mut log, &metrics);
                }
                Err(e) => {
                    error!(error = %e, "nothing was published; the last good state stays in force");
                }
            }
        }
    });
    Ok(Running {
        snapshots,
        in_force,
    })
}

/// Compilation must not fail; when it does all the same, the last good state stays in force.
#[derive(Debug, thiserror::Error)]
#[error("the compilation panicked, which is a bug: {0}")]
pub struct CompileError(#[from] tokio::task::JoinError);

async fn step(
    observed: Arc<Observed>,
    authority: Arc<Authority>,
    options: CompileOptions,
    previous: Option<Arc<InForce>>,
) -> Result<InForce, CompileError> {
    let work = move || {
        let began = Instant::now();
        let previous_mesh: Option<&Mesh> = previous.as_ref().map(|p| &p.compiled.mesh);
        let compiled = compile(&observed.objects, &options, previous_mesh);
        let previous_snapshot = previous.as_ref().map(|p| &*p.snapshot);
        let snapshot = Snapshot::build(
            &compiled.mesh,
            authority.bundle_pem().as_bytes(),
            previous_snapshot,
        );
        InForce {
            snapshot: Arc::new(snapshot),
            observed,
            compiled,
            published_at: UnixMillis::from(SystemTime::now()),
            before: previous.map(|p| p.published_at).unwrap_or_default(),
            took: began.elapsed(),
        }
    };
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn publish(next: &InForce, log: &mut ProblemLog, metrics: &Metrics) {
    metrics.compiled(next.took);
    let problems = next.problems();
    let by_severity = [Severity::Error, Severity::Warning, Severity::Info].map(|s| {
        (
            s.as_str(),
            problems.iter().filter(|p| p.severity == s).count(),
        )
    });
    metrics.objects(next.observed.objects.counts(), by_severity);
    log.update(&problems);
}

/// Problems that have been logged, so that each is logged once. A problem that only moved to another line is the same.
#[derive(Default)]
struct ProblemLog {
    known: BTreeMap<Identity, String>,
}

/// File, object, field, reason.
type Identity = (std::path::PathBuf, String, String, String);

impl ProblemLog {
    fn update(&mut self, problems: &[&Problem]) {
        let mut gone = std::mem::take(&mut self.known);
        for problem in problems {
            let identity = (
                problem.source.file.as_ref().clone(),
                problem.object.clone(),
                problem.field.clone(),
                problem.reason.clone(),
            );
            if gone.remove(&identity).is_none() && !self.known.contains_key(&identity) {
                match problem.severity {
                    Severity::Error => error!("{problem}"),
                    Severity::Warning => warn!("{problem}"),
                    Severity::Info => info!("{problem}"),
                }
            }
            self.known.insert(identity, problem.to_string());
        }
        for text in gone.values() {
            info!("no longer: {text}");
        }
    }
}
