//! Keeps the identity alive: the first certificate, its renewals, and changes of the trust bundle, as one task.
//!
//! Started by `main` through [`start`]; asks through [`super::request`], keeps what is good through [`super::store`], and puts
//! each new set of credentials in force at once. It never gives up: between failures it waits longer, and the nearer the
//! expiry, the louder it gets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_model::duration;

use super::credentials::{Credentials, Unchecked};
use super::request::{self, Authority, Issued};
use super::schedule::{self, Alarm};
use super::status::Status;
use super::store::Store;
use super::trust::{Bundle, Trust};
use super::{Identity, Settings};

/// The trust bundle as the control plane last sent it; `None` until it did.
pub type Distributed = watch::Receiver<Option<Vec<CertificateDer<'static>>>>;

/// A wait is cut into pieces of this length, so that a clock that jumps (suspend, NTP) is noticed.
const LOOK_AT_THE_CLOCK: Duration = Duration::from_secs(60);
/// Certificates are not asked for more often than this, whatever their lifetime.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// Returns as soon as there are credentials, from disk or from the authority, however long that takes. From then on a task
/// on this runtime keeps them current for as long as the handle lives.
pub async fn start(settings: Settings, status: Arc<Status>, distributed: Distributed) -> Identity {
    let mut keeper = Keeper::new(settings, status, distributed);
    let (first, due) = keeper.first().await;
    let (sender, identity) = Identity::new(first);
    tokio::spawn(keeper.keep(sender, due));
    identity
}

struct Keeper {
    authority: Authority,
    renew_after: Option<Duration>,
    store: Option<Store>,
    trust: Trust,
    status: Arc<Status>,
    distributed: Distributed,
    /// In a row.
    failures: u32,
}

impl Keeper {
    fn new(settings: Settings, status: Arc<Status>, distributed: Distributed) -> Self {
        let mut trust = Trust::new(settings.roots);
        let store = settings.state_dir.as_deref().map(Store::new);
        if let Some(store) = &store {
            match store.read_roots().map(Bundle::new) {
                Ok(Ok(bundle)) => {
                    trust.set(bundle);
                }
                Ok(Err(error)) => tracing::warn!(%error, "the kept trust bundle is not used"),
                Err(error) if error.is_absent() => {}
                Err(error) => tracing::warn!(%error, "the kept trust bundle is not used"),
            }
        }
        Self {
            authority: settings.authority,
            renew_after: settings.renew_after,
            store,
            trust,
            status,
            distributed,
            failures: 0,
        }
    }

