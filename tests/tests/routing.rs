//! Routes, retries, timeouts and ejection, seen from a client's side in a running mesh.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use weft_tests::mesh::{Mesh, config_map};
use weft_tests::{suite, wait};

const BASE: &str = include_str!("manifests/base.yaml");
const ECHO: &str = include_str!("manifests/echo.yaml");
const ROUTES: &str = include_str!("manifests/routes.yaml");

fn main() -> ExitCode {
    let server = config_map("app", "server", "server.py", include_str!("data/server.py"));
    suite::run(
        "routing",
        &[BASE, ECHO, &server, ROUTES],
        &[
            ("weights_split_traffic", weights),
            ("headers_and_paths_choose_backends", matches),
            ("filters_edit_rewrite_redirect", filters),
            ("a_mirror_gets_copies_and_changes_nothing", mirror),
            ("retries_hide_failures_and_are_counted", retries),
            ("a_post_body_is_sent_again", retried_body),
            ("the_retry_budget_holds_under_total_failure", budget),
            ("per_try_timeouts_try_elsewhere", per_try_timeout),
            ("the_overall_timeout_ends_it", overall_timeout),
            (
                "a_reset_before_a_response_is_retried_for_get_and_not_for_post",
                resets,
            ),
            ("a_failing_endpoint_is_ejected_and_comes_back", ejection),
            ("errors_of_the_proxy_explain_themselves", errors),
            ("weft_routes_and_endpoints_show_it", tables),
        ],
    )
}

