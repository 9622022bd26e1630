//! Faults at constant load: no request fails at the client.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use weft_tests::mesh::{Mesh, config_map};
use weft_tests::{suite, wait};

const BASE: &str = include_str!("manifests/base.yaml");
const ECHO: &str = include_str!("manifests/echo.yaml");

fn main() -> ExitCode {
    let server = config_map("app", "server", "server.py", include_str!("data/server.py"));
    let three = ECHO.replacen("replicas: 1", "replicas: 3", 1);
    // Renewal every ten seconds runs under every other fault as well.
    let fast = three.replace(
        "    metadata: {labels: {app: echo, version: v1}}",
        "    metadata: {labels: {app: echo, version: v1}, annotations: {weft.dev/certificate-renewal: 10s}}",
    );
    suite::run(
        "faults",
        &[BASE, &fast, &server],
        &[
            ("certificates_are_renewed_every_ten_seconds", renewal),
            ("one_of_three_endpoints_is_killed", endpoint_killed),
            (
                "the_control_plane_is_killed_for_thirty_seconds",
                control_plane_killed,
            ),
            (
                "a_servers_sidecar_restarts_while_the_control_plane_is_down",
                sidecar_restarted,
            ),
        ],
    )
}

/// A steady load from the client pod: one request every 20 ms on keep-alive connections, each outcome counted.
struct Load {
    child: Child,
    started: Instant,
}

const LOAD: &str = r#"
import http.client, signal, sys, threading, time
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
good, bad, lock = 0, [], threading.Lock()
def worker():
    global good
    connection = None
    while not stop.is_set():
        begun = time.time()
        try:
            connection = connection or http.client.HTTPConnection("echo-v1", timeout=10)
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read()
            with lock:
                if answer.status == 200: good += 1
                else: bad.append((answer.status, dict(answer.getheaders()).get("proxy-status"), body[:200].decode()))
        except Exception as error:
            with lock: bad.append(repr(error))
            connection = None
        time.sleep(max(0, 0.08 - (time.time() - begun)))
threads = [threading.Thread(target=worker) for _ in range(4)]
for t in threads: t.start()
print("started", flush=True)
stop.wait()
for t in threads: t.join()
print(good, len(bad), bad[:5], flush=True)
"#;

impl Load {
    fn start(mesh: &Mesh) -> Self {
        mesh.wait_for("app/client", "http://echo-v1/");
        let mut command = mesh.exec_command("app/client", &["python3", "-c", LOAD]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            child,
            started: Instant::now(),
        }
    }

    /// Ends the load; every request must have been answered 200.
    fn stop(mut self, mesh: &Mesh) {
        mesh.exec(
            "app/client",
            &["pkill", "-TERM", "-f", "import http.client, signal"],
        );
        let mut text = String::new();
        std::io::Read::read_to_string(self.child.stdout.as_mut().unwrap(), &mut text).unwrap();
        self.child.wait().unwrap();
        let result = text.lines().last().unwrap_or_default();
        println!(
            "{:?} of load: good, failed, first failures: {result}",
            self.started.elapsed()
        );
        let mut numbers = result.split(' ');
        let good: u64 = numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        assert!(
            good > self.started.elapsed().as_secs() * 10,
            "too little load: {text}"
        );
        assert_eq!(numbers.next(), Some("0"), "failed requests: {result}");
    }

    /// Lets the load run on until a point in time.
    fn run_until(&self, after: Duration) {
        std::thread::sleep(after.saturating_sub(self.started.elapsed()));
    }
}

fn kill(pid: i64, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).unwrap_or_else(|e| panic!("kill {pid}: {e}"));
}

fn renewals(mesh: &Mesh, pod: &str) -> f64 {
    mesh.metric(
        pod,
        "weft_certificate_renewals_total",
        &["result=\"success\""],
    )
}

fn renewal(mesh: &Mesh) {
    let load = Load::start(mesh);
    let before = renewals(mesh, "app/echo-v1");
    load.run_until(Duration::from_secs(35));
    let after = renewals(mesh, "app/echo-v1");
    assert!(after >= before + 3.0, "{} renewals in 35 s", after - before);
    load.stop(mesh);
}

