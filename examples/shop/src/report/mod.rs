//! Who calls whom: a table from the sidecars' own metrics, for every pod of a directory of Kubernetes objects.
//!
//! ```text
//! objects   which pods there are, where, and which of them are behind a service
//! metrics   the Prometheus text of one sidecar
//! edges     both, as one row for each caller and destination
//! ```
//!
//! The objects are those that `weft local` writes back; on a cluster, `kubectl get pods,services -o json` gives them.

mod edges;
mod metrics;
mod objects;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table};

use self::edges::Edge;
use self::metrics::Samples;
use self::objects::{Objects, ObjectsError, Pod};
use crate::http_client::{CallError, Client};
use crate::load::{self, Seen};

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory (or file) of Kubernetes objects, YAML or JSON, with the pods and their addresses
    #[arg(long, default_value = "/run/weft/shop/objects")]
    objects: PathBuf,
    /// Port of the sidecars' metrics
    #[arg(long, default_value_t = 15020)]
    metrics_port: u16,
    /// Watch for so many seconds, and count what happened meanwhile; since the sidecars' start by default
    #[arg(long)]
    seconds: Option<u64>,
    /// Instead, what the customers saw: the statistics of the pods labelled `app: load`
    #[arg(long)]
    customers: bool,
    /// Port of those statistics
    #[arg(long, default_value_t = 9090)]
    stats_port: u16,
    /// How to print the report
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The objects could not be read.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The report could not be written.
    #[error(transparent)]
    Print(#[from] serde_json::Error),
    /// The customers did not answer.
    #[error(transparent)]
    Customers(#[from] CallError),
    /// No sidecar answered.
    #[error("no sidecar gave metrics, of {pods} pods in {objects}; the last error: {last}")]
    NoMetrics {
        pods: usize,
        objects: PathBuf,
        last: String,
    },
}

/// Asks every sidecar for its metrics and prints the table.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let objects = Objects::read(&options.objects)?;
    let client = Client::new();
    if options.customers {
        return customers(&options, &objects, &client).await;
    }
    let mut earlier = Vec::new();
    if let Some(seconds) = options.seconds {
        earlier = scrape(&options, &objects, &client).await?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let mut scraped = scrape(&options, &objects, &client).await?;
    for (pod, samples) in &mut scraped {
        if let Some((_, before)) = earlier.iter().find(|(p, _)| p == pod) {
            samples.since(before);
        }
    }
    let edges = edges::of(&objects, &scraped);
    match options.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&edges)?),
        Output::Table => println!("{}", table(&edges)),
    }
    Ok(())
}

/// The metrics of every pod with a sidecar.
async fn scrape<'a>(
    options: &Options,
    objects: &'a Objects,
    client: &Client,
) -> Result<Vec<(&'a Pod, Samples)>, Error> {
    let (mut scraped, mut last) = (Vec::new(), "none was asked".to_owned());
    for pod in &objects.pods {
        let url = format!("http://{}/metrics", pod.authority(options.metrics_port));
        match client.text(&url).await {
            Ok(text) => scraped.push((pod, Samples::parse(&text))),
            // A pod without a sidecar has none; it shows as a caller of nobody.
            Err(error) => last = error.to_string(),
        }
    }
    if scraped.is_empty() {
        return Err(Error::NoMetrics {
            pods: objects.pods.len(),
            objects: options.objects.clone(),
            last,
        });
    }
    Ok(scraped)
}

async fn customers(options: &Options, objects: &Objects, client: &Client) -> Result<(), Error> {
    for pod in objects
        .pods
        .iter()
        .filter(|pod| pod.labels.get("app").is_some_and(|a| a == "load"))
    {
        let url = format!("http://{}/stats", pod.authority(options.stats_port));
        let seen: Vec<Seen> = client.get(&url).await?;
        match options.output {
            Output::Json => println!("{}", serde_json::to_string(&seen)?),
            Output::Table => println!("{}", load::table(&seen)),
        }
    }
    Ok(())
}

fn table(edges: &[Edge]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header([
        "CALLER",
        "DESTINATION",
        "PROTOCOL",
        "REQUESTS",
        "BEFORE RETRIES",
        "AFTER",
        "P50",
        "P99",
        "IDENTITIES",
        "TLS",
    ]);
    let percent = |share: Option<f64>| share.map_or("-".into(), |s| format!("{:.2} %", s * 100.0));
    let time = |seconds: Option<f64>| seconds.map_or("-".into(), |s| format!("{:.1} ms", s * 1e3));
    for edge in edges {
        table.add_row([
            edge.caller.clone(),
            edge.destination.clone(),
            edge.protocol.clone(),
            edge.requests.to_string(),
            percent(edge.success_before_retries),
            percent(edge.success),
            time(edge.p50),
            time(edge.p99),
            format!(
                "{} -> {}",
                short(&edge.caller_identity),
                short(&edge.peer_identities)
            ),
            if edge.tls.is_empty() {
                "-".into()
            } else {
                edge.tls.join(", ")
            },
        ]);
    }
    for column in 3..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// SPIFFE ids by their service accounts: `ns/shop/sa/web` of one that is `spiffe://cluster.local/ns/shop/sa/web`.
fn short(identities: &[String]) -> String {
    if identities.is_empty() {
        return "none".into();
    }
    let short = |id: &String| match id
        .strip_prefix("spiffe://")
        .and_then(|id| id.split_once('/'))
    {
        Some((_, path)) => path.to_owned(),
        None => id.clone(),
    };
    identities.iter().map(short).collect::<Vec<_>>().join(", ")
}
