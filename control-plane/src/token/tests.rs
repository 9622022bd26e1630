//! Tables over tokens: what each fault is called, and that none gets through.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

use super::verify::{LEEWAY, verify};
use super::*;
use crate::clock::from_unix_seconds;

const NOW: i64 = 1_795_187_280;

struct Issuer {
    key: KeyPair,
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}

impl Issuer {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { key }
    }

    fn jwk(&self) -> Value {
        let point = self.key.der_bytes(); // 0x04, x, y
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1",
               "x": base64url(&point[1..33]), "y": base64url(&point[33..65])})
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(json!({"keys": [self.jwk()]}).to_string().as_bytes()).unwrap()
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(
            header,
            claims,
            &EncodingKey::from_ec_der(&self.key.serialize_der()),
        )
        .unwrap()
    }
}

fn header() -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("k1".into());
    header
}

/// As in a token that a real API server projected.
fn claims() -> Value {
    json!({
        "aud": ["weft-ca"], "exp": NOW + 3600, "iat": NOW, "nbf": NOW, "iss": "https://kubernetes.default.svc",
        "jti": "5038575a-f55b-4e24-ad21-e2fa11f28d4f", "sub": "system:serviceaccount:shop:web",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "node1", "uid": "9bff6096-d246-4483-9d11-c1118fa6087b"},
            "pod": {"name": "web-0", "uid": "a12fa123-7ca8-43d7-b923-c8081e2503c3"},
            "serviceaccount": {"name": "web", "uid": "09619ec9-8157-4f44-8c74-4835b31ea9b8"},
        },
    })
}

fn expected() -> Expected {
    Expected {
        issuer: "https://kubernetes.default.svc".into(),
        audience: "weft-ca".into(),
    }
}

fn now() -> SystemTime {
    from_unix_seconds(NOW)
}

#[test]
fn a_projected_token_names_its_pod() {
    let issuer = Issuer::new();
    let bearer = verify(
        &issuer.sign(&header(), &claims()),
        &issuer.keys(),
        &expected(),
        now(),
    )
    .unwrap();
    assert_eq!(bearer.namespace.as_str(), "shop");
    assert_eq!(bearer.service_account.as_str(), "web");
    assert_eq!(bearer.pod.as_str(), "web-0");
    assert_eq!(bearer.pod_uid, "a12fa123-7ca8-43d7-b923-c8081e2503c3");
}

#[test]
fn one_audience_of_several_and_a_plain_one_will_do() {
    let issuer = Issuer::new();
    for audience in [json!(["other", "weft-ca"]), json!("weft-ca")] {
        let mut claims = claims();
        claims["aud"] = audience;
        verify(
            &issuer.sign(&header(), &claims),
            &issuer.keys(),
            &expected(),
            now(),
        )
        .unwrap();
    }
}

#[test]
fn wrong_claims_have_their_reasons() {
    let issuer = Issuer::new();
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();
    let cases: [(&str, &str, Value); 17] = [
        ("token_expired", "/exp", json!(NOW - leeway)),
        ("", "/exp", json!(NOW - leeway + 1)),
        ("token_malformed", "/exp", json!("tomorrow")),
        ("token_malformed", "/exp", Value::Null),
        ("token_not_yet_valid", "/nbf", json!(NOW + leeway + 1)),
        ("", "/nbf", json!(NOW + leeway)),
        (
            "token_audience",
            "/aud",
            json!(["https://kubernetes.default.svc"]),
        ),
        ("token_audience", "/aud", json!([])),
        ("token_audience", "/aud", json!("weft-ca2")),
        ("token_issuer", "/iss", json!("https://elsewhere")),
        (
            "token_issuer",
            "/iss",
            json!("https://kubernetes.default.svc/"),
        ),
        (
            "token_malformed",
            "/sub",
            json!("system:serviceaccount:shop:cart"),
        ),
        ("token_without_pod", "/kubernetes.io", Value::Null),
        ("token_without_pod", "/kubernetes.io/pod", Value::Null),
        ("token_malformed", "/kubernetes.io/namespace", json!("Shop")),
        (
            "token_malformed",
            "/kubernetes.io/serviceaccount/name",
            json!("cart"),
        ),
        (
            "token_malformed",
            "/kubernetes.io/pod/name",
            json!("../web"),
        ),
    ];
    for (reason, pointer, value) in cases {
        let mut claims = claims();
        *claims.pointer_mut(pointer).unwrap() = value.clone();
        let token = issuer.sign(&header(), &claims);
        let result = verify(&token, &issuer.keys(), &expected(), now());
        let got = result.as_ref().err().map_or("", TokenError::reason);
        assert_eq!(got, reason, "{pointer} = {value}: {result:?}");
    }
}

