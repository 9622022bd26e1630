//! EDS: the endpoints of a backend, and the addresses of a DNS name.
//!
//! Endpoints are grouped by locality. Our proxy is told every endpoint with its own health. Envoy and gRPC are told
//! only those that may get traffic: unready ones would count towards Envoy's panic threshold, and what is draining
//! stands one priority lower, which is how they say "only when nothing is ready".

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weft_model::{DnsRecord, Endpoint, Endpoints, Health, Locality};

use super::error::At as _;
use super::metadata::{KEY, Kept, Notes};
use super::proto::{address, core, endpoint, from_address, google, required, uint32};
use super::{DecodeError, Flavour, dns_name};

/// Envoy's key for what `transport_socket_matches` compares.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// The largest weight of one locality.
const MAX_LOCALITY_WEIGHT: u32 = 1 << 20;

pub(super) fn encode(endpoints: &Endpoints, flavour: Flavour) -> endpoint::ClusterLoadAssignment {
    let ready = endpoints
        .endpoints
        .iter()
        .any(|e| e.health == Health::Ready);
    let mut groups: BTreeMap<(u32, &Locality), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &endpoints.endpoints {
        let priority = match (flavour, endpoint.health) {
            (Flavour::Weft, _) | (_, Health::Ready) => 0,
            (_, Health::Draining) => u32::from(ready),
            (_, Health::NotReady) => continue,
        };
        groups
            .entry((priority, &endpoint.locality))
            .or_default()
            .push(endpoint);
    }
    let mut localities: Vec<_> = groups
        .into_iter()
        .map(|((priority, locality), members)| {
            locality_group(priority, locality, &members, flavour)
        })
        .collect();
    // The assignment itself has no metadata; its first locality carries it, if need be an empty one.
    let metadata = Notes::of(&endpoints.meta, flavour).into_metadata();
    match localities.first_mut() {
        Some(first) => first.metadata = metadata,
        None if metadata.is_some() => localities.push(endpoint::LocalityLbEndpoints {
            locality: Some(core::Locality::default()),
            metadata,
            ..Default::default()
        }),
        None => {}
    }
    endpoint::ClusterLoadAssignment {
        cluster_name: endpoints.key.to_string(),
        endpoints: localities,
        ..Default::default()
    }
}

fn locality_group(
    priority: u32,
    locality: &Locality,
    members: &[&Endpoint],
    flavour: Flavour,
) -> endpoint::LocalityLbEndpoints {
    // Capped, so that the sum over the localities of a priority stays below 2^32: gRPC refuses more.
    let weight: u64 = members.iter().map(|e| u64::from(e.weight)).sum();
    endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            ..Default::default()
        }),
        lb_endpoints: members.iter().map(|e| lb_endpoint(e, flavour)).collect(),
        load_balancing_weight: uint32(
            u32::try_from(weight).map_or(MAX_LOCALITY_WEIGHT, |w| w.min(MAX_LOCALITY_WEIGHT)),
        ),
        priority,
        ..Default::default()
    }
}

fn lb_endpoint(e: &Endpoint, flavour: Flavour) -> endpoint::LbEndpoint {
    let mut notes = Notes::new(flavour);
    if let Some(identity) = &e.identity {
        notes.set("identity", identity);
    }
    if let Some(workload) = &e.workload {
        notes.set("workload", &workload.to_string());
    }
    let mut metadata = notes.into_metadata();
    if e.identity.is_some() && flavour == Flavour::Envoy {
        let mesh = google::Struct {
            fields: [("weft".to_owned(), text("mtls"))].into(),
        };
        metadata
            .get_or_insert_default()
            .filter_metadata
            .insert(SOCKET_MATCH.to_owned(), mesh);
    }
    let health = match (flavour, e.health) {
        (_, Health::Ready) | (Flavour::Envoy | Flavour::Grpc, _) => core::HealthStatus::Healthy,
        (Flavour::Weft, Health::Draining) => core::HealthStatus::Draining,
        (Flavour::Weft, Health::NotReady) => core::HealthStatus::Unhealthy,
    };
    endpoint::LbEndpoint {
        health_status: health.into(),
        metadata,
        load_balancing_weight: uint32(e.weight),
        host_identifier: Some(host(e.address)),
    }
}

fn text(value: &str) -> google::Value {
    google::Value {
        kind: Some(google::value::Kind::StringValue(value.to_owned())),
    }
}

