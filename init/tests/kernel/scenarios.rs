//! What must hold with every back end and for both IP versions. Run by the macro in `main.rs`.

use crate::net::{APP, At, Net, PROXY, addresses, said};
use weft_init::Family;

const ROOT: (u32, u32) = (0, 0);

/// A pod with rules, a sidecar's listeners and an application on 8080; and the world on 80, 81 and 8080.
fn net(backend: &str, family: Family, flags: &str) -> Net {
    let mut net = Net::new();
    apply(&net, backend, flags);
    let any = if family == Family::V4 {
        "0.0.0.0"
    } else {
        "[::]"
    };
    let local = addresses(family).local;
    net.listen(At::Pod, &format!("{any}:15001"), "outbound");
    net.listen(At::Pod, &format!("{any}:15006"), "inbound");
    net.listen(At::Pod, &format!("{any}:15020"), "health");
    net.listen(At::Pod, &format!("{local}:15053"), "dns");
    net.listen_udp(At::Pod, &format!("{local}:15053"), "dns");
    net.listen(At::Pod, &format!("{any}:8080"), "app");
    net.listen(At::Pod, &format!("{any}:8081"), "app");
    for port in [53, 80, 81, 8080] {
        net.listen(At::Peer, &format!("{any}:{port}"), "far");
    }
    net
}

fn apply(net: &Net, backend: &str, flags: &str) {
    let told = net.weft_ok(&format!("apply --backend {backend} {flags}"));
    assert!(
        told.contains(&format!(
            "rules in force by back end {backend}, ipv4 and ipv6"
        )),
        "{told}"
    );
}

/// The listener that a dial reaches, and the destination it names.
#[track_caller]
fn reaches(net: &Net, at: At, user: (u32, u32), target: &str, expected: &str) {
    let told = net.dial(at, user, target);
    assert!(
        told.starts_with(expected),
        "{at:?} {user:?} to {target}: \"{told}\" instead of \"{expected}\""
    );
}

pub(crate) fn outbound_is_redirected_and_the_sidecar_exempt(backend: &str, family: Family) {
    let net = net(backend, family, "");
    let far = format!("{}:80", addresses(family).far);
    for user in [APP, ROOT] {
        reaches(&net, At::Pod, user, &far, &format!("outbound {far} from"));
    }
    for user in [PROXY, (1337, 0), (0, 1337), (1337, 1000), (1000, 1337)] {
        reaches(&net, At::Pod, user, &far, &format!("far {far} from"));
    }
}

pub(crate) fn inbound_is_redirected_except_health(backend: &str, family: Family) {
    let net = net(backend, family, "");
    let pod = addresses(family).pod;
    for user in [APP, PROXY] {
        reaches(
            &net,
            At::Peer,
            user,
            &format!("{pod}:8080"),
            &format!("inbound {pod}:8080 from"),
        );
        reaches(
            &net,
            At::Peer,
            user,
            &format!("{pod}:4711"),
            &format!("inbound {pod}:4711 from"),
        );
        reaches(&net, At::Peer, user, &format!("{pod}:15020"), "health");
    }
}

pub(crate) fn included_and_excluded_outbound(backend: &str, family: Family) {
    let net = net(backend, family, "--skip-outbound-ports 81,8000-8100");
    let to = addresses(family);
    let (far, other, other_net) = (to.far, to.other, to.other_net);
    let expect = |target: String, by: &str| reaches(&net, At::Pod, APP, &target, by);
    expect(format!("{far}:80"), "outbound");
    expect(format!("{far}:81"), "far");
    expect(format!("{far}:8080"), "far");
    apply(&net, backend, "--include-outbound-ports 81,8000-8100");
    expect(format!("{far}:80"), "far");
    expect(format!("{far}:81"), "outbound");
    expect(format!("{far}:8080"), "outbound");
    apply(&net, backend, &format!("--skip-outbound-cidrs {other_net}"));
    expect(format!("{far}:80"), "outbound");
    expect(format!("{other}:80"), "far");
    apply(
        &net,
        backend,
        &format!("--include-outbound-cidrs {other_net} --include-outbound-ports 80"),
    );
    expect(format!("{far}:80"), "far");
    expect(format!("{other}:80"), "outbound");
    expect(format!("{other}:81"), "far");
    apply(&net, backend, "--include-outbound-cidrs 0.0.0.0/0,::/0");
    expect(format!("{far}:80"), "outbound");
    apply(&net, backend, "--include-outbound-cidrs=");
    expect(format!("{far}:80"), "far");
}

