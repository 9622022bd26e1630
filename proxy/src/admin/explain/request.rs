//! What `/explain` is asked: read from the query string, each mistake named.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// What is asked about.
#[derive(Debug, Clone)]
pub struct Request {
    /// `HOST:PORT` or `IP:PORT`, as given.
    pub destination: String,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
}

/// Why nothing can be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The destination is missing or has no port.
    #[error("destination {0:?} is not HOST:PORT or IP:PORT")]
    Destination(String),
    /// Not a method.
    #[error("method {0:?} is not an HTTP method")]
    Method(String),
    /// Not a path.
    #[error("path {0:?} is not a path: it begins with /")]
    Path(String),
    /// Not a header.
    #[error("header {0:?} is not NAME:VALUE")]
    Header(String),
    /// Nobody knows the name.
    #[error("{0} is not a name of the mesh; ask by address for what is outside")]
    Name(String),
    /// The control plane has not answered.
    #[error("the control plane has not answered about {0}")]
    Pending(String),
}

/// The pairs of a query string, percent-decoded, `+` as a space (WHATWG URL, application/x-www-form-urlencoded).
pub fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(i) {
        match (byte, hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(*byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Request {
    /// From a query string: `destination`, `method`, `path`, and `header` as often as needed.
    pub fn parse(query: &str) -> Result<Self, ExplainError> {
        let mut request = Self {
            destination: String::new(),
            method: Method::GET,
            path: "/".into(),
            headers: HeaderMap::new(),
        };
        for (key, value) in parameters(query) {
            match key.as_str() {
                "destination" => request.destination = value,
                "method" => {
                    request.method = value.parse().map_err(|_| ExplainError::Method(value))?;
                }
                "path" if value.starts_with('/') => request.path = value,
                "path" => return Err(ExplainError::Path(value)),
                "header" => {
                    let (name, value) = header(&value).ok_or(ExplainError::Header(value))?;
                    request.headers.append(name, value);
                }
                _ => {}
            }
        }
        match request.split() {
            Some(_) => Ok(request),
            None => Err(ExplainError::Destination(request.destination)),
        }
    }

    /// Host and port.
    pub fn split(&self) -> Option<(&str, u16)> {
        let (host, port) = self.destination.rsplit_once(':')?;
        let port = port.parse().ok().filter(|p| *p != 0)?;
        (!host.is_empty()).then_some((host, port))
    }
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((
        name.trim().parse().ok()?,
        HeaderValue::from_str(value.trim()).ok()?,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn requests_are_read_from_the_query() {
        let r = Request::parse(
            "destination=cart.shop:80&method=post&path=%2Fa%3Fb=c&header=X-A%3A+1&header=x-a:2",
        )
        .unwrap();
        assert_eq!(r.split(), Some(("cart.shop", 80)));
        assert_eq!((r.method.as_str(), r.path.as_str()), ("post", "/a?b=c"));
        assert_eq!(
            r.headers.get_all("x-a").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
        let v6 = Request::parse("destination=[fd00::1]:80").unwrap();
        assert_eq!(v6.destination.parse::<SocketAddr>().unwrap().port(), 80);
    }

    #[test]
    fn mistakes_are_named() {
        for (query, error) in [
            ("", "destination \"\" is not"),
            ("destination=web", "destination \"web\" is not"),
            ("destination=web:0", "destination \"web:0\" is not"),
            ("destination=web:80&method=a+b", "method \"a b\" is not"),
            ("destination=web:80&path=a", "path \"a\" is not"),
            ("destination=web:80&header=a", "header \"a\" is not"),
        ] {
            let found = Request::parse(query).unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_query_makes_it_panic(query in ".{0,200}") {
            let _ = Request::parse(&query);
        }
    }
}
