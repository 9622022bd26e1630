//! Short names for Envoy's messages, and the small ones among them made and read.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(super) use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub(super) use envoy_types::pb::envoy::config::core::v3 as core;
pub(super) use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub(super) use envoy_types::pb::envoy::config::listener::v3 as listener;
pub(super) use envoy_types::pb::envoy::config::rbac::v3 as rbac;
pub(super) use envoy_types::pb::envoy::config::route::v3 as route;
pub(super) use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
pub(super) use envoy_types::pb::envoy::extensions::filters::listener as listener_filters;
pub(super) use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub(super) use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as rbac_filter;
pub(super) use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub(super) use envoy_types::pb::envoy::extensions::load_balancing_policies as balancers;
pub(super) use envoy_types::pb::envoy::extensions::transport_sockets;
pub(super) use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub(super) use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub(super) use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub(super) use envoy_types::pb::envoy::r#type::v3 as types;
pub(super) use envoy_types::pb::google::protobuf as google;

use prost::{Message, Name};

use super::DecodeError;
use super::error::At as _;

/// A message with its type.
pub(super) fn any<M: Message + Name>(message: &M) -> google::Any {
    google::Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// The message inside, which must be of that type.
pub(super) fn from_any<M: Message + Name + Default>(any: &google::Any) -> Result<M, DecodeError> {
    if any.type_url != M::type_url() {
        return Err(DecodeError::new(format_args!(
            "expected {}, got {:?}",
            M::type_url(),
            any.type_url
        )));
    }
    Ok(M::decode(any.value.as_slice())?)
}

pub(super) fn extension<M: Message + Name>(name: &str, config: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(any(config)),
    }
}

#[allow(clippy::unnecessary_wraps)] // as the generated fields want it
pub(super) fn uint32(value: u32) -> Option<google::UInt32Value> {
    Some(google::UInt32Value { value })
}

#[allow(clippy::unnecessary_wraps)] // as the generated fields want it
pub(super) fn boolean(value: bool) -> Option<google::BoolValue> {
    Some(google::BoolValue { value })
}

#[allow(clippy::unnecessary_wraps)] // as the generated fields want it
pub(super) fn duration(d: Duration) -> Option<google::Duration> {
    Some(google::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: d.subsec_nanos().cast_signed(),
    })
}

pub(super) fn from_duration(d: &google::Duration) -> Result<Duration, DecodeError> {
    match (u64::try_from(d.seconds), u32::try_from(d.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(DecodeError::new("a duration is negative or out of range")),
    }
}

/// A field that has to be there.
pub(super) fn required<'a, T>(field: Option<&'a T>, name: &str) -> Result<&'a T, DecodeError> {
    field
        .ok_or_else(|| DecodeError::new("it is missing"))
        .at(name)
}

/// "Ask the same stream."
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

pub(super) fn address(ip: IpAddr, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: ip.to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

pub(super) fn from_address(address: &core::Address) -> Result<SocketAddr, DecodeError> {
    let Some(core::address::Address::SocketAddress(socket)) = &address.address else {
        return Err(DecodeError::new("only socket addresses are supported")).at("address");
    };
    let ip: IpAddr = socket
        .address
        .parse()
        .map_err(|_| DecodeError::new(format_args!("{:?} is not an IP address", socket.address)))
        .at("socket_address.address")?;
    let port = match socket.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        _ => None,
    };
    let port = port
        .ok_or_else(|| DecodeError::new("not a port number"))
        .at("socket_address.port_value")?;
    Ok(SocketAddr::new(ip, port))
}

pub(super) fn exactly(text: &str) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(
            text.to_owned(),
        )),
        ..Default::default()
    }
}

pub(super) fn regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: pattern.to_owned(),
        ..Default::default()
    }
}

pub(super) fn matching_regex(pattern: &str) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex(
            pattern,
        ))),
        ..Default::default()
    }
}

/// A text as a regular expression that matches just it; for RE2, which takes `\` before any ASCII punctuation.
pub(super) fn regex_literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '/' | '_' | '-') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
