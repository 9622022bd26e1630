//! Customers. They wait for the shop to open; then each walks home -> product -> cart -> checkout, thinks, and begins again,
//! for a time or for ever. What they saw is printed at the end, and served as JSON on `/stats` meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use comfy_table::Table;
use http::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::http_client::{CallError, Client};
use crate::http_server::{self, Answer, Service};
use crate::shutdown;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Base URL of the front page
    #[arg(long, default_value = "http://web")]
    url: String,
    /// Customers at the same time
    #[arg(long, default_value_t = 8)]
    users: u32,
    /// Pause of a customer between two steps, in milliseconds
    #[arg(long, default_value_t = 20)]
    think: u64,
    /// Stop after so many seconds; go on until asked to stop by default
    #[arg(long)]
    seconds: Option<u64>,
    /// Serve `/healthz` and `/stats` on this port meanwhile
    #[arg(long)]
    stats_port: Option<u16>,
    /// How to print the end's result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// The steps of a customer, in their order.
const STEPS: [&str; 4] = ["home", "product", "add", "checkout"];
const PRODUCTS: [&str; 6] = ["warp", "weft", "shuttle", "loom", "reed", "book"];

/// How often a shop that is not open is looked at again.
const CLOSED: Duration = Duration::from_millis(500);

#[derive(Debug, Default, Clone)]
struct Tally {
    requests: u64,
    succeeded: u64,
    durations: Histogram,
    last_error: Option<String>,
}

/// What customers saw of one step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    step: String,
    requests: u64,
    succeeded: u64,
    /// Milliseconds.
    p50: f64,
    /// Milliseconds.
    p99: f64,
    last_error: Option<String>,
}

/// Shared by the customers. Held for a few additions at a time, never across an await.
#[derive(Debug, Default, Clone)]
struct Stats(Arc<Mutex<BTreeMap<usize, Tally>>>);

impl Stats {
    fn count(&self, step: usize, took: Duration, outcome: Result<(), CallError>) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.entry(step).or_default();
        tally.requests += 1;
        tally.durations.add(took);
        match outcome {
            Ok(()) => tally.succeeded += 1,
            Err(error) => tally.last_error = Some(error.to_string()),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let milliseconds = |d: Duration| (d.as_secs_f64() * 1e5).round() / 1e2;
        tallies
            .iter()
            .map(|(&step, tally)| Seen {
                step: STEPS[step].to_owned(),
                requests: tally.requests,
                succeeded: tally.succeeded,
                p50: milliseconds(tally.durations.percentile(0.5)),
                p99: milliseconds(tally.durations.percentile(0.99)),
                last_error: tally.last_error.clone(),
            })
            .collect()
    }
}

impl Service for Stats {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        match request.uri().path() {
            "/stats" => http_server::json(&self.seen()),
            _ => http_server::not_found(),
        }
    }
}

/// Why there was no load, or why it counts as failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The statistics' port is taken.
    #[error("--stats-port: {0}")]
    Stats(#[from] std::io::Error),
    /// The result could not be printed.
    #[error(transparent)]
    Print(#[from] serde_json::Error),
    /// Nothing at all succeeded.
    #[error("no request succeeded; the last error: {0}")]
    Nothing(String),
}

/// Drives load for the time asked, or until asked to stop, and prints what was seen.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let stats = Stats::default();
    let (url, think, customer_stats) = (
        options.url,
        Duration::from_millis(options.think),
        stats.clone(),
    );
    tokio::spawn(async move {
        let client = Client::new();
        open(&url, &client).await;
        for number in 0..options.users {
            let (stats, client, url) = (customer_stats.clone(), client.clone(), url.clone());
            tokio::spawn(async move { customer(number, &url, think, &client, &stats).await });
        }
    });
    let time_is_up = async {
        match options.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    match options.stats_port {
        Some(port) => tokio::select! {
            () = time_is_up => {}
            served = http_server::serve(port, stats.clone()) => served?,
        },
        None => tokio::select! {
            () = time_is_up => {}
            () = shutdown::requested() => {}
        },
    }
    print(&stats.seen(), options.output)
}

/// Waits until one whole visit succeeds. Nothing of it is counted: it says when the shop opened, not how it does.
async fn open(url: &str, client: &Client) {
    'visit: loop {
        for (step, name) in STEPS.iter().enumerate() {
            if let Err(error) = take(step, url, "customer-early", PRODUCTS[0], client).await {
                tracing::info!(%error, step = name, "not open yet");
                tokio::time::sleep(CLOSED).await;
                continue 'visit;
            }
        }
        return;
    }
}

