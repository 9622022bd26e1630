//! The listener of a destination: HTTP goes to its route table, everything else to clusters by server name.
//!
//! It is never bound: Envoy's [`super::capture`] hands connections over by their original destination. What is
//! undeclared has both kinds of chains behind an inspector. A gRPC authority has an `api_listener` instead.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use weft_model::route::WeightedBackend;
use weft_model::{BackendKey, Destination, HostnameMatch, ListenerName, Meta, Protocol, SniRoute};

use super::{TCP_PROXY, filter, find, http_inspector, tcp, tls_inspector};
use crate::convert::error::At as _;
use crate::convert::metadata::{Kept, Notes};
use crate::convert::proto::{
    address, ads, any, boolean, core, duration, hcm, listener, router, tcp_proxy,
};
use crate::convert::routes::INVALID_BACKEND;
use crate::convert::{DecodeError, Flavour};
use hcm::http_connection_manager as manager;
use tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};

const HTTP_MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// How long Envoy waits for a client's first bytes on an undeclared port, before it connects the upstream: the server
/// may speak first.
const QUIET_TIME: Duration = Duration::from_millis(50);
/// What Envoy's inspector reports of plaintext HTTP.
const HTTP_PROTOCOLS: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
const RAW: &str = "raw_buffer";
const TLS: &str = "tls";

pub(in crate::convert) fn encode(d: &Destination, flavour: Flavour) -> listener::Listener {
    let mut notes = Notes::of(&d.meta, flavour);
    notes.set("key", &d.key);
    notes.set("protocol", &d.protocol);
    let mut encoded = match &d.name {
        ListenerName::Authority(..) => listener::Listener {
            api_listener: Some(listener::ApiListener {
                api_listener: Some(any(&http_manager(&d.key, flavour))),
            }),
            ..Default::default()
        },
        ListenerName::Outbound(at) => listener::Listener {
            address: Some(address(at.ip(), at.port())),
            bind_to_port: boolean(false),
            traffic_direction: core::TrafficDirection::Outbound.into(),
            filter_chains: chains(d, flavour),
            ..Default::default()
        },
    };
    inspectors(d, &mut encoded);
    encoded.name = d.name.to_string();
    notes.keep("sni", &d.sni, decode_sni(&encoded, &d.key, &d.meta));
    encoded.metadata = notes.into_metadata();
    encoded
}

fn inspectors(d: &Destination, encoded: &mut listener::Listener) {
    let by_name = d.sni.iter().any(|route| !route.names.is_empty());
    if encoded.api_listener.is_some() || d.protocol.is_http() {
        return;
    }
    if d.protocol == Protocol::Detect {
        encoded.listener_filters = vec![tls_inspector(), http_inspector()];
        encoded.listener_filters_timeout = duration(QUIET_TIME);
        encoded.continue_on_listener_filters_timeout = true;
    } else if d.protocol == Protocol::Tls || by_name {
        encoded.listener_filters = vec![tls_inspector()];
    }
}

fn chains(d: &Destination, flavour: Flavour) -> Vec<listener::FilterChain> {
    let http = || listener::FilterChain {
        name: "http".to_owned(),
        filters: vec![filter(HTTP_MANAGER, &http_manager(&d.key, flavour))],
        ..Default::default()
    };
    match d.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => vec![http()],
        Protocol::Tls | Protocol::Tcp => sni_chains(d, flavour),
        Protocol::Detect => {
            let mut chains = vec![listener::FilterChain {
                filter_chain_match: Some(listener::FilterChainMatch {
                    transport_protocol: RAW.to_owned(),
                    application_protocols: HTTP_PROTOCOLS.map(str::to_owned).to_vec(),
                    ..Default::default()
                }),
                ..http()
            }];
            chains.extend(sni_chains(d, flavour));
            chains
        }
    }
}

/// Envoy refuses two chains that match the same; as in the model, the first one counts.
///
/// It does not step back when it has chosen by transport protocol, so on an undeclared port, where the HTTP chain is
/// for plaintext, what matches anything needs a chain for plaintext and another for TLS.
fn sni_chains(d: &Destination, flavour: Flavour) -> Vec<listener::FilterChain> {
    let (mut names, mut tls, mut raw) = (HashSet::new(), false, false);
    let mut chains = Vec::new();
    for (i, route) in d.sni.iter().enumerate() {
        let mut push = |suffix: &str, matches: listener::FilterChainMatch| {
            chains.push(listener::FilterChain {
                name: format!("sni/{i}{suffix}"),
                filter_chain_match: (matches != listener::FilterChainMatch::default())
                    .then_some(matches),
                filters: vec![tcp(d.key.to_string(), specifier(&route.backends))],
                metadata: Notes::of(&route.meta, flavour).into_metadata(),
                ..Default::default()
            });
        };
        let transport = |protocol: &str| listener::FilterChainMatch {
            transport_protocol: protocol.to_owned(),
            ..Default::default()
        };
        let server_names: Vec<String> = route
            .names
            .iter()
            .filter(|name| **name != HostnameMatch::Any)
            .map(ToString::to_string)
            .filter(|name| names.insert(name.clone()))
            .collect();
        if !server_names.is_empty() {
            push(
                "",
                listener::FilterChainMatch {
                    server_names,
                    ..Default::default()
                },
            );
        }
        let any = route.names.is_empty();
        let wants_tls = (any || route.names.contains(&HostnameMatch::Any))
            && !std::mem::replace(&mut tls, true);
        let wants_raw = any && !std::mem::replace(&mut raw, true);
        match (wants_tls, wants_raw) {
            (true, true) if d.protocol != Protocol::Detect => {
                push("/any", listener::FilterChainMatch::default());
            }
            (wants_tls, wants_raw) => {
                if wants_raw {
                    push("/any", transport(RAW));
                }
                if wants_tls {
                    push(if any { "/copy" } else { "/tls" }, transport(TLS));
                }
            }
        }
    }
    chains
}

