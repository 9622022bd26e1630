//! A mesh for a test: `weft local up` on a folder of manifests, and what a test asks of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::programs::{built, output, require, run};
use crate::wait;

/// How long pods may take to become ready on a slow machine.
const READY: Duration = Duration::from_secs(120);

/// A running mesh. Taken down when dropped.
pub struct Mesh {
    /// Its name, different in every test process.
    pub name: String,
    directory: TempDir,
    weft: PathBuf,
}

impl Mesh {
    /// Writes the manifests to a folder of their own and brings them up; returns when every pod is ready.
    pub fn up(name: &str, manifests: &[&str]) -> Self {
        require(&["ip", "nft", "iptables", "curl"]);
        let directory = tempfile::Builder::new()
            .prefix("weft-test-")
            .tempdir()
            .expect("a temporary folder");
        let mesh = Self {
            name: format!("{name}{}", std::process::id()),
            directory,
            weft: built("weft"),
        };
        for (i, manifest) in manifests.iter().enumerate() {
            mesh.write(&format!("{i}.yaml"), &filled(manifest));
        }
        let mut up = mesh.weft(&["local", "up", "--detach", "--timeout", "120s", "-f"]);
        run(up.arg(mesh.directory.path()));
        mesh
    }

    /// The folder of the manifests, which the mesh watches.
    pub fn manifests(&self) -> &Path {
        self.directory.path()
    }

    /// Writes or replaces a manifest, in one step, as editors do.
    pub fn write(&self, file: &str, yaml: &str) {
        let temporary = self.directory.path().join(format!(".{file}.tmp"));
        std::fs::write(&temporary, yaml).expect("write a manifest");
        std::fs::rename(temporary, self.directory.path().join(file)).expect("rename a manifest");
    }

