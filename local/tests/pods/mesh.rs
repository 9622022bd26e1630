//! A mesh of one test: its manifest file, and conditions to wait for.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use weft_local::{LogOptions, PodState, State, UpOptions};

/// In the command line of every program a test starts.
pub(crate) const MARKER: &str = "weft-pods-test";

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A mesh that is taken down with its test.
pub(crate) struct Mesh {
    pub(crate) name: String,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

/// Names of the meshes of this process start so.
pub(crate) fn prefix() -> String {
    format!("t{}", std::process::id())
}

/// The host's links to the meshes this process has made.
pub(crate) static LINKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Takes down what a failed test left up.
pub(crate) fn remove_all() {
    for name in weft_local::meshes()
        .into_iter()
        .filter(|name| name.starts_with(&prefix()))
    {
        if let Err(error) = weft_local::down(&name, Duration::ZERO) {
            eprintln!("down {name}: {error}");
        }
    }
}

impl Mesh {
    /// Brings the manifests up without a mesh, and waits until everything is as wanted.
    pub(crate) fn up(suffix: &str, manifests: &str) -> Self {
        let mesh = Self::start(suffix, manifests);
        mesh.wait_for("everything to be as wanted", State::settled);
        mesh
    }

    /// The same without waiting.
    pub(crate) fn start(suffix: &str, manifests: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("manifests.yaml");
        std::fs::write(&file, manifests).unwrap();
        let name = format!("{}{suffix}", prefix());
        LINKS
            .lock()
            .unwrap()
            .push(weft_local::Layout::new(&name).unwrap().host_link());
        let options = UpOptions {
            name: name.clone(),
            control_plane: None,
            ..UpOptions::new(vec![file.clone()])
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime
            .block_on(weft_local::detach(&options, Duration::ZERO, |_| {}))
            .unwrap();
        let mesh = Self {
            name,
            file,
            _directory: directory,
        };
        mesh.wait_for("the supervisor", |_| true);
        mesh
    }

    /// Edits the manifests, as an editor does.
    pub(crate) fn edit(&self, manifests: &str) {
        std::fs::write(&self.file, manifests).unwrap();
    }

    /// What runs.
    pub(crate) fn state(&self) -> State {
        weft_local::state(&self.name).unwrap()
    }

    /// Waits until a condition holds.
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        let started = Instant::now();
        loop {
            let state = weft_local::state(&self.name);
            if let Ok(state) = &state
                && condition(state)
            {
                return state.clone();
            }
            if started.elapsed() > PATIENCE {
                let log =
                    std::fs::read_to_string(format!("/run/weft/{}/logs/supervisor.log", self.name));
                panic!("waited in vain for {what}: {state:#?}\n{log:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A pod whose name starts so.
    pub(crate) fn pod(&self, start: &str) -> PodState {
        let state = self.state();
        let found = state.pods.iter().find(|pod| pod.name.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no pod {start}: {state:#?}"))
            .clone()
    }

    /// Runs a shell command in a pod: whether it succeeded, and what it said.
    pub(crate) fn try_sh(&self, pod: &str, script: &str) -> (bool, String) {
        let pod = self.pod(pod);
        let main = pod.containers.iter().find(|c| c.role == "main").unwrap();
        let init = main
            .init_pid
            .unwrap_or_else(|| panic!("{pod:#?} does not run"))
            .to_string();
        let output = std::process::Command::new("/proc/self/exe")
            .args([weft_local::HELPER_COMMAND, "exec"])
            .arg(&main.spec)
            .args([&init, "--", "sh", "-c", script])
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text.trim_end().to_owned())
    }

    /// The same, and it must succeed.
    pub(crate) fn sh(&self, pod: &str, script: &str) -> String {
        let (success, text) = self.try_sh(pod, script);
        assert!(success, "{pod}: {script}: {text}");
        text
    }

    /// Waits until a shell command in a pod says this.
    pub(crate) fn wait_sh(&self, pod: &str, script: &str, expected: &str) {
        let started = Instant::now();
        loop {
            let (_, text) = self.try_sh(pod, script);
            if text == expected {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{pod}: {script}: {text:?}, not {expected:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A container's log.
    pub(crate) fn log(&self, pod: &str, options: &LogOptions) -> Vec<String> {
        let mut lines = Vec::new();
        let collect = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        weft_local::logs(&self.name, &self.pod(pod).name, options, collect).unwrap();
        lines
    }

    /// Takes it down.
    pub(crate) fn down(self) {
        weft_local::down(&self.name, Duration::from_secs(5)).unwrap();
    }
}
