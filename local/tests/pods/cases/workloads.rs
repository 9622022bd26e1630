//! Workloads and their manifests: jobs, edits of the file, mistakes, and a supervisor that is killed.

use std::time::Duration;

use super::services::{STAY, nix_kill};
use crate::mesh::Mesh;

pub(crate) fn jobs_complete() {
    let mesh = Mesh::up(
        "j",
        r#"apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{name: a, command: [sh, -c, "echo index $JOB_COMPLETION_INDEX"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  completions: 0
  template: {spec: {restartPolicy: Never, containers: [{name: a, command: ["false"]}]}}
"#,
    );
    let state = mesh.state();
    let sum = state.workloads.iter().find(|w| w.name == "sum").unwrap();
    assert_eq!((sum.ready, sum.wanted), (3, 3));
    let mut said: Vec<String> = (0..3)
        .flat_map(|n| mesh.log(&format!("sum-{n}-"), &weft_local::LogOptions::default()))
        .collect();
    said.sort();
    assert_eq!(said, ["index 0", "index 1", "index 2"]);
    mesh.down();
}

fn deployment(replicas: u32, colour: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers: [{{name: web, command: {STAY}, env: [{{name: COLOUR, value: {colour}}}]}}]
"
    )
}

pub(crate) fn edits_scale_replace_and_delete() {
    let mesh = Mesh::up("e", &deployment(1, "red"));
    let pods = |count: usize| {
        move |s: &weft_local::State| {
            s.settled() && s.pods.len() == count && s.pods.iter().all(|p| p.ready)
        }
    };
    let first = mesh.pod("web-").name;
    mesh.edit(&deployment(3, "red"));
    let state = mesh.wait_for("three pods", pods(3));
    assert!(
        state.pods.iter().any(|p| p.name == first),
        "the first one stays"
    );
    mesh.edit(&deployment(2, "blue"));
    let state = mesh.wait_for("two new pods", |s| {
        pods(2)(s) && s.pods.iter().all(|p| p.name != first)
    });
    assert_eq!(mesh.sh("web-", "echo $COLOUR"), "blue");
    let hash = |name: &str| name.split('-').nth(1).unwrap().to_owned();
    assert_eq!(hash(&state.pods[0].name), hash(&state.pods[1].name));
    assert_ne!(hash(&state.pods[0].name), hash(&first));
    mesh.edit("");
    mesh.wait_for("no pods", |s| s.pods.is_empty());
    mesh.down();
}

pub(crate) fn a_bad_edit_changes_nothing() {
    let mesh = Mesh::up("b", &deployment(1, "red"));
    let before = mesh.pod("web-");
    mesh.edit(&deployment(1, "red").replace("replicas: 1", "replicas: many"));
    let state = mesh.wait_for("a problem", |s| {
        !s.problems
            .iter()
            .all(|p| p.contains("no weft-control-plane"))
    });
    let problem = state
        .problems
        .iter()
        .find(|p| p.contains("replicas"))
        .unwrap();
    assert!(problem.contains("manifests.yaml"), "{problem}");
    assert_eq!(
        mesh.pod("web-").containers[0].init_pid,
        before.containers[0].init_pid
    );
    mesh.edit(&deployment(2, "red"));
    mesh.wait_for("the next good edit", |s| s.settled() && s.pods.len() == 2);
    mesh.down();
}

pub(crate) fn a_crashed_supervisor_is_cleaned_up() {
    let mesh = Mesh::up("k", &deployment(2, "red"));
    let state = mesh.state();
    nix_kill(state.supervisor_pid);
    let started = std::time::Instant::now();
    while weft_local::state(&mesh.name).is_ok() {
        assert!(
            started.elapsed() < crate::mesh::PATIENCE,
            "the killed supervisor still holds its lock"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    mesh.down();
}
