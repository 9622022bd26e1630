//! Shopping carts: the gRPC service of [`crate::cart_api`], kept in Redis as one hash for each user.

use std::net::{Ipv6Addr, SocketAddr};

use clap::Args;
use tonic::Status;
use tonic::transport::server::TcpIncoming;

use crate::cart_api::{AddRequest, Cart, ClearRequest, Contents, GetRequest, Item, Server};
use crate::redis::{Redis, Value};
use crate::{http_server, shutdown};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port to serve on
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where the carts are kept, HOST:PORT
    #[arg(long, default_value = "redis:6379")]
    redis: String,
}

/// Why the service could not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The port is taken.
    #[error("{}: {source}", SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)))]
    Listen { port: u16, source: std::io::Error },
    /// HTTP/2 failed.
    #[error(transparent)]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until asked to stop.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let port = options.port;
    let listener = http_server::listen(port)
        .await
        .map_err(|source| Error::Listen { port, source })?;
    tracing::info!(port, "serving");
    let carts = Carts {
        redis: Redis::new(options.redis),
    };
    tonic::transport::Server::builder()
        .add_service(Server::new(carts))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown::requested(),
        )
        .await?;
    Ok(())
}

struct Carts {
    redis: Redis,
}

impl Carts {
    async fn command(&self, words: &[&str]) -> Result<Value, Status> {
        self.redis
            .command(words)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn contents(&self, key: &str) -> Result<Contents, Status> {
        Ok(items(&self.command(&["HGETALL", key]).await?))
    }
}

fn key(user: &str) -> Result<String, Status> {
    if user.is_empty() || user.len() > 64 {
        return Err(Status::invalid_argument("user: expected 1 to 64 bytes"));
    }
    Ok(format!("cart:{user}"))
}

/// The reply to HGETALL: fields and values in turn. A value that is no number is left out.
fn items(reply: &Value) -> Contents {
    let Value::Array(values) = reply else {
        return Contents::default();
    };
    let items = values.chunks_exact(2).filter_map(|pair| match pair {
        [Value::Text(product), Value::Text(quantity)] => Some(Item {
            product: product.clone(),
            quantity: quantity.parse().ok()?,
        }),
        _ => None,
    });
    Contents {
        items: items.collect(),
    }
}

impl Cart for Carts {
    async fn add(&self, request: AddRequest) -> Result<Contents, Status> {
        let key = key(&request.user)?;
        if request.product.is_empty() || !(1..=1000).contains(&request.quantity) {
            return Err(Status::invalid_argument(
                "expected a product and a quantity of 1 to 1000",
            ));
        }
        let quantity = request.quantity.to_string();
        self.command(&["HINCRBY", &key, &request.product, &quantity])
            .await?;
        self.contents(&key).await
    }

    async fn get(&self, request: GetRequest) -> Result<Contents, Status> {
        self.contents(&key(&request.user)?).await
    }

    async fn clear(&self, request: ClearRequest) -> Result<Contents, Status> {
        self.command(&["DEL", &key(&request.user)?]).await?;
        Ok(Contents::default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::cart_api::Client;

    /// Answers HINCRBY, HGETALL and DEL by the first letters of the command, for ever.
    async fn fake_redis() -> String {
        let listener = http_server::listen(0).await.unwrap();
        let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    let command = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    let reply = if command.contains("HGETALL") {
                        "*4\r\n$4\r\nweft\r\n$1\r\n2\r\n$3\r\nbad\r\n$1\r\nx\r\n"
                    } else {
                        ":1\r\n"
                    };
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn client_and_server_speak_grpc() {
        let listener = http_server::listen(0).await.unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let carts = Carts {
            redis: Redis::new(fake_redis().await),
        };
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(Server::new(carts))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        let client = Client::new(&url).unwrap();
        let add = AddRequest {
            user: "u".into(),
            product: "weft".into(),
            quantity: 2,
        };
        let cart = client.add(add.clone()).await.unwrap();
        assert_eq!(
            cart.items,
            [Item {
                product: "weft".into(),
                quantity: 2
            }]
        );
        assert_eq!(client.get("u".into()).await.unwrap(), cart);
        assert_eq!(client.clear("u".into()).await.unwrap(), Contents::default());
        let refused = client
            .add(AddRequest { quantity: 0, ..add })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
