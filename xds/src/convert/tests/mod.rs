//! What is encoded for our proxy decodes to itself; what is not ours is refused, never a panic.

mod generate;
mod standard;

use proptest::prelude::*;
use weft_model::{Cluster, Destination, DnsRecord, Endpoints, HttpRoutes, InboundPort};

use super::{Flavour, Resource, TrustBundle};

fn there_and_back<T: Resource + PartialEq + std::fmt::Debug>(
    value: &T,
) -> Result<(), TestCaseError> {
    let bytes = value.encode(Flavour::Weft);
    let decoded = T::decode(&value.name(), &bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    // The others take other bytes, and whatever our decoder makes of them, it survives.
    for flavour in [Flavour::Envoy, Flavour::Grpc] {
        let _ = T::decode(&value.name(), &value.encode(flavour));
    }
    prop_assert!(T::decode("another/name/1", &bytes).is_err());
    Ok(())
}

/// Bytes of a real resource with some of them changed reach deeper than random ones.
fn survives<T: Resource>(value: &T, changes: &[(prop::sample::Index, u8)]) {
    let mut bytes = value.encode(Flavour::Weft).to_vec();
    for (index, byte) in changes {
        if !bytes.is_empty() {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
    }
    let _ = T::decode(&value.name(), &bytes);
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4)
}

macro_rules! properties {
    ($($module:ident: $model:ty = $strategy:path;)*) => {$(
        mod $module {
            use super::*;
            proptest! {
                #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn decodes_to_itself(value in $strategy()) {
                    there_and_back::<$model>(&value)?;
                }

                #[test]
                fn survives_changed_bytes(value in $strategy(), changes in changes()) {
                    survives::<$model>(&value, &changes);
                }

                #[test]
                fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
                    let _ = <$model>::decode("a/b/1", &bytes);
                }
            }
        }
    )*};
}

properties! {
    destinations: Destination = generate::destination;
    inbound_ports: InboundPort = generate::inbound_port;
    routes: HttpRoutes = generate::http_routes;
    clusters: Cluster = generate::cluster;
    endpoints: Endpoints = generate::endpoints;
    names: DnsRecord = generate::dns_record;
    trust_bundles: TrustBundle = generate::trust_bundle;
}
