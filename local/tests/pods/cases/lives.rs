//! The lives of containers: order, restarts, probes, and waiting for what is missing.

use weft_local::{LogOptions, Phase};

use super::services::STAY;
use crate::mesh::Mesh;

pub(crate) fn init_sidecar_main_in_order() {
    let mesh = Mesh::up(
        "i",
        r##"apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  restartPolicy: Never
  volumes: [{name: e, emptyDir: {}}]
  initContainers:
  - {name: first, command: [sh, -c, "echo first >> /e/log"], volumeMounts: [{name: e, mountPath: /e}]}
  - name: side
    restartPolicy: Always
    command: [sh, -c, "# weft-pods-test\n trap 'echo side ends >> /e/log; cat /e/log; exit 0' TERM; sleep 0.3; touch /e/up; echo side >> /e/log; while :; do sleep 0.1; done"]
    startupProbe: {exec: {command: [test, -e, /e/up]}, periodSeconds: 1}
    volumeMounts: [{name: e, mountPath: /e}]
  - {name: second, command: [sh, -c, "echo second >> /e/log"], volumeMounts: [{name: e, mountPath: /e}]}
  containers:
  - {name: main, command: [sh, -c, "echo main >> /e/log; sleep 0.3; echo main ends >> /e/log"], volumeMounts: [{name: e, mountPath: /e}]}
"##,
    );
    mesh.wait_for("the pod's end", |s| s.pods[0].phase == Phase::Succeeded);
    let side = LogOptions {
        container: Some("side".into()),
        ..LogOptions::default()
    };
    assert_eq!(
        mesh.log("app", &side),
        ["first", "side", "second", "main", "main ends", "side ends"]
    );
    assert_eq!(mesh.pod("app").status, "Completed");
    mesh.down();
}

pub(crate) fn crashes_are_restarted_and_logged() {
    let mesh = Mesh::start(
        "c",
        r#"apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  containers: [{name: a, command: [sh, -c, "echo start; echo oops >&2; exit 3"]}]
"#,
    );
    let state = mesh.wait_for("a crash loop", |s| {
        s.pods.iter().any(|p| p.status == "CrashLoopBackOff")
    });
    let pod = &state.pods[0];
    assert_eq!(
        (pod.containers[0].restarts, pod.containers[0].exit_code),
        (1, Some(3))
    );
    assert!(
        pod.reason.as_ref().unwrap().contains("ended with code 3"),
        "{:?}",
        pod.reason
    );
    let row = &weft_local::ps(&mesh.name).unwrap()[0];
    assert_eq!((row.ready.as_str(), row.restarts), ("0/1", 1));
    let mut lines = mesh.log("app", &LogOptions::default());
    lines.sort();
    assert_eq!(lines, ["oops", "start"]);
    assert_eq!(
        mesh.log(
            "app",
            &LogOptions {
                tail: Some(1),
                ..LogOptions::default()
            }
        )
        .len(),
        1
    );
    let previous = LogOptions {
        previous: true,
        ..LogOptions::default()
    };
    assert_eq!(mesh.log("app", &previous).len(), 2);
    mesh.down();
}

pub(crate) fn probes_decide() {
    let mesh = Mesh::start(
        "p",
        r##"apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: x}}
spec:
  volumes: [{name: e, emptyDir: {}}]
  containers:
  - name: a
    command: [sh, -c, "# weft-pods-test\n trap 'exit 0' TERM; touch /e/alive; while :; do sleep 0.1; done"]
    readinessProbe: {exec: {command: [test, -e, /e/ready]}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {exec: {command: [test, -e, /e/alive]}, periodSeconds: 1, failureThreshold: 2}
    volumeMounts: [{name: e, mountPath: /e}]
---
apiVersion: v1
kind: Service
metadata: {name: x}
spec: {clusterIP: None, selector: {app: x}, ports: [{port: 80}]}
"##,
    );
    mesh.wait_for("the pod to run", |s| {
        s.pods.iter().any(|p| p.phase == Phase::Running)
    });
    assert!(!mesh.pod("app").ready);
    assert!(
        !mesh.try_sh("app", "getent hosts x").0,
        "an endpoint that is not ready has a name"
    );
    mesh.sh("app", "touch /e/ready");
    mesh.wait_for("readiness", |s| s.pods[0].ready);
    let ip = mesh.pod("app").ips[0].to_string();
    mesh.wait_sh("app", "getent hosts x | awk '{print $1}'", &ip);
    mesh.sh("app", "rm /e/ready");
    mesh.wait_for("the loss of readiness", |s| {
        !s.pods[0].ready && s.pods[0].containers[0].restarts == 0
    });
    mesh.sh("app", "rm /e/alive");
    mesh.wait_for("a restart by the liveness probe", |s| {
        s.pods[0].containers[0].restarts == 1
    });
    mesh.wait_sh("app", "test -e /e/alive && echo yes", "yes");
    mesh.down();
}

pub(crate) fn what_is_missing_is_said_and_waited_for() {
    let pods = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: needy}}
spec:
  containers: [{{name: a, command: {STAY}, envFrom: [{{configMapRef: {{name: later}}}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: lost}}
spec:
  containers: [{{name: a, command: [no-such-program-here]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: imaged}}
spec:
  containers: [{{name: a, image: 'example.org/no-such-image:1'}}]
"
    );
    let mesh = Mesh::start("m", &pods);
    let reason = |name: &str, words: &str| {
        mesh.wait_for(words, |s| {
            s.pods
                .iter()
                .any(|p| p.name == name && p.reason.as_ref().is_some_and(|r| r.contains(words)))
        });
    };
    reason("needy", "configmap \"later\" not found");
    reason("lost", "no-such-program-here: no such program");
    reason("imaged", "does not pull images");
    mesh.edit(
        &(pods + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {A: '1'}\n"),
    );
    mesh.wait_for("the needy pod", |s| {
        s.pods.iter().any(|p| p.name == "needy" && p.ready)
    });
    assert_eq!(mesh.sh("needy", "echo $A"), "1");
    mesh.down();
}
