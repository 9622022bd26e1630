//! Tables on what the rules mean, and properties that hold for every configuration.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::config::tests::config;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

const APP: (u32, u32) = (1000, 1000);
const PROXY: (u32, u32) = (1337, 1337);
const POD: &str = "10.244.1.5:8080";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A packet from `source` out of `interface`, by `owner`.
fn out(interface: &str, owner: (u32, u32), source: &str, destination: &str) -> Packet {
    Packet {
        hook: Hook::Output,
        interface: interface.to_owned(),
        transport: Transport::Tcp,
        source: address(source),
        destination: address(destination),
        owner,
    }
}

/// The application to somewhere by eth0.
fn app_to(destination: &str) -> Packet {
    let source = if destination.starts_with('[') {
        "[fd77::5]:40000"
    } else {
        "10.244.1.5:40000"
    };
    out("eth0", APP, source, destination)
}

fn arriving(interface: &str, destination: &str) -> Packet {
    let source = if destination.starts_with('[') {
        "[fd77::9]:40000"
    } else {
        "10.244.1.9:40000"
    };
    Packet {
        hook: Hook::Prerouting,
        owner: (0, 0),
        ..out(interface, APP, source, destination)
    }
}

fn udp(packet: Packet) -> Packet {
    Packet {
        transport: Transport::Udp,
        ..packet
    }
}

fn fate(flags: &str, packet: &Packet) -> Option<u16> {
    Ruleset::new(&config(flags), true).evaluate(packet).redirect
}

#[test]
fn defaults_capture_both_ways_and_exempt_the_sidecar() {
    for (packet, expected) in [
        (app_to("10.96.0.10:80"), Some(15001)),
        (app_to("[fd77:96::10]:80"), Some(15001)),
        (udp(app_to("10.96.0.10:80")), None),
        (udp(app_to("10.96.0.10:53")), None),
        (app_to("10.96.0.10:53"), Some(15001)),
        (arriving("eth0", POD), Some(15006)),
        (arriving("eth0", "[fd77::5]:8080"), Some(15006)),
        (udp(arriving("eth0", POD)), None),
        (arriving("eth0", "10.244.1.5:15020"), None),
        (out("eth0", PROXY, "10.244.1.5:1", "10.96.0.10:80"), None),
        (
            out("eth0", (1337, 0), "10.244.1.5:1", "10.96.0.10:80"),
            None,
        ),
        (
            out("eth0", (0, 1337), "10.244.1.5:1", "10.96.0.10:80"),
            None,
        ),
        (
            out("eth0", (0, 0), "10.244.1.5:1", "10.96.0.10:80"),
            Some(15001),
        ),
    ] {
        assert_eq!(fate("", &packet), expected, "{packet:?}");
    }
}

/// The application calls itself: directly, and by its own Service through both sides of the sidecar.
#[test]
fn the_four_legs_of_a_call_to_oneself() {
    for (pod, local, inbound_source) in [
        ("10.244.1.5", "127.0.0.1", "127.0.0.6:1"),
        ("[fd77::5]", "[::1]", "[::6]:1"),
    ] {
        let at = |ip: &str, port: u16| format!("{ip}:{port}");
        for (leg, packet, expected) in [
            (
                "localhost",
                out("lo", APP, &at(local, 1), &at(local, 8080)),
                None,
            ),
            (
                "own address",
                out("lo", APP, &at(pod, 1), &at(pod, 8080)),
                None,
            ),
            (
                "own Service",
                app_to(if pod.starts_with('[') {
                    "[fd77:96::1]:80"
                } else {
                    "10.96.0.1:80"
                }),
                Some(15001),
            ),
            (
                "outbound side to own pod",
                out("lo", PROXY, &at(pod, 1), &at(pod, 8080)),
                Some(15006),
            ),
            (
                "inbound side to the application",
                out("lo", PROXY, inbound_source, &at(pod, 8080)),
                None,
            ),
            (
                "inbound side to localhost",
                out("lo", PROXY, inbound_source, &at(local, 8080)),
                None,
            ),
            (
                "outbound side to a skipped port",
                out("lo", PROXY, &at(pod, 1), &at(pod, 15020)),
                None,
            ),
            (
                "sidecar to its admin port",
                out("lo", PROXY, &at(local, 1), &at(local, 15000)),
                None,
            ),
        ] {
            assert_eq!(fate("", &packet), expected, "{leg}: {packet:?}");
        }
    }
}

