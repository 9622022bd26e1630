//! The front page. HTTP/1.1: `GET /`, `GET /products/ID`, `POST /cart`, `GET /cart?user=U`, `POST /checkout`; the first
//! two as HTML for a browser and as JSON for others.
//!
//! Everything it shows is asked of another service. What the page can do without (recommendations, the style sheet) may
//! be missing; a failure of anything else is the page's failure, with the reason.

use clap::Args;
use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::cart_api::{AddRequest, Client as CartClient, Contents};
use crate::catalogue::Product;
use crate::http_client::{CallError, Client};
use crate::http_server::{self, Answer, Service};
use crate::payments::{Charge, Receipt};
use crate::recommendations::Recommendations;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port to serve on
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Base URL of the catalogue
    #[arg(long, default_value = "http://catalogue")]
    catalogue: String,
    /// Base URL of the recommendations
    #[arg(long, default_value = "http://recommendations")]
    recommendations: String,
    /// Base URL of the payments
    #[arg(long, default_value = "http://payments")]
    payments: String,
    /// Base URL of the cart (gRPC)
    #[arg(long, default_value = "http://cart:9000")]
    cart: String,
    /// Base URL of the static files
    #[arg(long, default_value = "http://assets")]
    assets: String,
}

/// Why the service could not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The cart's URL is none.
    #[error("--cart: {0}")]
    Cart(#[from] tonic::transport::Error),
    /// The port is taken.
    #[error(transparent)]
    Serve(#[from] std::io::Error),
}

/// Serves until asked to stop.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let port = options.port;
    let web = Web::new(options)?;
    Ok(http_server::serve(port, web).await?)
}

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
enum PageError {
    /// A service over HTTP failed.
    #[error(transparent)]
    Http(#[from] CallError),
    /// The cart failed.
    #[error("cart: {}: {}", .0.code(), .0.message())]
    Cart(#[from] Status),
    /// A checkout of nothing.
    #[error("the cart is empty")]
    Empty,
}

impl From<PageError> for Answer {
    fn from(error: PageError) -> Self {
        let status = match &error {
            PageError::Http(CallError::Status { status, .. })
                if *status == StatusCode::NOT_FOUND =>
            {
                StatusCode::NOT_FOUND
            }
            PageError::Http(CallError::Deadline { .. }) => StatusCode::GATEWAY_TIMEOUT,
            PageError::Http(_) => StatusCode::BAD_GATEWAY,
            PageError::Cart(refusal) if refusal.code() == tonic::Code::InvalidArgument => {
                StatusCode::BAD_REQUEST
            }
            PageError::Cart(_) => StatusCode::BAD_GATEWAY,
            PageError::Empty => StatusCode::CONFLICT,
        };
        tracing::warn!(%error, %status, "page");
        http_server::failure(status, &error.to_string())
    }
}

/// What a page shows.
#[derive(Debug, Serialize)]
struct Page {
    products: Vec<Product>,
    /// Which version recommended, and what; absent when it could not be asked.
    recommendations: Option<Recommendations>,
}

#[derive(Debug, Deserialize)]
struct Addition {
    user: String,
    product: String,
    #[serde(default = "one")]
    quantity: u32,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
struct Checkout {
    user: String,
}

#[derive(Debug, Serialize)]
struct CartLine {
    product: String,
    quantity: u32,
}

struct Web {
    http: Client,
    cart: CartClient,
    options: Options,
}

impl Web {
    fn new(options: Options) -> Result<Self, tonic::transport::Error> {
        Ok(Self {
            http: Client::new(),
            cart: CartClient::new(&options.cart)?,
            options,
        })
    }

    async fn home(&self) -> Result<Page, PageError> {
        let url = format!("{}/products", self.options.catalogue);
        let (products, recommendations) =
            tokio::join!(self.http.get(&url), self.recommendations("loom"));
        Ok(Page {
            products: products?,
            recommendations,
        })
    }

    async fn product(&self, id: &str) -> Result<Page, PageError> {
        let url = format!("{}/products/{id}", self.options.catalogue);
        let (product, recommendations) =
            tokio::join!(self.http.get(&url), self.recommendations(id));
        Ok(Page {
            products: vec![product?],
            recommendations,
        })
    }

    async fn recommendations(&self, product: &str) -> Option<Recommendations> {
        let url = format!(
            "{}/recommendations?product={product}",
            self.options.recommendations
        );
        self.http
            .get(&url)
            .await
            .inspect_err(|error| tracing::warn!(%error, "left out"))
            .ok()
    }

    /// Sums the cart up at the catalogue's prices, charges, and empties the cart.
    async fn checkout(&self, user: String) -> Result<Receipt, PageError> {
        let cart = self.cart.get(user.clone()).await?;
        if cart.items.is_empty() {
            return Err(PageError::Empty);
        }
        let products: Vec<Product> = self
            .http
            .get(&format!("{}/products", self.options.catalogue))
            .await?;
        let price = |id: &str| products.iter().find(|p| p.id == id).map_or(0, |p| p.price);
        let amount = cart
            .items
            .iter()
            .map(|i| price(&i.product) * u64::from(i.quantity))
            .sum();
        let charge = Charge {
            order: format!("{:016x}", fastrand::u64(..)),
            user: user.clone(),
            amount,
        };
        let receipt = self
            .http
            .post(&format!("{}/charges", self.options.payments), &charge)
            .await?;
        self.cart.clear(user).await?;
        Ok(receipt)
    }

    async fn page(&self, request: &Request<Incoming>, page: Page) -> Answer {
        let accepts = request
            .headers()
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok());
        if !accepts.is_some_and(|a| a.contains("text/html")) {
            return http_server::json(&page);
        }
        let style = self
            .http
            .text(&format!("{}/shop.css", self.options.assets))
            .await;
        http_server::html(html(&page, &style.unwrap_or_default()))
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/") => Ok(self.page(&request, self.home().await?).await),
            (&Method::GET, "/cart") => {
                let user = http_server::query(&request, "user")
                    .unwrap_or_default()
                    .to_owned();
                Ok(cart_page(
                    self.cart.get(user).await.map_err(PageError::from)?,
                ))
            }
            (&Method::POST, "/cart") => {
                let Addition {
                    user,
                    product,
                    quantity,
                } = http_server::body(request).await?;
                let added = self
                    .cart
                    .add(AddRequest {
                        user,
                        product,
                        quantity,
                    })
                    .await;
                Ok(cart_page(added.map_err(PageError::from)?))
            }
            (&Method::POST, "/checkout") => {
                let Checkout { user } = http_server::body(request).await?;
                Ok(http_server::json(&self.checkout(user).await?))
            }
            (&Method::GET, path) => match path.strip_prefix("/products/") {
                Some(id) => Ok(self.page(&request, self.product(id).await?).await),
                None => Err(http_server::not_found()),
            },
            _ => Err(http_server::not_found()),
        }
    }
}

impl Service for Web {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        self.answer(request).await.unwrap_or_else(|refusal| refusal)
    }
}

