//! What can be a resource: a model value with a type, a name, and both directions of conversion.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weft_model::Hostname;

use super::{DecodeError, Flavour};
use crate::TypeUrl;

/// The name of the trust bundle's secret.
pub const TRUST_BUNDLE: &str = "weft/trust-bundle";

/// The name of a DNS record among the endpoint resources: `weft/dns/<fqdn>`.
pub fn dns_name(name: &Hostname) -> String {
    format!("weft/dns/{name}")
}

/// The name of an inbound port among the listeners: `weft/inbound/<port>`.
pub fn inbound_name(port: u16) -> String {
    format!("weft/inbound/{port}")
}

/// The roots that vouch for the mesh's identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrustBundle {
    /// PEM certificates, one after the other; at least one.
    pub pem: String,
}

/// A model value that is a resource of xDS.
pub trait Resource: Sized + Send + Sync + 'static {
    /// Its type.
    const TYPE: TypeUrl;

    /// Its name.
    fn name(&self) -> String;

    /// As that client understands it; an encoded message of [`Self::TYPE`].
    fn encode(&self, flavour: Flavour) -> Bytes;

    /// From [`Flavour::Weft`]. Never panics, whatever the bytes; the value's own name has to be `name`.
    fn decode(name: &str, bytes: &[u8]) -> Result<Self, DecodeError>;
}
