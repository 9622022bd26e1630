//! A [`Ruleset`] as input of `nft -f -`, and `nft list table` back as [`Present`].
//!
//! Pure text in both directions; [`crate::backend`] runs the program. Everything lives in `table inet weft`, which
//! one transaction deletes and makes anew, for both IP versions. NAT in an inet table needs Linux 5.2.

use crate::Family;
use crate::config::cidr::Cidr;
use crate::present::Present;
use crate::rules::{Chain, Hook, Match, Owner, Rule, Ruleset, Table, Verdict};
use std::fmt::Write;

/// Our table.
pub const TABLE: &str = "inet weft";

/// Removes the table whether it is there or not: `delete` alone fails when it is not.
const REMOVE: &str = "table inet weft\ndelete table inet weft\n";

/// Text for nft that replaces whatever our table holds by `ruleset`.
pub fn install(ruleset: &Ruleset) -> String {
    let mut text = format!("{REMOVE}table {TABLE} {{\n");
    for chain in &ruleset.chains {
        let _ = writeln!(text, "\tchain {} {{", chain.name.name());
        if let Some(hook) = chain.hook {
            let _ = writeln!(text, "\t\t{}", base(chain.table, hook));
        }
        for line in rules(chain, ruleset.ipv6) {
            let _ = writeln!(text, "\t\t{line}");
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// Text for nft that removes our table.
pub fn remove() -> String {
    REMOVE.to_owned()
}

/// What [`parse_list`] will find once `ruleset` is installed.
pub fn expected(ruleset: &Ruleset) -> Present {
    let mut present = Present::default();
    for chain in &ruleset.chains {
        let table = present.tables.entry(chain.table).or_default();
        table.chains.insert(
            chain.name.name().to_owned(),
            rules(chain, ruleset.ipv6).len(),
        );
        table.hooks.extend(
            chain
                .hook
                .map(|hook| format!("{} -j {}", hook.builtin(), chain.name.name())),
        );
    }
    present
}

/// Reads the output of `nft list table inet weft`.
pub fn parse_list(text: &str) -> Present {
    let mut present = Present::default();
    let mut chain: Option<(Table, &str)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix("chain ")
            .and_then(|rest| rest.strip_suffix(" {"))
        {
            // The one table of nft stands for both of iptables; the name tells which.
            let table = if name.starts_with("WEFT_DNS") {
                Table::Raw
            } else {
                Table::Nat
            };
            present
                .tables
                .entry(table)
                .or_default()
                .chains
                .insert(name.to_owned(), 0);
            chain = Some((table, name));
        } else if line == "}" {
            chain = None;
        } else if let Some((table, name)) = chain.filter(|_| !line.is_empty()) {
            let entry = present.tables.entry(table).or_default();
            if line.starts_with("type ") {
                let builtin = if line.contains(" hook output ") {
                    Hook::Output
                } else {
                    Hook::Prerouting
                };
                entry.hooks.push(format!("{} -j {name}", builtin.builtin()));
            } else {
                *entry.chains.entry(name.to_owned()).or_default() += 1;
                if let Some((port, packets)) = redirected(line) {
                    *present.redirected.entry(port).or_default() += packets;
                }
            }
        }
    }
    present
}

fn redirected(line: &str) -> Option<(u16, u64)> {
    let (before, port) = line.split_once(" redirect to :")?;
    let packets = before
        .split_once("counter packets ")?
        .1
        .split_whitespace()
        .next()?;
    Some((port.trim().parse().ok()?, packets.parse().ok()?))
}

/// Numbers instead of names of priorities, because not every nft knows `dstnat` on the output hook.
/// Raw comes before connection tracking (-200).
fn base(table: Table, hook: Hook) -> String {
    let (kind, priority) = match table {
        Table::Raw => ("filter", -300),
        Table::Nat => ("nat", -100),
    };
    let hook = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    };
    format!("type {kind} hook {hook} priority {priority}; policy accept;")
}

fn rules(chain: &Chain, ipv6: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if chain.hook.is_some() && !ipv6 {
        lines.push("meta nfproto ipv6 return".to_owned());
    }
    lines.extend(chain.rules.iter().map(|rule| words(rule, chain.direction)));
    lines
}

fn words(rule: &Rule, direction: Hook) -> String {
    let Match {
        interface,
        source,
        destination,
        transport,
        source_ports,
        destination_ports,
        owner,
    } = &rule.matches;
    let mut words = Vec::new();
    if let Some(name) = interface {
        let key = if direction == Hook::Prerouting {
            "iifname"
        } else {
            "oifname"
        };
        words.push(format!("{key} \"{}\"", name.with_wildcard('*')));
    }
    words.extend(source.map(|network| address("saddr", network)));
    words.extend(destination.map(|network| address("daddr", network)));
    if let Some(transport) = transport {
        let name = transport.name();
        if source_ports.is_none() && destination_ports.is_none() {
            words.push(format!("meta l4proto {name}"));
        }
        words.extend(source_ports.map(|range| format!("{name} sport {range}")));
        words.extend(destination_ports.map(|range| format!("{name} dport {range}")));
    }
    match owner {
        Some(Owner::Uid(uid)) => words.push(format!("meta skuid {uid}")),
        Some(Owner::Gid(gid)) => words.push(format!("meta skgid {gid}")),
        None => {}
    }
    words.push(match rule.verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", chain.name()),
        Verdict::Redirect(port) => format!("counter redirect to :{port}"),
        Verdict::Zone(zone) => format!("ct zone set {zone}"),
    });
    words.join(" ")
}

