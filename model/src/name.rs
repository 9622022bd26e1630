//! Validated names: namespaces, objects, workloads, and the keys of backends.
//!
//! A value of these types is well-formed by construction; parsing is the only way in.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {reason}")]
pub struct NameError {
    /// What the text should have been, e.g. `namespace`.
    pub what: &'static str,
    /// The text as given, cut to 256 bytes.
    pub value: String,
    /// What is wrong, and what would be right.
    pub reason: &'static str,
}

impl NameError {
    pub(crate) fn new(what: &'static str, value: &str, reason: &'static str) -> Self {
        let value = value.chars().take(256).collect();
        Self {
            what,
            value,
            reason,
        }
    }
}

/// An RFC 1123 label: 1 to 63 characters of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
pub(crate) fn check_label(s: &str) -> Result<(), &'static str> {
    if s.is_empty() {
        return Err("it is empty");
    }
    if s.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    let bytes = s.as_bytes();
    if !bytes
        .iter()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    {
        return Err("only lower-case letters, digits and '-' are allowed");
    }
    if bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
        return Err("it must begin and end with a letter or digit");
    }
    Ok(())
}

/// An RFC 1123 subdomain: labels joined by dots, 253 characters at most.
pub(crate) fn check_subdomain(s: &str) -> Result<(), &'static str> {
    if s.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    s.split('.').try_for_each(check_label)
}

macro_rules! validated {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                $check(s).map_err(|reason| NameError::new($what, s, reason))?;
                Ok(Self(s.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

validated!(
    /// A Kubernetes namespace (RFC 1123 label).
    Namespace, "namespace", check_label
);
validated!(
    /// The name of a Kubernetes object: service, pod, service account, route (RFC 1123 subdomain).
    Name, "name", check_subdomain
);

pub(crate) use validated;

/// A pod, by namespace and name: `<namespace>/<pod>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadKey {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub name: Name,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadKey {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let (namespace, name) = s
            .split_once('/')
            .ok_or_else(|| NameError::new("workload", s, "expected <namespace>/<pod>"))?;
        Ok(Self {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }
}

impl TryFrom<String> for WorkloadKey {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<WorkloadKey> for String {
    fn from(key: WorkloadKey) -> String {
        key.to_string()
    }
}

/// What a backend key points at inside its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A Service; the port is the Service's port.
    Service(Name),
    /// One pod, addressed by its own IP; the port is the container's port.
    Pod(Name),
}

/// The key of a route table, cluster and endpoint set: `<namespace>/<service>/<port>`, or for a pod that is
/// addressed by its IP `<namespace>/pod~<pod>/<port>` (`~` can be in no Kubernetes name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackendKey {
    /// The namespace of the service or pod.
    pub namespace: Namespace,
    /// The service or pod.
    pub target: Target,
    /// The service's port, or the pod's; 1 to 65535.
    pub port: u16,
}

impl BackendKey {
    /// The key of a service's port.
    pub fn service(namespace: Namespace, name: Name, port: u16) -> Self {
        Self {
            namespace,
            target: Target::Service(name),
            port,
        }
    }

    /// The key of a pod's port.
    pub fn pod(workload: WorkloadKey, port: u16) -> Self {
        Self {
            namespace: workload.namespace,
            target: Target::Pod(workload.name),
            port,
        }
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Service(name) => write!(f, "{}/{name}/{}", self.namespace, self.port),
            Target::Pod(name) => write!(f, "{}/pod~{name}/{}", self.namespace, self.port),
        }
    }
}

impl FromStr for BackendKey {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let wrong = || {
            NameError::new(
                "backend",
                s,
                "expected <namespace>/<service>/<port> or <namespace>/pod~<pod>/<port>",
            )
        };
        let mut parts = s.split('/');
        let (Some(namespace), Some(target), Some(port), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let port = parse_port(port).ok_or_else(wrong)?;
        let target = match target.strip_prefix("pod~") {
            Some(pod) => Target::Pod(pod.parse()?),
            None => Target::Service(target.parse()?),
        };
        Ok(Self {
            namespace: namespace.parse()?,
            target,
            port,
        })
    }
}

/// A port in its one canonical spelling (no sign, no leading zero), so that keys print as they parse.
pub(crate) fn parse_port(s: &str) -> Option<u16> {
    let port: u16 = s.parse().ok()?;
    (port != 0 && !s.starts_with(['0', '+'])).then_some(port)
}

impl TryFrom<String> for BackendKey {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<BackendKey> for String {
    fn from(key: BackendKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "shop", "a-b", "1a", &"x".repeat(63)] {
            assert!(good.parse::<Namespace>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a.b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
        assert!("a.b".parse::<Name>().is_ok());
        assert!("a..b".parse::<Name>().is_err());
    }

    #[test]
    fn backend_keys_print_as_they_parse() {
        for text in ["shop/web/80", "shop/pod~web-0/8080"] {
            assert_eq!(text.parse::<BackendKey>().unwrap().to_string(), text);
        }
        for bad in [
            "shop/web",
            "shop/web/0",
            "shop/web/080",
            "shop/web/+80",
            "shop/web/80/x",
            "/web/80",
            "shop/pod~/80",
        ] {
            assert!(bad.parse::<BackendKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_say_what_and_why() {
        let error = "Shop".parse::<Namespace>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"Shop\" is not a valid namespace: only lower-case letters, digits and '-' are allowed"
        );
    }
}
