//! What else customers bought: `GET /recommendations?product=ID`, in two versions that a weighted route splits.
//!
//! Version 1 always answers alike. Version 2 depends on the product, and says so in its `version`, by which a
//! client sees the split.

use clap::{Args, ValueEnum};
use http::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::http_server::{self, Answer, Service};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recommendations {
    /// Which version gave it: `v1` or `v2`.
    pub(crate) version: String,
    /// Product ids, at most three.
    pub(crate) products: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    V1,
    V2,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port to serve on
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// How to recommend
    #[arg(long, value_enum, default_value = "v1")]
    version: Version,
}

/// Serves until asked to stop.
pub(crate) async fn run(options: Options) -> std::io::Result<()> {
    http_server::serve(options.port, Recommender(options.version)).await
}

struct Recommender(Version);

impl Service for Recommender {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        if request.uri().path() != "/recommendations" {
            return http_server::not_found();
        }
        let product = http_server::query(&request, "product").unwrap_or_default();
        http_server::json(&recommend(self.0, product))
    }
}

fn recommend(version: Version, product: &str) -> Recommendations {
    const PAIRS: [(&str, &str); 6] = [
        ("warp", "weft"),
        ("shuttle", "bobbin"),
        ("reed", "heddle"),
        ("loom", "book"),
        ("temple", "comb"),
        ("winder", "lease"),
    ];
    let (version, products) = match version {
        Version::V1 => ("v1", vec!["weft", "book"]),
        Version::V2 => {
            let pair = PAIRS.iter().find_map(|&(a, b)| match product {
                p if p == a => Some(b),
                p if p == b => Some(a),
                _ => None,
            });
            ("v2", pair.into_iter().chain(["book", "loom"]).collect())
        }
    };
    Recommendations {
        version: version.into(),
        products: products.into_iter().map(Into::into).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http_client::Client;
    use crate::http_server::testing::start;

    #[tokio::test]
    async fn the_second_version_looks_at_the_product() {
        for (version, expected) in [(Version::V1, "weft"), (Version::V2, "bobbin")] {
            let url = start(Recommender(version)).await;
            let answer: Recommendations = Client::new()
                .get(&format!("{url}/recommendations?product=shuttle"))
                .await
                .unwrap();
            assert_eq!(answer.products[0], expected);
        }
    }
}
