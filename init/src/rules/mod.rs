//! The redirect rules as data: [`Ruleset::new`] is a pure function of the configuration.
//!
//! Rendered by [`crate::iptables`] and [`crate::nftables`]; [`Ruleset::evaluate`] follows a packet through it
//! without a kernel.

mod build;
mod evaluate;

pub use evaluate::{Outcome, Packet};

use crate::Family;
use crate::config::cidr::Cidr;
use crate::config::interface::InterfacePattern;
use crate::config::ports::PortRange;

/// Conntrack zone of UDP traffic on port 53 that is not captured.
pub const DNS_ZONE: u16 = 1;

/// Tables of the kernel, by their iptables names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Before connection tracking.
    Raw,
    /// Rewrites the first packet of a connection; the others follow.
    Nat,
}

impl Table {
    /// Both, in the order packets meet them.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Nat];

    /// The name iptables uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Nat => "nat",
        }
    }
}

/// Where a chain is entered from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Packets that arrive at an interface.
    Prerouting,
    /// Packets of the namespace's own processes.
    Output,
}

impl Hook {
    /// The name of iptables' built-in chain.
    pub fn builtin(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Output => "OUTPUT",
        }
    }
}

/// Our chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainName {
    /// What arrives from outside.
    Prerouting,
    /// Sends TCP to the inbound port unless the port is not to be captured.
    Inbound,
    /// What the pod's processes send.
    Output,
    /// What the sidecar sends over loopback.
    Own,
    /// Sends TCP to the outbound port when the port is to be captured.
    Outbound,
    /// Zones of arriving DNS packets.
    DnsIn,
    /// Zones of DNS packets being sent.
    DnsOut,
}

impl ChainName {
    /// Name in the kernel; all begin with `WEFT_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "WEFT_PREROUTING",
            Self::Inbound => "WEFT_INBOUND",
            Self::Output => "WEFT_OUTPUT",
            Self::Own => "WEFT_OWN",
            Self::Outbound => "WEFT_OUTBOUND",
            Self::DnsIn => "WEFT_DNS_IN",
            Self::DnsOut => "WEFT_DNS_OUT",
        }
    }
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Whose socket sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Effective user.
    Uid(u32),
    /// Effective group.
    Gid(u32),
}

/// All that a rule asks of a packet; what is `None` is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Interface: the one of arrival in a prerouting chain, that of departure in an output chain.
    pub interface: Option<InterfacePattern>,
    /// Source network.
    pub source: Option<Cidr>,
    /// Destination network.
    pub destination: Option<Cidr>,
    /// Transport protocol; set whenever ports are.
    pub transport: Option<Transport>,
    /// Source ports.
    pub source_ports: Option<PortRange>,
    /// Destination ports.
    pub destination_ports: Option<PortRange>,
    /// Owner of the sending socket; only in output chains.
    pub owner: Option<Owner>,
}

impl Match {
    /// The IP version the rule is limited to, if any.
    pub fn family(&self) -> Option<Family> {
        self.source.or(self.destination).map(Cidr::family)
    }
}

/// What happens to a packet that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the chain, untouched by what follows in it.
    Return,
    /// Go through another chain, and come back if it decides nothing.
    Jump(ChainName),
    /// Send the connection to this port of the pod.
    Redirect(u16),
    /// Track the packet in this conntrack zone.
    Zone(u16),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it asks.
    pub matches: Match,
    /// What it does.
    pub verdict: Verdict,
}

/// One of our chains, with its rules in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Table it lives in.
    pub table: Table,
    /// Its name.
    pub name: ChainName,
    /// Where the kernel enters it; `None` when only other chains do.
    pub hook: Option<Hook>,
    /// The interfaces in its rules are those of this direction.
    pub direction: Hook,
    /// First match decides.
    pub rules: Vec<Rule>,
}

/// All rules, for one or both IP versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The chains; a chain comes after those it jumps to.
    pub chains: Vec<Chain>,
    /// Whether IPv6 is captured; IPv4 always is.
    pub ipv6: bool,
}

impl Ruleset {
    /// The IP versions captured.
    pub fn families(&self) -> &'static [Family] {
        if self.ipv6 {
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        }
    }

    /// The chains of one table.
    pub fn of_table(&self, table: Table) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |chain| chain.table == table)
    }
}

impl Chain {
    /// The rules that concern one IP version.
    pub fn of_family(&self, family: Family) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.matches.family().is_none_or(|only| only == family))
    }
}

#[cfg(test)]
mod tests;
