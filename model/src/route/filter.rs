//! What a rule changes: headers, host and path, or the answer itself.

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::{BackendKey, Hostname, Meta};

use super::matching::header_text;

/// Gateway API `HTTPHeaderFilter`: `set` replaces, `add` appends, `remove` deletes; in that order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderEdits {
    /// Replace what is there, or add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderEdit>,
    /// Append another value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderEdit>,
    /// Delete every value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<HeaderText>,
}

impl HeaderEdits {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Carries them out.
    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for edit in &self.set {
            headers.insert(edit.name.0.clone(), edit.value.clone());
        }
        for edit in &self.add {
            headers.append(edit.name.0.clone(), edit.value.clone());
        }
        for name in &self.remove {
            headers.remove(&name.0);
        }
    }
}

/// A header name that prints as text in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderText(#[serde(with = "header_text")] pub HeaderName);

/// One header and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderEdit {
    /// The header.
    pub name: HeaderText,
    /// Its value: visible ASCII, spaces and tabs.
    #[serde(with = "value_text")]
    pub value: HeaderValue,
}

mod value_text {
    use http::HeaderValue;
    use serde::{Deserialize, Deserializer, Serializer, de::Error, ser};

    pub(super) fn serialize<S: Serializer>(v: &HeaderValue, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(v.to_str().map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<HeaderValue, D::Error> {
        HeaderValue::from_str(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// How a path is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// The whole path; the query stays.
    Full(String),
    /// The prefix that the rule matched; only in rules with a prefix match.
    Prefix(String),
}

/// Gateway API `HTTPURLRewriteFilter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// The new `Host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

impl Rewrite {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.hostname.is_none() && self.path.is_none()
    }
}

/// Gateway API `HTTPRequestRedirectFilter`; what is `None` stays as in the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// The new scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The new host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// The new port. `None`: the scheme's well-known port if a scheme is given, else the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The scheme of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `http`, well-known port 80.
    Http,
    /// `https`, well-known port 443.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Its well-known port.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Gateway API `HTTPRequestMirrorFilter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Where the copies go.
    pub backend: BackendKey,
    /// Share of the requests, as `numerator` of `denominator`.
    pub numerator: u32,
    /// More than zero; a multiple of 100 that xDS knows: 100, 10,000 or 1,000,000.
    pub denominator: u32,
    /// Origin and age.
    pub meta: Meta,
}
