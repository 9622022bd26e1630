//! What a rule matches, and the one order in which rules are tried.

use std::cmp::Reverse;

use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};

use crate::path;
use crate::{Pattern, UnixMillis};

/// All conditions must hold (Gateway API `HTTPRouteMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// The path; prefix `/` where nothing is said.
    #[serde(default)]
    pub path: PathMatch,
    /// The method, or any.
    #[serde(default, with = "method_text", skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Header conditions; names are unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Query parameter conditions; names are unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
}

/// A condition on the path, without the query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The very path.
    Exact(String),
    /// Whole path segments: `/foo` means `/foo`, `/foo/` and `/foo/bar`, not `/foobar`. No trailing slash but for `/`.
    Prefix(String),
    /// The whole path.
    Regex(Pattern),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

impl PathMatch {
    /// A prefix in its canonical form: "a trailing slash is ignored".
    pub fn prefix(prefix: &str) -> Self {
        let trimmed = prefix.trim_end_matches('/');
        Self::Prefix(if trimmed.is_empty() {
            "/".into()
        } else {
            trimmed.into()
        })
    }

    /// Does the path fulfil it?
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path::has_prefix(path, prefix),
            Self::Regex(pattern) => pattern.matches(path),
        }
    }
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// The very value.
    Exact(String),
    /// The whole value.
    Regex(Pattern),
}

impl ValueMatch {
    /// Does the value fulfil it?
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

/// A condition on a header. Several lines of one name count as one value, joined by `,` (RFC 9110, 5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// The header, in lower case.
    #[serde(with = "header_text")]
    pub name: HeaderName,
    /// The condition.
    pub value: ValueMatch,
}

/// A condition on a query parameter. Of a repeated parameter the first counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// The parameter; letter case matters.
    pub name: String,
    /// The condition.
    pub value: ValueMatch,
}

/// The order of rules. Smaller comes first and wins.
///
/// Gateway API v1, HTTPRouteRule.matches: "Proxy or Load Balancer routing configuration generated from HTTPRoutes MUST
/// prioritize matches based on the following criteria, continuing on ties. Across all rules specified on applicable
/// Routes, precedence must be given to the match having: 'Exact' path match; 'Prefix' path match with largest number of
/// characters; Method match; Largest number of header matches; Largest number of query param matches. [...] If ties
/// still exist across multiple Routes, matching precedence MUST be determined in order of the following criteria,
/// continuing on ties: The oldest Route based on creation timestamp; The Route appearing first in alphabetical order by
/// {namespace}/{name}. If ties still exist within an HTTPRoute, matching precedence MUST be granted to the FIRST
/// matching rule (in list order) with a match meeting the above criteria."
///
/// "Note: The precedence of RegularExpression path matches are implementation-specific": here by their length, after
/// exact and before prefix, as Envoy Gateway and Contour have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    path: Reverse<(u8, usize)>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    created: UnixMillis,
    route: (String, String),
    position: (usize, usize),
}

impl Precedence {
    /// Of a match at `position` (rule, match) in the route `(namespace, name)` that was created then.
    pub fn new(
        m: &HttpMatch,
        created: UnixMillis,
        route: (&str, &str),
        position: (usize, usize),
    ) -> Self {
        let path = match &m.path {
            PathMatch::Exact(p) => (2, p.len()),
            PathMatch::Regex(p) => (1, p.as_str().len()),
            PathMatch::Prefix(p) => (0, p.len()),
        };
        Self {
            path: Reverse(path),
            method: Reverse(m.method.is_some()),
            headers: Reverse(m.headers.len()),
            query: Reverse(m.query.len()),
            created,
            route: (route.0.to_owned(), route.1.to_owned()),
            position,
        }
    }
}

impl Precedence {
    /// The same for a match of a GRPCRoute, which names `service` and `method` with that many characters.
    ///
    /// Gateway API v1, GRPCRouteRule.matches: "Precedence MUST be given to the rule with the largest number of: Characters in
    /// a matching non-wildcard hostname. Characters in a matching hostname. Characters in a matching service. Characters in a
    /// matching method. Header matches." The ties are those of HTTPRoute; the two kinds never stand in one table.
    pub fn grpc(
        (service, method): (usize, usize),
        m: &HttpMatch,
        created: UnixMillis,
        route: (&str, &str),
        position: (usize, usize),
    ) -> Self {
        Self {
            path: Reverse((0, (service << 16) | method.min(0xffff))),
            method: Reverse(false),
            query: Reverse(0),
            ..Self::new(m, created, route, position)
        }
    }
}

