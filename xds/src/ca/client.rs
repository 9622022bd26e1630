//! The asking side of the certificate API: used by the proxy's identity over a channel that the caller makes.

use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{IntoRequest, Response, Status};
use tonic_prost::ProstCodec;

use super::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse};

/// A client over any gRPC transport, e.g. `tonic::transport::Channel`.
#[derive(Debug, Clone)]
pub struct IstioCertificateServiceClient<T> {
    grpc: Grpc<T>,
}

impl<T> IstioCertificateServiceClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// Over this transport.
    pub fn new(transport: T) -> Self {
        Self {
            grpc: Grpc::new(transport),
        }
    }

    /// Has a certificate signed. Errors are the authority's own status, or `UNAVAILABLE` when it cannot be reached.
    pub async fn create_certificate(
        &mut self,
        request: impl IntoRequest<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.grpc.ready().await.map_err(|e| {
            Status::unavailable(format!(
                "the certificate authority is not reachable: {}",
                e.into()
            ))
        })?;
        let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
        self.grpc
            .unary(request.into_request(), path, ProstCodec::default())
            .await
    }
}
