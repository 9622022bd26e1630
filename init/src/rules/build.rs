//! The rules of a configuration, chain by chain.
//!
//! [`Ruleset::new`] is called by [`crate::apply`] and [`crate::verify`]; the types are in [`super`].
//!
//! Excluded interfaces, networks and ports win over included ones. A TCP destination must be in an included network
//! and on an included port. DNS capture heeds the exclusions, not the inclusions: asking for it already names port 53.
//!
//! # Why UDP port 53 has a conntrack zone
//! A captured query from port X leaves an entry `pod:X -> resolver:53`, rewritten to the sidecar, that outlives the
//! application's socket by up to two minutes. When the sidecar's own query to that resolver gets the same port X,
//! the entry would match and turn the query back to the sidecar. So whatever uses UDP port 53 without being captured
//! has its own zone, and captured queries stay in the default one. TCP needs none: ports are not reused while the
//! application's socket lives, and a SYN that meets a closed entry replaces it (nf_conntrack_proto_tcp.c).

use super::{
    Chain, ChainName, DNS_ZONE, Hook, Match, Owner, Rule, Ruleset, Table, Transport, Verdict,
};
use crate::Family;
use crate::config::Config;
use crate::config::cidr::{Cidr, CidrSet};
use crate::config::interface::InterfacePattern;
use crate::config::ports::{PortRange, PortSet};
use std::net::Ipv4Addr;

const DNS_PORT: u16 = 53;

impl Ruleset {
    /// The rules of a configuration; `ipv6` is the answer to its "auto".
    pub fn new(config: &Config, ipv6: bool) -> Self {
        let nat = |name, hook, direction, rules| Chain {
            table: Table::Nat,
            name,
            hook,
            direction,
            rules,
        };
        let mut chains = vec![
            nat(ChainName::Inbound, None, Hook::Prerouting, inbound(config)),
            nat(ChainName::Outbound, None, Hook::Output, outbound(config)),
            nat(ChainName::Own, None, Hook::Output, own()),
            nat(
                ChainName::Prerouting,
                Some(Hook::Prerouting),
                Hook::Prerouting,
                prerouting(config),
            ),
            nat(
                ChainName::Output,
                Some(Hook::Output),
                Hook::Output,
                output(config),
            ),
        ];
        if config.capture_dns {
            let raw = |name, hook, rules| Chain {
                table: Table::Raw,
                name,
                hook: Some(hook),
                direction: hook,
                rules,
            };
            chains.push(raw(ChainName::DnsIn, Hook::Prerouting, dns_in()));
            chains.push(raw(ChainName::DnsOut, Hook::Output, dns_out(config)));
        }
        if !ipv6 {
            for chain in &mut chains {
                chain
                    .rules
                    .retain(|rule| rule.matches.family() != Some(Family::V6));
            }
        }
        Self { chains, ipv6 }
    }
}

fn rule(verdict: Verdict, matches: Match) -> Rule {
    Rule { matches, verdict }
}

fn port(port: u16) -> Option<PortRange> {
    PortRange::new(port, port)
}

fn tcp(destination_ports: Option<PortRange>) -> Match {
    Match {
        transport: Some(Transport::Tcp),
        destination_ports,
        ..Match::default()
    }
}

fn on(interface: InterfacePattern) -> Match {
    Match {
        interface: Some(interface),
        ..Match::default()
    }
}

fn owners(config: &Config) -> [Owner; 2] {
    [Owner::Uid(config.proxy_uid), Owner::Gid(config.proxy_gid)]
}

fn dns_query() -> Match {
    Match {
        transport: Some(Transport::Udp),
        destination_ports: port(DNS_PORT),
        ..Match::default()
    }
}

/// A DNS server in the pod that answers a client which asked from port 53: no query, though it looks like one.
fn dns_answer_to_port_53() -> Match {
    Match {
        source_ports: port(DNS_PORT),
        ..dns_query()
    }
}

fn inbound(config: &Config) -> Vec<Rule> {
    let skipped = config.skip_inbound_ports.ranges().iter();
    let mut rules: Vec<_> = skipped
        .map(|range| rule(Verdict::Return, tcp(Some(*range))))
        .collect();
    rules.extend(redirect_ports(
        &config.include_inbound_ports,
        config.inbound_port,
    ));
    rules
}

fn outbound(config: &Config) -> Vec<Rule> {
    redirect_ports(&config.include_outbound_ports, config.outbound_port)
}

fn redirect_ports(ports: &PortSet, to: u16) -> Vec<Rule> {
    match ports {
        PortSet::All => vec![rule(Verdict::Redirect(to), tcp(None))],
        PortSet::Only(list) => list
            .ranges()
            .iter()
            .map(|range| rule(Verdict::Redirect(to), tcp(Some(*range))))
            .collect(),
    }
}