pub(crate) fn included_and_excluded_inbound(backend: &str, family: Family) {
    let net = net(backend, family, "--skip-inbound-ports 8081");
    let pod = addresses(family).pod;
    let expect = |port: u16, by: &str| reaches(&net, At::Peer, APP, &format!("{pod}:{port}"), by);
    expect(8080, "inbound");
    expect(8081, "app");
    // The own outbound side finds a skipped port as any other pod does.
    reaches(&net, At::Pod, PROXY, &format!("{pod}:8081"), "app");
    apply(&net, backend, "--include-inbound-ports 8081-8085");
    expect(8080, "app");
    expect(8081, "inbound");
    apply(&net, backend, "--include-inbound-ports=");
    expect(8081, "app");
}

pub(crate) fn excluded_interfaces(backend: &str, family: Family) {
    let net = net(backend, family, "--exclude-interfaces net1");
    let to = addresses(family);
    for flags in ["--exclude-interfaces net1", "--exclude-interfaces ne*"] {
        apply(&net, backend, flags);
        reaches(&net, At::Pod, APP, &format!("{}:80", to.peer_net1), "far");
        reaches(&net, At::Pod, APP, &format!("{}:80", to.far), "outbound");
        reaches(&net, At::Peer, APP, &format!("{}:8080", to.pod_net1), "app");
        reaches(&net, At::Peer, APP, &format!("{}:8080", to.pod), "inbound");
    }
    apply(&net, backend, "");
    reaches(
        &net,
        At::Pod,
        APP,
        &format!("{}:80", to.peer_net1),
        "outbound",
    );
    reaches(
        &net,
        At::Peer,
        APP,
        &format!("{}:8080", to.pod_net1),
        "inbound",
    );
}

pub(crate) fn within_the_pod_and_through_its_own_service(backend: &str, family: Family) {
    let net = net(backend, family, "--capture-dns");
    let to = addresses(family);
    let (pod, local) = (to.pod, to.local);
    // 1. Directly: never touched.
    for user in [APP, ROOT] {
        reaches(
            &net,
            At::Pod,
            user,
            &format!("{pod}:8080"),
            &format!("app {pod}:8080"),
        );
        reaches(
            &net,
            At::Pod,
            user,
            &format!("{local}:8080"),
            &format!("app {local}:8080"),
        );
    }
    // 2. Through the Service's address, which is nobody's: the outbound side gets it ...
    let service = format!("{}:80", to.other);
    reaches(&net, At::Pod, APP, &service, &format!("outbound {service}"));
    // 3. ... dials the own pod, and so comes to the inbound side ...
    reaches(
        &net,
        At::Pod,
        PROXY,
        &format!("{pod}:8080"),
        &format!("inbound {pod}:8080"),
    );
    // 4. ... which dials the application, by its pod's address or localhost.
    let source = family.inbound_source();
    for ip in [pod, local] {
        let target = format!("{ip}:8080 --from {source}");
        reaches(
            &net,
            At::Pod,
            PROXY,
            &target,
            &format!("app {ip}:8080 from {source}"),
        );
    }
    // 5. What the sidecar sends to localhost is meant for it.
    reaches(&net, At::Pod, PROXY, &format!("{local}:8080"), "app");
}