fn cart_page(cart: Contents) -> Answer {
    let lines: Vec<CartLine> = cart
        .items
        .into_iter()
        .map(|item| CartLine {
            product: item.product,
            quantity: item.quantity,
        })
        .collect();
    http_server::json(&lines)
}

fn html(page: &Page, style: &str) -> String {
    let product = |p: &Product| {
        let (whole, cents) = (p.price / 100, p.price % 100);
        format!(
            "<li><a href=\"/products/{}\">{}</a> <b>{whole}.{cents:02}</b></li>",
            p.id, p.name
        )
    };
    let products: Vec<String> = page.products.iter().map(product).collect();
    let link = |id: &String| format!("<a href=\"/products/{id}\">{id}</a>");
    let others = page.recommendations.as_ref().map_or_else(String::new, |r| {
        let links: Vec<String> = r.products.iter().map(link).collect();
        format!(
            "<p>Others also bought {} <small>({})</small></p>",
            links.join(", "),
            r.version
        )
    });
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>The shop</title><style>{style}</style>\
         <h1><a href=\"/\">The shop</a></h1><ul>{}</ul>{others}",
        products.concat()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::http_server::testing::start;

    /// A port nothing listens on: bound, then let go.
    const NOWHERE: &str = "http://127.0.0.1:1";

    async fn web() -> String {
        let catalogue = start(Catalogue::new()).await;
        let [recommendations, payments, cart, assets] = [NOWHERE; 4].map(String::from);
        let options = Options {
            port: 0,
            catalogue,
            recommendations,
            payments,
            cart,
            assets,
        };
        start(Web::new(options).unwrap()).await
    }

    #[tokio::test]
    async fn the_page_does_without_recommendations_but_not_without_a_product() {
        let (url, client) = (web().await, Client::new());
        let home: serde_json::Value = client.get(&url).await.unwrap();
        assert_eq!(home["products"].as_array().unwrap().len(), 12);
        assert_eq!(home["recommendations"], serde_json::Value::Null);
        let missing = client
            .text(&format!("{url}/products/none"))
            .await
            .unwrap_err();
        assert!(
            matches!(missing, CallError::Status { status, .. } if status == 404),
            "{missing}"
        );
        let cart = client
            .text(&format!("{url}/cart?user=u"))
            .await
            .unwrap_err();
        assert!(
            matches!(cart, CallError::Status { status, .. } if status == 502),
            "{cart}"
        );
    }

    #[test]
    fn a_browser_sees_prices_and_links() {
        let products = vec![Product {
            id: "weft".into(),
            name: "Weft".into(),
            price: 1205,
        }];
        let page = html(
            &Page {
                products,
                recommendations: None,
            },
            "",
        );
        assert!(
            page.contains("<a href=\"/products/weft\">Weft</a> <b>12.05</b>"),
            "{page}"
        );
    }
}
