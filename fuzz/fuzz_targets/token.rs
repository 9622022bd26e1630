//! Service account tokens: JSON is signed as the claims of one, other text is taken for a token; and key sets.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weft_control_plane::token::verify::verify;
use weft_control_plane::token::{Expected, KeySet};

struct Issuer {
    key: EncodingKey,
    keys: KeySet,
    expected: Expected,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some("k1".into());
    let set = serde_json::to_vec(&JwkSet { keys: vec![jwk] }).unwrap();
    Issuer {
        key,
        keys: KeySet::parse(&set).unwrap(),
        expected: Expected {
            issuer: "https://kubernetes.default.svc".into(),
            audience: "weft-ca".into(),
        },
    }
});

/// 2026-11-20.
const NOW: Duration = Duration::from_secs(1_795_187_280);

fuzz_target!(|text: &str| {
    let issuer = &*ISSUER;
    let now = SystemTime::UNIX_EPOCH + NOW;
    let _ = KeySet::parse(text.as_bytes());
    let Ok(claims) = serde_json::from_str::<Value>(text) else {
        assert!(
            verify(text, &issuer.keys, &issuer.expected, now).is_err(),
            "nobody signed it"
        );
        return;
    };
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("k1".into());
    let token = encode(&header, &claims, &issuer.key).unwrap();
    if let Ok(bearer) = verify(&token, &issuer.keys, &issuer.expected, now) {
        let subject = format!(
            "system:serviceaccount:{}:{}",
            bearer.namespace, bearer.service_account
        );
        assert_eq!(claims["sub"], subject.as_str());
        assert_eq!(claims["iss"], issuer.expected.issuer.as_str());
        assert!(claims["exp"].as_u64().unwrap() + 10 > NOW.as_secs());
    }
});
