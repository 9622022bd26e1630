//! tmp
use std::collections::BTreeMap;

use crate::ports::PortSet;
pub(crate) const SKIP_INBOUND_PORTS: &str = "weft.dev/skip-inbound-ports";
pub(crate) const OPAQUE_PORTS: &str = "weft.dev/opaque-ports";

/// The ports that an annotation of a pod, or else of its namespace, names. What cannot be read counts as none; it was reported.
pub(crate) fn ports_of(
    name: &str,
    pod: Option<&BTreeMap<String, String>>,
    namespace: Option<&BTreeMap<String, String>>,
) -> PortSet {
    let value = pod
        .and_then(|a| a.get(name))
        .or_else(|| namespace.and_then(|a| a.get(name)));
    value.and_then(|v| v.parse().ok()).unwrap_or_default()
}
