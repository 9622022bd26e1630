//! Replies the proxy makes itself: errors by the table of [`crate::error`], and redirects.
//!
//! Each says where it comes from: `Proxy-Status` (RFC 9209) with error type, reason, stage and origin, and the same as a small
//! JSON body for people. gRPC calls get `grpc-status` in a trailers-only response instead
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use weft_model::Origin;

use super::body::Body;
use crate::error::Error;

/// RFC 9209.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The reply to an error, with the object that is responsible or was in force, where one is known.
pub fn error(error: &Error, grpc: bool, origin: Option<&Origin>) -> Response<Body> {
    let verdict = error.verdict();
    let origin = origin.map(ToString::to_string).unwrap_or_default();
    let mut response = if grpc {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(verdict.grpc)));
        insert(headers, GRPC_MESSAGE, &percent_encoded(&error.to_string()));
        response
    } else {
        let body = serde_json::json!({
            "error": error.to_string(),
            "reason": verdict.reason,
            "stage": error.stage(),
            "origin": if origin.is_empty() { None } else { Some(&origin) },
        });
        let mut response = Response::new(Body::Own(Some(Bytes::from(format!("{body}\n")))));
        *response.status_mut() =
            StatusCode::from_u16(verdict.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    let mut status = format!(
        "weft; error={}; details={}",
        verdict.proxy_status,
        quoted(&format!("{}: {error}", verdict.reason))
    );
    if !origin.is_empty() {
        status.push_str("; origin=");
        status.push_str(&quoted(&origin));
    }
    status.push_str("; stage=");
    status.push_str(error.stage());
    insert(response.headers_mut(), PROXY_STATUS, &status);
    response
}

/// Takes back the `Proxy-Status` of another sidecar that an application relayed (nginx with `proxy_pass`, say).
pub fn disown(headers: &mut http::HeaderMap) {
    let ours = |value: &HeaderValue| value.as_bytes().starts_with(b"weft;");
    if headers.get(PROXY_STATUS).is_some_and(ours) {
        headers.remove(PROXY_STATUS);
    }
}

/// The redirect of a rule.
pub fn redirect(status: u16, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    insert(response.headers_mut(), LOCATION, location);
    response
}

fn insert(headers: &mut http::HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A structured-field string (RFC 8941, 3.3.3): visible ASCII and spaces, `"` and `\` escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

/// gRPC's `Percent-Encoded`: everything but visible ASCII and spaces, and `%` itself.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, b| {
            if matches!(b, b' '..=b'~') && b != b'%' {
                out.push(b.into());
            } else {
                let _ = write!(out, "%{b:02X}");
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use weft_model::Origin;
    use weft_model::decide::{Reason, Refusal};

    use super::*;
    use crate::error::{ConnectError, DestinationError};

    #[test]
    fn an_error_says_where_it_comes_from() {
        let refusal = Refusal {
            reason: Reason::NoBackend,
            origin: Origin::object("HTTPRoute", "shop", "ca\"rt").rule(1),
        };
        let refused: Error = refusal.into();
        let response = error(&refused, false, refused.origin());
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.headers()["proxy-status"],
            "weft; error=proxy_configuration_error; details=\"no_backend: the route that matches has no usable backend \
             (HTTPRoute shop/ca\\\"rt rule 1)\"; origin=\"HTTPRoute shop/ca\\\"rt rule 1\"; stage=route"
        );
    }

    #[test]
    fn grpc_reads_its_own_status() {
        let response = error(&ConnectError::Refused.into(), true, None);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "connection refused");
        assert!(http_body::Body::is_end_stream(response.body()));
        assert_eq!(
            error(&DestinationError::Pending.into(), false, None).status(),
            503
        );
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(quoted("a\"\\ü\n"), "\"a\\\"\\\\??\"");
        assert_eq!(percent_encoded("50% ü"), "50%25 %C3%BC");
    }
}
