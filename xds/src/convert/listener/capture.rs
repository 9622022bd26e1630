//! Where an Envoy's captured connections arrive: handed to the listener of their original destination, else passed on.

use std::net::{IpAddr, Ipv4Addr};

use super::{ClusterSpecifier, original_dst, tcp};
use crate::convert::cluster::PASSTHROUGH;
use crate::convert::proto::{address, boolean, core, listener};

/// Its name.
pub(in crate::convert) const NAME: &str = "weft/outbound";
/// Where the redirect rules send what leaves a pod.
const PORT: u16 = 15001;

pub(in crate::convert) fn encode() -> listener::Listener {
    listener::Listener {
        name: NAME.to_owned(),
        address: Some(address(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)),
        use_original_dst: boolean(true),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        listener_filters: vec![original_dst()],
        filter_chains: vec![listener::FilterChain {
            name: PASSTHROUGH.to_owned(),
            filters: vec![tcp(
                PASSTHROUGH.to_owned(),
                ClusterSpecifier::Cluster(PASSTHROUGH.to_owned()),
            )],
            ..Default::default()
        }],
        ..Default::default()
    }
}
