//! Field types that are text with rules: read checked, so that a mistake is found with its field path.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_model::{IdentityPattern, NameError, TrustDomain, duration};

/// A duration in the syntax of the Gateway API (GEP-2257), e.g. `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        duration::text::serialize(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        duration::text::deserialize(d).map(Self)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"})
    }
}

/// Identities: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`, or `<namespace>/<service-account>` in the mesh's own
/// trust domain; namespace and service account may each be `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct IdentityText(String);

impl IdentityText {
    /// Reads and checks it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        pattern(text, "cluster.local").map(|_| Self(text.to_owned()))
    }

    /// As the model has it, in that trust domain where the text names none.
    pub fn in_domain(&self, trust_domain: &TrustDomain) -> Option<IdentityPattern> {
        pattern(&self.0, trust_domain.as_str()).ok()
    }
}

fn pattern(text: &str, trust_domain: &str) -> Result<IdentityPattern, NameError> {
    match text.split_once('/') {
        Some((namespace, account)) if !text.contains(':') && !account.contains('/') => {
            format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").parse()
        }
        _ => text.parse(),
    }
}

impl<'de> Deserialize<'de> for IdentityText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for IdentityText {
    fn schema_name() -> Cow<'static, str> {
        "Identity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 3, "maxLength": 512})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn identities_in_both_forms() {
        let td: TrustDomain = "example.org".parse().unwrap();
        for (text, full) in [
            ("shop/web", "spiffe://example.org/ns/shop/sa/web"),
            ("shop/*", "spiffe://example.org/ns/shop/sa/*"),
            ("*/*", "spiffe://example.org/ns/*/sa/*"),
            (
                "spiffe://other.org/ns/shop/sa/web",
                "spiffe://other.org/ns/shop/sa/web",
            ),
        ] {
            assert_eq!(
                IdentityText::parse(text)
                    .unwrap()
                    .in_domain(&td)
                    .unwrap()
                    .to_string(),
                full
            );
        }
        for bad in ["", "web", "*", "Shop/web", "a/b/c", "spiffe://x/ns/a"] {
            assert!(IdentityText::parse(bad).is_err(), "{bad}");
        }
    }
}
