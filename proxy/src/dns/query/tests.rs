//! Questions of all kinds.
#![allow(clippy::unwrap_used)]

use hickory_proto::op::{OpCode, Query};
use proptest::prelude::*;

use super::*;

fn zone() -> Zone {
    Zone::new(&"cluster.local".parse().unwrap())
}

fn message(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(
        hickory_proto::rr::Name::from_ascii(name).unwrap(),
        kind,
    ));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

fn ask(name: &str, kind: RecordType) -> Request {
    read(&message(name, kind, None).to_vec().unwrap(), &zone())
}

fn question(kind: RecordType, payload: Option<u16>) -> Question {
    let bytes = message("Web.shop.svc.cluster.local.", kind, payload)
        .to_vec()
        .unwrap();
    match read(&bytes, &zone()) {
        Request::Ask(question) => question,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_names_that_can_be_services_are_looked_up() {
    for (name, ours) in [
        (
            "web.shop.svc.cluster.local.",
            Some("web.shop.svc.cluster.local"),
        ),
        (
            "WEB.Shop.SVC.cluster.LOCAL.",
            Some("web.shop.svc.cluster.local"),
        ),
        (
            "db-0.db.shop.svc.cluster.local.",
            Some("db-0.db.shop.svc.cluster.local"),
        ),
        ("shop.svc.cluster.local.", None),
        ("svc.cluster.local.", None),
        ("www.example.com.shop.svc.cluster.local.", None),
        ("_http.web.shop.svc.cluster.local.", None),
        ("web.shop.svc.", None),
        ("web.shop.", None),
        ("web.", None),
        ("example.com.", None),
        ("10-0-0-1.shop.pod.cluster.local.", None),
        (".", None),
    ] {
        match (ask(name, RecordType::A), ours) {
            (Request::Ask(question), Some(ours)) => assert_eq!(question.name.as_str(), ours),
            (Request::Forward, None) => {}
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn only_addresses_are_answered() {
    for kind in [
        RecordType::SRV,
        RecordType::PTR,
        RecordType::TXT,
        RecordType::ANY,
        RecordType::HTTPS,
    ] {
        assert!(matches!(
            ask("web.shop.svc.cluster.local.", kind),
            Request::Forward
        ));
    }
    let mut chaos = message("web.shop.svc.cluster.local.", RecordType::A, None);
    chaos.queries[0].query_class = DNSClass::CH;
    assert!(matches!(
        read(&chaos.to_vec().unwrap(), &zone()),
        Request::Forward
    ));
}

#[test]
fn what_is_no_query_is_refused_or_ignored() {
    let code = |bytes: &[u8]| match read(bytes, &zone()) {
        Request::Reply(reply) => Some(Message::from_vec(&reply).unwrap().metadata.response_code),
        _ => None,
    };
    let good = message("a.", RecordType::A, None);
    let mut notify = good.clone();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify.to_vec().unwrap()), Some(ResponseCode::NotImp));
    let mut empty = good.clone();
    empty.queries.clear();
    assert_eq!(code(&empty.to_vec().unwrap()), Some(ResponseCode::FormErr));
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    assert!(matches!(read(&response, &zone()), Request::Ignore));
    assert!(matches!(read(b"short", &zone()), Request::Ignore));
}

#[test]
fn answers_have_the_family_asked_for() {
    let addresses: Vec<IpAddr> = ["10.0.0.1", "fd00::1", "10.0.0.2"]
        .map(|a| a.parse().unwrap())
        .into();
    let answer = |kind, start| {
        let bytes = question(kind, None)
            .answer(&addresses, Transport::Udp, start)
            .unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert!(message.edns.is_none());
        assert_eq!(
            message.queries[0].name.to_ascii(),
            "Web.shop.svc.cluster.local."
        );
        let found: Vec<String> = message
            .answers
            .iter()
            .map(|r| r.data.ip_addr().unwrap().to_string())
            .collect();
        found.join(" ")
    };
    assert_eq!(answer(RecordType::A, 0), "10.0.0.1 10.0.0.2");
    assert_eq!(answer(RecordType::A, 1), "10.0.0.2 10.0.0.1");
    assert_eq!(answer(RecordType::AAAA, usize::MAX), "fd00::1");
    let none = question(RecordType::AAAA, None)
        .answer(&addresses[..1], Transport::Udp, 0)
        .unwrap();
    assert!(Message::from_vec(&none).unwrap().answers.is_empty());
}

#[test]
fn large_answers_are_cut_short_over_udp_only() {
    let many: Vec<IpAddr> = (0..=255u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let answer = |payload, transport, addresses: &[IpAddr]| {
        let bytes = question(RecordType::A, payload)
            .answer(addresses, transport, 0)
            .unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.edns.is_some(), payload.is_some());
        (message.metadata.truncation, message.answers.len())
    };
    assert_eq!(answer(None, Transport::Udp, &many), (true, 0));
    assert_eq!(answer(Some(65535), Transport::Udp, &many), (true, 0));
    assert_eq!(answer(None, Transport::Tcp, &many), (false, 256));
    assert_eq!(answer(None, Transport::Udp, &many[..29]), (false, 29));
    assert_eq!(answer(None, Transport::Udp, &many[..30]), (true, 0));
    assert_eq!(answer(Some(1232), Transport::Udp, &many[..60]), (false, 60));
    // A limit below 512 means 512 (RFC 6891, 6.2.3).
    assert_eq!(answer(Some(100), Transport::Udp, &many[..27]), (false, 27));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let addresses = [IpAddr::from([10, 0, 0, 1])];
        let _ = udp_limit(&bytes);
        if let Request::Ask(question) = read(&bytes, &zone()) {
            prop_assert!(question.answer(&addresses, Transport::Udp, 0).is_some());
        }
    }

    #[test]
    fn damaged_queries_do_not_make_it_panic(at in 0usize..60, with in any::<u8>()) {
        let mut bytes = message("web.shop.svc.cluster.local.", RecordType::A, Some(1232)).to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Request::Ask(question) = read(&bytes, &zone()) {
            prop_assert!(question.answer(&[], Transport::Udp, 0).is_some());
        }
    }
}
