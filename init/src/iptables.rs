//! A [`Ruleset`] as input of `iptables-restore --noflush`, and `iptables-save -c` back as [`Present`].
//!
//! Pure text in both directions; [`crate::backend`] runs the programs. One table is committed at once, so within it
//! old rules give way to new ones atomically. Ranges of ports become one rule each: `multiport` would need one more
//! kernel module and takes only 15 ports.

use crate::Family;
use crate::present::{Present, PresentTable};
use crate::rules::{Chain, Hook, Match, Owner, Rule, Ruleset, Table, Verdict};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What our chains' names begin with.
const PREFIX: &str = "WEFT_";

/// Text for the restore program that turns `present` into `ruleset`; empty when there is nothing to do.
pub fn install(ruleset: &Ruleset, family: Family, present: &Present) -> String {
    let chains = |table| ruleset.of_table(table).collect::<Vec<_>>();
    Table::ALL
        .iter()
        .map(|table| transaction(*table, &chains(*table), family, present))
        .collect()
}

/// Text for the restore program that removes what `present` lists; empty when there is nothing.
pub fn remove(family: Family, present: &Present) -> String {
    Table::ALL
        .iter()
        .map(|table| transaction(*table, &[], family, present))
        .collect()
}

/// What [`parse_save`] will find once `ruleset` is installed.
pub fn expected(ruleset: &Ruleset, family: Family) -> Present {
    let mut present = Present::default();
    for chain in &ruleset.chains {
        let table = present.tables.entry(chain.table).or_default();
        table.chains.insert(
            chain.name.name().to_owned(),
            chain.of_family(family).count(),
        );
        table.hooks.extend(hook(chain));
    }
    present
}

/// Finds what is ours in the output of `iptables-save`, with or without `-c`.
pub fn parse_save(text: &str) -> Present {
    let mut present = Present::default();
    let mut table = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|table| table.name() == name);
            continue;
        }
        let Some(table) = table else { continue };
        if let Some(chain) = line
            .strip_prefix(':')
            .and_then(|rest| rest.split_whitespace().next())
        {
            if chain.starts_with(PREFIX) {
                let entry = present.tables.entry(table).or_default();
                entry.chains.entry(chain.to_owned()).or_default();
            }
            continue;
        }
        parse_rule(line, table, &mut present);
    }
    present
}

fn parse_rule(line: &str, table: Table, present: &mut Present) {
    let (packets, line) = match line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((counters, rule)) => (
            counters
                .split(':')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0),
            rule,
        ),
        None => (0u64, line),
    };
    let Some(rule) = line.strip_prefix("-A ") else {
        return;
    };
    let words: Vec<&str> = rule.split_whitespace().collect();
    let value = |option: &str| {
        words
            .windows(2)
            .find(|pair| pair[0] == option)
            .map(|pair| pair[1])
    };
    let chain = words.first().copied().unwrap_or_default();
    if chain.starts_with(PREFIX) {
        let entry = present.tables.entry(table).or_default();
        *entry.chains.entry(chain.to_owned()).or_default() += 1;
        if let Some(port) = value("--to-ports").and_then(|port| port.parse().ok()) {
            *present.redirected.entry(port).or_default() += packets;
        }
    } else if value("-j")
        .or(value("-g"))
        .is_some_and(|target| target.starts_with(PREFIX))
    {
        present
            .tables
            .entry(table)
            .or_default()
            .hooks
            .push(rule.to_owned());
    }
}

/// `OUTPUT -j WEFT_OUTPUT`, exactly as `iptables-save` prints it.
fn hook(chain: &Chain) -> Option<String> {
    chain
        .hook
        .map(|hook| format!("{} -j {}", hook.builtin(), chain.name.name()))
}