#[test]
fn forged_tokens_are_refused() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let reason = |token: &str| {
        verify(token, &keys, &expected(), now())
            .unwrap_err()
            .reason()
    };
    let genuine = issuer.sign(&header(), &claims());

    assert_eq!(
        reason(&Issuer::new().sign(&header(), &claims())),
        "token_signature",
        "another key, same kid"
    );
    let (_, rest) = genuine.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let none = base64url(br#"{"alg":"none","kid":"k1"}"#);
    assert_eq!(
        reason(&format!("{none}.{payload}.")),
        "token_malformed",
        "alg none"
    );
    assert_eq!(
        reason(&format!("{none}.{payload}.{signature}")),
        "token_malformed"
    );

    let mut symmetric = Header::new(Algorithm::HS256);
    symmetric.kid = Some("k1".into());
    for secret in [
        issuer.key.public_key_pem().into_bytes(),
        issuer.key.der_bytes().to_vec(),
    ] {
        let token = encode(&symmetric, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(
            reason(&token),
            "token_algorithm",
            "HS256 with the public key as its secret"
        );
    }

    let mut unknown = header();
    unknown.kid = Some("k2".into());
    assert_eq!(
        reason(&issuer.sign(&unknown, &claims())),
        "token_unknown_key"
    );
    unknown.kid = None;
    assert_eq!(reason(&issuer.sign(&unknown, &claims())), "token_malformed");

    let mut altered = claims();
    altered["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
    altered["sub"] = json!("system:serviceaccount:shop:admin");
    let head = genuine.split_once('.').unwrap().0;
    let altered = base64url(altered.to_string().as_bytes());
    assert_eq!(
        reason(&format!("{head}.{altered}.{signature}")),
        "token_signature"
    );

    for garbage in ["", ".", "..", "a.b.c", "ü.ü.ü", &"x".repeat(16_385)] {
        assert_eq!(reason(garbage), "token_malformed");
    }
}

#[test]
fn key_sets_keep_what_is_usable() {
    let issuer = Issuer::new();
    let parse = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    let rsa = json!({"kty": "RSA", "kid": "r", "n": base64url(&[0xff; 256]), "e": "AQAB"});
    let set = parse(json!([issuer.jwk(), rsa, {"kty": "oct", "k": "AAAA", "kid": "s"}, {"kty": "new", "kid": "n"}])).unwrap();
    assert_eq!(set.ids().collect::<Vec<_>>(), ["k1", "r"]);
    assert_eq!(set.find("r").unwrap().0, Algorithm::RS256);
    for (bad, expected) in [
        (
            json!([{"kty": "oct", "k": "AAAA", "kid": "s"}]),
            "shared secret",
        ),
        (json!([]), "no usable key"),
        (json!([issuer.jwk(), issuer.jwk()]), "twice"),
        (
            json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]),
            "keys[0].kid: is missing",
        ),
        (json!(5), "not a JSON Web Key Set"),
    ] {
        let error = parse(bad).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// The claims of a token that a real API server (1.36) projected, signed here.
#[test]
fn recorded_claims_are_understood() {
    let issuer = Issuer::new();
    let recorded: Value =
        serde_json::from_str(include_str!("../../tests/data/projected-token.json")).unwrap();
    let claims = &recorded["payload"];
    let expected = Expected {
        issuer: "https://kubernetes.default.svc.cluster.local".into(),
        audience: "weft".into(),
    };
    let at = from_unix_seconds(claims["iat"].as_i64().unwrap());
    let bearer = verify(
        &issuer.sign(&header(), claims),
        &issuer.keys(),
        &expected,
        at,
    )
    .unwrap();
    assert_eq!(
        (bearer.namespace.as_str(), bearer.pod.as_str()),
        ("identity", "web-0")
    );
}

#[tokio::test]
async fn a_changed_key_set_comes_into_force() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, json!({"keys": [old.jwk()]}).to_string()).unwrap();
    let problems = crate::problems::Problems::default();
    let mut keys = keys::start(file.clone(), problems.clone()).unwrap();
    let reviewer = TokenReviewer::KeySet {
        keys: keys.clone(),
        expected: expected(),
    };
    let token = new.sign(&header(), &claims());
    assert_eq!(reviewer.review(&token, now()), Err(TokenError::Signature));
    std::fs::write(&file, "{").unwrap();
    let deadline = std::time::Duration::from_secs(10);
    tokio::time::timeout(deadline, async {
        while problems.list().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert!(
        reviewer
            .review(&old.sign(&header(), &claims()), now())
            .is_ok(),
        "the last good keys stay"
    );
    std::fs::write(&file, json!({"keys": [new.jwk()]}).to_string()).unwrap();
    tokio::time::timeout(deadline, keys.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(reviewer.review(&token, now()).is_ok());
    assert!(problems.list().is_empty());
}
