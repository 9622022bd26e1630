//! Host names and the wildcard matches of the Gateway API.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, check_subdomain, validated};

validated!(
    /// A DNS host name in lower case, without a trailing dot, at most 253 characters (RFC 1123).
    Hostname, "host name", check_subdomain
);

/// Which host names a virtual host, SNI rule or DNS filter means.
///
/// Gateway API `Hostname`: a precise name, or a name with `*.` in place of the first labels; the wildcard stands for
/// one or more labels. Ordered by precedence: "Exact" before longer wildcards before shorter ones before any.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostnameMatch {
    /// Just this name.
    Exact(Hostname),
    /// Any name below this suffix (`*.example.com` holds `example.com` here).
    Suffix(Hostname),
    /// Every name, and none.
    Any,
}

impl HostnameMatch {
    /// Does the host belong to the set? `host` has no port; letter case does not matter (RFC 9110, 4.2.3).
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name.as_str().eq_ignore_ascii_case(host),
            Self::Suffix(suffix) => {
                let suffix = suffix.as_str().as_bytes();
                let host = host.as_bytes();
                host.len() > suffix.len() + 1
                    && host[host.len() - suffix.len() - 1] == b'.'
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
            Self::Any => true,
        }
    }

    /// How specific it is: of two sets that hold a host, the one with the larger rank wins.
    pub fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(name) => (2, name.as_str().len()),
            Self::Suffix(name) => (1, name.as_str().len()),
            Self::Any => (0, 0),
        }
    }
}

impl fmt::Display for HostnameMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Suffix(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl FromStr for HostnameMatch {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        if s == "*" {
            return Ok(Self::Any);
        }
        match s.strip_prefix("*.") {
            Some(suffix) => suffix.parse().map(Self::Suffix),
            None => s.parse().map(Self::Exact),
        }
    }
}

impl TryFrom<String> for HostnameMatch {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<HostnameMatch> for String {
    fn from(m: HostnameMatch) -> String {
        m.to_string()
    }
}

/// An HTTP authority without its port: `[::1]:80` gives `[::1]`, `web:80` gives `web`.
pub fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon)
            if !authority[colon..].contains(']')
                && authority[colon + 1..].bytes().all(|b| b.is_ascii_digit()) =>
        {
            &authority[..colon]
        }
        _ => authority,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_or_more_labels() {
        let m: HostnameMatch = "*.example.com".parse().unwrap();
        assert!(m.matches("a.example.com"));
        assert!(m.matches("A.B.Example.COM"));
        assert!(!m.matches("example.com"));
        assert!(!m.matches(".example.com"));
        assert!(!m.matches("aexample.com"));
        assert!("*".parse::<HostnameMatch>().unwrap().matches("anything"));
        assert!("a.*.com".parse::<HostnameMatch>().is_err());
    }

    #[test]
    fn ports_are_cut_off() {
        for (authority, host) in [
            ("web", "web"),
            ("web:80", "web"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("10.0.0.1:1", "10.0.0.1"),
        ] {
            assert_eq!(without_port(authority), host);
        }
    }
}
