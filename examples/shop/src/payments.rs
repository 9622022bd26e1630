//! Charges customers: `POST /charges`, recorded in PostgreSQL when there is one. Fails now and then, on purpose: with
//! 503, or by resetting the connection, before anything is recorded.
//!
//! A charge names its order, and charging an order again changes nothing, so a retry is always safe.

use std::time::Duration;

use clap::Args;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::http_server::{self, Answer, Service};
use crate::postgres::{Postgres, literal};
use crate::shutdown;

/// How often a database that does not answer yet is asked again.
const DATABASE_POLL: Duration = Duration::from_millis(250);

/// What to charge for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The order's key; the same order is charged once.
    pub(crate) order: String,
    /// Who pays.
    pub(crate) user: String,
    /// In cents.
    pub(crate) amount: u64,
}

/// A charge that went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The charge's order.
    pub(crate) order: String,
    /// In cents.
    pub(crate) charged: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port to serve on
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Part of the requests to answer with 503, 0 to 1
    #[arg(long, default_value_t = 0.1, value_parser = rate)]
    failure_rate: f64,
    /// Part of the requests to answer with a connection reset, 0 to 1
    #[arg(long, default_value_t = 0.02, value_parser = rate)]
    reset_rate: f64,
    /// Where orders are recorded, HOST:PORT of a PostgreSQL server; nowhere by default
    #[arg(long)]
    database: Option<String>,
    /// User and database there
    #[arg(long, default_value = "shop")]
    database_user: String,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

/// Serves until asked to stop.
pub(crate) async fn run(options: Options) -> std::io::Result<()> {
    let orders = options
        .database
        .map(|address| Postgres::new(address, options.database_user));
    if let Some(orders) = &orders {
        // Not ready before the database is.
        tokio::select! {
            () = answers(orders) => {}
            () = shutdown::requested() => return Ok(()),
        }
    }
    let payments = Payments {
        failure_rate: options.failure_rate,
        reset_rate: options.reset_rate,
        orders,
    };
    http_server::serve(options.port, payments).await
}

/// Waits until the database answers.
async fn answers(orders: &Postgres) {
    while let Err(error) = orders.execute("SELECT 1").await {
        tracing::info!(%error, "waiting for the database");
        tokio::time::sleep(DATABASE_POLL).await;
    }
}

struct Payments {
    failure_rate: f64,
    reset_rate: f64,
    orders: Option<Postgres>,
}

impl Service for Payments {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        if request.uri().path() != "/charges" || request.method() != Method::POST {
            return http_server::not_found();
        }
        let charge: Charge = match http_server::body(request).await {
            Ok(charge) => charge,
            Err(refusal) => return refusal,
        };
        let luck = fastrand::f64();
        if luck < self.reset_rate {
            return Answer::Reset;
        }
        if luck < self.reset_rate + self.failure_rate {
            return http_server::failure(StatusCode::SERVICE_UNAVAILABLE, "out of luck, try again");
        }
        if let Some(orders) = &self.orders
            && let Err(error) = orders.execute(&record(&charge)).await
        {
            tracing::warn!(%error, order = charge.order, "not recorded");
            return http_server::failure(StatusCode::BAD_GATEWAY, &error.to_string());
        }
        http_server::json(&Receipt {
            order: charge.order,
            charged: charge.amount,
        })
    }
}

fn record(charge: &Charge) -> String {
    format!(
        "INSERT INTO orders (id, customer, amount) VALUES ({}, {}, {}) ON CONFLICT DO NOTHING",
        literal(&charge.order),
        literal(&charge.user),
        charge.amount
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http_client::{CallError, Client};
    use crate::http_server::testing::start;

    async fn charge(failure_rate: f64, reset_rate: f64) -> Result<Receipt, CallError> {
        let url = start(Payments {
            failure_rate,
            reset_rate,
            orders: None,
        })
        .await;
        let charge = Charge {
            order: "o1".into(),
            user: "u".into(),
            amount: 500,
        };
        Client::new().post(&format!("{url}/charges"), &charge).await
    }

    #[tokio::test]
    async fn charges_fails_and_resets_as_told() {
        assert_eq!(
            charge(0.0, 0.0).await.unwrap(),
            Receipt {
                order: "o1".into(),
                charged: 500
            }
        );
        let failed = charge(1.0, 0.0).await.unwrap_err();
        assert!(
            matches!(failed, CallError::Status { status, .. } if status == 503),
            "{failed}"
        );
        let reset = charge(0.0, 1.0).await.unwrap_err();
        assert!(matches!(reset, CallError::Connection { .. }), "{reset}");
    }
}