async fn customer(number: u32, url: &str, think: Duration, client: &Client, stats: &Stats) {
    // Customers come one after another, not in step.
    tokio::time::sleep(think * number / 8).await;
    let user = format!("customer-{number}");
    for visit in 0.. {
        let product = PRODUCTS[(number as usize + visit) % PRODUCTS.len()];
        for (step, _) in STEPS.iter().enumerate() {
            let started = Instant::now();
            let outcome = take(step, url, &user, product, client).await;
            let failed = outcome.is_err();
            stats.count(step, started.elapsed(), outcome);
            tokio::time::sleep(think).await;
            if failed {
                // No checkout of what was not added; and no storm against a shop that is down.
                tokio::time::sleep(Duration::from_millis(100)).await;
                break;
            }
        }
    }
}

async fn take(
    step: usize,
    url: &str,
    user: &str,
    product: &str,
    client: &Client,
) -> Result<(), CallError> {
    use serde_json::{Value, json};

    let (add, checkout) = (
        json!({"user": user, "product": product}),
        json!({"user": user}),
    );
    match step {
        0 => client.get::<Value>(&format!("{url}/")).await,
        1 => client.get(&format!("{url}/products/{product}")).await,
        2 => client.post(&format!("{url}/cart"), &add).await,
        _ => client.post(&format!("{url}/checkout"), &checkout).await,
    }
    .map(drop)
}

/// A line for each step.
pub(crate) fn table(seen: &[Seen]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["STEP", "REQUESTS", "SUCCESS", "P50", "P99"]);
    for row in seen {
        let success = 100.0 * row.succeeded as f64 / row.requests as f64;
        table.add_row([
            row.step.clone(),
            row.requests.to_string(),
            format!("{success:.2} %"),
            format!("{} ms", row.p50),
            format!("{} ms", row.p99),
        ]);
    }
    table
}

fn print(seen: &[Seen], output: Output) -> Result<(), Error> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(seen)?),
        Output::Table => println!("{}", table(seen)),
    }
    if seen.iter().all(|row| row.succeeded == 0) {
        let last = seen.iter().find_map(|row| row.last_error.clone());
        return Err(Error::Nothing(
            last.unwrap_or_else(|| "none was made".into()),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http_server::testing::start;

    /// A front page whose checkout is broken.
    struct Front;

    impl Service for Front {
        async fn call(&self, request: Request<Incoming>) -> Answer {
            match request.uri().path() {
                "/checkout" => http_server::failure(http::StatusCode::BAD_GATEWAY, "closed"),
                _ => http_server::json(&1),
            }
        }
    }

    #[tokio::test]
    async fn customers_count_what_they_see() {
        let (url, stats) = (start(Front).await, Stats::default());
        let customer_stats = stats.clone();
        let client = Client::new();
        let walk = async move { customer(0, &url, Duration::ZERO, &client, &customer_stats).await };
        let checked_out = async {
            while stats.seen().len() < STEPS.len() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = walk => {}, () = checked_out => {} }
        let seen = stats.seen();
        assert!(
            seen[..3]
                .iter()
                .all(|row| row.succeeded == 1 && row.requests == 1),
            "{seen:?}"
        );
        assert_eq!((seen[3].requests, seen[3].succeeded), (1, 0));
        assert!(seen[3].last_error.as_ref().unwrap().contains("closed"));
    }
}
