//! Chains and keys that do and do not make credentials.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::identity::testing::{Authority, DAY, uri};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn unchecked(authority: &Authority) -> Unchecked {
    let (leaf, key) = authority.leaf(&Authority::params(&[uri(WEB)], DAY));
    Unchecked {
        chain: vec![leaf, authority.root.clone()],
        key,
        roots: authority.bundle(),
    }
}

fn check(unchecked: Unchecked, expected: &str) -> Result<Credentials, CredentialsError> {
    unchecked.check(Some(&expected.parse().unwrap()), SystemTime::now())
}

#[test]
fn good_ones_come_without_the_root() {
    let authority = Authority::new("root");
    let credentials = check(unchecked(&authority), WEB).unwrap();
    assert_eq!(credentials.id.to_string(), WEB);
    assert_eq!(credentials.key.cert.len(), 1);
    assert!(
        credentials
            .stands(&authority.roots(), SystemTime::now())
            .is_ok()
    );
    let later = credentials.not_after + std::time::Duration::from_secs(1);
    assert_eq!(
        credentials.stands(&authority.roots(), later),
        Err(VerifyError::Expired)
    );
    let other = Authority::new("other").roots();
    assert_eq!(
        credentials.stands(&other, SystemTime::now()),
        Err(VerifyError::UnknownIssuer)
    );
}

#[test]
fn bad_ones_are_refused() {
    let authority = Authority::new("root");
    let empty = Unchecked {
        chain: vec![],
        ..unchecked(&authority)
    };
    assert_eq!(check(empty, WEB).unwrap_err(), CredentialsError::Empty);
    let (_, other_key) = authority.leaf(&Authority::params(&[uri(WEB)], DAY));
    let mismatch = Unchecked {
        key: other_key,
        ..unchecked(&authority)
    };
    assert_eq!(
        check(mismatch, WEB).unwrap_err(),
        CredentialsError::KeyMismatch
    );
    let error = check(
        unchecked(&authority),
        "spiffe://cluster.local/ns/shop/sa/cart",
    )
    .unwrap_err();
    assert!(
        matches!(
            error,
            CredentialsError::Chain(VerifyError::WrongIdentity { .. })
        ),
        "{error}"
    );
    let foreign = Unchecked {
        roots: Authority::new("other").bundle(),
        ..unchecked(&authority)
    };
    let error = check(foreign, WEB).unwrap_err();
    assert_eq!(error, CredentialsError::Chain(VerifyError::UnknownIssuer));
}
