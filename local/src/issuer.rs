//! The local issuer of service-account tokens: an ES256 key, its JWKS, and tokens shaped like the API server's.
//!
//! Stands in for the API server's issuer: the control plane checks the tokens against the JWKS file. The key lives as
//! long as the mesh. Used by [`crate::pod`] for projected volumes and by [`crate::control_plane`].

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::Error;
use crate::names::{self, NODE_NAME};

/// `iss` of all tokens: what clusters made by kubeadm use.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const KEY_ID: &str = "weft-local";

/// Signs tokens for the pods of one mesh.
pub(crate) struct Issuer {
    key: EncodingKey,
    jwks: PathBuf,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("jwks", &self.jwks)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Takes the key in `directory`, or makes one, and writes its JWKS beside it.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(Error::at(directory))?;
        let key_file = directory.join("key.pem");
        let pem = match fs::read_to_string(&key_file) {
            Ok(pem) => pem,
            Err(_) => {
                let pair = rcgen::KeyPair::generate().map_err(|e| Error::Issuer(e.to_string()))?;
                let pem = pair.serialize_pem();
                let file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&key_file);
                std::io::Write::write_all(&mut file.map_err(Error::at(&key_file))?, pem.as_bytes())
                    .map_err(Error::at(&key_file))?;
                pem
            }
        };
        let failed = |e: jsonwebtoken::errors::Error| Error::Issuer(e.to_string());
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(failed)?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(failed)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let jwks = directory.join("jwks.json");
        fs::write(
            &jwks,
            serde_json::to_vec_pretty(&JwkSet { keys: vec![jwk] })?,
        )
        .map_err(Error::at(&jwks))?;
        Ok(Self { key, jwks })
    }

    /// The public key, as a JWKS file.
    pub(crate) fn jwks(&self) -> &Path {
        &self.jwks
    }

    /// A token for a pod's service account, bound to the pod, valid for `seconds` from now. Without an audience the issuer
    /// itself is the audience.
    pub(crate) fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String, Error> {
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or("default");
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.as_deref())
            .unwrap_or("default");
        let now = Timestamp::now().as_second();
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "aud": [audience.unwrap_or(ISSUER)],
            "iat": now,
            // A little in the past, for clocks that are read in another order.
            "nbf": now - 1,
            "exp": now + seconds.max(1),
            "jti": uuid(),
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": NODE_NAME, "uid": stable_uuid(&["node", NODE_NAME])},
                "pod": {"name": meta.name, "uid": meta.uid},
                "serviceaccount": {"name": account, "uid": stable_uuid(&["serviceaccount", namespace, account])},
            },
        });
        let header = Header {
            kid: Some(KEY_ID.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|e| Error::Issuer(e.to_string()))
    }
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> String {
    format_uuid(fastrand::u64(..), fastrand::u64(..), 4)
}

/// A UUID that depends only on its inputs (RFC 9562, version 8).
pub(crate) fn stable_uuid(parts: &[&str]) -> String {
    let again: Vec<&str> = parts.iter().copied().chain(["again"]).collect();
    format_uuid(names::fnv(parts), names::fnv(&again), 8)
}

fn format_uuid(high: u64, low: u64, version: u64) -> String {
    let high = high & !0xf000 | version << 12;
    let low = low >> 2 | 1 << 63;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    #[test]
    fn tokens_verify_against_the_jwks() {
        let directory = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(directory.path()).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1"},
            "spec": {"containers": [], "serviceAccountName": "web"},
        }))
        .unwrap();
        let token = issuer.token(&pod, Some("weft-ca"), 60).unwrap();
        // Opened again, it is the same key.
        let again = Issuer::open(directory.path()).unwrap();
        let set: JwkSet = serde_json::from_slice(&fs::read(again.jwks()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["weft-ca"]);
        validation.set_issuer(&[ISSUER]);
        let key = DecodingKey::from_jwk(set.find(KEY_ID).unwrap()).unwrap();
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation)
            .unwrap()
            .claims;
        assert_eq!(claims["sub"], "system:serviceaccount:shop:web");
        assert_eq!(claims["kubernetes.io"]["pod"]["name"], "web-0");
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            60
        );
    }

    #[test]
    fn uuids_have_their_version() {
        assert_eq!(&uuid()[14..15], "4");
        assert!(['8', '9', 'a', 'b'].contains(&uuid().chars().nth(19).unwrap()));
        assert_eq!(stable_uuid(&["a"]), stable_uuid(&["a"]));
        assert_ne!(stable_uuid(&["a"]), stable_uuid(&["b"]));
        assert_eq!(uuid().len(), 36);
    }
}
