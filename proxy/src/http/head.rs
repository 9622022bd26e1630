//! Heads of requests and responses: what belongs to one connection only is taken off, and nothing is added.
//!
//! RFC 9110, 7.6.1: "Intermediaries MUST parse a received Connection header field before a message is forwarded and, for
//! each connection-option in this field, remove any header or trailer field(s) from the message with the same name as the
//! connection-option".

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, StatusCode, Uri, Version};

use crate::error::RequestError;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The authority a request is for, in a form that lives on its own.
#[derive(Debug, Clone)]
pub enum AuthorityOf {
    /// From `:authority` or the absolute form.
    Uri(Authority),
    /// From `Host`; checked to be an authority.
    Host(HeaderValue),
    /// HTTP/1.0 without `Host`.
    None,
}

impl AuthorityOf {
    /// As text; empty when there is none.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Uri(authority) => authority.as_str(),
            Self::Host(value) => value.to_str().unwrap_or_default(),
            Self::None => "",
        }
    }
}

/// Whom a request is for. RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
/// request message that lacks a Host header field and to any request message that contains more than one Host header field
/// line or a Host header field with an invalid field value." The absolute form and `:authority` come first (3.2.2).
pub fn authority<B>(request: &Request<B>) -> Result<AuthorityOf, RequestError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(RequestError::Host);
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(AuthorityOf::Uri(authority.clone()));
    }
    match host {
        Some(value) if value.is_empty() => Ok(AuthorityOf::Host(value.clone())),
        Some(value) if is_authority(value.as_bytes()) => Ok(AuthorityOf::Host(value.clone())),
        None if request.version() == Version::HTTP_10 => Ok(AuthorityOf::None),
        Some(_) | None => Err(RequestError::Host),
    }
}

/// The bytes of a host and port, cheaply: none that ends one or begins something else.
fn is_authority(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(b))
}

/// Does the request ask to leave HTTP behind: `Upgrade`, or `CONNECT`?
pub fn wants_tunnel<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        || (request.version() == Version::HTTP_11 && upgrade(request.headers()))
}

fn upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && has_option(headers, b"upgrade")
}

/// Has the response left HTTP behind?
pub fn is_tunnel(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success())
}

fn has_option(headers: &HeaderMap, option: &[u8]) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .any(|v| options(v).any(|o| o.eq_ignore_ascii_case(option)))
}

fn options(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
}

/// Takes off what belongs to the connection a message came over. `tunnel`: it keeps `Upgrade`.
///
/// `Transfer-Encoding` of HTTP/1.1 stays: hyper has checked it, and frames the body by it again; a coding before
/// `chunked` is the endpoints' own.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, tunnel: bool) {
    if headers.contains_key(CONNECTION) {
        strip_named(headers, tunnel);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION] {
        headers.remove(name);
    }
    if let Some(te) = headers.get(TE)
        && te.as_bytes() != b"trailers"
    {
        // "trailers" is the one option that concerns the whole chain, and gRPC insists on it.
        let trailers = headers
            .get_all(TE)
            .iter()
            .any(|v| options(v).any(|o| o.eq_ignore_ascii_case(b"trailers")));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if !tunnel {
        headers.remove(UPGRADE);
    }
}

fn strip_named(headers: &mut HeaderMap, tunnel: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(options)
        .filter_map(|o| HeaderName::from_bytes(o).ok())
        // Naming these would not make them hop-by-hop, it would break the message.
        .filter(|name| {
            *name != TE && *name != UPGRADE && *name != TRANSFER_ENCODING && *name != HOST
        })
        .filter(|name| *name != http::header::CONTENT_LENGTH)
        .collect();
    headers.remove(CONNECTION);
    for name in named {
        headers.remove(name);
    }
    if tunnel && headers.contains_key(UPGRADE) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Brings an HTTP/1 request into the form for the next connection: HTTP/1.1, origin form, `Host` as the authority says.
pub fn to_origin_form(
    head: &mut Parts,
    authority: &AuthorityOf,
    fallback: impl FnOnce() -> String,
) {
    head.version = Version::HTTP_11;
    match authority {
        AuthorityOf::Uri(authority) if head.method != Method::CONNECT => {
            if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
                head.headers.insert(HOST, host);
            }
            let mut uri = std::mem::take(&mut head.uri).into_parts();
            uri.scheme = None;
            uri.authority = None;
            uri.path_and_query
                .get_or_insert_with(|| PathAndQuery::from_static("/"));
            head.uri = Uri::from_parts(uri).unwrap_or_default();
        }
        AuthorityOf::None => {
            if let Ok(host) = HeaderValue::from_str(&fallback()) {
                head.headers.insert(HOST, host);
            }
        }
        AuthorityOf::Uri(_) | AuthorityOf::Host(_) => {}
    }
}

/// Is it a gRPC call? Its errors go into `grpc-status`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_connection_names_is_taken_off() {
        let mut map = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "content-length, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("host", "a"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut map, false);
        assert_eq!(names(&map), ["accept", "content-length", "host", "te"]);
        assert_eq!(map["te"], "trailers");
    }

    #[test]
    fn an_upgrade_keeps_its_headers() {
        let mut map = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
        ]);
        strip_hop_by_hop(&mut map, true);
        assert_eq!(names(&map), ["connection", "upgrade"]);
        assert_eq!(map["connection"], "upgrade");
    }

    #[test]
    fn one_host_exactly() {
        let request = |version, lines: &[(&'static str, &'static str)]| {
            let mut request = Request::builder()
                .uri("/")
                .version(version)
                .body(())
                .unwrap();
            *request.headers_mut() = headers(lines);
            request
        };
        assert_eq!(
            authority(&request(Version::HTTP_11, &[("host", "a:80")]))
                .unwrap()
                .as_str(),
            "a:80"
        );
        assert_eq!(
            authority(&request(Version::HTTP_10, &[])).unwrap().as_str(),
            ""
        );
        for bad in [
            &[][..],
            &[("host", "a"), ("host", "b")],
            &[("host", "a b")],
            &[("host", "a/b")],
            &[("host", "a@b")],
        ] {
            assert!(
                authority(&request(Version::HTTP_11, bad)).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        let request = Request::builder()
            .uri("http://shop:8080/a?b")
            .header("host", "other")
            .version(Version::HTTP_10)
            .body(())
            .unwrap();
        let authority = authority(&request).unwrap();
        let (mut head, ()) = request.into_parts();
        to_origin_form(&mut head, &authority, String::new);
        assert_eq!(head.uri, "/a?b");
        assert_eq!(head.headers["host"], "shop:8080");
        assert_eq!(head.version, Version::HTTP_11);
    }
}