    /// Deletes a manifest.
    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.directory.path().join(file)).expect("remove a manifest");
    }

    /// `weft ARGS` for this mesh.
    pub fn weft(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.weft);
        command.args(args).env("WEFT_MESH", &self.name);
        command
    }

    /// What `weft ARGS -o json` prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = run(self.weft(args).args(["-o", "json"]));
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{args:?} printed no JSON: {e}\n{text}"))
    }

    /// Runs a command in a pod (`namespace/name`), in its first container.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Output {
        output(&mut self.exec_command(pod, command))
    }

    /// The same, not started.
    pub fn exec_command(&self, pod: &str, command: &[&str]) -> Command {
        let (namespace, pod) = pod.split_once('/').expect("namespace/pod");
        let mut exec = self.weft(&["local", "exec", "-n", namespace, pod, "--"]);
        exec.args(command);
        exec
    }

    /// Runs a command in a pod; its output, or a panic when it fails.
    pub fn sh(&self, pod: &str, script: &str) -> String {
        run(&mut self.exec_command(pod, &["sh", "-c", script]))
    }

    /// `curl ARGS` in a pod: status and body. Status 0: no response.
    pub fn curl(&self, pod: &str, args: &[&str]) -> (u16, String) {
        let mut command = vec!["curl", "-sS", "-m", "10", "-w", "\n%{http_code}"];
        command.extend(args);
        let output = self.exec(pod, &command);
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        (
            status.trim().parse().unwrap_or(0),
            format!("{body}{}", String::from_utf8_lossy(&output.stderr)),
        )
    }

    /// `curl` that must answer 200 with JSON.
    pub fn curl_json(&self, pod: &str, args: &[&str]) -> Value {
        let (status, body) = self.curl(pod, args);
        assert_eq!(status, 200, "curl {args:?}: {body}");
        serde_json::from_str(&body)
            .unwrap_or_else(|e| panic!("curl {args:?}: no JSON: {e}: {body}"))
    }

    /// Every pod, as the local mesh's state has it.
    pub fn pods(&self) -> Vec<Value> {
        self.state()["pods"].as_array().cloned().unwrap_or_default()
    }

    /// The row of the pod of that namespace whose name is `name` or begins with `name-`.
    pub fn pod(&self, name: &str) -> Value {
        let (namespace, name) = name.split_once('/').expect("namespace/pod");
        let pods = self.pods();
        let of = |p: &&Value| {
            let pod = p["name"].as_str().unwrap_or_default();
            p["namespace"] == namespace && (pod == name || pod.starts_with(&format!("{name}-")))
        };
        pods.iter()
            .find(of)
            .cloned()
            .unwrap_or_else(|| panic!("no pod {namespace}/{name} among {pods:#?}"))
    }

    /// A pod's IPv4 address.
    pub fn ip(&self, name: &str) -> String {
        self.pod(name)["ips"][0]
            .as_str()
            .expect("a pod has an address")
            .to_owned()
    }

    /// What the machine-readable state of the local mesh says.
    pub fn state(&self) -> Value {
        let path = Path::new("/run/weft").join(&self.name).join("state.json");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).expect("state.json is JSON")
    }

    /// The state folder of the local mesh.
    pub fn state_dir(&self) -> PathBuf {
        Path::new("/run/weft").join(&self.name)
    }

    /// A path of the control plane's admin port.
    pub fn control_plane(&self, path: &str) -> Value {
        let address = self.state()["control_plane"]["admin"]
            .as_str()
            .expect("control_plane.admin")
            .to_owned();
        let text =
            run(Command::new("curl").args(["-sS", "-m", "5", &format!("http://{address}{path}")]));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    /// A path of a sidecar's health and metrics port, asked from inside its pod.
    pub fn sidecar(&self, pod: &str, port: u16, path: &str) -> String {
        let row = self.pod(pod);
        let netns = row["netns"].as_str().expect("netns").to_owned();
        run(Command::new("ip").args([
            "netns",
            "exec",
            &netns,
            "curl",
            "-sS",
            "-m",
            "5",
            &format!("http://127.0.0.1:{port}{path}"),
        ]))
    }

    /// The sum of a metric's samples whose line holds all of `labels`.
    pub fn metric(&self, pod: &str, name: &str, labels: &[&str]) -> f64 {
        let text = self.sidecar(pod, 15020, "/metrics");
        let lines = text
            .lines()
            .filter(|l| l.split(['{', ' ']).next() == Some(name));
        lines
            .filter(|l| labels.iter().all(|x| l.contains(x)))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Mutual TLS handshakes that succeeded at a pod's inbound side, with a peer whose SPIFFE ID ends so.
    pub fn handshakes(&self, pod: &str, peer: &str) -> f64 {
        let of = |result: &str| {
            let result = format!("result=\"{result}\"");
            self.metric(
                pod,
                "weft_tls_handshakes_total",
                &["direction=\"inbound\"", &result, peer],
            )
        };
        of("full") + of("resumed")
    }

    /// Waits until a URL answers 200 in a pod.
    pub fn wait_for(&self, pod: &str, url: &str) {
        wait::until(&format!("{pod}: {url}"), READY, || {
            match self.curl(pod, &[url]) {
                (200, _) => Ok(()),
                other => Err(other),
            }
        });
    }

    /// Prints what helps to understand a failure.
    pub fn dump(&self) {
        eprintln!("--- {} pods: {:#?}", self.name, self.pods());
        for log in std::fs::read_dir(self.state_dir().join("logs"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = std::fs::read_to_string(log.path()).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            eprintln!(
                "--- {}\n{}",
                log.path().display(),
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let down = self.weft(&["local", "down"]).output();
        if let Ok(output) = down
            && !output.status.success()
        {
            eprintln!(
                "weft local down failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// Manifests name what only the machine knows: the uid of Debian's `postgres`, and files of this folder.
fn filled(manifest: &str) -> String {
    if !manifest.contains("POSTGRES_UID") {
        return manifest.to_owned();
    }
    let uid = run(Command::new("id").args(["-u", "postgres"]));
    manifest.replace("POSTGRES_UID", uid.trim())
}

/// A ConfigMap with one file, indented as YAML wants it.
pub fn config_map(namespace: &str, name: &str, file: &str, text: &str) -> String {
    let body = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  {file}: |\n    {body}\n"
    )
}
