//! Carries out what a rule says about a request or response: pure edits of heads.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri, header};

use crate::hostname::without_port;
use crate::path::replace_prefix;
use crate::route::{HttpRule, PathMatch, PathRewrite, Redirect, Rewrite, WeightedBackend};

/// Edits the request that goes to `backend`: the rule's headers, the backend's headers, host and path.
pub fn request(
    rule: &HttpRule,
    rewrite: &Rewrite,
    backend: &WeightedBackend,
    uri: &mut Uri,
    headers: &mut HeaderMap,
) {
    rule.request_headers.apply(headers);
    backend.request_headers.apply(headers);
    if rewrite.is_empty() {
        return;
    }
    let mut parts = std::mem::take(uri).into_parts();
    if let Some(hostname) = &rewrite.hostname {
        if let Ok(value) = HeaderValue::from_str(hostname.as_str())
            && (headers.contains_key(header::HOST) || parts.authority.is_none())
        {
            headers.insert(header::HOST, value);
        }
        if parts.authority.is_some() {
            parts.authority = Authority::try_from(hostname.as_str())
                .ok()
                .or(parts.authority);
        }
    }
    if let Some(path) = &rewrite.path {
        let old = parts.path_and_query.as_ref();
        let new = rewritten(
            path,
            &rule.matches.path,
            old.map_or("/", PathAndQuery::path),
            old.and_then(PathAndQuery::query),
        );
        parts.path_and_query = PathAndQuery::try_from(new).ok().or(parts.path_and_query);
        if parts.authority.is_some() && parts.scheme.is_none() {
            parts.scheme = Some(Scheme::HTTP);
        }
    }
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Edits the response that came from `backend`: the backend's headers, then the rule's.
pub fn response(rule: &HttpRule, backend: Option<&WeightedBackend>, headers: &mut HeaderMap) {
    if let Some(backend) = backend {
        backend.response_headers.apply(headers);
    }
    rule.response_headers.apply(headers);
}

/// The `Location` of a redirect. `authority` is the request's, with its port where it has one; `port` the destination's.
///
/// Gateway API, HTTPRequestRedirectFilter.port: "If no port is specified, the redirect port MUST be derived using the
/// following rules: if redirect scheme is not-empty, the redirect port MUST be the well-known port associated with the
/// redirect scheme [...]; if redirect scheme is empty, the redirect port MUST be the Gateway Listener port. [...]
/// Implementations SHOULD NOT add the port number in the 'Location' header in the following cases: a Location header
/// that will use HTTP (whether that is determined via the Listener protocol or the Scheme field) _and_ use port 80.
/// [...] HTTPS [...] _and_ use port 443."
pub fn location(
    rule: &HttpRule,
    redirect: &Redirect,
    authority: &str,
    port: u16,
    path: &str,
    query: Option<&str>,
) -> String {
    let scheme = redirect
        .scheme
        .unwrap_or(crate::route::filter::Scheme::Http);
    let host = redirect
        .hostname
        .as_ref()
        .map_or_else(|| without_port(authority), |h| h.as_str());
    let port = redirect.port.unwrap_or_else(|| {
        redirect
            .scheme
            .map_or(port, crate::route::filter::Scheme::port)
    });
    let path = match &redirect.path {
        Some(rewrite) => rewritten(rewrite, &rule.matches.path, path, query),
        None => with_query(path.to_owned(), query),
    };
    let port = if port == scheme.port() {
        String::new()
    } else {
        format!(":{port}")
    };
    format!("{}://{host}{port}{path}", scheme.as_str())
}

fn rewritten(
    rewrite: &PathRewrite,
    matched: &PathMatch,
    path: &str,
    query: Option<&str>,
) -> String {
    let path = match (rewrite, matched) {
        (PathRewrite::Full(full), _) => full.clone(),
        (PathRewrite::Prefix(replacement), PathMatch::Prefix(prefix)) => {
            replace_prefix(path, prefix, replacement)
        }
        // Compile refuses a prefix rewrite without a prefix match.
        (PathRewrite::Prefix(_), _) => path.to_owned(),
    };
    with_query(path, query)
}

fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}
