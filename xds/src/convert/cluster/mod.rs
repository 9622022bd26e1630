//! CDS: a backend without its endpoints, which come by EDS over the same stream.
//!
//! [`tls`] says how its meshed endpoints are connected to, [`balancer`] how one is picked. An endpoint that is not
//! meshed is spoken to in plaintext: Envoy tells them apart by the endpoint's metadata; gRPC cannot.

pub(super) mod balancer;
pub(super) mod tls;

use std::time::Duration;

use weft_model::policy::{CircuitBreaker, OutlierDetection, RetryBudget};
use weft_model::{Cluster, Protocol, TrafficPolicy};

use super::error::At as _;
use super::metadata::{Kept, Notes};
use super::proto::{
    ads, any, boolean, cluster, core, duration, from_any, from_duration, google, required,
    transport_sockets, types, uint32, upstream_http,
};
use super::{DecodeError, Flavour};
use cluster::circuit_breakers::{Thresholds, thresholds};
use upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config,
};

/// Envoy's key for HTTP options.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// How often Envoy counts who may come back.
const OUTLIER_INTERVAL: Duration = Duration::from_secs(1);
/// Envoy refuses durations of zero.
const MIN_DURATION: Duration = Duration::from_millis(1);
/// The cluster of what is outside the mesh, for Envoy: to the original destination.
pub(super) const PASSTHROUGH: &str = "weft/passthrough";

pub(super) fn encode(c: &Cluster, flavour: Flavour) -> cluster::Cluster {
    let mut notes = Notes::of(&c.meta, flavour);
    notes.set("protocol", &c.protocol);
    let policy = &c.policy;
    let mut encoded = cluster::Cluster {
        connect_timeout: duration(policy.connect_timeout.max(MIN_DURATION)),
        load_balancing_policy: Some(balancer::encode(policy.balancer, flavour)),
        circuit_breakers: Some(circuit_breakers(policy)),
        outlier_detection: policy.outlier_detection.as_ref().map(outlier_detection),
        typed_extension_protocol_options: [(HTTP_OPTIONS.to_owned(), any(&http_options(c)))].into(),
        ..without_policy(&c.key.to_string())
    };
    set_transport(c, flavour, &mut encoded);
    notes.keep("identities", &c.identities, tls::decode(&encoded));
    if flavour == Flavour::Weft {
        notes.set("policyOrigin", &policy.meta);
        notes.keep(
            "policy",
            policy,
            decode_policy(&encoded, policy.meta.clone()),
        );
    }
    encoded.metadata = notes.into_metadata();
    encoded
}

fn set_transport(c: &Cluster, flavour: Flavour, encoded: &mut cluster::Cluster) {
    if c.identities.is_empty() {
        return;
    }
    let mesh = tls::upstream(&c.identities, c.protocol, flavour);
    if flavour == Flavour::Grpc {
        encoded.transport_socket = Some(mesh);
        return;
    }
    let of_mesh = google::Struct {
        fields: [(
            "weft".to_owned(),
            google::Value {
                kind: Some(google::value::Kind::StringValue("mtls".to_owned())),
            },
        )]
        .into(),
    };
    let plaintext = core::TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
            &transport_sockets::raw_buffer::v3::RawBuffer {},
        ))),
    };
    encoded.transport_socket_matches = vec![
        cluster::cluster::TransportSocketMatch {
            name: "mesh".to_owned(),
            r#match: Some(of_mesh),
            transport_socket: Some(mesh),
        },
        cluster::cluster::TransportSocketMatch {
            name: "plaintext".to_owned(),
            r#match: Some(google::Struct::default()),
            transport_socket: Some(plaintext),
        },
    ];
}

fn circuit_breakers(policy: &TrafficPolicy) -> cluster::CircuitBreakers {
    cluster::CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: uint32(policy.circuit_breaker.max_connections),
            max_pending_requests: uint32(policy.circuit_breaker.max_pending_requests),
            max_requests: uint32(policy.circuit_breaker.max_requests),
            retry_budget: Some(thresholds::RetryBudget {
                budget_percent: Some(types::Percent {
                    value: policy.retry_budget.percent.into(),
                }),
                min_retry_concurrency: uint32(policy.retry_budget.min_concurrency),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn outlier_detection(o: &OutlierDetection) -> cluster::OutlierDetection {
    cluster::OutlierDetection {
        consecutive_5xx: uint32(o.consecutive_failures),
        enforcing_consecutive_5xx: uint32(100),
        // On by default in Envoy.
        enforcing_success_rate: uint32(0),
        interval: duration(OUTLIER_INTERVAL),
        base_ejection_time: duration(o.base_ejection_time.max(MIN_DURATION)),
        max_ejection_time: duration(o.max_ejection_time.max(MIN_DURATION)),
        max_ejection_percent: uint32(o.max_ejection_percent.min(100)),
        always_eject_one_host: boolean(true),
        ..Default::default()
    }
}

fn http_options(c: &Cluster) -> upstream_http::HttpProtocolOptions {
    let http2 = || core::Http2ProtocolOptions::default();
    let options = match c.protocol {
        Protocol::Http2 | Protocol::Grpc => {
            UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(explicit_http_config::ProtocolConfig::Http2ProtocolOptions(
                    http2(),
                )),
            })
        }
        Protocol::Http | Protocol::Detect | Protocol::Tls | Protocol::Tcp => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2()),
                ..Default::default()
            })
        }
    };
    upstream_http::HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: duration(c.policy.idle_timeout),
            ..Default::default()
        }),
        upstream_protocol_options: Some(options),
        ..Default::default()
    }
}

