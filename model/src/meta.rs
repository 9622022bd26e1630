//! Where a resource came from and when its source changed: carried to logs, metrics, errors and `weft explain`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC. 0 means unknown.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The time since then, zero when it lies in the future.
    pub fn age(self, now: SystemTime) -> Duration {
        now.duration_since(UNIX_EPOCH + Duration::from_millis(self.0))
            .unwrap_or_default()
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(t: SystemTime) -> Self {
        Self(t.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
    }
}

/// The object a decision goes back to, e.g. `HTTPRoute shop/recommendations rule 0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The object's kind, e.g. `HTTPRoute`.
    pub kind: String,
    /// The object's namespace; empty for cluster-scoped objects and built-in defaults.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The rule inside the object: its name where it has one, else its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl Origin {
    /// An object as a whole.
    pub fn object(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            rule: None,
        }
    }

    /// What holds where nobody configured anything.
    pub fn default_of(name: &str) -> Self {
        Self::object("Default", "", name)
    }

    /// One rule of this object.
    pub fn rule(&self, rule: impl fmt::Display) -> Self {
        Self {
            rule: Some(rule.to_string()),
            ..self.clone()
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        match &self.rule {
            Some(rule) => write!(f, " rule {rule}"),
            None => Ok(()),
        }
    }
}

/// Origin and age of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The object that the resource was compiled from.
    pub origin: Origin,
    /// When that object last changed, as its source reports it.
    pub changed_at: UnixMillis,
}
