//! DNS messages from the application and from the upstream: any bytes have an answer, no longer than the client takes.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weft_proxy::dns::query::{Request, Transport, Zone, read, udp_limit};
use weft_proxy::dns::wire;

static ZONE: LazyLock<Zone> = LazyLock::new(|| Zone::new(&"cluster.local".parse().unwrap()));
static ADDRESSES: LazyLock<Vec<IpAddr>> = LazyLock::new(|| {
    let four = (0..120).map(|n| IpAddr::from([10, 244, 0, n]));
    let six = (0..60).map(|n| IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, n]));
    four.chain(six).collect()
});

fuzz_target!(|message: &[u8]| {
    match read(message, &ZONE) {
        Request::Ignore | Request::Forward => {}
        Request::Reply(reply) => {
            assert!(wire::is_response(&reply));
            assert_eq!(wire::id(&reply), wire::id(message));
        }
        Request::Ask(question) => {
            assert!(question.name.to_string().ends_with(".svc.cluster.local"));
            for addresses in [&ADDRESSES[..], &ADDRESSES[..1], &[]] {
                let short = question.answer(addresses, Transport::Udp, message.len());
                let short = short.expect("a question that was read has an answer");
                assert!(
                    short.len() <= udp_limit(message).max(512),
                    "{} bytes over UDP",
                    short.len()
                );
                let long = question.answer(addresses, Transport::Tcp, message.len());
                let long = long.expect("over TCP too");
                assert!(!wire::is_truncated(&long));
                for answer in [short, long] {
                    let id = wire::id(message).unwrap_or_default();
                    assert!(
                        wire::answers(&answer, message, id),
                        "the client will not take it"
                    );
                }
            }
        }
    }
    // From the upstream, for a question of half the bytes.
    let (query, response) = message.split_at(message.len() / 2);
    let _ = wire::answers(response, query, 0);
    let _ = (
        wire::question(response),
        wire::is_truncated(response),
        udp_limit(response),
    );
    let mut changed = message.to_vec();
    wire::set_id(&mut changed, 0x1234);
    assert!(wire::id(&changed).is_none_or(|id| id == 0x1234));
});
