//! The cart's gRPC contract, both sides of it, written by hand so that no protoc is needed:
//!
//! ```proto
//! package shop;
//! service Cart {
//!   rpc Add(AddRequest) returns (Contents);
//!   rpc Get(GetRequest) returns (Contents);
//!   rpc Clear(ClearRequest) returns (Contents);
//! }
//! ```
//!
//! [`Client`] is what `web` calls; [`Server`] turns requests into calls of a [`Cart`], which `cart` implements.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Puts some of a product into a cart.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct AddRequest {
    /// Whose cart.
    #[prost(string, tag = "1")]
    pub(crate) user: String,
    /// Product id.
    #[prost(string, tag = "2")]
    pub(crate) product: String,
    /// How many more, at least 1.
    #[prost(uint32, tag = "3")]
    pub(crate) quantity: u32,
}

/// Asks for a cart.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct GetRequest {
    /// Whose cart.
    #[prost(string, tag = "1")]
    pub(crate) user: String,
}

/// Empties a cart.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ClearRequest {
    /// Whose cart.
    #[prost(string, tag = "1")]
    pub(crate) user: String,
}

/// A cart after the call.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Contents {
    /// Its lines, in no particular order.
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<Item>,
}

/// A line of a cart.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Item {
    /// Product id.
    #[prost(string, tag = "1")]
    pub(crate) product: String,
    /// How many, at least 1.
    #[prost(uint32, tag = "2")]
    pub(crate) quantity: u32,
}

/// Calls the service over HTTP/2 in plain text.
#[derive(Debug, Clone)]
pub(crate) struct Client(Channel);

impl Client {
    /// Connects with the first call, and again after a failure.
    pub(crate) fn new(url: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(15));
        Ok(Self(endpoint.connect_lazy()))
    }

    /// `shop.Cart/Add`.
    pub(crate) async fn add(&self, request: AddRequest) -> Result<Contents, Status> {
        self.unary("/shop.Cart/Add", request).await
    }

    /// `shop.Cart/Get`.
    pub(crate) async fn get(&self, user: String) -> Result<Contents, Status> {
        self.unary("/shop.Cart/Get", GetRequest { user }).await
    }

    /// `shop.Cart/Clear`.
    pub(crate) async fn clear(&self, user: String) -> Result<Contents, Status> {
        self.unary("/shop.Cart/Clear", ClearRequest { user }).await
    }

    async fn unary<M>(&self, path: &'static str, message: M) -> Result<Contents, Status>
    where
        M: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<M, Contents>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc
            .unary(Request::new(message), path, codec)
            .await?
            .into_inner())
    }
}

/// What the service does.
pub(crate) trait Cart: Send + Sync + 'static {
    /// Adds to a cart.
    fn add(&self, request: AddRequest) -> impl Future<Output = Result<Contents, Status>> + Send;
    /// Reads a cart.
    fn get(&self, request: GetRequest) -> impl Future<Output = Result<Contents, Status>> + Send;
    /// Empties a cart.
    fn clear(&self, request: ClearRequest)
    -> impl Future<Output = Result<Contents, Status>> + Send;
}

/// The service as tonic's router takes it.
#[derive(Debug)]
pub(crate) struct Server<C>(Arc<C>);

impl<C> Server<C> {
    /// Serves `cart`.
    pub(crate) fn new(cart: C) -> Self {
        Self(Arc::new(cart))
    }
}

impl<C> Clone for Server<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> NamedService for Server<C> {
    const NAME: &'static str = "shop.Cart";
}

type Reply<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<C: Cart> UnaryService<AddRequest> for Server<C> {
    type Response = Contents;
    type Future = Reply<Response<Contents>, Status>;

    fn call(&mut self, request: Request<AddRequest>) -> Self::Future {
        let cart = self.0.clone();
        Box::pin(async move { cart.add(request.into_inner()).await.map(Response::new) })
    }
}

impl<C: Cart> UnaryService<GetRequest> for Server<C> {
    type Response = Contents;
    type Future = Reply<Response<Contents>, Status>;

    fn call(&mut self, request: Request<GetRequest>) -> Self::Future {
        let cart = self.0.clone();
        Box::pin(async move { cart.get(request.into_inner()).await.map(Response::new) })
    }
}

impl<C: Cart> UnaryService<ClearRequest> for Server<C> {
    type Response = Contents;
    type Future = Reply<Response<Contents>, Status>;

    fn call(&mut self, request: Request<ClearRequest>) -> Self::Future {
        let cart = self.0.clone();
        Box::pin(async move { cart.clear(request.into_inner()).await.map(Response::new) })
    }
}

impl<C, B> Service<http::Request<B>> for Server<C>
where
    C: Cart,
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Reply<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/shop.Cart/Add" => unary::<AddRequest, _, _>(server, request).await,
                "/shop.Cart/Get" => unary::<GetRequest, _, _>(server, request).await,
                "/shop.Cart/Clear" => unary::<ClearRequest, _, _>(server, request).await,
                path => Status::unimplemented(format!("no method {path}")).into_http(),
            })
        })
    }
}

async fn unary<M, S, B>(method: S, request: http::Request<B>) -> http::Response<Body>
where
    M: Message + Default + 'static,
    S: UnaryService<M, Response = Contents>,
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    Grpc::new(ProstCodec::<Contents, M>::default())
        .unary(method, request)
        .await
}
