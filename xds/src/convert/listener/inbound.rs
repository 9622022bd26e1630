//! The listener of a workload's own port: mutual TLS, who may connect, and in permissive mode plaintext too.
//!
//! In Envoy's words the connection goes on to its original destination as opaque bytes; what the port speaks is in the
//! metadata, for our proxy.

use std::net::{IpAddr, Ipv4Addr};

use weft_model::{IdentityPattern, InboundPort, MtlsMode, Protocol};

use super::ClusterSpecifier;
use super::{filter, find, tcp, tls_inspector};
use crate::convert::cluster::{PASSTHROUGH, tls};
use crate::convert::error::At as _;
use crate::convert::metadata::{Kept, Notes};
use crate::convert::proto::{
    address, boolean, core, exactly, listener, matcher, matching_regex, rbac, rbac_filter,
    regex_literal, tls as tls_proto,
};
use crate::convert::{DecodeError, Flavour, inbound_name};
use listener::{FilterChain, FilterChainMatch};
use matcher::string_matcher::MatchPattern;
use rbac::{permission, principal};

const RBAC: &str = "envoy.filters.network.rbac";
const POLICY: &str = "allow";
/// One segment of a SPIFFE ID.
const SEGMENT: &str = "[^/]+";
const MESH_CHAIN: &str = "mesh";
const PLAINTEXT_CHAIN: &str = "plaintext";

pub(in crate::convert) fn encode(port: &InboundPort, flavour: Flavour) -> listener::Listener {
    let mut notes = Notes::of(&port.meta, flavour);
    notes.set("protocol", &port.protocol);
    let name = inbound_name(port.port);
    let mut filters = Vec::new();
    if !port.allow.is_empty() {
        filters.push(filter(RBAC, &allow(&port.allow)));
    }
    filters.push(tcp(
        name.clone(),
        ClusterSpecifier::Cluster(PASSTHROUGH.to_owned()),
    ));
    let of_tls = FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        ..Default::default()
    };
    let mut chains = vec![FilterChain {
        name: MESH_CHAIN.to_owned(),
        filter_chain_match: Some(of_tls),
        transport_socket: Some(mutual_tls(port.protocol)),
        filters: filters.clone(),
        ..Default::default()
    }];
    if port.mtls == MtlsMode::Permissive {
        // The same rule: plaintext has no identity, so it passes only where every identity may.
        chains.push(FilterChain {
            name: PLAINTEXT_CHAIN.to_owned(),
            filters,
            ..Default::default()
        });
    }
    let mut encoded = listener::Listener {
        name,
        address: Some(address(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.port)),
        bind_to_port: boolean(false),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        listener_filters: vec![tls_inspector()],
        filter_chains: chains,
        ..Default::default()
    };
    notes.keep("allow", &port.allow, decode_allow(&encoded));
    encoded.metadata = notes.into_metadata();
    encoded
}

fn mutual_tls(protocol: Protocol) -> core::TransportSocket {
    let inner: &[&str] = match protocol {
        Protocol::Http => &["weft/h2", "weft/h1", "h2", "http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &["weft/h2", "h2"],
        Protocol::Tls | Protocol::Tcp => &["weft/tcp"],
        Protocol::Detect => &["weft/h2", "weft/h1", "weft/tcp", "h2", "http/1.1"],
    };
    tls::socket(&tls_proto::DownstreamTlsContext {
        common_tls_context: Some(tls::mesh(&[], inner)),
        require_client_certificate: boolean(true),
        ..Default::default()
    })
}

fn allow(patterns: &[IdentityPattern]) -> rbac_filter::Rbac {
    let principals = patterns.iter().map(|pattern| rbac::Principal {
        identifier: Some(principal::Identifier::Authenticated(
            principal::Authenticated {
                principal_name: Some(principal_name(pattern)),
            },
        )),
    });
    let policy = rbac::Policy {
        permissions: vec![rbac::Permission {
            rule: Some(permission::Rule::Any(true)),
        }],
        principals: principals.collect(),
        ..Default::default()
    };
    rbac_filter::Rbac {
        stat_prefix: "weft".to_owned(),
        rules: Some(rbac::Rbac {
            action: rbac::rbac::Action::Allow.into(),
            policies: [(POLICY.to_owned(), policy)].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn principal_name(pattern: &IdentityPattern) -> matcher::StringMatcher {
    let text = pattern.to_string();
    if pattern.namespace.is_some() && pattern.service_account.is_some() {
        return exactly(&text);
    }
    let segments: Vec<String> = text
        .split('/')
        .map(|s| {
            if s == "*" {
                SEGMENT.to_owned()
            } else {
                regex_literal(s)
            }
        })
        .collect();
    matching_regex(&segments.join("/"))
}

pub(in crate::convert) fn decode(encoded: &listener::Listener) -> Result<InboundPort, DecodeError> {
    let kept = Kept::of(encoded.metadata.as_ref());
    let port = encoded
        .name
        .strip_prefix("weft/inbound/")
        .and_then(|p| p.parse().ok());
    let permissive = encoded
        .filter_chains
        .iter()
        .any(|chain| chain.name == PLAINTEXT_CHAIN);
    Ok(InboundPort {
        port: port
            .ok_or_else(|| DecodeError::new("expected weft/inbound/<port>"))
            .at("name")?,
        protocol: kept.required("protocol")?,
        mtls: if permissive {
            MtlsMode::Permissive
        } else {
            MtlsMode::Strict
        },
        allow: kept.or("allow", || decode_allow(encoded))?,
        meta: kept.meta()?,
    })
}

/// Without a mesh chain nothing is known of who may connect, and an empty list would admit everyone.
fn decode_allow(encoded: &listener::Listener) -> Result<Vec<IdentityPattern>, DecodeError> {
    let chain = encoded
        .filter_chains
        .iter()
        .find(|chain| chain.name == MESH_CHAIN)
        .ok_or_else(|| DecodeError::new("there is no chain for mutual TLS"))
        .at("filter_chains")?;
    let Some(filter): Option<rbac_filter::Rbac> =
        find(&chain.filters, RBAC).at("filter_chains[0]")?
    else {
        return Ok(Vec::new());
    };
    let rules = filter.rules.unwrap_or_default();
    let policy = rules
        .policies
        .get(POLICY)
        .filter(|p| {
            rules.action == i32::from(rbac::rbac::Action::Allow) && !p.principals.is_empty()
        })
        .ok_or_else(|| DecodeError::new("it allows nobody"))
        .at("filter_chains[0].rules.policies")?;
    let principals = policy.principals.iter().enumerate();
    principals
        .map(|(i, p)| {
            decode_principal(p)
                .at_index(i)
                .at("filter_chains[0].rules.policies[allow].principals")
        })
        .collect()
}

fn decode_principal(p: &rbac::Principal) -> Result<IdentityPattern, DecodeError> {
    let Some(principal::Identifier::Authenticated(authenticated)) = &p.identifier else {
        return Err(DecodeError::new("only authenticated is supported"));
    };
    match authenticated
        .principal_name
        .as_ref()
        .and_then(|m| m.match_pattern.as_ref())
    {
        Some(MatchPattern::Exact(id)) => Ok(id.parse()?),
        Some(MatchPattern::SafeRegex(regex)) => {
            let segments: Vec<String> = regex
                .regex
                .replace(SEGMENT, "*")
                .split('/')
                .map(|segment| segment.replace('\\', ""))
                .collect();
            Ok(segments.join("/").parse()?)
        }
        _ => Err(DecodeError::new("only exact and safe_regex are supported"))
            .at("authenticated.principal_name"),
    }
}