pub(crate) fn dns_is_captured(backend: &str, family: Family) {
    let mut net = net(backend, family, "--capture-dns --include-outbound-ports 80");
    let to = addresses(family);
    let far = format!("{}:53", to.far);
    // Bound to the very addresses, or the answers would come from another.
    net.listen_udp(At::Peer, &far, "far");
    net.listen_udp(At::Peer, &format!("{}:53", to.other), "far");
    net.listen_udp(At::Pod, &format!("{}:53", to.local), "own");
    reaches(&net, At::Pod, APP, &format!("{far} --udp"), "dns from");
    reaches(&net, At::Pod, APP, &far, &format!("dns {far} from"));
    reaches(&net, At::Pod, PROXY, &format!("{far} --udp"), "far from");
    reaches(&net, At::Pod, PROXY, &far, "far");
    reaches(
        &net,
        At::Pod,
        APP,
        &format!("{}:53 --udp", to.local),
        "own from",
    );
    apply(
        &net,
        backend,
        &format!("--capture-dns --skip-outbound-cidrs {}", to.other_net),
    );
    reaches(
        &net,
        At::Pod,
        APP,
        &format!("{}:53 --udp", to.other),
        "far from",
    );
    reaches(&net, At::Pod, APP, &format!("{far} --udp"), "dns from");
    apply(&net, backend, "");
    // From a port of its own: the kernel remembers the flows above for a while.
    reaches(
        &net,
        At::Pod,
        APP,
        &format!("{far} --udp --from-port 30053"),
        "far from",
    );
    reaches(&net, At::Pod, APP, &far, &format!("outbound {far}"));
}

/// What the conntrack zone is for, see `rules::build`.
pub(crate) fn dns_by_the_same_port_does_not_come_back(backend: &str, family: Family) {
    let mut net = net(backend, family, "--capture-dns");
    let to = addresses(family);
    net.listen_udp(At::Peer, &format!("{}:53", to.far), "far");
    let target = format!("{}:53 --udp --from-port 30001", to.far);
    for _ in 0..2 {
        reaches(&net, At::Pod, APP, &target, "dns from");
        reaches(&net, At::Pod, PROXY, &target, "far from");
    }
    // A DNS server in the pod answers a client that asks from port 53.
    net.listen_udp(At::Pod, &format!("{}:53", to.pod), "server");
    let client = format!("{}:53 --udp --from-port 30053", to.pod);
    reaches(&net, At::Peer, APP, &client, "server from");
    let client = format!(
        "{}:53 --udp --from {} --from-port 53",
        to.pod,
        to.other.trim_matches(['[', ']'])
    );
    reaches(&net, At::Peer, (0, 0), &client, "server from");
}

/// Rules of others, for all tables we use.
fn foreign_rules(net: &Net, backend: &str) {
    if backend == "nftables" {
        net.run("nft add table inet foreign");
        net.run("nft add chain inet foreign WEFT_LOOKALIKE");
        net.run("nft add table ip weft");
        return;
    }
    for program in ["iptables", "ip6tables"] {
        let program = format!(
            "{program}{}",
            if backend == "iptables" {
                "-nft"
            } else {
                "-legacy"
            }
        );
        for rule in [
            "-t nat -N FOREIGN",
            "-t nat -A FOREIGN -p tcp --dport 9 -j RETURN",
            "-t nat -A OUTPUT -j FOREIGN",
            "-t nat -A PREROUTING -j FOREIGN",
            "-t raw -A OUTPUT -p udp --dport 9 -j ACCEPT",
            "-t raw -A PREROUTING -p udp --dport 9 -j ACCEPT",
            "-t filter -N WEFT_LOOKALIKE",
        ] {
            net.run(&format!("{program} -w {rule}"));
        }
    }
}

pub(crate) fn applying_again_changes_nothing(backend: &str, family: Family) {
    let net = Net::new();
    foreign_rules(&net, backend);
    let ports = "--capture-dns --skip-inbound-ports 1,3,5-9 --exclude-interfaces net1";
    let networks = format!("--skip-outbound-cidrs {}", addresses(family).other_net);
    let flags = format!("{ports} {networks}");
    apply(&net, backend, &flags);
    if backend != "nftables" {
        // A rule behind ours keeps its place.
        let suffix = if backend == "iptables" {
            "nft"
        } else {
            "legacy"
        };
        net.run(&format!(
            "iptables-{suffix} -w -t nat -A OUTPUT -p tcp --dport 10 -j RETURN"
        ));
    }
    let first = net.dump();
    assert!(first.contains("WEFT_OUTPUT") && first.contains("::6/128"));
    for _ in 0..2 {
        apply(&net, backend, &flags);
        assert_eq!(net.dump(), first);
    }
}