fn transaction(table: Table, chains: &[&Chain], family: Family, present: &Present) -> String {
    let nothing = PresentTable::default();
    let old = present.tables.get(&table).unwrap_or(&nothing);
    if chains.is_empty() && *old == nothing {
        return String::new();
    }
    let hooks: Vec<String> = chains.iter().filter_map(|chain| hook(chain)).collect();
    // A hook that is there exactly once stays, and with it its place among other people's rules.
    let kept = |hook: &str| old.hooks.iter().filter(|other| *other == hook).count() == 1;
    let mut text = format!("*{}\n", table.name());
    // Declaring a chain creates it, or empties it.
    for chain in chains {
        line(&mut text, format_args!(":{} - [0:0]", chain.name.name()));
    }
    for gone in old
        .hooks
        .iter()
        .filter(|old| !(hooks.contains(old) && kept(old)))
    {
        line(&mut text, format_args!("-D {gone}"));
    }
    let stale: BTreeSet<&str> = old.chains.keys().map(String::as_str).collect();
    let used: BTreeSet<&str> = chains.iter().map(|chain| chain.name.name()).collect();
    for option in ["-F", "-X"] {
        for name in stale.difference(&used) {
            line(&mut text, format_args!("{option} {name}"));
        }
    }
    for chain in chains {
        for rule in chain.of_family(family) {
            line(
                &mut text,
                format_args!("-A {}{}", chain.name.name(), words(rule, chain.direction)),
            );
        }
    }
    for hook in hooks.iter().filter(|hook| !kept(hook)) {
        line(&mut text, format_args!("-A {hook}"));
    }
    text.push_str("COMMIT\n");
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{content}");
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
    let mut text = String::new();
    let mut add = |option: &str, value: String| {
        let _ = write!(text, " {option} {value}");
    };
    if let Some(name) = interface {
        let option = if direction == Hook::Prerouting {
            "-i"
        } else {
            "-o"
        };
        add(option, name.with_wildcard('+'));
    }
    if let Some(network) = source {
        add("-s", network.to_string());
    }
    if let Some(network) = destination {
        add("-d", network.to_string());
    }
    if let Some(transport) = transport {
        add("-p", transport.name().to_owned());
    }
    if let Some(range) = source_ports {
        add("--sport", range.joined(':'));
    }
    if let Some(range) = destination_ports {
        add("--dport", range.joined(':'));
    }
    match owner {
        Some(Owner::Uid(uid)) => add("-m owner --uid-owner", uid.to_string()),
        Some(Owner::Gid(gid)) => add("-m owner --gid-owner", gid.to_string()),
        None => {}
    }
    match rule.verdict {
        Verdict::Return => add("-j", "RETURN".to_owned()),
        Verdict::Jump(chain) => add("-j", chain.name().to_owned()),
        Verdict::Redirect(port) => add("-j REDIRECT --to-ports", port.to_string()),
        Verdict::Zone(zone) => add("-j CT --zone", zone.to_string()),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn a_first_install_of_a_small_configuration() {
        let config = config(
            "--include-inbound-ports 80,8000-8009 --exclude-interfaces net* --skip-outbound-cidrs 10.0.0.0/8,fd00::/8",
        );
        let text = install(
            &Ruleset::new(&config, false),
            Family::V4,
            &Present::default(),
        );
        let expected = "\
*nat
:WEFT_INBOUND - [0:0]
:WEFT_OUTBOUND - [0:0]
:WEFT_OWN - [0:0]
:WEFT_PREROUTING - [0:0]
:WEFT_OUTPUT - [0:0]
-A WEFT_INBOUND -p tcp --dport 15020 -j RETURN
-A WEFT_INBOUND -p tcp --dport 80 -j REDIRECT --to-ports 15006
-A WEFT_INBOUND -p tcp --dport 8000:8009 -j REDIRECT --to-ports 15006
-A WEFT_OUTBOUND -p tcp -j REDIRECT --to-ports 15001
-A WEFT_OWN -s 127.0.0.6/32 -j RETURN
-A WEFT_OWN -d 127.0.0.0/8 -j RETURN
-A WEFT_OWN -p tcp -j WEFT_INBOUND
-A WEFT_PREROUTING -i lo -j RETURN
-A WEFT_PREROUTING -i net+ -j RETURN
-A WEFT_PREROUTING -p tcp -j WEFT_INBOUND
-A WEFT_OUTPUT -o lo -m owner --uid-owner 1337 -j WEFT_OWN
-A WEFT_OUTPUT -o lo -m owner --gid-owner 1337 -j WEFT_OWN
-A WEFT_OUTPUT -o lo -j RETURN
-A WEFT_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A WEFT_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A WEFT_OUTPUT -o net+ -j RETURN
-A WEFT_OUTPUT -d 10.0.0.0/8 -j RETURN
-A WEFT_OUTPUT -p tcp -j WEFT_OUTBOUND
-A PREROUTING -j WEFT_PREROUTING
-A OUTPUT -j WEFT_OUTPUT
COMMIT
";
        assert_eq!(text, expected);
    }

    #[test]
    fn ipv6_has_its_own_addresses() {
        let config = config("--include-outbound-cidrs 10.0.0.0/8,fd00::/8");
        let text = install(
            &Ruleset::new(&config, true),
            Family::V6,
            &Present::default(),
        );
        assert!(
            text.contains("-A WEFT_OWN -s ::6/128 -j RETURN\n-A WEFT_OWN -d ::1/128 -j RETURN\n"),
            "{text}"
        );
        assert!(
            text.contains("-A WEFT_OUTPUT -d fd00::/8 -p tcp -j WEFT_OUTBOUND\n"),
            "{text}"
        );
        assert!(
            !text.contains("10.0.0.0") && !text.contains("127.0.0"),
            "{text}"
        );
    }

    #[test]
    fn a_second_install_keeps_the_hooks_and_drops_what_is_not_used_any_more() {
        let with_dns = Ruleset::new(&config("--capture-dns"), false);
        let present = expected(&with_dns, Family::V4);
        let again = install(&with_dns, Family::V4, &present);
        assert!(
            !again.contains("-A OUTPUT") && !again.contains("-D "),
            "{again}"
        );
        let without = install(&Ruleset::new(&config(""), false), Family::V4, &present);
        assert!(
            without.starts_with(
                "*raw\n-D PREROUTING -j WEFT_DNS_IN\n-D OUTPUT -j WEFT_DNS_OUT\n\
                 -F WEFT_DNS_IN\n-F WEFT_DNS_OUT\n-X WEFT_DNS_IN\n-X WEFT_DNS_OUT\nCOMMIT\n*nat\n"
            ),
            "{without}"
        );
    }

    #[test]
    fn save_is_read_back_and_others_rules_are_left_alone() {
        let save = "\
# Generated by iptables-save
*filter
:WEFT_NOT_OUR_TABLE - [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [1:60]
:DOCKER - [0:0]
:WEFT_OUTPUT - [0:0]
:WEFT_OLD - [0:0]
[3:180] -A OUTPUT -j DOCKER
[3:180] -A OUTPUT -j WEFT_OUTPUT
[3:180] -A OUTPUT -j WEFT_OUTPUT
[1:60] -A WEFT_OUTPUT -o lo -j RETURN
[2:120] -A WEFT_OUTPUT -p tcp -j REDIRECT --to-ports 15001
COMMIT
";
        let present = parse_save(save);
        assert_eq!(present.redirected.get(&15001), Some(&2));
        let nat = &present.tables[&Table::Nat];
        assert_eq!(nat.chains["WEFT_OUTPUT"], 2);
        assert_eq!(
            nat.hooks,
            ["OUTPUT -j WEFT_OUTPUT", "OUTPUT -j WEFT_OUTPUT"]
        );
        assert_eq!(
            remove(Family::V4, &present),
            "*nat\n-D OUTPUT -j WEFT_OUTPUT\n-D OUTPUT -j WEFT_OUTPUT\n\
             -F WEFT_OLD\n-F WEFT_OUTPUT\n-X WEFT_OLD\n-X WEFT_OUTPUT\nCOMMIT\n"
        );
        assert_eq!(remove(Family::V4, &Present::default()), "");
    }
}
