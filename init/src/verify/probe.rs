//! The dials of one IP version, and what each must show.
//!
//! Run by [`super::verify`] once it holds the sidecar's ports; the sockets are in [`super::dial`].

use super::dial::{self, Dialled, Proxy, Trap, UdpTrap};
use super::{Proof, Report};
use crate::Family;
use crate::config::Config;
use crate::config::cidr::CidrSet;
use crate::config::ports::PortSet;
use crate::error::Error;
use crate::namespace::own_address;
use crate::rules::{Hook, Packet, Ruleset, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses of documentation (RFC 5737, RFC 3849, RFC 9637): nobody answers there.
const RESERVED_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
];
const RESERVED_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1),
];

/// The sidecar's ports, held by us.
pub(super) struct Traps {
    family: Family,
    outbound: Trap,
    inbound: Trap,
    dns: Option<(Trap, UdpTrap)>,
}

impl Traps {
    pub(super) fn set(config: &Config, family: Family) -> Result<Self, Error> {
        let any = |port| Trap::bind(SocketAddr::new(family.any(), port));
        let local = SocketAddr::new(family.loopback(), config.dns_port);
        let dns = if config.capture_dns {
            Some((Trap::bind(local)?, UdpTrap::bind(local)?))
        } else {
            None
        };
        Ok(Self {
            family,
            outbound: any(config.outbound_port)?,
            inbound: any(config.inbound_port)?,
            dns,
        })
    }
}

/// The checks of one IP version.
pub(super) struct Probe<'a> {
    pub(super) config: &'a Config,
    pub(super) ruleset: &'a Ruleset,
    pub(super) traps: &'a Traps,
    /// User and group of this process.
    pub(super) own: (u32, u32),
}

