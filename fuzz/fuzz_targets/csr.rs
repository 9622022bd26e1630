//! Certificate signing requests, as PEM and as the DER in it: what is accepted for one identity only
//! names that identity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pem::Pem;
use rcgen::PublicKeyData as _;
use weft_control_plane::ca::request::parse;

/// Is the name anywhere in the request?
fn asks_for(der: &[u8], name: &str) -> bool {
    der.windows(name.len())
        .any(|window| window == name.as_bytes())
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = parse(text);
    }
    let pem = pem::encode(&Pem::new("CERTIFICATE REQUEST", bytes));
    if let Ok(request) = parse(&pem) {
        let identities = [
            "spiffe://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/other",
        ];
        let named = identities.map(|id| request.check_identity(&id.parse().unwrap()).is_ok());
        assert!(
            named[0] == named[1] || asks_for(bytes, identities[usize::from(named[1])]),
            "{named:?}"
        );
        assert!(!request.key().der_bytes().is_empty());
    }
});