/// How often each version answered.
fn versions(mesh: &Mesh, count: usize, url: &str) -> BTreeMap<String, usize> {
    let script = format!("for i in $(seq {count}); do curl -sS -m 10 {url}; echo; done");
    let mut seen = BTreeMap::new();
    for line in mesh
        .sh("app/client", &script)
        .lines()
        .filter(|l| !l.is_empty())
    {
        let answer: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        *seen
            .entry(answer["version"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    seen
}

fn weights(mesh: &Mesh) {
    mesh.wait_for("app/client", "http://split/");
    let seen = versions(mesh, 400, "http://split/");
    let v1 = seen.get("v1").copied().unwrap_or_default();
    // 80 to 20: the chance that a fair draw leaves 280 to 360 of 400 is below one in ten million.
    assert!((280..=360).contains(&v1), "{seen:?}");
    assert_eq!(seen.values().sum::<usize>(), 400);
}

fn matches(mesh: &Mesh) {
    for (args, version) in [
        (vec!["http://matched/"], "v1"),
        (vec!["http://matched/v2"], "v2"),
        (vec!["http://matched/v2/deeper?x=1"], "v2"),
        (vec!["http://matched/v2example"], "v1"),
        (vec!["-H", "X-Version: two", "http://matched/"], "v2"),
        (vec!["http://matched/?version=two"], "v2"),
        (vec!["http://matched/regex/12"], "v2"),
        (vec!["http://matched/regex/12a"], "v1"),
        (vec!["-X", "DELETE", "http://matched/"], "v2"),
    ] {
        assert_eq!(
            mesh.curl_json("app/client", &args)["version"],
            version,
            "{args:?}"
        );
    }
}

fn filters(mesh: &Mesh) {
    let seen = mesh.curl_json(
        "app/client",
        &[
            "-H",
            "X-Gone: 1",
            "-H",
            "X-Set: old",
            "http://filtered/old/path?q=1",
        ],
    );
    assert_eq!(seen["path"], "/new/path?q=1");
    assert_eq!(seen["headers"]["x-set"], "new");
    assert_eq!(seen["headers"]["x-added"], "yes");
    assert!(seen["headers"].get("x-gone").is_none(), "{seen}");
    assert_eq!(seen["headers"]["host"], "rewritten.example");
    let (status, head) = mesh.curl("app/client", &["-i", "http://filtered/moved/here?q"]);
    assert_eq!(status, 301);
    assert!(
        head.to_lowercase()
            .contains("location: https://example.org/there/here?q"),
        "{head}"
    );
    let (_, head) = mesh.curl("app/client", &["-i", "http://filtered/old/x"]);
    assert!(head.to_lowercase().contains("x-response: set"), "{head}");
}

fn mirror(mesh: &Mesh) {
    let before = mesh.metric("app/echo-v2", "weft_inbound_requests_total", &[]);
    for _ in 0..5 {
        assert_eq!(
            mesh.curl_json("app/client", &["http://mirrored/"])["version"],
            "v1"
        );
    }
    wait::holds("the copies to arrive", Duration::from_secs(5), || {
        mesh.metric("app/echo-v2", "weft_inbound_requests_total", &[]) >= before + 5.0
    });
}

fn retries(mesh: &Mesh) {
    let before = mesh.metric("app/client", "weft_retries_total", &[]);
    let (status, body) = mesh.curl("app/client", &["http://retried/fail-first/2?key=retries"]);
    assert_eq!(status, 200, "{body}");
    assert!(
        mesh.metric("app/client", "weft_retries_total", &[]) >= before + 2.0,
        "the retries were not counted"
    );
    // Without a policy for 503 the client sees it.
    let (status, _) = mesh.curl("app/client", &["http://echo-v1/fail-first/1?key=unretried"]);
    assert_eq!(status, 503);
}

fn retried_body(mesh: &Mesh) {
    let seen = mesh.curl_json(
        "app/client",
        &["-d", "twelve bytes", "http://retried/fail-first/1?key=post"],
    );
    assert_eq!(
        (seen["method"].as_str(), seen["body"].as_u64()),
        (Some("POST"), Some(12))
    );
}

/// A hundred requests at once that all fail: retries stay within the budget of 20 percent and at least ten.
fn budget(mesh: &Mesh) {
    let count = || mesh.metric("app/echo-v1", "weft_inbound_requests_total", &[]);
    let before = count();
    let script = "seq 200 | xargs -P 50 -I{} curl -s -o /dev/null -m 10 -w '%{http_code}\\n' http://budgeted/status/503";
    let answers = mesh.sh("app/client", script);
    assert_eq!(
        answers.lines().filter(|l| *l == "503").count(),
        200,
        "{answers}"
    );
    let arrived = count() - before;
    // Without a budget three retries each would make 800.
    assert!(
        (200.0..=500.0).contains(&arrived),
        "{arrived} requests arrived for 200 sent"
    );
}

fn per_try_timeout(mesh: &Mesh) {
    let started = Instant::now();
    let (status, body) = mesh.curl("app/client", &["-i", "http://timed/sleep/5000"]);
    // Three attempts of 300 ms each, with backoff, and then the time is up.
    assert_eq!(status, 504, "{body}");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(600) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert!(body.to_lowercase().contains("proxy-status"), "{body}");
}

fn overall_timeout(mesh: &Mesh) {
    let started = Instant::now();
    let (status, body) = mesh.curl("app/client", &["http://deadline/sleep/5000"]);
    assert_eq!(status, 504, "{body}");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        mesh.curl("app/client", &["http://deadline/sleep/10"]).0,
        200
    );
}

fn resets(mesh: &Mesh) {
    let count = || mesh.metric("app/echo-v1", "weft_inbound_requests_total", &[]);
    let before = count();
    let (status, body) = mesh.curl("app/client", &["http://echo-v1/reset"]);
    assert!([502, 503].contains(&status), "{status} {body}");
    let gets = count() - before;
    let before = count();
    let (status, _) = mesh.curl("app/client", &["-d", "x", "http://echo-v1/reset"]);
    assert!([502, 503].contains(&status));
    let posts = count() - before;
    assert!(
        gets > posts,
        "a GET was tried {gets} times, a POST {posts} times"
    );
}

fn ejection(mesh: &Mesh) {
    let v1 = mesh.pod("app/echo-v1")["name"].as_str().unwrap().to_owned();
    mesh.sh(&format!("app/{v1}"), "touch /tmp/fail");
    // Five failures in a row eject it; from then on only v2 answers.
    wait::until("v1 to be ejected", Duration::from_secs(20), || {
        let seen = mesh.sh("app/client", "for i in $(seq 20); do curl -s -o /dev/null -m 5 -w '%{http_code} ' http://ejecting/flaky; done");
        if seen.split_whitespace().all(|s| s == "200") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    assert!(mesh.metric("app/client", "weft_ejections_total", &[]) >= 1.0);
    mesh.sh(&format!("app/{v1}"), "rm /tmp/fail");
    wait::until("v1 to come back", Duration::from_secs(30), || {
        let seen = versions(mesh, 10, "http://ejecting/");
        if seen.contains_key("v1") {
            Ok(())
        } else {
            Err(seen)
        }
    });
}

fn errors(mesh: &Mesh) {
    let (status, head) = mesh.curl("app/client", &["-i", "http://nowhere/"]);
    assert_eq!(status, 503, "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("proxy-status: weft"), "{head}");
    assert!(
        lower.contains("app/nowhere/80") || lower.contains("service app/nowhere"),
        "the error does not name its origin: {head}"
    );
    let (status, head) = mesh.curl("app/client", &["-i", "http://matched-only/other"]);
    assert_eq!(status, 404, "{head}");
    assert!(head.to_lowercase().contains("proxy-status"), "{head}");
    let (status, _) = mesh.curl("app/client", &["http://dangling/"]);
    assert_eq!(status, 500);
}

fn tables(mesh: &Mesh) {
    let routes = mesh.json(&["routes", "-n", "app", "client"]);
    let split: Vec<_> = routes
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| {
            r["destination"]
                .as_str()
                .is_some_and(|d| d.starts_with("split"))
        })
        .collect();
    assert_eq!(split.len(), 1, "{routes:#}");
    assert!(
        split[0]["backends"]
            .as_array()
            .is_some_and(|b| b.len() == 2),
        "{}",
        split[0]
    );
    assert_eq!(split[0]["origin"]["kind"], "HTTPRoute");
    assert_eq!(split[0]["acknowledged"], true, "{}", split[0]);
    let endpoints = mesh.json(&["endpoints", "-n", "app", "echo"]);
    assert_eq!(endpoints.as_array().unwrap().len(), 2, "{endpoints:#}");
    let table = weft_tests::programs::run(&mut mesh.weft(&["routes", "-n", "app", "pod/client"]));
    assert!(table.starts_with("DESTINATION"), "{table}");
    let wrong = mesh
        .weft(&["endpoints", "-n", "app", "ecko"])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("echo"),
        "{}",
        String::from_utf8_lossy(&wrong.stderr)
    );
    let explained = mesh.json(&["explain", "-n", "app", "client", "http://matched/v2/x"]);
    assert_eq!(
        explained["result"]["backends"][0]["backend"], "app/echo-v2/80",
        "{explained:#}"
    );
}
