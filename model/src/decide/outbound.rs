//! Outbound: where a request or connection of the application goes.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use super::{Reason, Refusal, Trace, Verdict};
use crate::hostname::without_port;
use crate::route::{
    Action, Forward, HttpMatch, HttpRoutes, HttpRule, Redirect, VirtualHost, WeightedBackend,
};
use crate::{BackendKey, Destination, SniRoute};

/// What of a request decides.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// `:authority` or `Host`, with or without a port.
    pub authority: &'a str,
    /// The path without the query; as it came.
    pub path: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy)]
pub struct HttpPlan<'a> {
    /// The rule that matched.
    pub rule: &'a HttpRule,
}

/// What the plan asks the executor to do.
#[derive(Debug, Clone, Copy)]
pub enum HttpStep<'a> {
    /// Send it on.
    Forward(&'a Forward),
    /// Answer a redirect.
    Redirect(&'a Redirect),
}

impl<'a> HttpPlan<'a> {
    /// The action of the rule.
    pub fn step(&self) -> HttpStep<'a> {
        match &self.rule.action {
            Action::Forward(forward) => HttpStep::Forward(forward),
            Action::Redirect(redirect) => HttpStep::Redirect(redirect),
        }
    }

    /// The backend that a random number draws by weight. Refuses when it draws an invalid one, or there is none.
    pub fn backend(
        &self,
        forward: &'a Forward,
        random: u64,
    ) -> Result<(&'a WeightedBackend, &'a BackendKey), Refusal> {
        draw(&forward.backends, random)
            .ok_or_else(|| Refusal::new(Reason::NoBackend, &self.rule.meta))
    }
}

/// The draw itself: `random` is spread over the sum of the weights.
pub fn draw(backends: &[WeightedBackend], random: u64) -> Option<(&WeightedBackend, &BackendKey)> {
    let chosen = match backends {
        [only] if only.weight > 0 => only,
        _ => {
            let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
            let mut at = random.checked_rem(total)?;
            backends
                .iter()
                .find(|b| match at.checked_sub(u64::from(b.weight)) {
                    Some(rest) => {
                        at = rest;
                        false
                    }
                    None => true,
                })?
        }
    };
    chosen.backend.as_ref().map(|key| (chosen, key))
}

/// Which rule holds for a request: the most specific virtual host, then its first rule that matches.
pub fn http<'a>(
    routes: &'a HttpRoutes,
    request: &RequestView<'_>,
    trace: &mut impl Trace,
) -> Result<HttpPlan<'a>, Refusal> {
    let Some(host) = virtual_host(routes, without_port(request.authority)) else {
        trace.step(&routes.meta.origin, Verdict::Refused, || {
            format!("no virtual host for {:?}", request.authority)
        });
        return Err(Refusal::new(Reason::NoRoute, &routes.meta));
    };
    for rule in &host.rules {
        match mismatch(&rule.matches, request) {
            None => {
                trace.step(&rule.meta.origin, Verdict::Matched, || describe(rule));
                return Ok(HttpPlan { rule });
            }
            Some(why) => trace.step(&rule.meta.origin, Verdict::Passed, || why.describe(request)),
        }
    }
    trace.step(&routes.meta.origin, Verdict::Refused, || {
        "no rule matches".into()
    });
    Err(Refusal::new(Reason::NoRoute, &routes.meta))
}

fn virtual_host<'a>(routes: &'a HttpRoutes, host: &str) -> Option<&'a VirtualHost> {
    if let [only] = routes.hosts.as_slice() {
        return only
            .hostnames
            .iter()
            .any(|h| h.matches(host))
            .then_some(only);
    }
    let candidates = routes
        .hosts
        .iter()
        .flat_map(|v| v.hostnames.iter().map(move |h| (h, v)));
    candidates
        .filter(|(h, _)| h.matches(host))
        .max_by_key(|(h, _)| h.rank())
        .map(|(_, v)| v)
}

