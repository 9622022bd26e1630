//! Host names as routes write them and as requests carry them: matching never panics, and an exact name matches itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_model::HostnameMatch;
use weft_model::hostname::without_port;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, authority) = input;
    let host = without_port(authority);
    assert!(authority.starts_with(host) || authority.starts_with('['));
    if let Ok(matcher) = pattern.parse::<HostnameMatch>() {
        let _ = matcher.matches(host);
        if !pattern.contains('*') {
            assert!(matcher.matches(pattern), "{pattern} does not match itself");
        }
    }
});
