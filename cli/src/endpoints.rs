//! `weft endpoints SERVICE`: where a service's traffic can go.

use std::time::SystemTime;

use serde::Serialize;
use weft_model::{BackendKey, Endpoint, Endpoints, Health, Namespace, Target};

use crate::access::Mesh;
use crate::failure::Failure;
use crate::output::{self, Format, Table, Tone};
use crate::suggest;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    backend: BackendKey,
    #[serde(flatten)]
    endpoint: Endpoint,
    /// Since its source changed, in seconds.
    age_seconds: u64,
}

impl Table for Row {
    const HEADER: &'static [&'static str] = &[
        "BACKEND", "ADDRESS", "HEALTH", "WEIGHT", "ZONE", "POD", "IDENTITY", "AGE",
    ];

    fn cells(&self) -> Vec<String> {
        let endpoint = &self.endpoint;
        let or_dash =
            |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".into());
        vec![
            self.backend.to_string(),
            endpoint.address.to_string(),
            match endpoint.health {
                Health::Ready => "ready".into(),
                Health::Draining => "draining".into(),
                Health::NotReady => "not ready".into(),
            },
            endpoint.weight.to_string(),
            or_dash(Some(endpoint.locality.zone.clone())),
            or_dash(endpoint.workload.as_ref().map(|w| w.name.to_string())),
            endpoint
                .identity
                .as_ref()
                .map_or_else(|| "none (plaintext)".into(), ToString::to_string),
            output::age(self.age_seconds),
        ]
    }

    fn tone(&self, column: usize) -> Tone {
        match (column, self.endpoint.health, &self.endpoint.identity) {
            (2, Health::Ready, _) => Tone::Good,
            (2, Health::Draining, _) | (6, _, None) => Tone::Warning,
            (2, Health::NotReady, _) => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}

/// The command.
pub(crate) async fn run(
    mesh: &Mesh,
    namespace: &Namespace,
    service: &str,
    format: Format,
) -> Result<(), Failure> {
    let (name, wanted) = match service.split_once('.') {
        Some((name, rest)) => (name, rest.split('.').next().unwrap_or_default()),
        None => (service, namespace.as_str()),
    };
    let view = mesh.view(namespace).await?;
    let of = |e: &&std::sync::Arc<Endpoints>| {
        e.key.namespace.as_str() == wanted
            && matches!(&e.key.target, Target::Service(n) if n.as_str() == name)
    };
    let sets: Vec<_> = view.endpoints.iter().filter(of).collect();
    if sets.is_empty() {
        let known = view.endpoints.iter().filter_map(|e| match &e.key.target {
            Target::Service(n) if e.key.namespace.as_str() == wanted => Some(n.as_str()),
            _ => None,
        });
        let mut known: Vec<&str> = known.collect();
        known.dedup();
        return Err(Failure::NoService {
            name: format!("{wanted}/{name}"),
            hint: suggest::hint(name, known.into_iter()),
        });
    }
    let rows: Vec<Row> = sets
        .into_iter()
        .flat_map(|set| {
            let age_seconds = set.meta.changed_at.age(SystemTime::now()).as_secs();
            set.endpoints.iter().map(move |e| Row {
                backend: set.key.clone(),
                endpoint: e.clone(),
                age_seconds,
            })
        })
        .collect();
    output::print(
        format,
        &rows,
        &format!("service {wanted}/{name} has no endpoints"),
    )?;
    Ok(())
}
