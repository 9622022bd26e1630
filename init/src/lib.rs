//! Redirects a pod's traffic to its sidecar, by rules in the pod's own network namespace.
//!
//! The way through the crate: [`config`] checks the flags, [`rules`] turns them into a [`rules::Ruleset`] (pure
//! data), [`iptables`] or [`nftables`] render it, [`apply`] hands it to the kernel and removes it again, and
//! [`verify`] proves it by dialling. The binary is a thin shell; a CNI plugin would call the same functions.
//!
//! # The contract with the sidecar
//! * It listens on the outbound and inbound ports for both IP versions, and reads the original destination with
//!   `SO_ORIGINAL_DST` / `IP6T_SO_ORIGINAL_DST`. Captured outbound connections arrive at 127.0.0.1 or ::1,
//!   inbound ones at the address of the interface, so the inbound listener binds 0.0.0.0 and [::].
//! * It answers DNS on 127.0.0.1 and [::1], UDP and TCP. A UDP socket bound to 0.0.0.0 would answer from the
//!   pod's address, which conntrack cannot match with the query.
//! * Its processes run with the proxy's uid or gid, and no application does: whatever carries either is exempt.
//! * When its inbound side dials the application in the same pod, it first binds [`INBOUND_SOURCE_V4`] or
//!   [`INBOUND_SOURCE_V6`]. Over loopback the proxy's connections to the pod's own address are otherwise sent to
//!   the inbound port, so that an application which reaches itself through its own Service is served over
//!   mutual TLS like any other. Binding an address needs no capability, a socket mark would.
//!   127.0.0.6 exists everywhere; ::6 is added to `lo` by [`apply::apply`].

pub mod apply;
pub mod backend;
pub mod capability;
pub mod config;
pub mod error;
pub mod iptables;
pub mod lock;
pub mod loopback;
pub mod namespace;
pub mod nftables;
pub mod present;
pub mod rules;
pub mod verify;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Source address of the sidecar's connections to the application of its own pod, IPv4.
pub const INBOUND_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// The same for IPv6; `apply` adds it to `lo`.
pub const INBOUND_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// IP version of a rule or a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The version `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Source address by which the sidecar's inbound side is recognised.
    pub fn inbound_source(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(INBOUND_SOURCE_V4),
            Self::V6 => IpAddr::V6(INBOUND_SOURCE_V6),
        }
    }

    /// 127.0.0.1 or ::1.
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }

    /// 0.0.0.0 or ::.
    pub fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}