fn specifier(backends: &[WeightedBackend]) -> ClusterSpecifier {
    let name = |b: &WeightedBackend| {
        b.backend
            .as_ref()
            .map_or(INVALID_BACKEND.to_owned(), BackendKey::to_string)
    };
    // A weight of zero is refused here; it would get nothing anyway.
    let live: Vec<&WeightedBackend> = backends.iter().filter(|b| b.weight > 0).collect();
    match live.as_slice() {
        [] => ClusterSpecifier::Cluster(INVALID_BACKEND.to_owned()),
        [only] if only.weight == 1 => ClusterSpecifier::Cluster(name(only)),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: live
                .into_iter()
                .map(|b| ClusterWeight {
                    name: name(b),
                    weight: b.weight,
                    ..Default::default()
                })
                .collect(),
        }),
    }
}

/// Transparent: nothing that was not asked for is added, normalized or timed out. gRPC reads the route source and the
/// router only.
fn http_manager(key: &BackendKey, flavour: Flavour) -> hcm::HttpConnectionManager {
    let router = router::Router {
        suppress_envoy_headers: true,
        ..Default::default()
    };
    let mut manager = hcm::HttpConnectionManager {
        stat_prefix: key.to_string(),
        route_specifier: Some(manager::RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(ads()),
            route_config_name: key.to_string(),
        })),
        http_filters: vec![hcm::HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(&router))),
            ..Default::default()
        }],
        ..Default::default()
    };
    if flavour == Flavour::Envoy {
        manager.stream_idle_timeout = duration(Duration::ZERO);
        manager.normalize_path = boolean(false);
        manager.merge_slashes = false;
        manager.path_with_escaped_slashes_action =
            manager::PathWithEscapedSlashesAction::KeepUnchanged.into();
        manager.generate_request_id = boolean(false);
        manager.server_header_transformation =
            manager::ServerHeaderTransformation::PassThrough.into();
        manager.skip_xff_append = true;
        manager.upgrade_configs = vec![manager::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }];
    }
    manager
}

pub(in crate::convert) fn decode(encoded: &listener::Listener) -> Result<Destination, DecodeError> {
    let kept = Kept::of(encoded.metadata.as_ref());
    let key: BackendKey = kept.required("key")?;
    let meta = kept.meta()?;
    let sni: Vec<SniRoute> = kept.or("sni", || decode_sni(encoded, &key, &meta))?;
    Ok(Destination {
        name: encoded.name.parse().at("name")?,
        protocol: kept.required("protocol")?,
        key,
        sni,
        meta,
    })
}

/// From the chains; where there is none that forwards connections, everything goes to the destination itself.
fn decode_sni(
    encoded: &listener::Listener,
    key: &BackendKey,
    meta: &Meta,
) -> Result<Vec<SniRoute>, DecodeError> {
    let mut routes: BTreeMap<usize, SniRoute> = BTreeMap::new();
    for (i, chain) in encoded.filter_chains.iter().enumerate() {
        let Some((index, suffix)) = place(&chain.name) else {
            continue;
        };
        if suffix != "/copy" {
            let route = decode_chain(chain, suffix)
                .at_index(i)
                .at("filter_chains")?;
            match routes.entry(index) {
                std::collections::btree_map::Entry::Occupied(mut known) => {
                    known.get_mut().names.extend(route.names);
                }
                std::collections::btree_map::Entry::Vacant(new) => {
                    new.insert(route);
                }
            }
        }
    }
    if routes.is_empty() {
        return Ok(vec![SniRoute {
            names: Vec::new(),
            backends: vec![WeightedBackend::only(key.clone())],
            meta: meta.clone(),
        }]);
    }
    Ok(routes.into_values().collect())
}

/// `sni/3/tls`: the fourth route's chain for any TLS.
fn place(name: &str) -> Option<(usize, &str)> {
    let rest = name.strip_prefix("sni/")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (index, suffix) = rest.split_at(digits);
    Some((index.parse().ok()?, suffix))
}

fn decode_chain(chain: &listener::FilterChain, suffix: &str) -> Result<SniRoute, DecodeError> {
    let mut names = Vec::new();
    if let Some(matches) = &chain.filter_chain_match {
        for (i, name) in matches.server_names.iter().enumerate() {
            names.push(
                name.parse()
                    .at_index(i)
                    .at("filter_chain_match.server_names")?,
            );
        }
    }
    if suffix == "/tls" {
        names.push(HostnameMatch::Any);
    }
    let proxy: Option<tcp_proxy::TcpProxy> = find(&chain.filters, TCP_PROXY)?;
    let backends = match proxy.and_then(|p| p.cluster_specifier) {
        Some(ClusterSpecifier::Cluster(name)) => vec![backend(&name, 1)?],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
            .clusters
            .iter()
            .map(|c| backend(&c.name, c.weight))
            .collect::<Result<_, _>>()?,
        None => return Err(DecodeError::new("no cluster")).at("filters"),
    };
    Ok(SniRoute {
        names,
        backends,
        meta: Kept::of(chain.metadata.as_ref()).meta()?,
    })
}

fn backend(name: &str, weight: u32) -> Result<WeightedBackend, DecodeError> {
    Ok(WeightedBackend {
        backend: match name {
            INVALID_BACKEND => None,
            name => Some(name.parse().at("cluster")?),
        },
        weight,
        request_headers: weft_model::route::HeaderEdits::default(),
        response_headers: weft_model::route::HeaderEdits::default(),
    })
}
