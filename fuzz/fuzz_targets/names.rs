//! Names of xDS resources and keys of the model: what is read and written again is the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use weft_model::{BackendKey, ListenerName, WorkloadKey};

fn round_trip<T>(text: &str)
where
    T: FromStr + Display + PartialEq + Debug,
{
    if let Ok(read) = text.parse::<T>() {
        let written = read.to_string();
        assert_eq!(
            written.parse::<T>().ok().as_ref(),
            Some(&read),
            "{text} was written as {written}"
        );
    }
}

fuzz_target!(|text: &str| {
    round_trip::<BackendKey>(text);
    round_trip::<WorkloadKey>(text);
    round_trip::<ListenerName>(text);
});