#[test]
fn inbound_ports() {
    for (flags, port, expected) in [
        ("--include-inbound-ports 80,8000-8099", 8000, Some(15006)),
        ("--include-inbound-ports 80,8000-8099", 8099, Some(15006)),
        ("--include-inbound-ports 80,8000-8099", 8100, None),
        ("--include-inbound-ports=", 80, None),
        ("--skip-inbound-ports 9090", 9090, None),
        ("--skip-inbound-ports 9090", 15020, None),
        ("--skip-inbound-ports 9090", 80, Some(15006)),
        (
            "--include-inbound-ports 80 --skip-inbound-ports 80",
            80,
            None,
        ),
        ("--include-inbound-ports 15020", 15020, None),
    ] {
        let to = format!("10.244.1.5:{port}");
        assert_eq!(
            fate(flags, &arriving("eth0", &to)),
            expected,
            "{flags} {port}"
        );
        // What arrives from the own outbound side is treated alike.
        let own = out("lo", PROXY, "10.244.1.5:1", &to);
        assert_eq!(
            fate(flags, &own),
            expected,
            "{flags} {port} from the pod itself"
        );
    }
}

#[test]
fn outbound_ports_networks_and_interfaces() {
    for (flags, destination, expected) in [
        ("--include-outbound-ports 80", "10.96.0.1:80", Some(15001)),
        ("--include-outbound-ports 80", "10.96.0.1:81", None),
        ("--skip-outbound-ports 25,6000-6010", "10.96.0.1:6005", None),
        (
            "--skip-outbound-ports 25,6000-6010",
            "10.96.0.1:80",
            Some(15001),
        ),
        (
            "--include-outbound-ports 80 --skip-outbound-ports 80",
            "10.96.0.1:80",
            None,
        ),
        (
            "--include-outbound-cidrs 10.0.0.0/8",
            "10.96.0.1:80",
            Some(15001),
        ),
        ("--include-outbound-cidrs 10.0.0.0/8", "192.0.2.1:80", None),
        ("--include-outbound-cidrs 10.0.0.0/8", "[fd77::9]:80", None),
        (
            "--include-outbound-cidrs fd00::/8",
            "[fd77::9]:80",
            Some(15001),
        ),
        ("--include-outbound-cidrs=", "10.96.0.1:80", None),
        ("--skip-outbound-cidrs 10.96.0.0/16", "10.96.0.1:80", None),
        (
            "--skip-outbound-cidrs 10.96.0.0/16",
            "10.97.0.1:80",
            Some(15001),
        ),
        (
            "--skip-outbound-cidrs 10.96.0.0/16",
            "[fd77::9]:80",
            Some(15001),
        ),
        (
            "--include-outbound-cidrs 10.0.0.0/8 --skip-outbound-cidrs 10.96.0.0/16",
            "10.96.0.1:80",
            None,
        ),
        (
            "--include-outbound-cidrs 10.0.0.0/8 --include-outbound-ports 80",
            "10.96.0.1:81",
            None,
        ),
        ("--exclude-interfaces eth0", "10.96.0.1:80", None),
        ("--exclude-interfaces eth*", "10.96.0.1:80", None),
        ("--exclude-interfaces net1", "10.96.0.1:80", Some(15001)),
    ] {
        assert_eq!(
            fate(flags, &app_to(destination)),
            expected,
            "{flags} {destination}"
        );
    }
    assert_eq!(
        fate("--exclude-interfaces net1", &arriving("net1", POD)),
        None
    );
    assert_eq!(
        fate("--exclude-interfaces net1", &arriving("eth0", POD)),
        Some(15006)
    );
}

#[test]
fn dns_capture_and_its_zones() {
    let dns = "--capture-dns --skip-outbound-cidrs 10.9.0.0/16 --exclude-interfaces net1 --include-outbound-ports 80";
    let ruleset = Ruleset::new(&config(dns), true);
    let query = "10.96.0.10:53";
    for (what, packet, redirect, zone) in [
        ("query", udp(app_to(query)), Some(15053), 0),
        ("query by TCP", app_to(query), Some(15053), 0),
        (
            "query by IPv6",
            udp(app_to("[fd77:96::a]:53")),
            Some(15053),
            0,
        ),
        (
            "query within the pod",
            udp(out("lo", APP, "127.0.0.1:9", "127.0.0.1:53")),
            None,
            0,
        ),
        (
            "the sidecar's query",
            udp(out("eth0", PROXY, "10.244.1.5:9", query)),
            None,
            DNS_ZONE,
        ),
        (
            "the sidecar's query by group",
            udp(out("eth0", (0, 1337), "10.244.1.5:9", query)),
            None,
            DNS_ZONE,
        ),
        (
            "query to a skipped network",
            udp(app_to("10.9.0.1:53")),
            None,
            DNS_ZONE,
        ),
        (
            "query by a skipped interface",
            udp(out("net1", APP, "10.1.0.1:9", query)),
            None,
            DNS_ZONE,
        ),
        (
            "server answers a client on 53",
            udp(out("eth0", APP, "10.244.1.5:53", query)),
            None,
            DNS_ZONE,
        ),
        (
            "server answers a client",
            udp(out("eth0", APP, "10.244.1.5:53", "10.244.1.9:999")),
            None,
            0,
        ),
        (
            "the DNS port answers",
            udp(out("lo", PROXY, "127.0.0.1:15053", "10.244.1.5:9")),
            None,
            0,
        ),
        ("other UDP", udp(app_to("10.96.0.10:54")), None, 0),
    ] {
        assert_eq!(
            ruleset.evaluate(&packet),
            Outcome { redirect, zone },
            "{what}"
        );
    }
    let answer = Packet {
        source: address(query),
        ..udp(arriving("eth0", "10.244.1.5:999"))
    };
    assert_eq!(
        ruleset.evaluate(&answer),
        Outcome {
            redirect: None,
            zone: DNS_ZONE
        }
    );
}

