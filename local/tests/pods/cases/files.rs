//! What a container sees: volumes, environment, users, and a file system of its own.

use std::path::Path;

use super::services::STAY;
use crate::mesh::Mesh;

pub(crate) fn volumes_and_environment() {
    let manifests = |colour: &str| {
        format!(
            "apiVersion: v1
kind: ConfigMap
metadata: {{name: conf}}
data: {{colour: {colour}, 'key.txt': 'text'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: sec}}
stringData: {{word: hush}}
---
apiVersion: v1
kind: Pod
metadata: {{name: app, labels: {{app: x}}}}
spec:
  volumes:
  - {{name: conf, configMap: {{name: conf}}}}
  - {{name: sec, secret: {{secretName: sec, defaultMode: 256}}}}
  - {{name: scratch, emptyDir: {{}}}}
  - {{name: fast, emptyDir: {{medium: Memory}}}}
  - {{name: etc, hostPath: {{path: /etc}}}}
  - name: mixed
    projected:
      sources:
      - serviceAccountToken: {{path: token, audience: weft-ca, expirationSeconds: 600}}
      - downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}
  containers:
  - name: a
    command: {STAY}
    env:
    - {{name: IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
    - {{name: WORD, valueFrom: {{secretKeyRef: {{name: sec, key: word}}}}}}
    - {{name: BOTH, value: '$(WORD)-$(IP)'}}
    envFrom: [{{configMapRef: {{name: conf}}, prefix: C_}}]
    volumeMounts:
    - {{name: conf, mountPath: /etc/app}}
    - {{name: conf, mountPath: /etc/one.txt, subPath: key.txt}}
    - {{name: sec, mountPath: /secrets}}
    - {{name: scratch, mountPath: /scratch}}
    - {{name: fast, mountPath: /fast}}
    - {{name: etc, mountPath: /host/etc, readOnly: true}}
    - {{name: mixed, mountPath: /var/run/secrets/mixed}}
  - name: b
    command: {STAY}
    volumeMounts: [{{name: scratch, mountPath: /shared}}]
"
        )
    };
    let mesh = Mesh::up("v", &manifests("red"));
    let ip = mesh.pod("app").ips[0];
    assert_eq!(
        mesh.sh("app", "echo $BOTH $C_colour"),
        format!("hush-{ip} red")
    );
    assert_eq!(
        mesh.sh("app", "cat /etc/app/colour /etc/one.txt; cat /secrets/word"),
        "redtexthush"
    );
    assert_eq!(
        mesh.sh("app", "cat /var/run/secrets/mixed/labels"),
        "app=\"x\""
    );
    assert_eq!(
        mesh.sh("app", "cut -d. -f2 /var/run/secrets/mixed/token | wc -l"),
        "1"
    );
    assert!(mesh.sh("app", "ls /host/etc").contains("passwd"));
    let (written, _) = mesh.try_sh("app", "touch /host/etc/weft-pods-test || touch /etc/app/x");
    assert!(!written, "read-only volumes can be written");
    assert!(mesh.sh("app", "df -T /fast").contains("tmpfs"));
    mesh.sh("app", "echo here > /scratch/file");
    let pod = mesh.pod("app");
    let other = std::process::Command::new("/proc/self/exe")
        .args([weft_local::HELPER_COMMAND, "exec"])
        .arg(&pod.containers[1].spec)
        .args([
            &pod.containers[1].init_pid.unwrap().to_string(),
            "--",
            "cat",
            "/shared/file",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&other.stdout), "here\n");
    // A config map that changes reaches the files of a running pod.
    mesh.edit(&manifests("blue"));
    mesh.wait_sh("app", "cat /etc/app/colour", "blue");
    mesh.down();
}

pub(crate) fn nothing_is_written_on_the_host() {
    let mesh = Mesh::up(
        "w",
        &format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: app}}
spec:
  volumes: [{{name: e, emptyDir: {{}}}}]
  containers: [{{name: a, command: {STAY}, volumeMounts: [{{name: e, mountPath: /weft-pods-test/mount/point}}]}}]
"
        ),
    );
    mesh.sh("app", "echo x > /usr/weft-pods-test; echo x > /tmp/weft-pods-test; rm /etc/passwd; echo x > /run/weft-pods-test");
    mesh.sh(
        "app",
        "test -e /usr/weft-pods-test -a ! -e /etc/passwd -a -d /weft-pods-test/mount/point",
    );
    for path in [
        "/usr/weft-pods-test",
        "/tmp/weft-pods-test",
        "/run/weft-pods-test",
        "/weft-pods-test",
    ] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert!(Path::new("/etc/passwd").exists());
    // Its own processes, devices and name; nothing of the mesh's own files.
    assert_eq!(
        mesh.sh("app", "cat /proc/1/comm; hostname"),
        "weft-container\napp"
    );
    assert_eq!(
        mesh.sh(
            "app",
            "ls /run/weft 2>/dev/null | wc -l; echo x > /dev/null; test -c /dev/urandom && echo yes"
        ),
        "0\nyes"
    );
    mesh.down();
}

pub(crate) fn users_and_capabilities() {
    let mesh = Mesh::up(
        "u",
        &format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: app}}
spec:
  securityContext: {{fsGroup: 4242}}
  volumes: [{{name: e, emptyDir: {{}}}}]
  containers:
  - name: a
    command: {STAY}
    securityContext: {{runAsUser: 1337, runAsGroup: 1338, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}}
    volumeMounts: [{{name: e, mountPath: /data}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: root}}
spec:
  containers:
  - name: a
    command: {STAY}
    securityContext: {{capabilities: {{add: [NET_ADMIN], drop: [ALL]}}}}
"
        ),
    );
    assert_eq!(
        mesh.sh("app", "id -u; id -g; id -G"),
        "1337\n1338\n1338 4242"
    );
    mesh.sh(
        "app",
        "echo x > /data/file && test $(stat -c %g /data/file) = 4242",
    );
    let (written, _) = mesh.try_sh("app", "touch /x /tmp/x");
    assert!(!written);
    assert_eq!(
        mesh.sh(
            "app",
            "grep -E 'CapEff|NoNewPrivs' /proc/self/status | awk '{print $2}'"
        ),
        "0000000000000000\n1"
    );
    assert_eq!(
        mesh.sh("root", "grep CapEff /proc/self/status | awk '{print $2}'"),
        "0000000000001000"
    );
    // Port 80 needs no privilege in a pod, and a program may reopen its own output.
    mesh.sh(
        "app",
        "python3 -c \"import socket; socket.create_server(('', 80))\" && echo y > /dev/stdout",
    );
    mesh.down();
}