fn address(key: &str, network: Cidr) -> String {
    let protocol = match network.family() {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match network.prefix() {
        // Not every nft takes a prefix of no bits.
        0 => format!("meta nfproto {}", network.family()),
        _ => format!("{protocol} {key} {network}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn one_transaction_for_both_versions() {
        let config = config(
            "--capture-dns --exclude-interfaces net* --skip-outbound-ports 25,6000-6010 --include-outbound-cidrs 10.0.0.0/8,::/0",
        );
        let text = install(&Ruleset::new(&config, true));
        let expected = "\
table inet weft
delete table inet weft
table inet weft {
	chain WEFT_INBOUND {
		tcp dport 15020 return
		meta l4proto tcp counter redirect to :15006
	}
	chain WEFT_OUTBOUND {
		meta l4proto tcp counter redirect to :15001
	}
	chain WEFT_OWN {
		ip saddr 127.0.0.6/32 return
		ip6 saddr ::6/128 return
		ip daddr 127.0.0.0/8 return
		ip6 daddr ::1/128 return
		meta l4proto tcp jump WEFT_INBOUND
	}
	chain WEFT_PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		iifname \"lo\" return
		iifname \"net*\" return
		meta l4proto tcp jump WEFT_INBOUND
	}
	chain WEFT_OUTPUT {
		type nat hook output priority -100; policy accept;
		oifname \"lo\" meta skuid 1337 jump WEFT_OWN
		oifname \"lo\" meta skgid 1337 jump WEFT_OWN
		oifname \"lo\" return
		meta skuid 1337 return
		meta skgid 1337 return
		oifname \"net*\" return
		udp sport 53 udp dport 53 return
		udp dport 53 counter redirect to :15053
		tcp dport 53 counter redirect to :15053
		tcp dport 25 return
		tcp dport 6000-6010 return
		ip daddr 10.0.0.0/8 meta l4proto tcp jump WEFT_OUTBOUND
		meta nfproto ipv6 meta l4proto tcp jump WEFT_OUTBOUND
	}
	chain WEFT_DNS_IN {
		type filter hook prerouting priority -300; policy accept;
		iifname \"lo\" return
		udp sport 53 ct zone set 1
	}
	chain WEFT_DNS_OUT {
		type filter hook output priority -300; policy accept;
		oifname \"lo\" return
		udp dport 53 meta skuid 1337 ct zone set 1
		udp dport 53 meta skgid 1337 ct zone set 1
		udp sport 53 udp dport 53 ct zone set 1
		oifname \"net*\" udp dport 53 ct zone set 1
	}
}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_ipv6_it_leaves_ipv6_alone() {
        let ruleset = Ruleset::new(&config("--capture-dns"), false);
        let text = install(&ruleset);
        assert_eq!(
            text.matches("policy accept;\n\t\tmeta nfproto ipv6 return\n")
                .count(),
            4,
            "{text}"
        );
        assert!(!text.contains("::6"), "{text}");
    }

    #[test]
    fn a_listing_is_read_back() {
        let ruleset = Ruleset::new(&config("--capture-dns"), false);
        // nft lists what it was given, apart from the counters' values and the spelling of some words.
        let listing = install(&ruleset)
            .trim_start_matches(REMOVE)
            .replace("counter redirect", "counter packets 7 bytes 420 redirect");
        let present = parse_list(&listing);
        assert!(
            present.differences(&expected(&ruleset)).is_empty(),
            "{present:?}"
        );
        assert_eq!(present.redirected.get(&15053), Some(&14));
        assert_eq!(parse_list(""), Present::default());
    }
}
