//! Workload identities: SPIFFE IDs and patterns over them.
//!
//! The form is fixed: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`
//! (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{Name, NameError, Namespace, check_subdomain, validated};

validated!(
    /// A SPIFFE trust domain in lower case, e.g. `cluster.local`.
    TrustDomain, "trust domain", check_subdomain
);

/// The identity of a workload: its service account in its namespace, under a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// The trust domain whose roots vouch for it.
    pub trust_domain: TrustDomain,
    /// The namespace.
    pub namespace: Namespace,
    /// The service account.
    pub service_account: Name,
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

const FORM: &str = "expected spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>";

impl FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new("SPIFFE ID", s, FORM);
        let parts = split(s).ok_or_else(wrong)?;
        let [trust_domain, namespace, service_account] = parts;
        Ok(Self {
            trust_domain: trust_domain.parse().map_err(|_| wrong())?,
            namespace: namespace.parse().map_err(|_| wrong())?,
            service_account: service_account.parse().map_err(|_| wrong())?,
        })
    }
}

/// `spiffe://TD/ns/NS/sa/SA` taken apart, unchecked.
fn split(s: &str) -> Option<[&str; 3]> {
    let mut parts = s.strip_prefix("spiffe://")?.split('/');
    let (td, ns, namespace, sa, account) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    (ns == "ns" && sa == "sa" && parts.next().is_none()).then_some([td, namespace, account])
}

impl TryFrom<String> for SpiffeId {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.to_string()
    }
}

/// A set of identities: a SPIFFE ID in which namespace and service account may each be `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityPattern {
    /// The trust domain; always named, so that a pattern never spans two of them.
    pub trust_domain: TrustDomain,
    /// The namespace, or any.
    pub namespace: Option<Namespace>,
    /// The service account, or any.
    pub service_account: Option<Name>,
}

impl IdentityPattern {
    /// Does the identity belong to the set?
    pub fn matches(&self, id: &SpiffeId) -> bool {
        self.trust_domain == id.trust_domain
            && self.namespace.as_ref().is_none_or(|n| *n == id.namespace)
            && self
                .service_account
                .as_ref()
                .is_none_or(|s| *s == id.service_account)
    }
}

impl From<SpiffeId> for IdentityPattern {
    fn from(id: SpiffeId) -> Self {
        Self {
            trust_domain: id.trust_domain,
            namespace: Some(id.namespace),
            service_account: Some(id.service_account),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_ref().map_or("*", Namespace::as_str);
        let account = self.service_account.as_ref().map_or("*", Name::as_str);
        write!(
            f,
            "spiffe://{}/ns/{namespace}/sa/{account}",
            self.trust_domain
        )
    }
}

impl FromStr for IdentityPattern {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let wrong = || {
            NameError::new(
                "identity pattern",
                s,
                "expected spiffe://<trust-domain>/ns/<namespace|*>/sa/<service-account|*>",
            )
        };
        let [trust_domain, namespace, account] = split(s).ok_or_else(wrong)?;
        fn part<T: FromStr>(s: &str) -> Result<Option<T>, T::Err> {
            if s == "*" {
                Ok(None)
            } else {
                s.parse().map(Some)
            }
        }
        Ok(Self {
            trust_domain: trust_domain.parse().map_err(|_| wrong())?,
            namespace: part(namespace).map_err(|_: NameError| wrong())?,
            service_account: part(account).map_err(|_: NameError| wrong())?,
        })
    }
}

impl TryFrom<String> for IdentityPattern {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<IdentityPattern> for String {
    fn from(pattern: IdentityPattern) -> String {
        pattern.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_they_parse() {
        let text = "spiffe://cluster.local/ns/shop/sa/web";
        assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        for bad in [
            "https://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web/",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns/*/sa/web",
            "spiffe:///ns/shop/sa/web",
            "spiffe://Cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/sa/web/ns/shop",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_match_by_part() {
        let web: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let matches = |p: &str| p.parse::<IdentityPattern>().unwrap().matches(&web);
        assert!(matches("spiffe://cluster.local/ns/*/sa/*"));
        assert!(matches("spiffe://cluster.local/ns/shop/sa/*"));
        assert!(matches("spiffe://cluster.local/ns/shop/sa/web"));
        assert!(!matches("spiffe://cluster.local/ns/shop/sa/cart"));
        assert!(!matches("spiffe://other.local/ns/*/sa/*"));
        assert!("*".parse::<IdentityPattern>().is_err());
        assert!("spiffe://*/ns/*/sa/*".parse::<IdentityPattern>().is_err());
    }
}
