//! Faults of the control plane's own inputs (authority, key set) that appeared while it runs, for `/status`.
//!
//! Faults of Kubernetes objects are not here: the source and compile steps report those themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// What is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Facility {
    /// The certificate authority's files.
    Authority,
    /// The token issuer's key set.
    TokenKeys,
    /// The control plane's own certificate.
    ServingCertificate,
}

/// The current fault of each facility, shared by whoever finds and shows them.
#[derive(Debug, Clone, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<Facility, String>>>);

impl Problems {
    /// Something is wrong; replaces what was said before of the same facility.
    pub fn set(&self, facility: Facility, reason: String) {
        self.lock().insert(facility, reason);
    }

    /// All is well again.
    pub fn clear(&self, facility: Facility) {
        self.lock().remove(&facility);
    }

    /// Everything that is wrong now.
    pub fn list(&self) -> BTreeMap<Facility, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Facility, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
