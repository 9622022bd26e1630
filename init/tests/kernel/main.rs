//! The rules in real kernels' hands: every scenario with every back end and both IP versions.
//!
//! Needs root, `ip`, `setpriv`, `iptables` and `nft`. Without root everything here fails, unless
//! `WEFT_SKIP_KERNEL_TESTS=1` says that this is known; `WEFT_SKIP_BACKENDS=iptables-legacy` leaves out a back end
//! that this kernel does not have. Either is announced on standard error.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod net;
mod scenarios;

use net::{APP, At, Net, PROXY, said};
use std::io::Write;
use weft_init::Family;

/// Writes past the capture of the test harness.
fn announce(text: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {text}");
}

/// Whether to run; panics when that is impossible and nobody said to skip.
fn may_run(backend: &str) -> bool {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    if set("WEFT_SKIP_KERNEL_TESTS") == "1" {
        announce("kernel tests of weft-init, by WEFT_SKIP_KERNEL_TESTS");
        return false;
    }
    if set("WEFT_SKIP_BACKENDS")
        .split(',')
        .any(|skipped| skipped == backend)
    {
        announce(&format!(
            "kernel tests of back end {backend}, by WEFT_SKIP_BACKENDS"
        ));
        return false;
    }
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests need root; run them as root, or set WEFT_SKIP_KERNEL_TESTS=1 to go without"
    );
    true
}

macro_rules! for_each_backend_and_version {
    ($($scenario:ident)*) => {
        for_each_backend_and_version! { @backend nftables "nftables" [$($scenario)*] }
        for_each_backend_and_version! { @backend iptables "iptables" [$($scenario)*] }
        for_each_backend_and_version! { @backend iptables_legacy "iptables-legacy" [$($scenario)*] }
    };
    (@backend $module:ident $backend:literal [$($scenario:ident)*]) => {
        mod $module {
            for_each_backend_and_version! { @version v4 V4 $backend [$($scenario)*] }
            for_each_backend_and_version! { @version v6 V6 $backend [$($scenario)*] }
        }
    };
    (@version $module:ident $family:ident $backend:literal [$($scenario:ident)*]) => {
        mod $module {
            $(#[test]
            fn $scenario() {
                if crate::may_run($backend) {
                    crate::scenarios::$scenario($backend, weft_init::Family::$family);
                }
            })*
        }
    };
}

for_each_backend_and_version! {
    outbound_is_redirected_and_the_sidecar_exempt
    inbound_is_redirected_except_health
    included_and_excluded_outbound
    included_and_excluded_inbound
    excluded_interfaces
    within_the_pod_and_through_its_own_service
    dns_is_captured
    dns_by_the_same_port_does_not_come_back
    applying_again_changes_nothing
    clean_removes_all_of_ours_and_nothing_else
    another_configuration_replaces_the_first
    many_at_once
    verify_proves
    verify_finds_what_is_broken
    verify_beside_a_running_sidecar
}

#[test]
fn without_net_admin_the_error_names_it() {
    if !may_run("any") {
        return;
    }
    let net = Net::new();
    for (drop, uid) in [
        (&["--bounding-set=-net_admin"][..], 0),
        (&["--reuid=65534", "--clear-groups"], 65534),
    ] {
        for command in ["apply", "clean"] {
            let output = net
                .command(At::Pod)
                .arg("setpriv")
                .args(drop)
                .arg(net.binary())
                .arg(command)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1));
            let expected = format!(
                "CAP_NET_ADMIN is missing (running as uid {uid}); run weft-init as root with it"
            );
            assert!(said(&output).contains(&expected), "{}", said(&output));
        }
    }
    assert!(!net.dump().contains("WEFT"));
}

