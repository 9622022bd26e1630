//! HTTPRoute and GRPCRoute in one shape.
//!
//! The `gateway-api` crate has a type of its own for every place where a filter, header or reference stands. Here each idea is one
//! type, read from the crate's types by their field names; the crate's types have checked them before.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `spec` of a route. What is missing is empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RouteSpec {
    pub(super) parent_refs: Vec<ParentRef>,
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ParentRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) section_name: Option<String>,
    pub(super) port: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) name: Option<String>,
    pub(super) matches: Vec<Match>,
    pub(super) filters: Vec<Filter>,
    pub(super) backend_refs: Vec<BackendRef>,
    pub(super) timeouts: Option<Timeouts>,
    pub(super) retry: Option<Retry>,
    pub(super) session_persistence: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Match {
    pub(super) path: Option<Typed>,
    pub(super) method: Option<Method>,
    pub(super) headers: Vec<Named>,
    pub(super) query_params: Vec<Named>,
}

/// A value with how it is compared: `Exact` where nothing is said, for paths `PathPrefix`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Typed {
    pub(super) r#type: Option<String>,
    pub(super) value: Option<String>,
}

/// The same for something with a name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) r#type: Option<String>,
    pub(super) value: String,
}

/// HTTPRoute means a word by `method`, GRPCRoute an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Method {
    Http(String),
    Grpc {
        service: Option<String>,
        method: Option<String>,
        r#type: Option<String>,
    },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Filter {
    pub(super) r#type: String,
    pub(super) request_header_modifier: Option<HeaderModifier>,
    pub(super) response_header_modifier: Option<HeaderModifier>,
    pub(super) request_mirror: Option<RequestMirror>,
    pub(super) request_redirect: Option<RequestRedirect>,
    pub(super) url_rewrite: Option<UrlRewrite>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct HeaderModifier {
    pub(super) set: Vec<Named>,
    pub(super) add: Vec<Named>,
    pub(super) remove: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RequestMirror {
    pub(super) backend_ref: BackendRef,
    pub(super) percent: Option<i64>,
    pub(super) fraction: Option<Fraction>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fraction {
    pub(super) numerator: i64,
    pub(super) denominator: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RequestRedirect {
    pub(super) scheme: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
    pub(super) port: Option<i64>,
    pub(super) status_code: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct UrlRewrite {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PathModifier {
    pub(super) r#type: String,
    pub(super) replace_full_path: Option<String>,
    pub(super) replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct BackendRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<i64>,
    pub(super) weight: Option<i64>,
    pub(super) filters: Vec<Filter>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Timeouts {
    pub(super) request: Option<String>,
    pub(super) backend_request: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Retry {
    pub(super) attempts: Option<i64>,
    pub(super) backoff: Option<String>,
    pub(super) codes: Vec<i64>,
}

/// From the crate's type of a `spec`. Never fails for a type that has these field names; an empty spec is attached to nothing.
pub(super) fn read<S: Serialize, T: DeserializeOwned + Default>(spec: &S) -> T {
    serde_json::to_value(spec)
        .and_then(serde_json::from_value)
        .unwrap_or_default()
}
