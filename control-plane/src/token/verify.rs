//! Is this token genuine, meant for us, in time, and bound to a pod? Pure; also a fuzz target.
//!
//! The claims are those of projected service-account tokens
//! (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>); the checks follow RFC 8725.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::{Bearer, KeySet};
use crate::clock::{Rfc3339, from_unix_seconds};

/// A longer token is refused unread. Bytes.
pub const MAX_TOKEN: usize = 16 << 10;

/// How far the issuer's clock and ours may differ.
pub const LEEWAY: Duration = Duration::from_secs(10);

/// What the claims must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// `iss`, exactly.
    pub issuer: String,
    /// One of `aud`.
    pub audience: String,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`MAX_TOKEN`].
    #[error("the token has {0} bytes; at most {MAX_TOKEN} are allowed")]
    TooLong(usize),
    /// Not a signed JWT with the claims of a service account; `alg: none` ends up here too.
    #[error("the token is not a service-account token: {0}")]
    Malformed(String),
    /// Neither RS256 nor ES256, or not what the key is for.
    #[error("the token's algorithm {0} is not the one of its key")]
    Algorithm(String),
    /// Signed with a key that the issuer does not publish.
    #[error("the token's key {id:?} is not in the key set, which has {known}")]
    UnknownKey {
        /// The token's `kid`, cut to 128 characters.
        id: String,
        /// The IDs that are in the set.
        known: String,
    },
    /// Altered or forged.
    #[error("the token's signature is wrong")]
    Signature,
    /// Past `exp`.
    #[error("the token expired at {}", Rfc3339(*.0))]
    Expired(SystemTime),
    /// Before `nbf`.
    #[error("the token is not valid before {}", Rfc3339(*.0))]
    NotYetValid(SystemTime),
    /// Another issuer.
    #[error("the token's issuer is not {0:?}")]
    Issuer(String),
    /// Meant for another service.
    #[error("the token is not for the audience {0:?}; mount a projected token with this audience")]
    Audience(String),
    /// A token of a service account, not of one pod.
    #[error("the token is not bound to a pod; mount a projected service-account token")]
    NoPod,
}

impl TokenError {
    /// A short label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong(_) | Self::Malformed(_) => "token_malformed",
            Self::Algorithm(_) => "token_algorithm",
            Self::UnknownKey { .. } => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Expired(_) => "token_expired",
            Self::NotYetValid(_) => "token_not_yet_valid",
            Self::Issuer(_) => "token_issuer",
            Self::Audience(_) => "token_audience",
            Self::NoPod => "token_without_pod",
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Object>,
    serviceaccount: Object,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    #[serde(default)]
    uid: String,
}

/// Checks everything that the token itself can show, signature first.
pub fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected,
    now: SystemTime,
) -> Result<Bearer, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong(token.len()));
    }
    let header = decode_header(token).map_err(|e| TokenError::Malformed(e.to_string()))?;
    let id = header
        .kid
        .ok_or_else(|| TokenError::Malformed("its header has no kid".into()))?;
    let Some((algorithm, key)) = keys.find(&id) else {
        return Err(TokenError::UnknownKey {
            id: id.chars().take(128).collect(),
            known: keys.ids().collect::<Vec<_>>().join(", "),
        });
    };
    if header.alg != algorithm {
        return Err(TokenError::Algorithm(format!("{:?}", header.alg)));
    }
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&[&expected.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_exp = false; // below, against the caller's clock
    validation.validate_nbf = false;
    let claims = decode::<Claims>(token, key, &validation)
        .map_err(|e| claim_error(&e, expected))?
        .claims;
    check_times(&claims, now)?;
    bearer(claims)
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
    let end = from_unix_seconds(claims.exp);
    if now >= end + LEEWAY {
        return Err(TokenError::Expired(end));
    }
    let begin = from_unix_seconds(claims.nbf);
    if now + LEEWAY < begin {
        return Err(TokenError::NotYetValid(begin));
    }
    Ok(())
}

fn bearer(claims: Claims) -> Result<Bearer, TokenError> {
    let malformed = |e: weft_model::NameError| TokenError::Malformed(e.to_string());
    let kubernetes = claims.kubernetes.ok_or(TokenError::NoPod)?;
    let pod = kubernetes.pod.ok_or(TokenError::NoPod)?;
    let bearer = Bearer {
        namespace: kubernetes.namespace.parse().map_err(malformed)?,
        service_account: kubernetes.serviceaccount.name.parse().map_err(malformed)?,
        pod: pod.name.parse().map_err(malformed)?,
        pod_uid: pod.uid,
    };
    let subject = format!(
        "system:serviceaccount:{}:{}",
        bearer.namespace, bearer.service_account
    );
    if claims.sub != subject {
        return Err(TokenError::Malformed(
            "sub and kubernetes.io name different accounts".into(),
        ));
    }
    Ok(bearer)
}

/// The library's error enum may grow, hence the last arm.
fn claim_error(error: &jsonwebtoken::errors::Error, expected: &Expected) -> TokenError {
    let missing = |claim: &str| TokenError::Malformed(format!("the claim {claim} is missing"));
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidIssuer => TokenError::Issuer(expected.issuer.clone()),
        ErrorKind::InvalidAudience => TokenError::Audience(expected.audience.clone()),
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => TokenError::Issuer(expected.issuer.clone()),
            "aud" => TokenError::Audience(expected.audience.clone()),
            other => missing(other),
        },
        _ => TokenError::Malformed(error.to_string()),
    }
}