#[test]
fn legacy_without_net_raw_names_it() {
    if !may_run("iptables-legacy") {
        return;
    }
    let net = Net::new();
    let output = net
        .command(At::Pod)
        .args(["setpriv", "--bounding-set=-net_raw"])
        .arg(net.binary())
        .args(["apply", "--backend", "iptables-legacy"])
        .output()
        .unwrap();
    assert!(
        said(&output).contains("CAP_NET_RAW is missing (running as uid 0)"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    if !may_run("any") {
        return;
    }
    let net = Net::new();
    for (backend, expected) in [
        (
            "nftables",
            "nft not found in PATH; install the package \"nftables\"",
        ),
        (
            "iptables",
            "iptables-nft-save not found in PATH; install the package \"iptables\"",
        ),
        (
            "iptables-legacy",
            "iptables-legacy-restore not found in PATH; install the package \"iptables\"",
        ),
        (
            "auto",
            "no back end works here:\n  - back end nftables: nft not found in PATH",
        ),
    ] {
        let output = net
            .command(At::Pod)
            .args(["/usr/bin/env", "PATH=/nonexistent"])
            .arg(net.binary())
            .args(["apply", "--backend", backend])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains(expected),
            "{backend}: {}",
            said(&output)
        );
    }
}

#[test]
fn auto_falls_back_to_the_programs_that_are_there() {
    if !may_run("iptables") {
        return;
    }
    let net = Net::new();
    assert!(net.weft_ok("apply").contains("back end nftables"));
    let directory = net.binary().with_file_name("bin");
    std::fs::create_dir(&directory).unwrap();
    for name in [
        "iptables-nft-restore",
        "iptables-nft-save",
        "ip6tables-nft-restore",
        "ip6tables-nft-save",
    ] {
        std::os::unix::fs::symlink(format!("/usr/sbin/{name}"), directory.join(name)).unwrap();
    }
    let output = net
        .command(At::Pod)
        .args(["/usr/bin/env", &format!("PATH={}", directory.display())])
        .arg(net.binary())
        .arg("apply")
        .output()
        .unwrap();
    assert!(
        said(&output).contains("rules in force by back end iptables"),
        "{}",
        said(&output)
    );
}

#[test]
fn another_back_end_takes_over() {
    if !may_run("iptables-legacy") {
        return;
    }
    let net = Net::new();
    let mut previous = None;
    for backend in ["iptables-legacy", "nftables", "iptables", "iptables-legacy"] {
        let told = net.weft_ok(&format!("apply --capture-dns --backend {backend}"));
        if let Some(previous) = previous {
            assert!(
                told.contains(&format!("removed older rules of back end {previous}")),
                "{told}"
            );
        }
        assert!(
            net.weft_ok("verify --capture-dns")
                .contains(&format!("complete in back end {backend}, ipv4 and ipv6"))
        );
        previous = Some(backend);
    }
}

#[test]
fn ipv6_auto_follows_the_namespace_and_off_is_said() {
    if !may_run("iptables") {
        return;
    }
    let net = Net::new();
    assert!(net.weft_ok("apply").contains(", ipv4 and ipv6:"));
    // IPv6 that does not reach beyond the link is captured all the same, and missed when it is not.
    let local = Net::new();
    local.run("ip addr del fd77:9::2/64 dev eth0");
    local.run("ip addr del fd78:9::2/64 dev net1");
    assert!(
        local
            .weft_ok("apply --backend iptables")
            .contains(", ipv4 and ipv6:")
    );
    assert!(
        local
            .weft_ok("verify")
            .contains("complete in back end iptables, ipv4 and ipv6")
    );
    local.run("ip6tables-nft -w -t nat -F WEFT_OUTPUT");
    assert!(said(&local.weft("verify")).contains("ipv6 table nat, chain WEFT_OUTPUT: 0 rules"));
    assert!(
        net.weft_ok("apply --ipv6 off")
            .contains("warning: IPv6 is not captured, as configured")
    );
    net.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let told = net.weft_ok("apply");
    assert!(
        told.contains(", ipv4: outbound") && !told.contains("warning"),
        "{told}"
    );
    assert!(!net.weft("apply --ipv6 on").status.success());
    net.weft_ok("apply");
    net.weft_ok("verify");
    net.weft_ok("clean");
}

#[test]
fn verify_without_rules_or_as_the_sidecar_fails() {
    if !may_run("any") {
        return;
    }
    let net = Net::new();
    let output = net.weft("verify");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("there are no rules of Weft in this network namespace"),
        "{}",
        said(&output)
    );
    net.weft_ok("apply --proxy-uid 4711 --proxy-gid 4711");
    let output = net.weft("verify");
    assert!(
        said(&output).contains("FAILED   ipv4 exemption"),
        "{}",
        said(&output)
    );
    net.run("ip link set lo down");
    assert!(said(&net.weft("verify --proxy-uid 4711 --proxy-gid 4711")).contains("lo is down"));
}

#[test]
fn a_dry_run_is_for_everybody_and_its_output_for_nft() {
    if !may_run("nftables") {
        return;
    }
    let net = Net::new();
    let before = net.dump();
    let output = net
        .command(At::Pod)
        .args(["setpriv", "--reuid=65534", "--clear-groups"])
        .arg(net.binary())
        .args([
            "apply",
            "--dry-run",
            "--capture-dns",
            "--backend",
            "nftables",
            "--ipv6",
            "off",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(net.dump(), before);
    let file = net.binary().with_file_name("rules.nft");
    std::fs::write(&file, &output.stdout).unwrap();
    net.run(&format!("nft -f {}", file.display()));
    assert!(
        net.weft_ok("verify --capture-dns --ipv6 off")
            .contains("complete in back end nftables")
    );
}

#[test]
fn wrong_usage_is_status_2_and_names_every_flag() {
    if !may_run("any") {
        return;
    }
    let net = Net::new();
    let output = net
        .command(At::Pod)
        .args(["/usr/bin/env", "WEFT_INIT_SKIP_INBOUND_PORTS=http"])
        .arg(net.binary())
        .args(["apply", "--dns-port", "15001"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = net.weft("apply --ipv6 perhaps --proxy-uid 0");
    assert_eq!(output.status.code(), Some(2));
    let told = said(&output);
    assert!(
        told.contains("--ipv6 (WEFT_INIT_IPV6)")
            && told.contains("--proxy-uid (WEFT_INIT_PROXY_UID)"),
        "{told}"
    );
}

#[test]
fn ipv6_source_address_is_bindable_but_never_chosen() {
    if !may_run("any") {
        return;
    }
    let mut net = Net::new();
    net.weft_ok("apply");
    net.listen(At::Peer, "[::]:80", "far");
    // With no other global address, source selection would otherwise take ::6.
    net.run("ip addr del fd77:9::2/64 dev eth0");
    net.run("ip addr del fd78:9::2/64 dev net1");
    let told = net.dial(At::Pod, PROXY, "[fd78:9::1]:80 --timeout-ms 200");
    assert!(!told.contains("from ::6"), "{told}");
    net.listen(At::Pod, "[::1]:8080", "app");
    let told = net.dial(At::Pod, APP, "[::1]:8080");
    assert_eq!(told, "app [::1]:8080 from ::1");
    assert_eq!(Family::V6.inbound_source().to_string(), "::6");
}
