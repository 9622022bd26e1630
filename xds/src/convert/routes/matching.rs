//! Which requests a route is for.

use http::{HeaderName, Method};
use weft_model::Pattern;
use weft_model::route::{HeaderMatch, HttpMatch, PathMatch, QueryMatch, ValueMatch};

use crate::convert::error::At as _;
use crate::convert::proto::{exactly, matcher, matching_regex, regex, route};
use crate::convert::{DecodeError, Flavour};
use route::header_matcher::HeaderMatchSpecifier;
use route::query_parameter_matcher::QueryParameterMatchSpecifier;
use route::route_match::PathSpecifier;

const METHOD: &str = ":method";

pub(super) fn encode(m: &HttpMatch, flavour: Flavour) -> route::RouteMatch {
    let method = m
        .method
        .iter()
        .map(|method| header(METHOD, exactly(method.as_str())));
    let headers = m
        .headers
        .iter()
        .map(|h| header(h.name.as_str(), value(&h.value)));
    route::RouteMatch {
        path_specifier: Some(path(&m.path, flavour)),
        headers: method.chain(headers).collect(),
        query_parameters: m.query.iter().map(query).collect(),
        ..Default::default()
    }
}

fn path(path: &PathMatch, flavour: Flavour) -> PathSpecifier {
    match path {
        PathMatch::Exact(exact) => PathSpecifier::Path(exact.clone()),
        PathMatch::Prefix(root) if root == "/" => PathSpecifier::Prefix(root.clone()),
        PathMatch::Prefix(prefix) if flavour == Flavour::Grpc => grpc_prefix(prefix),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern.as_str())),
    }
}

/// gRPC has no prefix by whole segments, but its paths have exactly two of them: `/service/method`.
fn grpc_prefix(prefix: &str) -> PathSpecifier {
    match prefix.matches('/').count() {
        1 => PathSpecifier::Prefix(format!("{prefix}/")),
        _ => PathSpecifier::Path(prefix.to_owned()),
    }
}

fn header(name: &str, value: matcher::StringMatcher) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..Default::default()
    }
}

fn query(q: &QueryMatch) -> route::QueryParameterMatcher {
    route::QueryParameterMatcher {
        name: q.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(value(
            &q.value,
        ))),
    }
}

fn value(v: &ValueMatch) -> matcher::StringMatcher {
    match v {
        ValueMatch::Exact(text) => exactly(text),
        ValueMatch::Regex(pattern) => matching_regex(pattern.as_str()),
    }
}

pub(super) fn decode(m: &route::RouteMatch) -> Result<HttpMatch, DecodeError> {
    let mut decoded = HttpMatch {
        path: decode_path(m.path_specifier.as_ref())?,
        ..HttpMatch::default()
    };
    for (i, header) in m.headers.iter().enumerate() {
        decode_header(header, &mut decoded)
            .at_index(i)
            .at("headers")?;
    }
    for (i, parameter) in m.query_parameters.iter().enumerate() {
        decoded
            .query
            .push(decode_query(parameter).at_index(i).at("query_parameters")?);
    }
    Ok(decoded)
}

fn decode_path(path: Option<&PathSpecifier>) -> Result<PathMatch, DecodeError> {
    match path {
        Some(PathSpecifier::Path(exact)) => Ok(PathMatch::Exact(exact.clone())),
        Some(PathSpecifier::Prefix(root)) if root == "/" => Ok(PathMatch::Prefix(root.clone())),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => Ok(PathMatch::Prefix(prefix.clone())),
        Some(PathSpecifier::SafeRegex(pattern)) => {
            decode_regex(pattern).map(PathMatch::Regex).at("safe_regex")
        }
        Some(_) => Err(DecodeError::new(
            "only path, path_separated_prefix, safe_regex and the prefix / are supported",
        )),
        None => Err(DecodeError::new("no path")),
    }
}

fn decode_regex(pattern: &matcher::RegexMatcher) -> Result<Pattern, DecodeError> {
    pattern.regex.parse().map_err(DecodeError::new)
}

fn decode_header(header: &route::HeaderMatcher, into: &mut HttpMatch) -> Result<(), DecodeError> {
    let Some(HeaderMatchSpecifier::StringMatch(value)) = &header.header_match_specifier else {
        return Err(DecodeError::new("only string_match is supported"));
    };
    let value = decode_value(value).at("string_match")?;
    if header.name == METHOD {
        let ValueMatch::Exact(method) = value else {
            return Err(DecodeError::new("a method has to be exact")).at("string_match");
        };
        into.method = Some(Method::from_bytes(method.as_bytes()).map_err(DecodeError::new)?);
    } else {
        let name: HeaderName = header.name.parse().map_err(DecodeError::new).at("name")?;
        into.headers.push(HeaderMatch { name, value });
    }
    Ok(())
}

fn decode_query(parameter: &route::QueryParameterMatcher) -> Result<QueryMatch, DecodeError> {
    let Some(QueryParameterMatchSpecifier::StringMatch(value)) =
        &parameter.query_parameter_match_specifier
    else {
        return Err(DecodeError::new("only string_match is supported"));
    };
    Ok(QueryMatch {
        name: parameter.name.clone(),
        value: decode_value(value).at("string_match")?,
    })
}

fn decode_value(value: &matcher::StringMatcher) -> Result<ValueMatch, DecodeError> {
    match &value.match_pattern {
        _ if value.ignore_case => Err(DecodeError::new("ignore_case is not supported")),
        Some(matcher::string_matcher::MatchPattern::Exact(text)) => {
            Ok(ValueMatch::Exact(text.clone()))
        }
        Some(matcher::string_matcher::MatchPattern::SafeRegex(pattern)) => decode_regex(pattern)
            .map(ValueMatch::Regex)
            .at("safe_regex"),
        _ => Err(DecodeError::new("only exact and safe_regex are supported")),
    }
}
