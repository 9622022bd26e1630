//! Flags and environment to a checked [`Config`], in two steps.
//!
//! [`Flags`] holds raw text, read by clap in `main`; [`Config::check`] returns the checked value or every mistake
//! at once. [`crate::rules`] and [`crate::apply`] see only the checked value.

pub mod backend;
pub mod cidr;
pub mod interface;
pub mod ports;

use backend::Backend;
use cidr::{Cidr, CidrSet};
use interface::InterfacePattern;
use ports::{PortList, PortSet};
use std::fmt;
use std::time::Duration;

/// Port of the sidecar's health and metrics; it is reachable from outside and never captured.
pub const HEALTH_PORT: u16 = 15020;

/// How long to wait for others that change rules of the same namespace.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the user wrote, unchecked.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// How to install the rules: auto, iptables (nf_tables back end), iptables-legacy or nftables
    #[arg(long, env = "WEFT_INIT_BACKEND", default_value = "auto", global = true)]
    pub backend: String,
    /// Port on which the sidecar accepts what the application sends
    #[arg(
        long,
        env = "WEFT_INIT_OUTBOUND_PORT",
        default_value = "15001",
        global = true
    )]
    pub outbound_port: String,
    /// Port on which the sidecar accepts what is sent to the application
    #[arg(
        long,
        env = "WEFT_INIT_INBOUND_PORT",
        default_value = "15006",
        global = true
    )]
    pub inbound_port: String,
    /// Port on which the sidecar answers DNS, UDP and TCP
    #[arg(
        long,
        env = "WEFT_INIT_DNS_PORT",
        default_value = "15053",
        global = true
    )]
    pub dns_port: String,
    /// User of the sidecar; its traffic is exempt
    #[arg(
        long,
        env = "WEFT_INIT_PROXY_UID",
        default_value = "1337",
        global = true
    )]
    pub proxy_uid: String,
    /// Group of the sidecar; its traffic is exempt
    #[arg(
        long,
        env = "WEFT_INIT_PROXY_GID",
        default_value = "1337",
        global = true
    )]
    pub proxy_gid: String,
    /// Inbound ports to capture: `*` or a list such as 80,8000-8099
    #[arg(
        long,
        env = "WEFT_INIT_INCLUDE_INBOUND_PORTS",
        default_value = "*",
        global = true
    )]
    pub include_inbound_ports: String,
    /// Inbound ports never to capture; 15020 is always among them
    #[arg(
        long,
        env = "WEFT_INIT_SKIP_INBOUND_PORTS",
        default_value = "",
        global = true
    )]
    pub skip_inbound_ports: String,
    /// Outbound ports to capture: `*` or a list; a destination must be in the included networks too
    #[arg(
        long,
        env = "WEFT_INIT_INCLUDE_OUTBOUND_PORTS",
        default_value = "*",
        global = true
    )]
    pub include_outbound_ports: String,
    /// Outbound ports never to capture
    #[arg(
        long,
        env = "WEFT_INIT_SKIP_OUTBOUND_PORTS",
        default_value = "",
        global = true
    )]
    pub skip_outbound_ports: String,
    /// Destination networks to capture: `*` or a list such as 10.0.0.0/8,fd00::/8
    #[arg(
        long,
        env = "WEFT_INIT_INCLUDE_OUTBOUND_CIDRS",
        default_value = "*",
        global = true
    )]
    pub include_outbound_cidrs: String,
    /// Destination networks never to capture, for DNS neither
    #[arg(
        long,
        env = "WEFT_INIT_SKIP_OUTBOUND_CIDRS",
        default_value = "",
        global = true
    )]
    pub skip_outbound_cidrs: String,
    /// Interfaces whose traffic is never captured, either way: a list such as net1,docker*
    #[arg(
        long,
        env = "WEFT_INIT_EXCLUDE_INTERFACES",
        default_value = "",
        global = true
    )]
    pub exclude_interfaces: String,
    /// Send DNS queries (port 53, UDP and TCP) to the sidecar
    #[arg(long, env = "WEFT_INIT_CAPTURE_DNS", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, require_equals = true, global = true)]
    pub capture_dns: String,
    /// Capture IPv6 too: auto (when the namespace has it), on or off
    #[arg(long, env = "WEFT_INIT_IPV6", default_value = "auto", global = true)]
    pub ipv6: String,
}

