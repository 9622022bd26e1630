//! Names of network interfaces, exact or by prefix: `net1`, `docker*`.
//!
//! Parsed by [`crate::config`], rendered by [`crate::iptables`] and [`crate::nftables`]. Strict about characters,
//! because the text ends up in a rule file.

/// An interface's name, or all names with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfacePattern {
    name: String,
    prefix: bool,
}

/// `IFNAMSIZ` less the final zero.
const LONGEST: usize = 15;

impl InterfacePattern {
    /// The loopback interface.
    pub fn loopback() -> Self {
        Self {
            name: "lo".to_owned(),
            prefix: false,
        }
    }

    /// Parses one pattern: 1 to 15 letters, digits, `.`, `_`, `-`, `@` or `:`, and at most one `*` at the end.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, prefix) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.is_empty() {
            return Err(format!("\"{text}\" names no interface"));
        }
        if name.len() > LONGEST {
            return Err(format!("\"{text}\" is longer than {LONGEST} bytes"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
        if let Some(other) = name.chars().find(|c| !allowed(*c)) {
            return Err(format!(
                "\"{text}\" contains {other:?}, which no interface name may"
            ));
        }
        if name.starts_with('-') {
            return Err(format!("\"{text}\" begins with a dash"));
        }
        Ok(Self {
            name: name.to_owned(),
            prefix,
        })
    }

    /// The pattern with `wildcard` for "and anything after": `+` for iptables, `*` for nft.
    pub fn with_wildcard(&self, wildcard: char) -> String {
        let mut text = self.name.clone();
        if self.prefix {
            text.push(wildcard);
        }
        text
    }

    /// Does the pattern name `interface`?
    pub fn matches(&self, interface: &str) -> bool {
        if self.prefix {
            interface.starts_with(&self.name)
        } else {
            interface == self.name
        }
    }
}

/// Parses a comma separated list; the empty text is the empty list.
pub fn parse_list(text: &str) -> Result<Vec<InterfacePattern>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut list = text
        .split(',')
        .map(InterfacePattern::parse)
        .collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exact_names_and_prefixes() {
        let list = parse_list("net1, docker*").unwrap();
        let names = |interface: &str| list.iter().any(|pattern| pattern.matches(interface));
        assert!(names("net1") && names("docker0") && names("docker"));
        assert!(!names("net10") && !names("eth0"));
        assert_eq!(list[0].with_wildcard('+'), "docker+");
        assert_eq!(list[1].with_wildcard('+'), "net1");
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, why) in [
            ("*", "\"*\" names no interface"),
            ("eth0,", "\"\" names no interface"),
            (
                "eth0 eth1",
                "\"eth0 eth1\" contains ' ', which no interface name may",
            ),
            ("eth+", "\"eth+\" contains '+', which no interface name may"),
            (
                "a\"b",
                "\"a\"b\" contains '\"', which no interface name may",
            ),
            ("-j", "\"-j\" begins with a dash"),
            (
                "abcdefghijklmnop",
                "\"abcdefghijklmnop\" is longer than 15 bytes",
            ),
        ] {
            assert_eq!(parse_list(text).unwrap_err(), why);
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_cannot_break_out_of_a_rule(text in ".{0,20}") {
            if let Ok(pattern) = InterfacePattern::parse(&text) {
                let shown = pattern.with_wildcard('*');
                let breaks_out = shown.contains(['"', '\n', ' ', ';', '{', '\\', '\'']);
                prop_assert!(!breaks_out);
            }
        }
    }
}
