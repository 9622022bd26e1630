//! Tables on the checking of flags, and the configuration builder the other modules' tests use.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
}

/// The flags of a command line, over the defaults.
pub(crate) fn flags(line: &str) -> Flags {
    let words = std::iter::once("weft-init").chain(line.split_whitespace());
    Command::try_parse_from(words).unwrap().flags
}

/// The checked configuration of a command line.
pub(crate) fn config(line: &str) -> Config {
    Config::check(&flags(line)).unwrap()
}

#[test]
fn defaults() {
    let config = config("");
    assert_eq!(
        (config.outbound_port, config.inbound_port, config.dns_port),
        (15001, 15006, 15053)
    );
    assert_eq!((config.proxy_uid, config.proxy_gid), (1337, 1337));
    assert_eq!(config.skip_inbound_ports.to_string(), "15020");
    assert_eq!(config.include_outbound_cidrs, CidrSet::All);
    assert!(!config.capture_dns);
    assert_eq!(
        (config.backend, config.ipv6),
        (BackendChoice::Auto, Ipv6Choice::Auto)
    );
}

#[test]
fn switches_take_an_optional_value() {
    assert!(config("--capture-dns").capture_dns);
    assert!(!config("--capture-dns=false").capture_dns);
}

#[test]
fn all_mistakes_at_once_each_with_its_flag_and_what_would_be_right() {
    let line = "--backend ipchains --outbound-port 0 --proxy-uid 0 --proxy-gid x --skip-inbound-ports 1,a \
                --include-outbound-cidrs 10.1.2.3/8 --exclude-interfaces a/b --ipv6 maybe --capture-dns=perhaps";
    let mistakes = Config::check(&flags(line)).unwrap_err();
    let shown: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "--backend (WEFT_INIT_BACKEND): \"ipchains\" is no back end; use auto, iptables, iptables-legacy or nftables",
            "--outbound-port (WEFT_INIT_OUTBOUND_PORT): \"0\" is not a port between 1 and 65535; give one port, for example 15001",
            "--proxy-uid (WEFT_INIT_PROXY_UID): 0 would exempt everything that runs as root; give the sidecar's own number, for example 1337",
            "--proxy-gid (WEFT_INIT_PROXY_GID): \"x\" is not a number between 1 and 4294967294; give the sidecar's own number, for example 1337",
            "--skip-inbound-ports (WEFT_INIT_SKIP_INBOUND_PORTS): \"a\" is not a port between 1 and 65535; give ports or ranges such as 80,8000-8099",
            "--include-outbound-cidrs (WEFT_INIT_INCLUDE_OUTBOUND_CIDRS): \"10.1.2.3/8\" has bits after its prefix; the network is 10.0.0.0/8; give * or networks such as 10.0.0.0/8,fd00::/8",
            "--exclude-interfaces (WEFT_INIT_EXCLUDE_INTERFACES): \"a/b\" contains '/', which no interface name may; give names or prefixes such as net1,docker*",
            "--capture-dns (WEFT_INIT_CAPTURE_DNS): \"perhaps\" is neither true nor false; use true or false",
            "--ipv6 (WEFT_INIT_IPV6): \"maybe\" is none of its values; use auto, on or off",
        ]
    );
}

#[test]
fn contradictions_come_with_the_rest() {
    let mistakes = Config::check(&flags("--dns-port 15001 --ipv6 x --inbound-port 0")).unwrap_err();
    let named: Vec<_> = mistakes.iter().map(|mistake| mistake.flag).collect();
    assert_eq!(named, ["inbound-port", "ipv6", "dns-port"]);
}

#[test]
fn flags_that_contradict_each_other() {
    for (line, expected) in [
        (
            "--inbound-port 15001",
            "--inbound-port (WEFT_INIT_INBOUND_PORT): 15001 is already the outbound-port; give each its own port",
        ),
        (
            "--dns-port 15006",
            "--dns-port (WEFT_INIT_DNS_PORT): 15006 is already the inbound-port; give each its own port",
        ),
        (
            "--outbound-port 15020",
            "--outbound-port (WEFT_INIT_OUTBOUND_PORT): 15020 is already the health port; give each its own port",
        ),
        (
            "--capture-dns --skip-outbound-ports 50-60",
            "--skip-outbound-ports (WEFT_INIT_SKIP_OUTBOUND_PORTS): 53 is skipped, yet --capture-dns asks for it; leave out 53, or leave out --capture-dns",
        ),
    ] {
        let mistakes = Config::check(&flags(line)).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{line}");
        assert_eq!(mistakes[0].to_string(), expected);
    }
}