/// Which back ends may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    /// The first that works, see [`Backend::ALL`].
    Auto,
    /// Only this one.
    Only(Backend),
}

/// Whether IPv6 is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Choice {
    /// When the namespace has IPv6.
    Auto,
    /// Always; failure to do so is an error.
    On,
    /// Never: IPv6 bypasses the sidecar.
    Off,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Back ends that may be used.
    pub backend: BackendChoice,
    /// Where outbound TCP goes.
    pub outbound_port: u16,
    /// Where inbound TCP goes.
    pub inbound_port: u16,
    /// Where DNS goes.
    pub dns_port: u16,
    /// User whose traffic is exempt, never 0.
    pub proxy_uid: u32,
    /// Group whose traffic is exempt, never 0.
    pub proxy_gid: u32,
    /// Inbound ports captured unless skipped.
    pub include_inbound_ports: PortSet,
    /// Inbound ports not captured; holds [`HEALTH_PORT`].
    pub skip_inbound_ports: PortList,
    /// Outbound ports captured unless skipped.
    pub include_outbound_ports: PortSet,
    /// Outbound ports not captured.
    pub skip_outbound_ports: PortList,
    /// Destinations captured unless skipped.
    pub include_outbound_cidrs: CidrSet,
    /// Destinations not captured.
    pub skip_outbound_cidrs: Vec<Cidr>,
    /// Interfaces left alone.
    pub exclude_interfaces: Vec<InterfacePattern>,
    /// Whether DNS goes to the sidecar.
    pub capture_dns: bool,
    /// Whether IPv6 is captured.
    pub ipv6: Ipv6Choice,
}

/// One flag that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The flag's name without dashes.
    pub flag: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub instead: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = self.flag.replace('-', "_").to_uppercase();
        let Self {
            flag,
            problem,
            instead,
        } = self;
        write!(f, "--{flag} (WEFT_INIT_{variable}): {problem}; {instead}")
    }
}

const BACKENDS: &str = "use auto, iptables, iptables-legacy or nftables";
const INTERFACES: &str = "give names or prefixes such as net1,docker*";
const PORT: &str = "give one port, for example 15001";
const ID: &str = "give the sidecar's own number, for example 1337";
const PORTS: &str = "give ports or ranges such as 80,8000-8099";
const PORTS_OR_ALL: &str = "give * or ports and ranges such as 80,8000-8099";
const CIDRS: &str = "give networks such as 10.0.0.0/8,fd00::/8";
const CIDRS_OR_ALL: &str = "give * or networks such as 10.0.0.0/8,fd00::/8";

/// Collects mistakes while values are read, so that all are reported at once.
#[derive(Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, flag: &'static str, problem: String, instead: &'static str) {
        self.0.push(Mistake {
            flag,
            problem,
            instead,
        });
    }

    fn read<T>(
        &mut self,
        flag: &'static str,
        instead: &'static str,
        text: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text)
            .map_err(|problem| self.add(flag, problem, instead))
            .ok()
    }

    fn port(&mut self, flag: &'static str, text: &str) -> Option<u16> {
        self.read(flag, PORT, text, ports::parse_port)
    }

    fn ports(&mut self, flag: &'static str, text: &str) -> Option<PortList> {
        self.read(flag, PORTS, text, PortList::parse)
    }

    fn ports_or_all(&mut self, flag: &'static str, text: &str) -> Option<PortSet> {
        self.read(flag, PORTS_OR_ALL, text, PortSet::parse)
    }
}

