//! The token issuer's public keys: a JSON Web Key Set (RFC 7517) from a file, kept current in a watch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::ca::load::read_bounded;
use crate::files::Watched;
use crate::problems::{Facility, Problems};

/// Public keys by key ID, each for exactly one algorithm, so that a token cannot choose how it is checked.
pub struct KeySet {
    keys: BTreeMap<String, (Algorithm, DecodingKey)>,
    skipped: Vec<String>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The file is missing or may not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its content.
    #[error("{}: {reason}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl KeySet {
    /// Takes a key set apart. Keys that cannot check RS256 or ES256 signatures are skipped; one key must remain.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = serde_json::from_slice(json)
            .map_err(|e| format!("not a JSON Web Key Set ({{\"keys\": [...]}}): {e}"))?;
        let mut set = Self {
            keys: BTreeMap::new(),
            skipped: Vec::new(),
        };
        for (i, value) in document.keys.into_iter().enumerate() {
            match usable(value) {
                Ok((id, key)) if set.keys.contains_key(&id) => {
                    let _ = key;
                    return Err(format!("keys[{i}].kid: {id:?} is there twice"));
                }
                Ok((id, key)) => drop(set.keys.insert(id, key)),
                Err(reason) => set.skipped.push(format!("keys[{i}]{reason}")),
            }
        }
        if set.keys.is_empty() {
            let skipped = set.skipped.join("; ");
            return Err(format!(
                "no usable key; expected at least one RSA or EC P-256 public key with a kid{}{skipped}",
                if skipped.is_empty() { "" } else { ": " }
            ));
        }
        Ok(set)
    }

    /// The key of that ID and the one algorithm that it is for.
    pub fn find(&self, id: &str) -> Option<(Algorithm, &DecodingKey)> {
        self.keys.get(id).map(|(algorithm, key)| (*algorithm, key))
    }

    /// The IDs, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }
}

/// One key; the error is the rest of its field path and the reason.
fn usable(value: serde_json::Value) -> Result<(String, (Algorithm, DecodingKey)), String> {
    let jwk: Jwk = serde_json::from_value(value).map_err(|e| format!(": {e}"))?;
    let id = jwk.common.key_id.clone().ok_or(".kid: is missing")?;
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|u| *u != PublicKeyUse::Signature)
    {
        return Err(".use: not for signatures".into());
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::EllipticCurve(_) => return Err(".crv: only P-256 is allowed".into()),
        AlgorithmParameters::OctetKey(_) => {
            return Err(".kty: a shared secret is no public key".into());
        }
        AlgorithmParameters::OctetKeyPair(_) => {
            return Err(".kty: only RSA and EC are allowed".into());
        }
    };
    if jwk.common.key_algorithm.is_some_and(|a| a != name) {
        return Err(".alg: only RS256 and ES256 are allowed".into());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|e| format!(": {e}"))?;
    Ok((id, (algorithm, key)))
}

/// Reads the file and starts to watch it; a broken change leaves the last good keys in force. The task ends when the
/// last receiver is gone.
pub fn start(
    file: PathBuf,
    problems: Problems,
) -> Result<watch::Receiver<Arc<KeySet>>, KeySetError> {
    let mut watched = Watched::new([file.clone()]);
    let first = read(&file)?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = watched.changed() => {}
                () = sender.closed() => return,
            }
            match read(&file) {
                Ok(next) => {
                    problems.clear(Facility::TokenKeys);
                    sender.send_replace(Arc::new(next));
                }
                Err(e) => {
                    warn!(error = %e, "the changed token keys cannot be used; the last good ones stay in force");
                    problems.set(Facility::TokenKeys, e.to_string());
                }
            }
        }
    });
    Ok(receiver)
}

fn read(file: &Path) -> Result<KeySet, KeySetError> {
    let json = read_bounded(file).map_err(|source| KeySetError::Read {
        file: file.to_owned(),
        source,
    })?;
    let set = KeySet::parse(&json).map_err(|reason| KeySetError::Content {
        file: file.to_owned(),
        reason,
    })?;
    for skipped in &set.skipped {
        warn!(file = %file.display(), key = skipped, "a token key is skipped");
    }
    info!(file = %file.display(), keys = set.keys.len(), "token keys read");
    Ok(set)
}