/// The first condition that a request does not fulfil.
enum Mismatch<'m> {
    Path(&'m crate::route::PathMatch),
    Method(&'m Method),
    Header(&'m crate::route::HeaderMatch),
    Query(&'m crate::route::QueryMatch),
}

fn mismatch<'m>(m: &'m HttpMatch, request: &RequestView<'_>) -> Option<Mismatch<'m>> {
    if !m.path.matches(request.path) {
        return Some(Mismatch::Path(&m.path));
    }
    if let Some(method) = &m.method
        && method != request.method
    {
        return Some(Mismatch::Method(method));
    }
    for header in &m.headers {
        if !header_value(request.headers, &header.name).is_some_and(|v| header.value.matches(&v)) {
            return Some(Mismatch::Header(header));
        }
    }
    for parameter in &m.query {
        if !query_value(request.query.unwrap_or_default(), &parameter.name)
            .is_some_and(|v| parameter.value.matches(&v))
        {
            return Some(Mismatch::Query(parameter));
        }
    }
    None
}

impl Mismatch<'_> {
    fn describe(&self, request: &RequestView<'_>) -> String {
        match self {
            Self::Path(wanted) => format!("path {:?} is not {wanted:?}", request.path),
            Self::Method(wanted) => format!("method {} is not {wanted}", request.method),
            Self::Header(wanted) => match header_value(request.headers, &wanted.name) {
                Some(value) => format!(
                    "header {}: {value:?} is not {:?}",
                    wanted.name, wanted.value
                ),
                None => format!("header {} is missing", wanted.name),
            },
            Self::Query(wanted) => {
                match query_value(request.query.unwrap_or_default(), &wanted.name) {
                    Some(value) => format!(
                        "query parameter {}: {value:?} is not {:?}",
                        wanted.name, wanted.value
                    ),
                    None => format!("query parameter {} is missing", wanted.name),
                }
            }
        }
    }
}

fn describe(rule: &HttpRule) -> String {
    match &rule.action {
        Action::Redirect(redirect) => format!("redirect {}", redirect.status),
        Action::Forward(forward) => {
            let parts = forward.backends.iter().map(|b| match &b.backend {
                Some(key) => format!("{key} weight {}", b.weight),
                None => format!("invalid backend weight {}", b.weight),
            });
            format!("forward to {}", parts.collect::<Vec<_>>().join(", "))
        }
    }
}

/// All lines of a header as one value (RFC 9110, 5.3). `None`: missing, or not visible ASCII.
fn header_value<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(value.to_str().ok()?);
    }
    Some(joined)
}

/// The first value of a query parameter, percent-decoded (WHATWG URL, application/x-www-form-urlencoded, without `+`).
fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(key) == name).then(|| percent_decoded(value))
    })
}

fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            (byte, ..) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Where a connection goes that is not HTTP. `server_name` is the SNI of its TLS hello, if it has one.
pub fn connection<'a>(
    destination: &'a Destination,
    server_name: Option<&str>,
    trace: &mut impl Trace,
) -> Result<&'a SniRoute, Refusal> {
    if destination.protocol.is_http() {
        trace.step(&destination.meta.origin, Verdict::Refused, || {
            Reason::NotHttp.to_string()
        });
        return Err(Refusal::new(Reason::NotHttp, &destination.meta));
    }
    let best = |route: &&'a SniRoute| match server_name {
        _ if route.names.is_empty() => Some((0, 0)),
        Some(name) => route
            .names
            .iter()
            .filter(|n| n.matches(name))
            .map(crate::HostnameMatch::rank)
            .max(),
        None => None,
    };
    // The most specific name wins (Gateway API TLSRoute hostnames); of equals the first.
    let mut chosen: Option<(&SniRoute, (u8, usize))> = None;
    for route in &destination.sni {
        match best(&route) {
            Some(rank) if chosen.is_none_or(|(_, r)| rank > r) => chosen = Some((route, rank)),
            Some(_) => {}
            None => trace.step(&route.meta.origin, Verdict::Passed, || {
                format!("server name {server_name:?} is not one of its names")
            }),
        }
    }
    match chosen {
        Some((route, _)) => {
            trace.step(&route.meta.origin, Verdict::Matched, || {
                "forward the connection".into()
            });
            Ok(route)
        }
        None => {
            trace.step(&destination.meta.origin, Verdict::Refused, || {
                Reason::NoSniRoute.to_string()
            });
            Err(Refusal::new(Reason::NoSniRoute, &destination.meta))
        }
    }
}