impl Config {
    /// Checks every flag; returns all mistakes.
    pub fn check(flags: &Flags) -> Result<Self, Vec<Mistake>> {
        let mut m = Mistakes::default();
        let f = flags;
        // 1. Each flag alone.
        let backend = m.read("backend", BACKENDS, &f.backend, parse_backend);
        let outbound_port = m.port("outbound-port", &f.outbound_port);
        let inbound_port = m.port("inbound-port", &f.inbound_port);
        let dns_port = m.port("dns-port", &f.dns_port);
        let proxy_uid = m.read("proxy-uid", ID, &f.proxy_uid, parse_id);
        let proxy_gid = m.read("proxy-gid", ID, &f.proxy_gid, parse_id);
        let include_inbound_ports =
            m.ports_or_all("include-inbound-ports", &f.include_inbound_ports);
        let skip_inbound_ports = m.ports("skip-inbound-ports", &f.skip_inbound_ports);
        let include_outbound_ports =
            m.ports_or_all("include-outbound-ports", &f.include_outbound_ports);
        let skip_outbound_ports = m.ports("skip-outbound-ports", &f.skip_outbound_ports);
        let text = &f.include_outbound_cidrs;
        let include_outbound_cidrs =
            m.read("include-outbound-cidrs", CIDRS_OR_ALL, text, CidrSet::parse);
        let text = &f.skip_outbound_cidrs;
        let skip_outbound_cidrs = m.read("skip-outbound-cidrs", CIDRS, text, cidr::parse_list);
        let text = &f.exclude_interfaces;
        let exclude_interfaces = m.read(
            "exclude-interfaces",
            INTERFACES,
            text,
            interface::parse_list,
        );
        let capture_dns = m.read(
            "capture-dns",
            "use true or false",
            &f.capture_dns,
            parse_bool,
        );
        let ipv6 = m.read("ipv6", "use auto, on or off", &f.ipv6, parse_ipv6);
        // 2. What contradicts each other, as far as it could be read.
        distinct_ports(&mut m, outbound_port, inbound_port, dns_port);
        if capture_dns == Some(true)
            && skip_outbound_ports
                .as_ref()
                .is_some_and(|list| list.contains(53))
        {
            let problem = "53 is skipped, yet --capture-dns asks for it".to_owned();
            m.add(
                "skip-outbound-ports",
                problem,
                "leave out 53, or leave out --capture-dns",
            );
        }
        if !m.0.is_empty() {
            return Err(m.0);
        }
        let config = (|| {
            Some(Self {
                backend: backend?,
                outbound_port: outbound_port?,
                inbound_port: inbound_port?,
                dns_port: dns_port?,
                proxy_uid: proxy_uid?,
                proxy_gid: proxy_gid?,
                include_inbound_ports: include_inbound_ports?,
                skip_inbound_ports: skip_inbound_ports?.with(HEALTH_PORT),
                include_outbound_ports: include_outbound_ports?,
                skip_outbound_ports: skip_outbound_ports?,
                include_outbound_cidrs: include_outbound_cidrs?,
                skip_outbound_cidrs: skip_outbound_cidrs?,
                exclude_interfaces: exclude_interfaces?,
                capture_dns: capture_dns?,
                ipv6: ipv6?,
            })
        })();
        config.ok_or(m.0)
    }
}

fn distinct_ports(m: &mut Mistakes, outbound: Option<u16>, inbound: Option<u16>, dns: Option<u16>) {
    let mut taken = vec![("health port", HEALTH_PORT)];
    for (flag, port) in [
        ("outbound-port", outbound),
        ("inbound-port", inbound),
        ("dns-port", dns),
    ] {
        let Some(port) = port else { continue };
        if let Some((other, _)) = taken.iter().find(|(_, used)| *used == port) {
            m.add(
                flag,
                format!("{port} is already the {other}"),
                "give each its own port",
            );
        }
        taken.push((flag, port));
    }
}

fn parse_backend(text: &str) -> Result<BackendChoice, String> {
    if text == "auto" {
        return Ok(BackendChoice::Auto);
    }
    let found = Backend::ALL
        .into_iter()
        .find(|backend| backend.to_string() == text);
    found
        .map(BackendChoice::Only)
        .ok_or_else(|| format!("\"{text}\" is no back end"))
}

fn parse_ipv6(text: &str) -> Result<Ipv6Choice, String> {
    match text {
        "auto" => Ok(Ipv6Choice::Auto),
        "on" => Ok(Ipv6Choice::On),
        "off" => Ok(Ipv6Choice::Off),
        other => Err(format!("\"{other}\" is none of its values")),
    }
}

/// Parses a switch, as it may come from a flag or from the environment.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" | "" => Ok(false),
        other => Err(format!("\"{other}\" is neither true nor false")),
    }
}

/// 0 is refused because it would exempt every process of root; the largest number means "no change" to setuid(2).
fn parse_id(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("0 would exempt everything that runs as root".to_owned()),
        Ok(id) if id < u32::MAX && !text.starts_with('+') => Ok(id),
        _ => Err(format!(
            "\"{text}\" is not a number between 1 and {}",
            u32::MAX - 1
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests;
