//! What there is to buy. HTTP/1.1, in memory: `GET /products`, `GET /products/ID`.

use clap::Args;
use http::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::http_server::{self, Answer, Service};

/// One thing to buy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Product {
    /// Its key, in URLs and in carts.
    pub(crate) id: String,
    /// What the page calls it.
    pub(crate) name: String,
    /// In cents.
    pub(crate) price: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port to serve on
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// Serves until asked to stop.
pub(crate) async fn run(options: Options) -> std::io::Result<()> {
    http_server::serve(options.port, Catalogue::new()).await
}

/// The shelves.
pub(crate) struct Catalogue {
    products: Vec<Product>,
}

impl Catalogue {
    /// The same dozen products every time.
    pub(crate) fn new() -> Self {
        let shelf = [
            ("warp", "Warp yarn, 500 m", 1290),
            ("weft", "Weft yarn, 500 m", 1190),
            ("shuttle", "Boat shuttle, cherry", 3400),
            ("bobbin", "Bobbins, set of ten", 950),
            ("reed", "Stainless reed, 40 cm", 4250),
            ("heddle", "Rigid heddle, 30/10", 3890),
            ("loom", "Table loom, four shafts", 54900),
            ("temple", "Temple, beech", 2790),
            ("winder", "Ball winder", 4490),
            ("lease", "Lease sticks, pair", 790),
            ("comb", "Tapestry comb", 1590),
            ("book", "The draft book", 2690),
        ];
        let products = shelf
            .into_iter()
            .map(|(id, name, price)| Product {
                id: id.into(),
                name: name.into(),
                price,
            })
            .collect();
        Self { products }
    }
}

impl Service for Catalogue {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if path == "/products" {
            return http_server::json(&self.products);
        }
        let wanted = path.strip_prefix("/products/");
        match self.products.iter().find(|p| Some(p.id.as_str()) == wanted) {
            Some(product) => http_server::json(product),
            None => http_server::not_found(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http_client::{CallError, Client};
    use crate::http_server::testing::start;

    #[tokio::test]
    async fn lists_finds_and_misses() {
        let url = start(Catalogue::new()).await;
        let client = Client::new();
        let all: Vec<Product> = client.get(&format!("{url}/products")).await.unwrap();
        let one: Product = client
            .get(&format!("{url}/products/{}", all[1].id))
            .await
            .unwrap();
        assert_eq!(one, all[1]);
        let missing = client
            .get::<Product>(&format!("{url}/products/none"))
            .await
            .unwrap_err();
        assert!(
            matches!(missing, CallError::Status { status, .. } if status == 404),
            "{missing}"
        );
    }
}
