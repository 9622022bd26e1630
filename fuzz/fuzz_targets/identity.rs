//! SPIFFE IDs and the patterns that select them: an accepted ID is written as it was read, and a pattern made of it
//! matches it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_model::{IdentityPattern, SpiffeId};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        if let Ok(pattern) = text.parse::<IdentityPattern>() {
            assert!(pattern.matches(&id), "{text} does not match itself");
        }
    }
    let _ = text.parse::<IdentityPattern>();
});