fn host(at: SocketAddr) -> endpoint::lb_endpoint::HostIdentifier {
    endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
        address: Some(address(at.ip(), at.port())),
        ..Default::default()
    })
}

pub(super) fn decode(
    assignment: &endpoint::ClusterLoadAssignment,
) -> Result<Endpoints, DecodeError> {
    let mut endpoints = Vec::new();
    for (i, group) in assignment.endpoints.iter().enumerate() {
        decode_group(group, &mut endpoints)
            .at_index(i)
            .at("endpoints")?;
    }
    endpoints.sort_by_key(|e| e.address);
    if let Some(pair) = endpoints
        .windows(2)
        .find(|pair| pair[0].address == pair[1].address)
    {
        let address = pair[0].address;
        return Err(DecodeError::new(format_args!(
            "the address {address} is there twice"
        )))
        .at("endpoints");
    }
    Ok(Endpoints {
        key: assignment.cluster_name.parse().at("cluster_name")?,
        endpoints,
        meta: meta(assignment)?,
    })
}

fn meta(assignment: &endpoint::ClusterLoadAssignment) -> Result<weft_model::Meta, DecodeError> {
    let metadata = assignment
        .endpoints
        .first()
        .and_then(|first| first.metadata.as_ref());
    Kept::of(metadata).meta().at("endpoints[0]")
}

fn decode_group(
    group: &endpoint::LocalityLbEndpoints,
    into: &mut Vec<Endpoint>,
) -> Result<(), DecodeError> {
    let locality = group
        .locality
        .as_ref()
        .map_or_else(Locality::default, |l| Locality {
            region: l.region.clone(),
            zone: l.zone.clone(),
        });
    for (i, e) in group.lb_endpoints.iter().enumerate() {
        into.push(
            decode_endpoint(e, &locality)
                .at_index(i)
                .at("lb_endpoints")?,
        );
    }
    Ok(())
}

fn decode_endpoint(e: &endpoint::LbEndpoint, locality: &Locality) -> Result<Endpoint, DecodeError> {
    let kept = Kept::of(e.metadata.as_ref());
    let workload: Option<String> = kept.get("workload")?;
    let health = match core::HealthStatus::try_from(e.health_status) {
        Ok(core::HealthStatus::Unknown | core::HealthStatus::Healthy) => Health::Ready,
        Ok(core::HealthStatus::Draining | core::HealthStatus::Degraded) => Health::Draining,
        _ => Health::NotReady,
    };
    Ok(Endpoint {
        address: decode_host(e)?,
        health,
        weight: e.load_balancing_weight.map_or(1, |w| w.value).max(1),
        locality: locality.clone(),
        identity: kept.get("identity")?,
        workload: workload
            .map(|w| w.parse())
            .transpose()
            .at(format_args!("metadata.{KEY}.workload"))?,
    })
}

fn decode_host(e: &endpoint::LbEndpoint) -> Result<SocketAddr, DecodeError> {
    let Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)) = &e.host_identifier else {
        return Err(DecodeError::new("it is missing")).at("endpoint");
    };
    from_address(required(host.address.as_ref(), "endpoint.address")?).at("endpoint")
}

/// A DNS name is a load assignment whose endpoints have port 0.
pub(super) fn encode_name(record: &DnsRecord, flavour: Flavour) -> endpoint::ClusterLoadAssignment {
    let lb_endpoints = record.addresses.iter().map(|ip| endpoint::LbEndpoint {
        host_identifier: Some(host(SocketAddr::new(*ip, 0))),
        ..Default::default()
    });
    endpoint::ClusterLoadAssignment {
        cluster_name: dns_name(&record.name),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            metadata: Notes::of(&record.meta, flavour).into_metadata(),
            lb_endpoints: lb_endpoints.collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn decode_name(
    assignment: &endpoint::ClusterLoadAssignment,
) -> Result<DnsRecord, DecodeError> {
    let name = assignment
        .cluster_name
        .strip_prefix("weft/dns/")
        .ok_or_else(|| DecodeError::new("expected weft/dns/<name>"))
        .at("cluster_name")?;
    let mut addresses = Vec::new();
    for (i, group) in assignment.endpoints.iter().enumerate() {
        for (j, e) in group.lb_endpoints.iter().enumerate() {
            let host = decode_host(e)
                .at_index(j)
                .at("lb_endpoints")
                .at_index(i)
                .at("endpoints")?;
            addresses.push(host.ip());
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(DnsRecord {
        name: name.parse().at("cluster_name")?,
        addresses,
        meta: meta(assignment)?,
    })
}