fn prerouting(config: &Config) -> Vec<Rule> {
    let mut rules = vec![rule(Verdict::Return, on(InterfacePattern::loopback()))];
    rules.extend(
        config
            .exclude_interfaces
            .iter()
            .map(|name| rule(Verdict::Return, on(name.clone()))),
    );
    rules.push(rule(Verdict::Jump(ChainName::Inbound), tcp(None)));
    rules
}

/// The sidecar over loopback. Its inbound side, known by its source address, dials the application. Anything to a
/// loopback address is meant for this very address. What remains is the outbound side, which picked its own pod as
/// the endpoint of a Service: it enters by the inbound port, as from any other pod.
fn own() -> Vec<Rule> {
    let host = |family: Family| Cidr::host(family.inbound_source());
    let from = |network| Match {
        source: Some(network),
        ..Match::default()
    };
    let to = |network| Match {
        destination: Some(network),
        ..Match::default()
    };
    let mut rules = vec![
        rule(Verdict::Return, from(host(Family::V4))),
        rule(Verdict::Return, from(host(Family::V6))),
    ];
    rules.extend(
        Cidr::new(Ipv4Addr::LOCALHOST.into(), 8).map(|network| rule(Verdict::Return, to(network))),
    );
    rules.push(rule(Verdict::Return, to(Cidr::host(Family::V6.loopback()))));
    rules.push(rule(Verdict::Jump(ChainName::Inbound), tcp(None)));
    rules
}

fn output(config: &Config) -> Vec<Rule> {
    let lo = InterfacePattern::loopback();
    let mut rules = Vec::new();
    // 1. Over loopback: the sidecar by its own rules, the application never.
    for owner in owners(config) {
        let own = Match {
            owner: Some(owner),
            ..on(lo.clone())
        };
        rules.push(rule(Verdict::Jump(ChainName::Own), own));
    }
    rules.push(rule(Verdict::Return, on(lo)));
    // 2. The sidecar to the world.
    for owner in owners(config) {
        rules.push(rule(
            Verdict::Return,
            Match {
                owner: Some(owner),
                ..Match::default()
            },
        ));
    }
    // 3. What is excluded altogether.
    rules.extend(
        config
            .exclude_interfaces
            .iter()
            .map(|name| rule(Verdict::Return, on(name.clone()))),
    );
    for network in &config.skip_outbound_cidrs {
        rules.push(rule(
            Verdict::Return,
            Match {
                destination: Some(*network),
                ..Match::default()
            },
        ));
    }
    // 4. DNS before the ports, because inclusions do not concern it.
    if config.capture_dns {
        rules.push(rule(Verdict::Return, dns_answer_to_port_53()));
        rules.push(rule(Verdict::Redirect(config.dns_port), dns_query()));
        rules.push(rule(
            Verdict::Redirect(config.dns_port),
            tcp(port(DNS_PORT)),
        ));
    }
    // 5. The rest of TCP.
    for range in config.skip_outbound_ports.ranges() {
        rules.push(rule(Verdict::Return, tcp(Some(*range))));
    }
    let jump = Verdict::Jump(ChainName::Outbound);
    match &config.include_outbound_cidrs {
        CidrSet::All => rules.push(rule(jump, tcp(None))),
        CidrSet::Only(networks) => {
            rules.extend(networks.iter().map(|to| {
                rule(
                    jump,
                    Match {
                        destination: Some(*to),
                        ..tcp(None)
                    },
                )
            }));
        }
    }
    rules
}

fn dns_in() -> Vec<Rule> {
    let answer = Match {
        transport: Some(Transport::Udp),
        source_ports: port(DNS_PORT),
        ..Match::default()
    };
    vec![
        rule(Verdict::Return, on(InterfacePattern::loopback())),
        rule(Verdict::Zone(DNS_ZONE), answer),
    ]
}

/// Mirrors what [`output`] leaves alone on UDP port 53.
fn dns_out(config: &Config) -> Vec<Rule> {
    let zone = |matches| rule(Verdict::Zone(DNS_ZONE), matches);
    let mut rules = vec![rule(Verdict::Return, on(InterfacePattern::loopback()))];
    rules.extend(owners(config).map(|owner| {
        zone(Match {
            owner: Some(owner),
            ..dns_query()
        })
    }));
    rules.push(zone(dns_answer_to_port_53()));
    for name in &config.exclude_interfaces {
        rules.push(zone(Match {
            interface: Some(name.clone()),
            ..dns_query()
        }));
    }
    for network in &config.skip_outbound_cidrs {
        rules.push(zone(Match {
            destination: Some(*network),
            ..dns_query()
        }));
    }
    rules
}
