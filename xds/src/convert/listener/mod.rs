//! LDS: what a captured address means ([`outbound`]), what a workload admits on a port ([`inbound`]), and where an
//! Envoy's captured connections arrive ([`capture`]).

pub(super) mod capture;
pub(super) mod inbound;
pub(super) mod outbound;

use std::time::Duration;

use prost::{Message, Name};

use super::DecodeError;
use super::error::At as _;
use super::proto::{any, duration, from_any, google, listener, listener_filters, tcp_proxy};
use listener::filter::ConfigType;
use tcp_proxy::tcp_proxy::ClusterSpecifier;

const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

fn filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(config))),
    }
}

fn listener_filter<M: Message + Name>(name: &str, config: &M) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(
            config,
        ))),
        ..Default::default()
    }
}

fn tls_inspector() -> listener::ListenerFilter {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        &listener_filters::tls_inspector::v3::TlsInspector::default(),
    )
}

fn http_inspector() -> listener::ListenerFilter {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        &listener_filters::http_inspector::v3::HttpInspector::default(),
    )
}

fn original_dst() -> listener::ListenerFilter {
    listener_filter(
        "envoy.filters.listener.original_dst",
        &listener_filters::original_dst::v3::OriginalDst::default(),
    )
}

fn tcp(stat_prefix: String, to: ClusterSpecifier) -> listener::Filter {
    let proxy = tcp_proxy::TcpProxy {
        stat_prefix,
        // An opaque connection may rest as long as its ends like; Envoy's default is an hour.
        idle_timeout: duration(Duration::ZERO),
        cluster_specifier: Some(to),
        ..Default::default()
    };
    filter(TCP_PROXY, &proxy)
}

/// The message of the filter with that name.
fn find<M: Message + Name + Default>(
    filters: &[listener::Filter],
    name: &str,
) -> Result<Option<M>, DecodeError> {
    let Some((i, found)) = filters.iter().enumerate().find(|(_, f)| f.name == name) else {
        return Ok(None);
    };
    config(found.config_type.as_ref())
        .map(Some)
        .at_index(i)
        .at("filters")
}

fn config<M: Message + Name + Default>(config: Option<&ConfigType>) -> Result<M, DecodeError> {
    match config {
        Some(ConfigType::TypedConfig(any)) => typed(any).at("typed_config"),
        _ => Err(DecodeError::new("it has no typed_config")),
    }
}

fn typed<M: Message + Name + Default>(any: &google::Any) -> Result<M, DecodeError> {
    from_any(any)
}
