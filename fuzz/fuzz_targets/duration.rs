//! Durations of the Gateway API (GEP-2257): what is read and written again reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_model::duration;

fuzz_target!(|text: &str| {
    if let Ok(read) = duration::parse(text) {
        let written = duration::format(read);
        // Written in hours at most: beyond 99999 h the syntax has no canonical form.
        if read.as_secs() < 99_999 * 3600 {
            assert_eq!(
                duration::parse(&written),
                Ok(read),
                "{text} was written as {written}"
            );
        }
    }
});
