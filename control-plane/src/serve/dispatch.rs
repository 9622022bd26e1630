//! Which service does a call go to, and may this peer make it?
//!
//! Called by [`super::accept`] for each request. Certificates are for anyone with a token, under limits of their own;
//! discovery is for identities of this mesh only.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::timeout::Timeout;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};
use weft_model::TrustDomain;
use weft_xds::ca::{CREATE_CERTIFICATE_PATH, IstioCertificateServiceServer};
use weft_xds::server::PeerIdentity;
use weft_xds::wire::{DELTA_PATH, SOTW_PATH};

use super::closing::{Closing, ClosingBody};
use super::peer::Peer;
use crate::issue::{Certificates, PeerAddress};

/// Certificate calls at work at once; more are turned away with `UNAVAILABLE`, and clients back off.
const CERTIFICATES_AT_ONCE: usize = 512;

/// The longest that a certificate call may take.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(10);

type CertificateStack =
    LoadShed<ConcurrencyLimit<Timeout<IstioCertificateServiceServer<Certificates>>>>;

/// The services behind the port; clones share their limits.
#[derive(Clone)]
pub struct Dispatch<A> {
    discovery: A,
    certificates: CertificateStack,
    trust_domain: TrustDomain,
}

impl<A> Dispatch<A>
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    /// `discovery` is the ADS service.
    pub fn new(discovery: A, certificates: Certificates) -> Self {
        let trust_domain = certificates.trust_domain.clone();
        let certificates = ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(CERTIFICATES_AT_ONCE)
            .timeout(CERTIFICATE_TIMEOUT)
            .service(IstioCertificateServiceServer::new(certificates));
        Self {
            discovery,
            certificates,
            trust_domain,
        }
    }

    /// Answers one call; every refusal is a gRPC status.
    pub async fn call(
        self,
        peer: Peer,
        closing: Closing,
        mut request: Request<Body>,
    ) -> Response<Body> {
        match request.uri().path() {
            CREATE_CERTIFICATE_PATH => {
                request.extensions_mut().insert(PeerAddress(peer.address));
                match self.certificates.oneshot(request).await {
                    Ok(response) => response,
                    Err(e) => stack_status(&e).into_http(),
                }
            }
            DELTA_PATH | SOTW_PATH => {
                match self.identity(&peer) {
                    Ok(identity) => request.extensions_mut().insert(identity),
                    Err(status) => return status.into_http(),
                };
                let until = closing.clone();
                let request = request.map(|body| Body::new(ClosingBody::request(body, until)));
                let Ok(response) = self.discovery.oneshot(request).await;
                response.map(|body| Body::new(ClosingBody::response(body, closing)))
            }
            _ => Status::unimplemented("no such method on this port").into_http(),
        }
    }

    fn identity(&self, peer: &Peer) -> Result<PeerIdentity, Status> {
        let Some(certificate) = &peer.certificate else {
            return Err(Status::unauthenticated(
                "discovery needs a client certificate of the mesh",
            ));
        };
        match &certificate.identity {
            Ok(identity) if identity.trust_domain == self.trust_domain => {
                Ok(PeerIdentity(identity.clone()))
            }
            Ok(identity) => Err(Status::permission_denied(format!(
                "{identity} is not of the trust domain {}",
                self.trust_domain
            ))),
            Err(reason) => Err(Status::permission_denied(*reason)),
        }
    }
}

fn stack_status(error: &BoxError) -> Status {
    if error.is::<tower::load_shed::error::Overloaded>() {
        Status::unavailable("too many certificate requests at once; try again")
    } else if error.is::<tower::timeout::error::Elapsed>() {
        Status::deadline_exceeded("the certificate request took too long")
    } else {
        Status::internal(error.to_string())
    }
}