#[test]
fn ipv6_off_means_no_rule_for_it() {
    let ruleset = Ruleset::new(
        &config("--capture-dns --skip-outbound-cidrs fd00::/8"),
        false,
    );
    let families = ruleset
        .chains
        .iter()
        .flat_map(|chain| &chain.rules)
        .map(|rule| rule.matches.family());
    assert_eq!(
        families
            .filter(|family| *family == Some(Family::V6))
            .count(),
        0
    );
    assert_eq!(
        ruleset.evaluate(&app_to("[fd77::9]:80")),
        Outcome::default()
    );
    assert_eq!(
        ruleset.evaluate(&app_to("10.0.0.1:80")).redirect,
        Some(15001)
    );
}

#[test]
fn a_chain_comes_after_those_it_jumps_to() {
    let ruleset = Ruleset::new(&config("--capture-dns"), true);
    for (index, chain) in ruleset.chains.iter().enumerate() {
        for rule in &chain.rules {
            if let Verdict::Jump(target) = rule.verdict {
                assert!(
                    ruleset.chains[..index]
                        .iter()
                        .any(|earlier| earlier.name == target)
                );
            }
        }
    }
}

prop_compose! {
    fn any_flags()(
        ports in prop::collection::vec("[1-9][0-9]{0,3}", 4),
        cidrs in prop::collection::vec(0u8..=32, 2),
        all in any::<[bool; 3]>(),
        dns: bool,
    ) -> String {
        let skipped = if ports[3] == "53" { "54" } else { &ports[3] };
        let or_all = |all: bool, other: String| if all { "*".to_owned() } else { other };
        let network = |prefix| Cidr::new(Ipv4Addr::new(10, 244, 1, 5).into(), prefix).unwrap();
        format!(
            "--capture-dns={dns} --include-inbound-ports {} --skip-inbound-ports {} --include-outbound-ports {} \
             --skip-outbound-ports {skipped} --include-outbound-cidrs {} --skip-outbound-cidrs {}",
            or_all(all[0], ports[0].clone()), ports[1], or_all(all[1], ports[2].clone()),
            or_all(all[2], network(cidrs[0]).to_string()), network(cidrs[1]),
        )
    }
}

proptest! {
    #[test]
    fn whatever_the_flags(flags in any_flags(), port in 1u16.., is_udp: bool, ip: u32) {
        let ruleset = Ruleset::new(&config(&flags), true);
        let transport = if is_udp { Transport::Udp } else { Transport::Tcp };
        let fate = |packet: Packet| ruleset.evaluate(&Packet { transport, ..packet }).redirect;
        let anywhere = SocketAddr::from((Ipv4Addr::from_bits(ip), port));
        let to = |packet: Packet| Packet { destination: anywhere, ..packet };
        // Within the pod the application is never touched.
        prop_assert_eq!(fate(to(out("lo", APP, POD, POD))), None);
        // The sidecar never comes back to its outbound or DNS port, and its inbound side to no port at all.
        prop_assert_eq!(fate(to(out("eth0", PROXY, POD, POD))), None);
        prop_assert_eq!(fate(to(out("lo", PROXY, "127.0.0.6:1", POD))), None);
        prop_assert!(matches!(fate(to(out("lo", PROXY, POD, POD))), None | Some(15006)));
        // UDP other than DNS passes.
        if is_udp && port != 53 {
            prop_assert_eq!(fate(to(app_to(POD))), None);
        }
        // Health is reachable.
        prop_assert_eq!(fate(arriving("eth0", "10.244.1.5:15020")), None);
        // A captured query is in another zone than one that is not.
        if is_udp && port == 53 {
            let outcome = ruleset.evaluate(&udp(to(app_to(POD))));
            let plain = flags.contains("--capture-dns=false");
            prop_assert_eq!(outcome.zone, if plain || outcome.redirect.is_some() { 0 } else { DNS_ZONE });
        }
    }
}
