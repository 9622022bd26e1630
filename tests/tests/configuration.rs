//! Configuration moves fast and fails well: edits reach the proxies, mistakes get their error and disturb nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use weft_tests::mesh::{Mesh, config_map};
use weft_tests::{suite, wait};

const BASE: &str = include_str!("manifests/base.yaml");
const ECHO: &str = include_str!("manifests/echo.yaml");

fn main() -> ExitCode {
    let server = config_map("app", "server", "server.py", include_str!("data/server.py"));
    suite::run(
        "config",
        &[BASE, ECHO, &server],
        &[
            ("an_endpoint_reaches_the_proxy_within_100_ms", propagation),
            (
                "a_half_written_file_keeps_the_last_good_version",
                half_written,
            ),
            ("a_duplicate_object_names_both_files", duplicate),
            (
                "an_unknown_kind_is_named_with_the_nearest_one",
                unknown_kind,
            ),
            ("a_bad_field_is_named_with_its_path", bad_field),
            (
                "an_unknown_field_is_named_with_the_nearest_one",
                unknown_field,
            ),
            ("a_dangling_reference_is_named", dangling_reference),
            ("scaling_by_editing_the_file", scaling),
            ("a_deleted_service_is_gone", deletion),
            ("a_misspelt_name_gets_a_suggestion", misspelt),
            ("inject_prints_what_the_mesh_runs", inject),
        ],
    )
}

/// The manual slice that the propagation test edits.
fn slice(addresses: &[&str]) -> String {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|a| format!("{{addresses: [{a}], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: manual, namespace: app}}\nspec:\n  clusterIP: 10.96.201.1\n  ports: [{{name: http, port: 80}}]\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: manual-1, namespace: app, labels: {{kubernetes.io/service-name: manual}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// From the change of the file to the proxy's acknowledgement, as the control plane saw it.
fn propagation(mesh: &Mesh) {
    mesh.write("manual.yaml", &slice(&["10.200.0.1"]));
    // The client's proxy subscribes by using the service once; the address answers nobody.
    wait::until(
        "the proxy to use the service",
        Duration::from_secs(15),
        || {
            mesh.curl("app/client", &["-m", "1", "http://10.96.201.1/"]);
            acknowledged(mesh).ok_or("not subscribed")
        },
    );
    let mut times = Vec::new();
    for round in 0..21 {
        let before = acknowledged(mesh).unwrap();
        let started = SystemTime::now();
        let addresses: &[&str] = if round % 2 == 0 {
            &["10.200.0.1", "10.200.0.2"]
        } else {
            &["10.200.0.1"]
        };
        mesh.write("manual.yaml", &slice(addresses));
        let at = wait::until(
            "the acknowledgement",
            Duration::from_secs(5),
            || match acknowledged(mesh) {
                Some((version, at)) if version != before.0 => Ok(at),
                other => Err(other),
            },
        );
        let millis = started
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis() as i64;
        times.push(at - millis);
    }
    times.sort_unstable();
    println!(
        "file change to acknowledgement, ms: median {}, all {times:?}",
        times[times.len() / 2]
    );
    assert!(times[times.len() / 2] < 100, "median of {times:?} ms");
    mesh.remove("manual.yaml");
}

/// Version and time (Unix milliseconds) of the last acknowledgement of `app/manual/80`'s endpoints by the client's proxy.
fn acknowledged(mesh: &Mesh) -> Option<(String, i64)> {
    let clients = mesh.control_plane("/clients");
    let client = clients
        .as_array()?
        .iter()
        .find(|c| c["workload"] == "app/client")?;
    let resource = &client["types"]["endpoints"]["resources"]["app/manual/80"];
    Some((
        resource["versionAcked"].as_str()?.to_owned(),
        resource["ackedAt"].as_i64()?,
    ))
}

/// `weft check` fails and says all of `words`; traffic goes on; the file is removed and the mesh is clean again.
fn complains(mesh: &Mesh, file: &str, yaml: &str, words: &[&str]) {
    mesh.write(file, yaml);
    wait::until(
        &format!("weft check to complain about {file}"),
        Duration::from_secs(10),
        || {
            let check = mesh.weft(&["check"]).output().unwrap();
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&check.stdout),
                String::from_utf8_lossy(&check.stderr)
            );
            let missing: Vec<_> = words.iter().filter(|w| !text.contains(**w)).collect();
            if missing.is_empty() && check.status.code() == Some(1) {
                Ok(())
            } else {
                Err((missing.len(), text))
            }
        },
    );
    // The same, without a mesh, from the file alone.
    let offline = mesh
        .weft(&["check", "-f"])
        .arg(mesh.manifests())
        .output()
        .unwrap();
    assert_eq!(
        offline.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&offline.stdout)
    );
    assert_eq!(
        mesh.curl("app/client", &["http://echo/"]).0,
        200,
        "traffic was disturbed by {file}"
    );
    mesh.remove(file);
    wait::until(
        "weft check to be content again",
        Duration::from_secs(10),
        || {
            let check = mesh.weft(&["check"]).output().unwrap();
            if check.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&check.stdout).into_owned())
            }
        },
    );
}

