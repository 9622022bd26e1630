//! Service-account tokens: who is asking for a certificate?
//!
//! [`TokenReviewer`] says whose a token is, however it finds out; [`crate::issue`] then compares that with the pods it
//! knows. [`keys`] reads the issuer's key set, [`verify`] checks a token against it.

pub mod keys;
pub mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use weft_model::{Name, Namespace};

pub use keys::KeySet;
pub use verify::{Expected, TokenError};

/// What a valid token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The namespace of account and pod.
    pub namespace: Namespace,
    /// The service account.
    pub service_account: Name,
    /// The pod that the token was projected into.
    pub pod: Name,
    /// That pod's UID, which tells it from an earlier one of the same name.
    pub pod_uid: String,
}

/// Who judges tokens.
#[derive(Debug, Clone)]
pub enum TokenReviewer {
    /// Signatures are checked here, against the issuer's key set as it is now.
    KeySet {
        /// The issuer's keys, read again when their file changes.
        keys: watch::Receiver<Arc<KeySet>>,
        /// What the claims must say.
        expected: Expected,
    },
}

impl TokenReviewer {
    /// Whose token is it?
    pub fn review(&self, token: &str, now: SystemTime) -> Result<Bearer, TokenError> {
        match self {
            Self::KeySet { keys, expected } => {
                let keys = keys.borrow().clone();
                verify::verify(token, &keys, expected, now)
            }
        }
    }
}
