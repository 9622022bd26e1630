//! What became of routes and policies, in the words of Gateway API status conditions.

use serde::Serialize;
use weft_model::{BackendKey, Origin};

/// What became of one route or policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The object.
    pub object: Origin,
    /// Its `metadata.generation`; 0 where unknown.
    pub generation: i64,
    /// Each parent or target that is Weft's business.
    pub parents: Vec<ParentStatus>,
}

/// What became of one parent or target reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The index in `parentRefs` or `targetRefs`.
    pub index: usize,
    /// What it names, e.g. `Service shop/web port 80`.
    pub reference: String,
    /// `Accepted` and, for routes, `ResolvedRefs`.
    pub conditions: Vec<Condition>,
    /// The route tables that it is part of: it is Programmed when the proxies that use them acknowledged them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<BackendKey>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted` or `ResolvedRefs`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Does it hold?
    pub status: bool,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// The reasons of Gateway API conditions (`RouteConditionReason`, `PolicyConditionReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// In force.
    Accepted,
    /// Every reference leads somewhere.
    ResolvedRefs,
    /// The service or its port does not exist.
    NoMatchingParent,
    /// Something in it is not supported or makes no sense.
    UnsupportedValue,
    /// Another route or policy wins.
    Conflicted,
    /// The kind of a backend is not Service.
    InvalidKind,
    /// A backend does not exist.
    BackendNotFound,
    /// A backend is in another namespace, and no ReferenceGrant allows it.
    RefNotPermitted,
    /// The target of a policy does not exist.
    TargetNotFound,
    /// The policy itself is wrong.
    Invalid,
}

impl Condition {
    pub(crate) fn accepted() -> Self {
        Self {
            kind: "Accepted",
            status: true,
            reason: Reason::Accepted,
            message: "in force".into(),
        }
    }

    pub(crate) fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: "Accepted",
            status: false,
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn resolved(problem: Option<(Reason, String)>) -> Self {
        let status = problem.is_none();
        let (reason, message) = problem.unwrap_or((
            Reason::ResolvedRefs,
            "every reference leads somewhere".into(),
        ));
        Self {
            kind: "ResolvedRefs",
            status,
            reason,
            message,
        }
    }
}
