//! How long does a change take from its source to the last client that it concerns, and who refuses it?
//!
//! After each publication the clients are looked at until none owes an acknowledgement; the times are the clients' own,
//! so looking seldom costs no precision. [`measure`] is pure. Refusals (NACKs) are logged and counted on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;
use weft_model::UnixMillis;
use weft_xds::TypeUrl;
use weft_xds::server::{ClientStatus, Clients};

use crate::compile::InForce;
use crate::metrics::Metrics;

/// The first look, when responses have been sent; later ones wait at least as long.
const LOOK: Duration = Duration::from_millis(50);
/// Looking may take this share of the time: a tenth.
const SHARE: u32 = 10;
/// A client that has not answered by then is left to `/lag`.
const PATIENCE: Duration = Duration::from_secs(30);

/// Without a publication, how often to look for refusals by clients that have just connected.
const QUIET: Duration = Duration::from_secs(10);

/// Observes every publication. Ends with the compile loop.
pub async fn observe(
    mut in_force: watch::Receiver<Arc<InForce>>,
    clients: Clients,
    metrics: Metrics,
) {
    let mut refusals = Refusals::default();
    loop {
        match tokio::time::timeout(QUIET, in_force.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                refusals.look(&clients.list(), &metrics);
                continue;
            }
        }
        let current = in_force.borrow_and_update().clone();
        let deadline = Instant::now() + PATIENCE;
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let list = clients.list();
            let outcome = measure(&list, current.before, current.published_at);
            refusals.look(&list, &metrics);
            pause = LOOK.max(began.elapsed() * SHARE);
            match outcome {
                Outcome::Reached(took) => metrics.converged(took),
                Outcome::Nobody => {}
                Outcome::Pending
                    if Instant::now() < deadline && !in_force.has_changed().unwrap_or(true) =>
                {
                    continue;
                }
                Outcome::Pending => {}
            }
            break;
        }
    }
}

/// Refusals that are in force, so that each is logged and counted once.
#[derive(Default)]
struct Refusals(BTreeSet<(String, TypeUrl, u64)>);

impl Refusals {
    fn look(&mut self, clients: &[ClientStatus], metrics: &Metrics) {
        let mut known = BTreeSet::new();
        for client in clients {
            for (kind, status) in &client.types {
                let Some(nack) = &status.nack else { continue };
                let refusal = (client.id.clone(), *kind, nack.version);
                if !self.0.contains(&refusal) {
                    metrics.refused_by_client(*kind);
                    warn!(client = client.id, kind = %kind, version = nack.version, "a client refused its configuration: {}", nack.message);
                }
                known.insert(refusal);
            }
        }
        self.0 = known;
    }
}

/// How far a publication has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It concerned no client.
    Nobody,
    /// A client has not answered yet.
    Pending,
    /// From the change of the source to the last acknowledgement.
    Reached(Duration),
}

/// Of the resources that changed after `before` and were sent after `published`. A resource that vanished carries no
/// time of change; the publication stands in for it.
pub fn measure(clients: &[ClientStatus], before: UnixMillis, published: UnixMillis) -> Outcome {
    let mut first_change = u64::MAX;
    let mut last_ack = 0;
    let resources = clients
        .iter()
        .flat_map(|c| c.types.values())
        .flat_map(|t| t.resources.values());
    for resource in resources.filter(|r| r.sent_at >= published) {
        let changed = if resource.changed_at.0 == 0 {
            published
        } else {
            resource.changed_at
        };
        if changed < before {
            continue; // an old resource that somebody has just asked for
        }
        if resource.version_acked != resource.version_sent || resource.acked_at < resource.sent_at {
            return Outcome::Pending;
        }
        first_change = first_change.min(changed.0);
        last_ack = last_ack.max(resource.acked_at.0);
    }
    if last_ack == 0 {
        Outcome::Nobody
    } else {
        Outcome::Reached(Duration::from_millis(last_ack.saturating_sub(first_change)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use weft_xds::convert::Flavour;
    use weft_xds::server::{Nack, ResourceStatus, TypeStatus};

    fn client(changed: u64, sent: u64, acked: u64) -> ClientStatus {
        let resource = ResourceStatus {
            version_sent: Some("2".into()),
            version_acked: Some(if acked > 0 { "2" } else { "1" }.into()),
            changed_at: UnixMillis(changed),
            sent_at: UnixMillis(sent),
            acked_at: UnixMillis(acked),
        };
        let status = TypeStatus {
            resources: [("shop/web/80".into(), resource)].into(),
            ..TypeStatus::default()
        };
        ClientStatus {
            id: "web-0.shop".into(),
            workload: None,
            namespace: None,
            kind: Flavour::Weft,
            delta: true,
            connected_at: UnixMillis(1),
            types: [(TypeUrl::Endpoints, status)].into(),
        }
    }

    #[test]
    fn the_last_acknowledgement_counts() {
        let measure =
            |clients: &[ClientStatus]| measure(clients, UnixMillis(500), UnixMillis(1010));
        assert_eq!(measure(&[]), Outcome::Nobody);
        let (fast, slow) = (client(1000, 1011, 1013), client(1000, 1012, 1040));
        assert_eq!(
            measure(&[fast.clone(), slow]),
            Outcome::Reached(Duration::from_millis(40))
        );
        assert_eq!(
            measure(&[fast.clone(), client(1000, 1012, 0)]),
            Outcome::Pending
        );
        assert_eq!(
            measure(&[client(1000, 900, 910)]),
            Outcome::Nobody,
            "sent before this publication"
        );
        assert_eq!(
            measure(&[client(100, 1500, 0)]),
            Outcome::Nobody,
            "old, and asked for just now"
        );
        assert_eq!(
            measure(&[client(0, 1011, 1015)]),
            Outcome::Reached(Duration::from_millis(5)),
            "vanished"
        );
    }

    #[test]
    fn each_refusal_counts_once() {
        let metrics = Metrics::new();
        let counted = |n: u32| {
            let line = format!("weft_control_plane_nacks_total{{type=\"EDS\"}} {n}\n");
            metrics.text().contains(&line)
        };
        let refused = |version| {
            let mut client = client(1, 2, 0);
            client.types.get_mut(&TypeUrl::Endpoints).unwrap().nack = Some(Nack {
                version,
                message: "endpoints[0].address: not an address".into(),
                at: UnixMillis(3),
            });
            client
        };
        let mut refusals = Refusals::default();
        refusals.look(&[refused(7)], &metrics);
        refusals.look(&[refused(7)], &metrics);
        assert!(counted(1));
        refusals.look(&[refused(8)], &metrics);
        assert!(counted(2));
    }
}
