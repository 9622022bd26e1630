//! `envoy.service.discovery.v3.AggregatedDiscoveryService` as a tonic service.
//!
//! Written by hand, because the messages are ([`crate::wire`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use weft_model::SpiffeId;

use super::protocol::{Delta, Sotw};
use super::session::{self, Protocol};
use super::{Clients, Snapshot};
use crate::wire;

/// Responses that are made before the client has taken the last: none.
const READY_RESPONSES: usize = 1;
/// The largest request, in bytes: a reconnecting client names everything it has.
const MAX_REQUEST: usize = 16 << 20;

/// Who the client's certificate says it is; an extension of the HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity(pub SpiffeId);

/// The service, for `tonic::transport::Server::add_service`.
///
/// Idle connections are the transport's business: `http2_keepalive_interval` finds clients that are gone.
#[derive(Clone)]
pub struct AdsServer {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clients: Clients,
}

impl AdsServer {
    /// Serves the newest snapshot, and every one that follows it. When its sender is dropped, streams end with
    /// `UNAVAILABLE`.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, clients: Clients) -> Self {
        Self { snapshots, clients }
    }
}

impl NamedService for AdsServer {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

/// One method of the service.
struct Method<P> {
    server: AdsServer,
    protocol: std::marker::PhantomData<P>,
}

impl<P: Protocol> StreamingService<P::Request> for Method<P> {
    type Response = P::Response;
    type ResponseStream = ReceiverStream<Result<P::Response, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<P::Request>>) -> Self::Future {
        let AdsServer { snapshots, clients } = self.server.clone();
        let identity = request
            .extensions()
            .get::<PeerIdentity>()
            .map(|peer| peer.0.clone());
        let (sender, receiver) = mpsc::channel(READY_RESPONSES);
        // Ends when the client's half of the stream does.
        tokio::spawn(session::run::<P>(
            request.into_inner(),
            sender,
            snapshots,
            clients,
            identity,
        ));
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(receiver))) })
    }
}

impl<B> Service<http::Request<B>> for AdsServer
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        fn method<P>(server: &AdsServer) -> Method<P> {
            Method {
                server: server.clone(),
                protocol: std::marker::PhantomData,
            }
        }
        let server = self.clone();
        Box::pin(async move {
            let response = match request.uri().path() {
                wire::DELTA_PATH => {
                    let mut grpc =
                        Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST);
                    grpc.streaming(method::<Delta>(&server), request).await
                }
                wire::SOTW_PATH => {
                    let mut grpc =
                        Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST);
                    grpc.streaming(method::<Sotw>(&server), request).await
                }
                _ => Status::unimplemented("the service has no such method").into_http(),
            };
            Ok(response)
        })
    }
}
