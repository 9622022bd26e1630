//! xDS resources as a sidecar decodes them: any bytes are a value or an error, and a value survives being sent again.
//!
//! An input is one byte for the type, one for the length of the name, the name, and the message.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use weft_model::{Cluster, Destination, DnsRecord, Endpoints, HttpRoutes, InboundPort};
use weft_xds::convert::{Flavour, Resource, TrustBundle};

fn decode<T: Resource + PartialEq + Debug>(name: &str, message: &[u8]) {
    if let Ok(value) = T::decode(name, message) {
        assert_eq!(value.name(), name);
        let encoded = value.encode(Flavour::Weft);
        assert_eq!(
            T::decode(name, &encoded).as_ref(),
            Ok(&value),
            "{name} was sent again"
        );
    }
}

fuzz_target!(|input: &[u8]| {
    let [kind, length, rest @ ..] = input else {
        return;
    };
    let Some((name, message)) = rest.split_at_checked(usize::from(*length)) else {
        return;
    };
    let Ok(name) = str::from_utf8(name) else {
        return;
    };
    match kind % 7 {
        0 => decode::<Destination>(name, message),
        1 => decode::<HttpRoutes>(name, message),
        2 => decode::<Cluster>(name, message),
        3 => decode::<Endpoints>(name, message),
        4 => decode::<DnsRecord>(name, message),
        5 => decode::<InboundPort>(name, message),
        _ => decode::<TrustBundle>(name, message),
    }
});