pub(super) fn decode(encoded: &cluster::Cluster) -> Result<Cluster, DecodeError> {
    let kept = Kept::of(encoded.metadata.as_ref());
    let policy_meta = kept.get("policyOrigin")?.unwrap_or_default();
    Ok(Cluster {
        key: encoded.name.parse().at("name")?,
        protocol: kept.required("protocol")?,
        identities: kept.or("identities", || tls::decode(encoded))?,
        policy: kept.or("policy", || decode_policy(encoded, policy_meta))?,
        meta: kept.meta()?,
    })
}

fn decode_policy(
    encoded: &cluster::Cluster,
    meta: weft_model::Meta,
) -> Result<TrafficPolicy, DecodeError> {
    let breakers = required(encoded.circuit_breakers.as_ref(), "circuit_breakers")?;
    let limits = required(breakers.thresholds.first(), "thresholds[0]").at("circuit_breakers")?;
    let budget = required(limits.retry_budget.as_ref(), "retry_budget")
        .at_index(0)
        .at("circuit_breakers.thresholds")?;
    let options = encoded.typed_extension_protocol_options.get(HTTP_OPTIONS);
    let options: upstream_http::HttpProtocolOptions =
        from_any(required(options, HTTP_OPTIONS)?).at("typed_extension_protocol_options")?;
    let idle = options
        .common_http_protocol_options
        .and_then(|o| o.idle_timeout);
    let default = CircuitBreaker::default();
    Ok(TrafficPolicy {
        balancer: balancer::decode(encoded.load_balancing_policy.as_ref())
            .at("load_balancing_policy")?,
        outlier_detection: encoded
            .outlier_detection
            .as_ref()
            .map(decode_outlier)
            .transpose()
            .at("outlier_detection")?,
        circuit_breaker: CircuitBreaker {
            max_connections: limits
                .max_connections
                .map_or(default.max_connections, |n| n.value),
            max_pending_requests: limits
                .max_pending_requests
                .map_or(default.max_pending_requests, |n| n.value),
            max_requests: limits
                .max_requests
                .map_or(default.max_requests, |n| n.value),
        },
        retry_budget: RetryBudget {
            percent: percent(budget.budget_percent)?,
            min_concurrency: budget.min_retry_concurrency.map_or(3, |n| n.value),
        },
        connect_timeout: from_duration(required(
            encoded.connect_timeout.as_ref(),
            "connect_timeout",
        )?)
        .at("connect_timeout")?,
        idle_timeout: from_duration(required(idle.as_ref(), "idle_timeout")?)?,
        meta,
    })
}

fn percent(percent: Option<types::Percent>) -> Result<u32, DecodeError> {
    let value = percent.map_or(20.0, |p| p.value);
    if (0.0..=100.0).contains(&value) && value.fract() == 0.0 {
        Ok(value as u32)
    } else {
        Err(DecodeError::new("not a whole percentage")).at("budget_percent")
    }
}

fn decode_outlier(o: &cluster::OutlierDetection) -> Result<OutlierDetection, DecodeError> {
    let default = OutlierDetection::default();
    let time = |d: Option<google::Duration>, default| d.as_ref().map_or(Ok(default), from_duration);
    Ok(OutlierDetection {
        consecutive_failures: o
            .consecutive_5xx
            .map_or(default.consecutive_failures, |n| n.value),
        base_ejection_time: time(o.base_ejection_time, default.base_ejection_time)
            .at("base_ejection_time")?,
        max_ejection_time: time(o.max_ejection_time, default.max_ejection_time)
            .at("max_ejection_time")?,
        max_ejection_percent: o
            .max_ejection_percent
            .map_or(default.max_ejection_percent, |n| n.value),
    })
}

/// A cluster of that name with its endpoints by EDS, and nothing else said.
pub(super) fn without_policy(name: &str) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(ads()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The cluster of everything outside the mesh.
pub(super) fn passthrough() -> cluster::Cluster {
    cluster::Cluster {
        name: PASSTHROUGH.to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::OriginalDst.into(),
        )),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        connect_timeout: duration(TrafficPolicy::default().connect_timeout),
        ..Default::default()
    }
}