pub(crate) fn clean_removes_all_of_ours_and_nothing_else(backend: &str, _family: Family) {
    let net = Net::new();
    foreign_rules(&net, backend);
    let before = net.dump();
    apply(&net, backend, "--capture-dns");
    assert_ne!(net.dump(), before);
    assert!(
        net.weft_ok("clean")
            .contains(&format!("removed the rules of back end {backend}"))
    );
    assert_eq!(net.dump(), before);
    assert!(net.weft_ok("clean").contains("there were no rules of Weft"));
    assert_eq!(net.dump(), before);
}

pub(crate) fn another_configuration_replaces_the_first(backend: &str, _family: Family) {
    let net = Net::new();
    apply(&net, backend, "--skip-outbound-ports 25");
    let first = net.dump();
    apply(
        &net,
        backend,
        "--capture-dns --include-outbound-cidrs 10.0.0.0/8,fd00::/8 --include-inbound-ports 80",
    );
    assert_ne!(net.dump(), first);
    apply(&net, backend, "--skip-outbound-ports 25");
    let again = net.dump();
    // iptables leaves the built-in chains of a table once used.
    let ours = |dump: &str| {
        dump.lines()
            .filter(|line| line.contains("WEFT"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(ours(&again), ours(&first));
}

pub(crate) fn many_at_once(backend: &str, _family: Family) {
    let net = Net::new();
    apply(&net, backend, "--capture-dns");
    let expected = net.dump();
    let line = format!("apply --capture-dns --backend {backend}");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| net.weft_ok(&line));
        }
    });
    assert_eq!(net.dump(), expected);
}

pub(crate) fn verify_proves(backend: &str, family: Family) {
    let net = Net::new();
    apply(&net, backend, "--capture-dns");
    let before = net.dump();
    let told = net.weft_ok(&format!("verify --capture-dns --backend {backend}"));
    let checks = [
        "outbound",
        "exemption",
        "dns udp",
        "dns tcp",
        "inbound",
        "delivery",
        "same pod",
    ];
    for check in checks {
        assert!(
            told.contains(&format!("ok       {family} {check} ")),
            "no {family} {check} in:\n{told}"
        );
    }
    assert!(
        !told.contains("untried") && !told.contains("FAILED"),
        "{told}"
    );
    assert_eq!(net.dump(), before);
}

pub(crate) fn verify_finds_what_is_broken(backend: &str, family: Family) {
    for (chain, broken) in [
        ("WEFT_OUTBOUND", "outbound"),
        ("WEFT_INBOUND", "inbound"),
        ("WEFT_OWN", "inbound"),
    ] {
        let net = Net::new();
        apply(&net, backend, "");
        let program = if family == Family::V4 {
            "iptables"
        } else {
            "ip6tables"
        };
        match backend {
            "nftables" => net.run(&format!("nft flush chain inet weft {chain}")),
            "iptables" => net.run(&format!("{program}-nft -w -t nat -F {chain}")),
            _ => net.run(&format!("{program}-legacy -w -t nat -F {chain}")),
        };
        let output = net.weft("verify");
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains(&format!("chain {chain}: 0 rules instead of")),
            "{told}"
        );
        assert!(
            told.contains(&format!("FAILED   {family} {broken}")),
            "{told}"
        );
        apply(&net, backend, "");
        net.weft_ok("verify");
    }
}

pub(crate) fn verify_beside_a_running_sidecar(backend: &str, family: Family) {
    let net = net(backend, family, "--capture-dns");
    let far = format!("{}:80", addresses(family).far);
    reaches(&net, At::Pod, APP, &far, "outbound");
    reaches(&net, At::Pod, APP, &far, "outbound");
    let told = net.weft_ok("verify --capture-dns");
    assert!(
        told.contains("the sidecar's ports are taken, so it is running"),
        "{told}"
    );
    assert!(
        told.contains("connections redirected so far: 2 outbound, 0 inbound, 0 DNS"),
        "{told}"
    );
}
