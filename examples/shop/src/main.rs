//! The shop: an ordinary application to run in a mesh, which it knows nothing of.
//!
//! One program, one subcommand for each service. They call each other in plain text by Kubernetes DNS names, as
//! the manifests in `k8s/` arrange:
//!
//! ```text
//! load -> web -> catalogue          HTTP/1.1
//!             -> recommendations    HTTP/1.1, two versions
//!             -> assets             HTTP/1.1, nginx
//!             -> cart -> redis      gRPC, then RESP
//!             -> payments -> orders HTTP/1.1, then PostgreSQL
//! ```
//!
//! `shop load` plays the customers; `shop report` prints what the sidecars' metrics say about all of it.

mod cart;
mod cart_api;
mod catalogue;
mod histogram;
mod http_client;
mod http_server;
mod load;
mod payments;
mod postgres;
mod recommendations;
mod redis;
mod report;
mod shutdown;
mod web;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A small shop to run in a service mesh.
#[derive(Debug, Parser)]
#[command(name = "shop", version)]
struct Arguments {
    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// The front page, which assembles the other services' answers
    Web(web::Options),
    /// What there is to buy
    Catalogue(catalogue::Options),
    /// Shopping carts, over gRPC, kept in Redis
    Cart(cart::Options),
    /// Charges customers, and fails now and then
    Payments(payments::Options),
    /// What else customers bought, in two versions
    Recommendations(recommendations::Options),
    /// Customers, as many as you like
    Load(load::Options),
    /// Who calls whom, from the metrics of the sidecars
    Report(report::Options),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match run(arguments.service).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(service: Service) -> Result<(), Box<dyn Error>> {
    match service {
        Service::Web(options) => web::run(options).await?,
        Service::Catalogue(options) => catalogue::run(options).await?,
        Service::Cart(options) => cart::run(options).await?,
        Service::Payments(options) => payments::run(options).await?,
        Service::Recommendations(options) => recommendations::run(options).await?,
        Service::Load(options) => load::run(options).await?,
        Service::Report(options) => report::run(options).await?,
    }
    Ok(())
}
