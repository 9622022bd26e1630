//! The first bytes of a connection: what is decided does not depend on how they arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::sniff::{Sniffed, sniff};

fuzz_target!(|bytes: &[u8]| {
    let whole = sniff(bytes);
    // Every prefix of what is short, some of what is long.
    for end in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
        let early = sniff(&bytes[..end]);
        assert!(
            early == Sniffed::More || early == whole,
            "{early:?} after {end} bytes, then {whole:?}"
        );
    }
});