fn endpoint_killed(mesh: &Mesh) {
    let load = Load::start(mesh);
    load.run_until(Duration::from_secs(2));
    // Kill everything in one pod at once, as a node's failure would: the application and the sidecar.
    let pod = mesh.pod("app/echo-v1");
    let pids = pod["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .filter_map(|c| c["init_pid"].as_i64());
    for pid in pids {
        kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    load.run_until(Duration::from_secs(15));
    load.stop(mesh);
    wait::holds("the pod to be restarted", Duration::from_secs(60), || {
        mesh.pods()
            .iter()
            .filter(|p| p["name"].as_str().unwrap().starts_with("echo-v1-"))
            .all(|p| p["ready"] == true)
    });
}

/// Kills the control plane with SIGKILL, and has it kept down.
fn hold_control_plane(mesh: &Mesh) {
    let pid = mesh.state()["control_plane"]["pid"]
        .as_i64()
        .expect("control_plane.pid");
    kill(pid, nix::sys::signal::Signal::SIGKILL);
    weft_tests::programs::run(&mut mesh.weft(&["local", "hold-control-plane", "10m"]));
}

fn start_control_plane(mesh: &Mesh) {
    weft_tests::programs::run(&mut mesh.weft(&["local", "hold-control-plane", "0s"]));
    wait::holds(
        "the control plane to serve again",
        Duration::from_secs(20),
        || {
            let clients = mesh.state()["control_plane"]["admin"]
                .as_str()
                .map(str::to_owned)
                .unwrap_or_default();
            Command::new("curl")
                .args([
                    "-sf",
                    "-m",
                    "2",
                    "-o",
                    "/dev/null",
                    &format!("http://{clients}/readyz"),
                ])
                .status()
                .is_ok_and(|s| s.success())
        },
    );
}

fn control_plane_killed(mesh: &Mesh) {
    let load = Load::start(mesh);
    load.run_until(Duration::from_secs(2));
    hold_control_plane(mesh);
    load.run_until(Duration::from_secs(32));
    start_control_plane(mesh);
    load.run_until(Duration::from_secs(40));
    load.stop(mesh);
    // And it follows changes again.
    wait::holds(
        "every proxy to be connected again",
        Duration::from_secs(30),
        || {
            mesh.control_plane("/clients")
                .as_array()
                .is_some_and(|c| c.len() >= 4)
        },
    );
}

fn sidecar_restarted(mesh: &Mesh) {
    let load = Load::start(mesh);
    load.run_until(Duration::from_secs(2));
    hold_control_plane(mesh);
    // One that no earlier case has hurt: the runner waits before it starts a container a second time.
    let sidecar_of = |pod: &serde_json::Value| {
        let containers = pod["containers"].as_array().expect("containers");
        containers
            .iter()
            .find(|c| c["name"] == "weft-proxy")
            .cloned()
    };
    let pods = mesh.pods();
    let pod = pods
        .iter()
        .filter(|p| {
            p["name"]
                .as_str()
                .is_some_and(|n| n.starts_with("echo-v1-"))
        })
        .min_by_key(|p| sidecar_of(p).map_or(u64::MAX, |c| c["restarts"].as_u64().unwrap_or(0)))
        .expect("a server");
    let name = format!("app/{}", pod["name"].as_str().unwrap());
    let sidecar = sidecar_of(pod).expect("a sidecar");
    let before = sidecar["pid"].as_i64().expect("the sidecar's pid");
    kill(before, nix::sys::signal::Signal::SIGTERM);
    // It serves again from disk: a new process, with requests arriving, while the control plane is away.
    wait::holds("the sidecar to run again", Duration::from_secs(60), || {
        let pods = mesh.pods();
        let again = pods
            .iter()
            .filter(|p| p["name"] == pod["name"])
            .flat_map(|p| p["containers"].as_array().unwrap().clone());
        again
            .filter(|c| c["name"] == "weft-proxy")
            .any(|c| c["ready"] == true && c["pid"].as_i64().is_some_and(|pid| pid != before))
    });
    // Its clients have ejected it, for 10 s at first and 20 s after a failed probe.
    wait::holds("requests to arrive there", Duration::from_secs(90), || {
        mesh.metric(&name, "weft_inbound_requests_total", &[]) > 0.0
    });
    assert!(
        mesh.state()["control_plane"]["pid"].is_null(),
        "the control plane was there all the time"
    );
    start_control_plane(mesh);
    load.run_until(Duration::from_secs(10));
    load.stop(mesh);
}
