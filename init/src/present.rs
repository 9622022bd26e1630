//! What a back end says is in the kernel, or should be: our chains, the jumps into them, and counters.
//!
//! Filled by [`crate::iptables`] and [`crate::nftables`]; compared by [`crate::verify`], and used by `apply` and
//! `clean` to remove exactly what is ours.

use crate::rules::Table;
use std::collections::BTreeMap;

/// All that belongs to Weft in one namespace, for one back end (and one IP version with iptables).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// By table; a table without anything of ours has no entry.
    pub tables: BTreeMap<Table, PresentTable>,
    /// Packets seen by the redirect rules, by the port they redirect to. Only first packets of connections count.
    pub redirected: BTreeMap<u16, u64>,
}

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresentTable {
    /// Number of rules in each of our chains.
    pub chains: BTreeMap<String, usize>,
    /// Rules of chains that are not ours which lead into ours, as `OUTPUT -j WEFT_OUTPUT`.
    pub hooks: Vec<String>,
}

impl Present {
    /// Is there nothing of ours?
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How what is there differs from what should be, one sentence each; empty when it is complete.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for table in Table::ALL {
            let nothing = PresentTable::default();
            let here = self.tables.get(&table).unwrap_or(&nothing);
            let wanted = expected.tables.get(&table).unwrap_or(&nothing);
            let name = table.name();
            for (chain, rules) in &wanted.chains {
                match here.chains.get(chain) {
                    None => found.push(format!("table {name} has no chain {chain}")),
                    Some(actual) if actual != rules => {
                        found.push(format!(
                            "table {name}, chain {chain}: {actual} rules instead of {rules}"
                        ));
                    }
                    Some(_) => {}
                }
            }
            for chain in here
                .chains
                .keys()
                .filter(|chain| !wanted.chains.contains_key(*chain))
            {
                found.push(format!(
                    "table {name} has chain {chain}, which this configuration does not use"
                ));
            }
            for hook in &wanted.hooks {
                let times = here.hooks.iter().filter(|other| *other == hook).count();
                if times != 1 {
                    found.push(format!(
                        "table {name} has the rule \"{hook}\" {times} times, not once"
                    ));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(chains: &[(&str, usize)], hooks: &[&str]) -> Present {
        let table = PresentTable {
            chains: chains
                .iter()
                .map(|(name, rules)| ((*name).to_owned(), *rules))
                .collect(),
            hooks: hooks.iter().map(|hook| (*hook).to_owned()).collect(),
        };
        Present {
            tables: BTreeMap::from([(Table::Nat, table)]),
            ..Present::default()
        }
    }

    #[test]
    fn each_difference_is_named() {
        let expected = present(&[("WEFT_A", 2), ("WEFT_B", 1)], &["OUTPUT -j WEFT_A"]);
        assert!(expected.differences(&expected).is_empty());
        let broken = present(
            &[("WEFT_A", 1), ("WEFT_C", 1)],
            &["OUTPUT -j WEFT_A", "OUTPUT -j WEFT_A"],
        );
        assert_eq!(
            broken.differences(&expected),
            [
                "table nat, chain WEFT_A: 1 rules instead of 2",
                "table nat has no chain WEFT_B",
                "table nat has chain WEFT_C, which this configuration does not use",
                "table nat has the rule \"OUTPUT -j WEFT_A\" 2 times, not once",
            ]
        );
        assert!(
            Present::default().differences(&expected).contains(
                &"table nat has the rule \"OUTPUT -j WEFT_A\" 0 times, not once".to_owned()
            )
        );
    }
}