/// `Option<Method>` as text.
mod method_text {
    use http::Method;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::ref_option)] // serde hands over a reference to the field
    pub(super) fn serialize<S: Serializer>(m: &Option<Method>, s: S) -> Result<S::Ok, S::Error> {
        match m {
            Some(m) => s.serialize_str(m.as_str()),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Method>, D::Error> {
        Option::<String>::deserialize(d)?
            .map(|s| s.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// `HeaderName` as text.
pub(crate) mod header_text {
    use http::HeaderName;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(n: &HeaderName, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(n.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<HeaderName, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(name: &'static str) -> HeaderMatch {
        HeaderMatch {
            name: HeaderName::from_static(name),
            value: ValueMatch::Exact("1".into()),
        }
    }

    fn query(name: &str) -> QueryMatch {
        QueryMatch {
            name: name.into(),
            value: ValueMatch::Exact("1".into()),
        }
    }

    fn path(path: PathMatch) -> HttpMatch {
        HttpMatch {
            path,
            ..HttpMatch::default()
        }
    }

    fn rank(m: &HttpMatch) -> Precedence {
        Precedence::new(m, UnixMillis(5), ("ns", "b"), (1, 1))
    }

    #[test]
    fn exact_path_match_first() {
        assert!(
            rank(&path(PathMatch::Exact("/a".into())))
                < rank(&path(PathMatch::Prefix("/a/very/long/one".into())))
        );
    }

    #[test]
    fn prefix_with_largest_number_of_characters() {
        let method = HttpMatch {
            method: Some(Method::GET),
            headers: vec![header("a")],
            ..path(PathMatch::Prefix("/a".into()))
        };
        assert!(rank(&path(PathMatch::Prefix("/ab".into()))) < rank(&method));
    }

    #[test]
    fn method_before_headers() {
        let method = HttpMatch {
            method: Some(Method::GET),
            ..HttpMatch::default()
        };
        let headers = HttpMatch {
            headers: vec![header("a"), header("b")],
            ..HttpMatch::default()
        };
        assert!(rank(&method) < rank(&headers));
    }

    #[test]
    fn largest_number_of_headers_before_query() {
        let headers = HttpMatch {
            headers: vec![header("a")],
            ..HttpMatch::default()
        };
        let queries = HttpMatch {
            query: vec![query("a"), query("b")],
            ..HttpMatch::default()
        };
        assert!(rank(&headers) < rank(&queries));
        assert!(
            rank(&queries)
                < rank(&HttpMatch {
                    query: vec![query("a")],
                    ..HttpMatch::default()
                })
        );
    }

    #[test]
    fn then_the_oldest_route_then_its_name_then_its_place() {
        let m = HttpMatch::default();
        let of = |created, name, position| {
            Precedence::new(&m, UnixMillis(created), ("ns", name), position)
        };
        assert!(of(1, "z", (9, 9)) < of(2, "a", (0, 0)));
        assert!(of(1, "a", (9, 9)) < of(1, "b", (0, 0)));
        assert!(of(1, "a", (0, 1)) < of(1, "a", (1, 0)));
        assert!(of(1, "a", (1, 0)) < of(1, "a", (1, 1)));
    }

    #[test]
    fn grpc_service_then_method_then_headers() {
        let of = |names, headers: usize| {
            let m = HttpMatch {
                headers: vec![header("a"); headers],
                ..HttpMatch::default()
            };
            Precedence::grpc(names, &m, UnixMillis(1), ("ns", "a"), (0, 0))
        };
        assert!(of((5, 0), 0) < of((4, 9), 9));
        assert!(of((5, 3), 0) < of((5, 2), 9));
        assert!(of((5, 3), 2) < of((5, 3), 1));
        assert!(of((5, 0), 0) < of((0, 20), 0));
    }

    #[test]
    fn a_trailing_slash_of_a_prefix_is_ignored() {
        assert_eq!(PathMatch::prefix("/a/"), PathMatch::Prefix("/a".into()));
        assert_eq!(PathMatch::prefix("/"), PathMatch::Prefix("/".into()));
    }
}
