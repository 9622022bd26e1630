//! `CreateCertificate`: from token and signing request to a certificate chain.
//!
//! Served by [`crate::serve`] on 15012. The spine is [`Certificates::create`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};
use tracing::{info, warn};
use weft_k8s::source::Observed;
use weft_model::{SpiffeId, TrustDomain};
use weft_xds::ca::{IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService};

use super::{Refusal, authorize};
use crate::ca::{Authority, Issued, certificate_pem, request};
use crate::clock::Rfc3339;
use crate::metrics::Metrics;
use crate::token::{Bearer, TokenReviewer};

/// How long a call waits for the objects to show a pod that has just started, before it is refused.
const SETTLE: Duration = Duration::from_secs(3);

/// The remote address of the connection; the transport puts it into each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// The certificate service.
#[derive(Clone)]
pub struct Certificates {
    /// Judges tokens.
    pub reviewer: TokenReviewer,
    /// Signs.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// The pods.
    pub objects: watch::Receiver<Arc<Observed>>,
    /// Of every identity.
    pub trust_domain: TrustDomain,
    /// No certificate lives longer.
    pub max_lifetime: Duration,
    /// Counts what happened.
    pub metrics: Metrics,
}

impl Certificates {
    async fn create(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
        asked: &IstioCertificateRequest,
    ) -> Result<(SpiffeId, Issued, String), Refusal> {
        let peer = peer.ok_or(Refusal::NoPeer)?;
        let now = SystemTime::now();
        let token = bearer_token(metadata).ok_or(Refusal::NoToken)?;
        let bearer = self.reviewer.review(token, now)?; //           1 whose token is it
        let wanted = request::parse(&asked.csr)?; //                 2 a sound request, by the key's holder
        let identity = self.identity(&bearer, peer).await?; //       3 that pod, that account, that address
        wanted.check_identity(&identity)?; //                        4 no other name asked for
        let authority = self.authority.borrow().clone();
        let lifetime = lifetime(asked.validity_duration, self.max_lifetime);
        let issued = authority.issue(wanted.key(), &identity, &[], lifetime, SystemTime::now())?; // 5 sign
        Ok((identity, issued, authority.bundle_pem().to_owned()))
    }

    /// As [`authorize`] says, once the objects have had a moment to show the pod.
    async fn identity(&self, bearer: &Bearer, peer: SocketAddr) -> Result<SpiffeId, Refusal> {
        let mut objects = self.objects.clone();
        let deadline = Instant::now() + SETTLE;
        loop {
            let current = objects.borrow_and_update().clone();
            match authorize(bearer, &current.objects, peer.ip(), &self.trust_domain) {
                Err(refusal) if refusal.may_pass() => {
                    match timeout_at(deadline, objects.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) | Err(_) => return Err(refusal),
                    }
                }
                verdict => return verdict,
            }
        }
    }
}

#[async_trait]
impl IstioCertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let peer = request.extensions().get::<PeerAddress>().map(|p| p.0);
        let from = peer
            .map(|p| p.ip().to_canonical().to_string())
            .unwrap_or_default();
        match self
            .create(request.metadata(), peer, request.get_ref())
            .await
        {
            Ok((identity, issued, bundle)) => {
                self.metrics.certificate_issued();
                info!(%identity, peer = from, not_after = %Rfc3339(issued.not_after), "certificate issued");
                let chain = issued.chain.iter().map(certificate_pem);
                Ok(Response::new(IstioCertificateResponse {
                    cert_chain: chain.chain([bundle]).collect(),
                }))
            }
            Err(refusal) => {
                let reason = refusal.class().1;
                self.metrics.certificate_refused(reason);
                warn!(reason, peer = from, "certificate refused: {refusal}");
                Err(refusal.into())
            }
        }
    }
}

fn bearer_token(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What was asked for, at most the maximum; zero or less asks for the maximum.
fn lifetime(asked_seconds: i64, max: Duration) -> Duration {
    match u64::try_from(asked_seconds) {
        Ok(0) | Err(_) => max,
        Ok(seconds) => Duration::from_secs(seconds).min(max),
    }
}
