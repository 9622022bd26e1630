//! A packet's way through a [`Ruleset`], as the kernel would take it.
//!
//! Used by [`crate::verify`] to find a destination that the configuration captures, and by the tests to state what
//! the rules mean.

use super::{Chain, ChainName, Hook, Match, Owner, Ruleset, Table, Transport, Verdict};
use crate::Family;
use std::net::SocketAddr;

/// The first packet of a connection, or a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Arriving or being sent.
    pub hook: Hook,
    /// The interface of arrival or departure.
    pub interface: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// Where it says it comes from.
    pub source: SocketAddr,
    /// Where it is meant to go.
    pub destination: SocketAddr,
    /// User and group of the sender, for packets being sent.
    pub owner: (u32, u32),
}

/// What the rules do with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The port it is sent to; `None` when it goes where it was meant to.
    pub redirect: Option<u16>,
    /// Its conntrack zone, 0 by default.
    pub zone: u16,
}

impl Ruleset {
    /// Follows a packet through all tables.
    pub fn evaluate(&self, packet: &Packet) -> Outcome {
        let mut outcome = Outcome::default();
        if Family::of(packet.destination.ip()) == Family::V6 && !self.ipv6 {
            return outcome;
        }
        for table in Table::ALL {
            for chain in self
                .of_table(table)
                .filter(|chain| chain.hook == Some(packet.hook))
            {
                self.walk(chain, packet, &mut outcome);
            }
        }
        outcome
    }

    /// True when the packet's fate is decided and the calling chain must stop too.
    fn walk(&self, chain: &Chain, packet: &Packet, outcome: &mut Outcome) -> bool {
        for rule in chain
            .rules
            .iter()
            .filter(|rule| matches(&rule.matches, packet))
        {
            match rule.verdict {
                Verdict::Return => return false,
                Verdict::Jump(name) => {
                    if self
                        .chain(name)
                        .is_some_and(|target| self.walk(target, packet, outcome))
                    {
                        return true;
                    }
                }
                Verdict::Redirect(port) => {
                    outcome.redirect = Some(port);
                    return true;
                }
                Verdict::Zone(zone) => outcome.zone = zone,
            }
        }
        false
    }

    fn chain(&self, name: ChainName) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

fn matches(asked: &Match, packet: &Packet) -> bool {
    let owner = |owner: Owner| match owner {
        Owner::Uid(uid) => packet.hook == Hook::Output && packet.owner.0 == uid,
        Owner::Gid(gid) => packet.hook == Hook::Output && packet.owner.1 == gid,
    };
    asked
        .interface
        .as_ref()
        .is_none_or(|name| name.matches(&packet.interface))
        && asked
            .source
            .is_none_or(|network| network.contains(packet.source.ip()))
        && asked
            .destination
            .is_none_or(|network| network.contains(packet.destination.ip()))
        && asked
            .transport
            .is_none_or(|transport| transport == packet.transport)
        && asked
            .source_ports
            .is_none_or(|range| range.contains(packet.source.port()))
        && asked
            .destination_ports
            .is_none_or(|range| range.contains(packet.destination.port()))
        && asked.owner.is_none_or(owner)
}
