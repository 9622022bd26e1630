//! RDS: the route table of a destination.
//!
//! [`matching`], [`headers`], [`path`], [`retry`] and [`action`] each hold one part of a route, in both directions.
//! Virtual hosts are matched by Envoy as by the model: exact names, then the longest wildcard, then `*`.

mod action;
mod headers;
mod matching;
mod path;
mod retry;

use weft_model::route::{Action, HeaderEdits, HttpRule};
use weft_model::{HostnameMatch, HttpRoutes, VirtualHost};

use super::error::At as _;
use super::metadata::{Kept, Notes};
use super::proto::{required, route};
use super::{DecodeError, Flavour};

/// The cluster of a backend that does not exist. Nobody serves it.
pub(super) const INVALID_BACKEND: &str = "weft/invalid-backend";

pub(super) fn encode(routes: &HttpRoutes, flavour: Flavour) -> route::RouteConfiguration {
    let mut config = route::RouteConfiguration {
        name: routes.key.to_string(),
        virtual_hosts: routes
            .hosts
            .iter()
            .map(|host| encode_host(host, routes.key.port, flavour))
            .collect(),
        metadata: Notes::of(&routes.meta, flavour).into_metadata(),
        ..Default::default()
    };
    if flavour == Flavour::Envoy {
        config.ignore_port_in_host_matching = true;
    }
    config
}

fn encode_host(host: &VirtualHost, port: u16, flavour: Flavour) -> route::VirtualHost {
    let mut domains: Vec<String> = host
        .hostnames
        .iter()
        .map(HostnameMatch::to_string)
        .collect();
    if flavour == Flavour::Grpc {
        // gRPC compares with the whole authority of the channel, port included.
        let specific = host.hostnames.iter().filter(|h| **h != HostnameMatch::Any);
        domains.extend(specific.map(|h| format!("{h}:{port}")));
    }
    route::VirtualHost {
        name: domains.first().cloned().unwrap_or_default(),
        domains,
        routes: host
            .rules
            .iter()
            .map(|rule| encode_rule(rule, port, flavour))
            .collect(),
        ..Default::default()
    }
}

fn encode_rule(rule: &HttpRule, port: u16, flavour: Flavour) -> route::Route {
    let mut notes = Notes::of(&rule.meta, flavour);
    let matches = matching::encode(&rule.matches, flavour);
    notes.keep("matches", &rule.matches, matching::decode(&matches));
    let mut encoded = route::Route {
        name: rule.meta.origin.to_string(),
        r#match: Some(matches),
        ..Default::default()
    };
    headers::encode_request(&[&rule.request_headers], &mut encoded);
    headers::encode_response(&[&rule.response_headers], &mut encoded);
    encoded.action = Some(match &rule.action {
        Action::Redirect(redirect) => {
            action::encode_redirect(redirect, &rule.matches.path, port, &mut notes)
        }
        Action::Forward(forward) => {
            if flavour == Flavour::Envoy && action::edits_clash(rule, forward) {
                // Envoy carries out a backend's edits before the rule's. Where both touch a header, the rule's move
                // into every backend, in the order that is meant.
                headers::clear_request(&mut encoded);
            }
            action::encode_forward(rule, forward, flavour, &mut notes)
        }
    });
    notes.keep(
        "requestHeaders",
        &rule.request_headers,
        headers::decode_request(&encoded),
    );
    notes.keep(
        "responseHeaders",
        &rule.response_headers,
        headers::decode_response(&encoded),
    );
    encoded.metadata = notes.into_metadata();
    encoded
}

pub(super) fn decode(config: &route::RouteConfiguration) -> Result<HttpRoutes, DecodeError> {
    let hosts = config.virtual_hosts.iter().enumerate();
    Ok(HttpRoutes {
        key: config.name.parse().at("name")?,
        hosts: hosts
            .map(|(i, host)| decode_host(host).at_index(i).at("virtual_hosts"))
            .collect::<Result<_, _>>()?,
        meta: Kept::of(config.metadata.as_ref()).meta()?,
    })
}

fn decode_host(host: &route::VirtualHost) -> Result<VirtualHost, DecodeError> {
    if host.domains.is_empty() {
        return Err(DecodeError::new("it is empty")).at("domains");
    }
    let domains = host.domains.iter().enumerate();
    let rules = host.routes.iter().enumerate();
    Ok(VirtualHost {
        hostnames: domains
            .map(|(i, domain)| domain.parse::<HostnameMatch>().at_index(i).at("domains"))
            .collect::<Result<_, _>>()?,
        rules: rules
            .map(|(i, rule)| decode_rule(rule).at_index(i).at("routes"))
            .collect::<Result<_, _>>()?,
    })
}

fn decode_rule(encoded: &route::Route) -> Result<HttpRule, DecodeError> {
    let kept = Kept::of(encoded.metadata.as_ref());
    let matches = kept.or("matches", || {
        matching::decode(required(encoded.r#match.as_ref(), "match")?).at("match")
    })?;
    let request_headers: HeaderEdits =
        kept.or("requestHeaders", || headers::decode_request(encoded))?;
    let response_headers: HeaderEdits =
        kept.or("responseHeaders", || headers::decode_response(encoded))?;
    Ok(HttpRule {
        action: action::decode(encoded, kept)?,
        matches,
        request_headers,
        response_headers,
        meta: kept.meta()?,
    })
}
