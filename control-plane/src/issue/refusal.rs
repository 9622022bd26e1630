//! Why no certificate is issued, and the one table that says what follows from each reason.

use std::net::IpAddr;

use tonic::{Code, Status};
use weft_model::WorkloadKey;

use crate::ca::IssueError;
use crate::ca::request::RequestError;
use crate::token::TokenError;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No `authorization: Bearer` metadata.
    #[error("the call carries no token; send \"authorization: Bearer <service-account token>\"")]
    NoToken,
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The transport did not say who is calling.
    #[error("the caller's address is not known")]
    NoPeer,
    /// No such pod, or not yet.
    #[error("the pod {0} of the token is not known")]
    PodUnknown(WorkloadKey),
    /// Another pod of the same name.
    #[error(
        "the token was made for another pod named {pod} (uid {token}, and the pod has {actual})"
    )]
    PodReplaced {
        /// The pod.
        pod: WorkloadKey,
        /// The UID in the token.
        token: String,
        /// The UID of the pod that is known now.
        actual: String,
    },
    /// Succeeded or failed; its address may belong to another pod by now.
    #[error("the pod {0} has ended")]
    PodEnded(WorkloadKey),
    /// The pod's `serviceAccountName` is not the token's.
    #[error("the pod {pod} runs as service account {actual:?}, and the token is of {token:?}")]
    OtherAccount {
        /// The pod.
        pod: WorkloadKey,
        /// In the token.
        token: String,
        /// In the pod's specification.
        actual: String,
    },
    /// The pod's status has no address yet.
    #[error("the pod {0} has no address yet")]
    NoAddress(WorkloadKey),
    /// A stolen token, or a NAT on the way.
    #[error("the call comes from {peer}, which is not an address of the pod {pod} ({addresses})")]
    OtherAddress {
        /// The pod.
        pod: WorkloadKey,
        /// Who calls.
        peer: IpAddr,
        /// The pod's addresses.
        addresses: String,
    },
    /// The signing request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The authority cannot sign.
    #[error(transparent)]
    Authority(#[from] IssueError),
}

impl Refusal {
    /// The gRPC status code and the label for metrics and logs. `UNAVAILABLE` tells the client to try again.
    pub fn class(&self) -> (Code, &'static str) {
        match self {
            Self::NoToken => (Code::Unauthenticated, "token_missing"),
            Self::Token(e) => (Code::Unauthenticated, e.reason()),
            Self::NoPeer => (Code::Internal, "peer_unknown"),
            Self::PodUnknown(_) => (Code::Unavailable, "pod_unknown"),
            Self::PodReplaced { .. } => (Code::PermissionDenied, "pod_replaced"),
            Self::PodEnded(_) => (Code::PermissionDenied, "pod_ended"),
            Self::OtherAccount { .. } => (Code::PermissionDenied, "pod_account"),
            Self::NoAddress(_) => (Code::Unavailable, "pod_without_address"),
            Self::OtherAddress { .. } => (Code::PermissionDenied, "pod_address"),
            Self::Request(e) => (Code::InvalidArgument, request_label(e)),
            Self::Authority(IssueError::Expired { .. }) => (Code::Unavailable, "authority_expired"),
            Self::Authority(IssueError::Randomness | IssueError::Sign(_)) => {
                (Code::Internal, "authority_failed")
            }
        }
    }

    /// May it pass by itself within moments, when the objects catch up with a pod that has just started?
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::PodUnknown(_) | Self::PodReplaced { .. } | Self::NoAddress(_)
        )
    }
}

fn request_label(error: &RequestError) -> &'static str {
    match error {
        RequestError::TooLong(_) => "csr_too_long",
        RequestError::NotPem(_) | RequestError::Malformed(_) => "csr_malformed",
        RequestError::BadSignature => "csr_signature",
        RequestError::KeyKind(_) => "csr_key",
        RequestError::AsksForCa => "csr_ca",
        RequestError::OtherName { .. } => "csr_other_name",
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class().0, refusal.to_string())
    }
}