    /// The kept certificate if it is good, else a new one.
    async fn first(&mut self) -> (Credentials, SystemTime) {
        if let Some(credentials) = self.kept() {
            tracing::info!(id = %credentials.id, "using the kept certificate");
            let due = self.due(&credentials, credentials.not_before);
            self.status.scheduled(due);
            return (credentials, due);
        }
        loop {
            match self.request().await {
                Ok(credentials) => {
                    let due = self.renewed(&credentials);
                    return (credentials, due);
                }
                Err(error) => {
                    let wait = self.failed(&error, None);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn kept(&self) -> Option<Credentials> {
        let store = self.store.as_ref()?;
        let roots = self.trust.peers().ok()?;
        let (chain, key) = match store.read_certificate() {
            Ok(kept) => kept,
            Err(error) if error.is_absent() => return None,
            Err(error) => {
                tracing::warn!(%error, "the kept certificate is not used");
                return None;
            }
        };
        let unchecked = Unchecked { chain, key, roots };
        match unchecked.check(Some(&self.authority.id), SystemTime::now()) {
            Ok(credentials) => Some(credentials),
            Err(error) => {
                tracing::warn!(%error, "the kept certificate is not used");
                None
            }
        }
    }

    /// Renews when due, applies trust bundles as they come. Ends with the last handle to the identity.
    async fn keep(mut self, sender: watch::Sender<Arc<Credentials>>, mut due: SystemTime) {
        let mut current = Arc::clone(&sender.borrow());
        let mut bundles = true;
        loop {
            let next = tokio::select! {
                () = sender.closed() => return,
                () = until(due) => match self.request().await {
                    Ok(renewed) => {
                        due = self.renewed(&renewed);
                        Some(renewed)
                    }
                    Err(error) => {
                        due = SystemTime::now() + self.failed(&error, Some(&current));
                        None
                    }
                },
                changed = self.distributed.changed(), if bundles => {
                    bundles = changed.is_ok();
                    let trusting = self.apply_bundle(&current);
                    if trusting.as_ref().is_some_and(|c| !Self::stands(c)) {
                        due = SystemTime::now();
                    }
                    trusting
                }
            };
            if let Some(mut next) = next {
                next.generation = current.generation + 1;
                current = Arc::new(next);
                sender.send_replace(Arc::clone(&current));
            }
        }
    }

    async fn request(&self) -> Result<Credentials, String> {
        let ask = async {
            let roots = self.trust.control_plane().map_err(|e| e.to_string())?;
            let issued = request::certificate(&self.authority, roots)
                .await
                .map_err(|e| e.to_string())?;
            let peers = self.trust.peers().map_err(|e| e.to_string())?;
            self.keep_on_disk(&issued);
            Ok(issued.credentials.with_roots(peers))
        };
        // Boxed: asked for a few times a day, and large enough to weigh on every other state of the task.
        Box::pin(ask).await
    }

    fn keep_on_disk(&self, issued: &Issued) {
        if let Some(store) = &self.store
            && let Err(error) = store.write_certificate(&issued.chain, &issued.key)
        {
            tracing::warn!(%error, "the certificate is not kept for a restart");
        }
    }

    /// Puts the distributed bundle in force. `None`: nothing changes.
    fn apply_bundle(&mut self, current: &Credentials) -> Option<Credentials> {
        let certificates = self.distributed.borrow_and_update().clone()?;
        let bundle = match Bundle::new(certificates) {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::warn!(%error, "the trust bundle of the control plane is not used");
                return None;
            }
        };
        if !self.trust.set(bundle.clone()) {
            return None;
        }
        tracing::info!(
            roots = bundle.certificates.len(),
            "the trust bundle has changed"
        );
        if let Some(store) = &self.store
            && let Err(error) = store.write_roots(&bundle.certificates)
        {
            tracing::warn!(%error, "the trust bundle is not kept for a restart");
        }
        Some(current.with_roots(bundle))
    }

    /// Would peers with our roots accept us?
    fn stands(credentials: &Credentials) -> bool {
        match credentials.stands(&credentials.roots, SystemTime::now()) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the trust bundle no longer vouches for our certificate: asking for another");
                false
            }
        }
    }

    /// When to renew what was issued at this time.
    fn due(&self, credentials: &Credentials, issued: SystemTime) -> SystemTime {
        // Authorities date certificates back to forgive slow clocks; what counts is when we got it.
        let issued = issued.max(credentials.not_before);
        schedule::due(
            issued,
            credentials.not_after,
            self.renew_after,
            fastrand::f64(),
        )
    }

    fn renewed(&mut self, credentials: &Credentials) -> SystemTime {
        self.failures = 0;
        let now = SystemTime::now();
        let due = self.due(credentials, now).max(now + LEAST_INTERVAL);
        self.status.success(due);
        let lifetime = credentials
            .not_after
            .duration_since(now)
            .unwrap_or_default();
        tracing::info!(id = %credentials.id, lifetime = duration::format(lifetime), "certificate issued");
        due
    }

    /// Counts and reports a failure. Returns how long to wait.
    fn failed(&mut self, error: &str, current: Option<&Credentials>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = schedule::backoff(self.failures, fastrand::f64());
        let now = SystemTime::now();
        self.status.failure(error.to_owned(), now + wait);
        let attempt = self.failures;
        let Some(current) = current else {
            tracing::warn!(error, attempt, "no certificate yet");
            return wait;
        };
        let left = current.not_after.duration_since(now).unwrap_or_default();
        let left = duration::format(Duration::from_secs(left.as_secs()));
        match schedule::alarm(current.not_before, current.not_after, now) {
            Alarm::Warn => {
                tracing::warn!(error, attempt, left, "the certificate could not be renewed");
            }
            Alarm::Error => tracing::error!(
                error,
                attempt,
                left,
                "THE CERTIFICATE EXPIRES SOON and could not be renewed"
            ),
            Alarm::Expired => {
                tracing::error!(
                    error,
                    attempt,
                    "THE CERTIFICATE HAS EXPIRED: peers refuse us until it is renewed"
                );
            }
        }
        wait
    }
}

/// Waits until a time of the wall clock.
pub async fn until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep_until(Instant::now() + left.min(LOOK_AT_THE_CLOCK)).await;
    }
}

#[cfg(test)]
mod tests;