fn half_written(mesh: &Mesh) {
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: kept, namespace: app}\nspec:\n  clusterIP: 10.96.202.1\n  selector: {app: echo, version: v1}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n";
    mesh.write("kept.yaml", good);
    wait::until("the service", Duration::from_secs(10), || {
        match mesh.curl("app/client", &["http://10.96.202.1/"]) {
            (200, _) => Ok(()),
            other => Err(other),
        }
    });
    mesh.write("kept.yaml", &good[..good.len() - 25]);
    wait::holds("the complaint", Duration::from_secs(10), || {
        let check = mesh.weft(&["check"]).output().unwrap();
        String::from_utf8_lossy(&check.stdout).contains("kept.yaml")
    });
    assert_eq!(
        mesh.curl("app/client", &["http://10.96.202.1/"]).0,
        200,
        "the last good version is not in force"
    );
    mesh.remove("kept.yaml");
}

fn duplicate(mesh: &Mesh) {
    let twin = "apiVersion: v1\nkind: Service\nmetadata: {name: echo-v1, namespace: app}\nspec:\n  ports: [{port: 81}]\n";
    complains(
        mesh,
        "twin.yaml",
        twin,
        &["twin.yaml", "1.yaml", "Service app/echo-v1"],
    );
}

fn unknown_kind(mesh: &Mesh) {
    let odd = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRout\nmetadata: {name: x, namespace: app}\n";
    complains(
        mesh,
        "odd.yaml",
        odd,
        &["odd.yaml", "HTTPRout", "HTTPRoute"],
    );
}

fn bad_field(mesh: &Mesh) {
    let bad = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bad, namespace: app}\nspec:\n  parentRefs: [{group: '', kind: Service, name: echo}]\n  rules:\n  - timeouts: {request: soon}\n    backendRefs: [{name: echo-v1, port: 80}]\n";
    complains(
        mesh,
        "bad.yaml",
        bad,
        &[
            "bad.yaml",
            "HTTPRoute app/bad",
            "spec.rules[0].timeouts.request",
            "soon",
        ],
    );
}

fn unknown_field(mesh: &Mesh) {
    let typo = "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: typo, namespace: app}\nspec:\n  targetRefs: [{group: '', kind: Service, name: echo}]\n  retryBudgt: {percent: 20, minConcurrency: 1}\n";
    complains(
        mesh,
        "typo.yaml",
        typo,
        &[
            "typo.yaml",
            "TrafficPolicy app/typo",
            "retryBudgt",
            "retryBudget",
        ],
    );
}

fn dangling_reference(mesh: &Mesh) {
    let dangling = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: dangling, namespace: app}\nspec:\n  parentRefs: [{group: '', kind: Service, name: echo-v2}]\n  rules:\n  - matches: [{path: {type: Exact, value: /never}}]\n    backendRefs: [{name: ecko, port: 80}]\n";
    complains(
        mesh,
        "dangling.yaml",
        dangling,
        &[
            "dangling.yaml",
            "HTTPRoute app/dangling",
            "spec.rules[0].backendRefs[0]",
            "ecko",
        ],
    );
}

fn scaling(mesh: &Mesh) {
    let count = || {
        mesh.pods()
            .iter()
            .filter(|p| p["name"].as_str().unwrap().starts_with("echo-v2-") && p["ready"] == true)
            .count()
    };
    let scaled = ECHO.replacen(
        "name: echo-v2, namespace: app}\nspec:\n  replicas: 1",
        "name: echo-v2, namespace: app}\nspec:\n  replicas: 3",
        1,
    );
    assert_ne!(scaled, ECHO);
    mesh.write("1.yaml", &scaled);
    wait::holds("three replicas", Duration::from_secs(60), || count() == 3);
    wait::holds("three endpoints", Duration::from_secs(10), || {
        mesh.json(&["endpoints", "-n", "app", "echo-v2"])
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["health"] == "ready")
            .count()
            == 3
    });
    mesh.write("1.yaml", ECHO);
    wait::holds("one replica again", Duration::from_secs(60), || {
        count() == 1
    });
}

fn deletion(mesh: &Mesh) {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: brief, namespace: app}\nspec:\n  selector: {app: echo}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n";
    mesh.write("brief.yaml", service);
    mesh.wait_for("app/client", "http://brief/");
    mesh.remove("brief.yaml");
    let started = Instant::now();
    wait::holds("the name to be gone", Duration::from_secs(20), || {
        mesh.curl("app/client", &["-m", "2", "http://brief/"]).0 != 200
    });
    println!("a deleted service was gone after {:?}", started.elapsed());
}

fn misspelt(mesh: &Mesh) {
    for args in [
        vec!["routes", "-n", "app", "clint"],
        vec!["identity", "-n", "app", "clint"],
        vec!["explain", "-n", "app", "client", "ecko"],
    ] {
        let wrong = mesh.weft(&args).output().unwrap();
        let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert_eq!(wrong.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.contains("did you mean"), "{args:?}: {text}");
    }
}

fn inject(mesh: &Mesh) {
    let output = mesh
        .weft(&["inject", "-f"])
        .arg(mesh.manifests().join("1.yaml"))
        .arg("--namespace-enabled")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("weft-proxy") && text.contains("weft-init"),
        "{text}"
    );
}