impl Probe<'_> {
    pub(super) fn run(&self, report: &mut Report) -> Result<(), Error> {
        let family = self.traps.family;
        let own = own_address(family, &self.config.exclude_interfaces);
        let interface = own.as_ref().map_or("eth0", |(name, _)| name.as_str());
        let proxy = Proxy {
            uid: self.config.proxy_uid,
            gid: self.config.proxy_gid,
        };
        match self.target(interface, Transport::Tcp, self.config.outbound_port) {
            Ok(target) => {
                report.add(family, "outbound", self.outbound(target));
                report.add(family, "exemption", self.exemption(target, proxy));
            }
            Err(unproved) => report.add(family, "outbound", unproved),
        }
        if let Some((tcp, udp)) = &self.traps.dns {
            match self.target(interface, Transport::Udp, self.config.dns_port) {
                Ok(target) => {
                    report.add(family, "dns udp", udp.exchange(target));
                    report.add(
                        family,
                        "dns tcp",
                        caught(tcp, target, tcp.dial(target), "DNS port"),
                    );
                }
                Err(unproved) => report.add(family, "dns", unproved),
            }
        }
        let Some((_, address)) = own else {
            let why = "the pod has no address besides loopback and link-local ones".to_owned();
            report.add(family, "inbound", Proof::Unproved(why));
            return Ok(());
        };
        report.add(family, "inbound", self.inbound(address, proxy));
        report.add(family, "delivery", self.delivery(address, proxy)?);
        report.add(family, "same pod", self.same_pod(address)?);
        Ok(())
    }

    fn outbound(&self, target: SocketAddr) -> Proof {
        caught(
            &self.traps.outbound,
            target,
            self.traps.outbound.dial(target),
            "outbound port",
        )
    }

    /// The sidecar's own connections must leave, or every one of them would come back to it for ever.
    fn exemption(&self, target: SocketAddr, proxy: Proxy) -> Proof {
        match proxy.dial(target, None, dial::BRIEFLY) {
            Err(error) => unable(&error),
            Ok(_) if self.traps.outbound.catches(target, dial::BRIEFLY) => Proof::Failed(format!(
                "the sidecar's own connection to {target} came back to its outbound port"
            )),
            Ok(_) => Proof::Proved(format!(
                "uid {} dialled {target} and was not redirected",
                proxy.uid
            )),
        }
    }

    /// The outbound side picked its own pod: it must enter by the inbound port.
    fn inbound(&self, address: IpAddr, proxy: Proxy) -> Proof {
        let captured = |port: &u16| {
            let target = SocketAddr::new(address, *port);
            let packet = self.packet("lo", Transport::Tcp, target, (proxy.uid, proxy.gid));
            self.ruleset.evaluate(&packet).redirect == Some(self.config.inbound_port)
        };
        let Some(port) = ports(&self.config.include_inbound_ports)
            .into_iter()
            .find(captured)
        else {
            return nothing_captured();
        };
        let target = SocketAddr::new(address, port);
        match proxy.dial(target, None, dial::PATIENTLY) {
            Err(error) => unable(&error),
            Ok(dialled) => caught(&self.traps.inbound, target, dialled, "inbound port"),
        }
    }

    /// The inbound side dials the application: it must arrive, not be redirected once more.
    fn delivery(&self, address: IpAddr, proxy: Proxy) -> Result<Proof, Error> {
        let application = Trap::bind(SocketAddr::new(address, 0))?;
        let target = application.address()?;
        let source = self.traps.family.inbound_source();
        Ok(match proxy.dial(target, Some(source), dial::PATIENTLY) {
            Err(error) => unable(&error),
            Ok(_) if application.accepts_from(source, dial::BRIEFLY) => Proof::Proved(format!(
                "from {source} the sidecar reaches the application at {target}"
            )),
            Ok(Dialled::Connected) => Proof::Failed(format!(
                "from {source} the sidecar's connection to {target} was redirected again"
            )),
            Ok(other) => Proof::Failed(format!(
                "from {source} the sidecar cannot reach the application at {target}: {other}"
            )),
        })
    }

    fn same_pod(&self, address: IpAddr) -> Result<Proof, Error> {
        for address in [address, self.traps.family.loopback()] {
            let other = Trap::bind(SocketAddr::new(address, 0))?;
            let target = other.address()?;
            let dialled = other.dial(target);
            if !other.accepts_from(address, dial::BRIEFLY) {
                return Ok(Proof::Failed(format!(
                    "a call within the pod to {target} did not arrive there: {dialled}"
                )));
            }
        }
        Ok(Proof::Proved(format!(
            "calls to {address} and {} are left alone",
            self.traps.family.loopback()
        )))
    }

    /// A destination that the configuration sends to `port` and that can be dialled.
    fn target(
        &self,
        interface: &str,
        transport: Transport,
        port: u16,
    ) -> Result<SocketAddr, Proof> {
        let target = self
            .captured(interface, transport, port)
            .ok_or_else(nothing_captured)?;
        if dial::has_route(target) {
            return Ok(target);
        }
        Err(Proof::Unproved(format!(
            "there is no route to {target}, so nothing can be sent there"
        )))
    }

    /// A destination that the configuration sends to `port`.
    fn captured(&self, interface: &str, transport: Transport, port: u16) -> Option<SocketAddr> {
        let family = self.traps.family;
        let mut addresses: Vec<IpAddr> = match family {
            Family::V4 => RESERVED_V4.map(IpAddr::V4).to_vec(),
            Family::V6 => RESERVED_V6.map(IpAddr::V6).to_vec(),
        };
        if let CidrSet::Only(networks) = &self.config.include_outbound_cidrs {
            addresses.extend(
                networks
                    .iter()
                    .map(|network| network.address())
                    .filter(|ip| Family::of(*ip) == family),
            );
        }
        let ports = if transport == Transport::Udp {
            vec![53]
        } else {
            ports(&self.config.include_outbound_ports)
        };
        let targets = addresses
            .iter()
            .flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)));
        targets.into_iter().find(|target| {
            self.ruleset
                .evaluate(&self.packet(interface, transport, *target, self.own))
                .redirect
                == Some(port)
        })
    }

    fn packet(
        &self,
        interface: &str,
        transport: Transport,
        destination: SocketAddr,
        owner: (u32, u32),
    ) -> Packet {
        // Over loopback a connection comes from the address it goes to.
        let source = if interface == "lo" {
            destination.ip()
        } else {
            self.traps.family.any()
        };
        Packet {
            hook: Hook::Output,
            interface: interface.to_owned(),
            transport,
            source: SocketAddr::new(source, 40000),
            destination,
            owner,
        }
    }
}

/// Ports worth trying: common ones, and the first of each included range.
fn ports(included: &PortSet) -> Vec<u16> {
    let mut ports = vec![80, 443, 8080];
    if let PortSet::Only(list) = included {
        ports.extend(list.ranges().iter().map(|range| range.first()));
    }
    ports
}

fn caught(trap: &Trap, target: SocketAddr, dialled: Dialled, name: &str) -> Proof {
    match dialled {
        _ if trap.catches(target, dial::BRIEFLY) => Proof::Proved(format!(
            "{target} arrived at the {name} with its original destination"
        )),
        other => Proof::Failed(format!("{target} did not arrive at the {name}: {other}")),
    }
}

fn nothing_captured() -> Proof {
    Proof::Unproved("this configuration captures nothing".to_owned())
}

fn unable(error: &std::io::Error) -> Proof {
    Proof::Unproved(format!(
        "cannot run as the sidecar's user ({error}); CAP_SETUID and CAP_SETGID allow it"
    ))
}
