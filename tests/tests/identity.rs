//! What is on the wire, and who is refused: plaintext, foreign roots, expired certificates, wrong identities.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};
use weft_tests::mesh::Mesh;
use weft_tests::programs::{built, output, require};
use weft_tests::{suite, wait};

const BASE: &str = include_str!("manifests/base.yaml");
const GUARDED: &str = include_str!("manifests/guarded.yaml");

fn main() -> ExitCode {
    require(&["tcpdump", "openssl", "nginx"]);
    suite::run(
        "identity",
        &[BASE, GUARDED],
        &[
            (
                "the_wire_shows_tls_1_3_with_a_post_quantum_group_and_no_plaintext",
                the_wire,
            ),
            (
                "plaintext_is_refused_in_strict_mode_with_the_reason",
                plaintext,
            ),
            ("a_certificate_of_another_root_is_refused", foreign_root),
            ("an_expired_certificate_is_refused", expired),
            (
                "a_certificate_of_another_trust_domain_is_refused",
                foreign_domain,
            ),
            ("an_identity_that_is_not_allowed_is_refused", not_allowed),
            (
                "a_server_with_the_wrong_identity_is_refused_by_the_client",
                wrong_server,
            ),
            (
                "permissive_mode_admits_plaintext_and_mutual_tls",
                permissive,
            ),
            ("weft_identity_shows_chain_id_and_times", weft_identity),
        ],
    )
}

fn the_wire(mesh: &Mesh) {
    let file = mesh.manifests().join("wire.pcap");
    let node = mesh.state()["node_netns"]
        .as_str()
        .expect("node_netns")
        .to_owned();
    let mut tcpdump = Command::new("ip")
        .args([
            "netns",
            "exec",
            &node,
            "tcpdump",
            "-Z",
            "root",
            "-i",
            "br0",
            "-U",
            "--immediate-mode",
            "-s0",
            "-w",
        ])
        .arg(&file)
        .args(["tcp", "port", "8080"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait::holds("tcpdump to begin", Duration::from_secs(10), || {
        file.metadata().is_ok_and(|m| m.len() >= 24)
    });
    // A fresh server identity means a fresh handshake: the open service is used by no other case before this one.
    let (status, body) = mesh.curl(
        "app/client",
        &["-H", "X-Secret: marker-in-the-clear", "http://open/"],
    );
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("marker-in-the-clear"));
    let wire = wait::until("the capture", Duration::from_secs(10), || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        if find(&bytes, b"\x17\x03\x03") {
            Ok(bytes)
        } else {
            Err(bytes.len())
        }
    });
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(tcpdump.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    tcpdump.wait().unwrap();
    assert!(
        !find(&wire, b"marker-in-the-clear"),
        "plaintext is on the wire"
    );
    assert!(!find(&wire, b"GET / HTTP"), "a request is on the wire");
    // ServerHello, RFC 8446: supported_versions chose 0x0304; key_share chose group 0x11ec with 1120 bytes (ML-KEM-768 ciphertext and X25519).
    assert!(
        find(&wire, b"\x00\x2b\x00\x02\x03\x04"),
        "the server did not choose TLS 1.3"
    );
    assert!(
        find(&wire, b"\x11\xec\x04\x60"),
        "the server did not choose X25519MLKEM768"
    );
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

fn plaintext(mesh: &Mesh) {
    let ip = mesh.ip("app/open");
    let before = mesh.metric(
        "app/open",
        "weft_refused_total",
        &["direction=\"inbound\"", "plaintext"],
    );
    let (status, body) = mesh.curl("plain/outsider", &[&format!("http://{ip}:8080/")]);
    assert_eq!(status, 0, "plaintext was answered: {body}");
    wait::holds("the refusal to be counted", Duration::from_secs(5), || {
        mesh.metric(
            "app/open",
            "weft_refused_total",
            &["direction=\"inbound\"", "plaintext"],
        ) > before
    });
    log_says(mesh, "app/open", "plaintext");
}

/// The sidecar's log names the reason.
fn log_says(mesh: &Mesh, pod: &str, word: &str) {
    let (namespace, name) = pod.split_once('/').unwrap();
    wait::until(
        &format!("{word:?} in the log of {pod}"),
        Duration::from_secs(5),
        || {
            let log = output(&mut mesh.weft(&[
                "local",
                "logs",
                "-n",
                namespace,
                name,
                "-c",
                "weft-proxy",
            ]));
            let text = String::from_utf8_lossy(&log.stdout).into_owned();
            if text.contains(word) {
                Ok(())
            } else {
                Err(text)
            }
        },
    );
}

/// The mesh's own root and key, as the local control plane keeps them.
fn mesh_ca(mesh: &Mesh) -> Issuer<'static, KeyPair> {
    let folder = mesh.state_dir().join("control-plane/ca");
    let read = |end: &str| {
        std::fs::read_to_string(folder.join(end))
            .unwrap_or_else(|e| panic!("{}/{end}: {e}", folder.display()))
    };
    let key = KeyPair::from_pem(&read("root-key.pem")).unwrap();
    Issuer::from_ca_cert_pem(&read("root-cert.pem"), key).unwrap()
}

/// Writes `cert.pem` and `key.pem` for a SPIFFE ID, signed by `issuer`, valid for the given days around today.
fn certificate(mesh: &Mesh, issuer: &Issuer<'_, KeyPair>, id: &str, days: (i64, i64)) -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix("cert-")
        .tempdir_in(mesh.manifests())
        .unwrap()
        .keep();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let now = std::time::SystemTime::now();
    let at = |days: i64| {
        let shift = Duration::from_secs(days.unsigned_abs() * 86400);
        if days < 0 { now - shift } else { now + shift }
    };
    params.not_before = at(days.0).into();
    params.not_after = at(days.1).into();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    folder
}

/// Speaks mesh TLS to a pod from outside the mesh with that certificate; what came back of an HTTP request.
fn request_with(mesh: &Mesh, pod: &str, certificate: Option<&Path>) -> String {
    let ip = mesh.ip(pod);
    let netns = mesh.pod("plain/outsider")["netns"]
        .as_str()
        .unwrap()
        .to_owned();
    let keys = certificate.map_or(String::new(), |c| {
        format!("-cert {0}/cert.pem -key {0}/key.pem", c.display())
    });
    let script = format!(
        "(printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | \
         timeout 5 openssl s_client -connect {ip}:8080 -tls1_3 -alpn weft/h1 {keys} -quiet 2>&1"
    );
    let output = output(Command::new("ip").args(["netns", "exec", &netns, "sh", "-c", &script]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The certificate is refused by the pod's sidecar, which counts and logs the reason.
fn refused(mesh: &Mesh, pod: &str, certificate: &Path, reason: &str) {
    let count = || {
        mesh.metric(
            pod,
            "weft_tls_handshakes_total",
            &["direction=\"inbound\"", &format!("result=\"{reason}\"")],
        ) + mesh.metric(
            pod,
            "weft_refused_total",
            &["direction=\"inbound\"", &format!("reason=\"{reason}\"")],
        )
    };
    let before = count();
    let answer = request_with(mesh, pod, Some(certificate));
    assert!(!answer.contains("HTTP/1.1 200"), "answered: {answer}");
    wait::until(
        &format!("{reason} to be counted"),
        Duration::from_secs(5),
        || {
            if count() > before {
                Ok(())
            } else {
                Err(mesh
                    .sidecar(pod, 15020, "/metrics")
                    .lines()
                    .filter(|l| l.contains("inbound"))
                    .collect::<Vec<_>>()
                    .join("\n"))
            }
        },
    );
    log_says(mesh, pod, reason);
}

const CLIENT: &str = "spiffe://cluster.local/ns/app/sa/client";

fn foreign_root(mesh: &Mesh) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = Issuer::new(params, key);
    refused(
        mesh,
        "app/open",
        &certificate(mesh, &root, CLIENT, (-1, 1)),
        "unknown_issuer",
    );
    // The same request with a certificate of the mesh's root is answered, so it is the root that was refused.
    let good = certificate(mesh, &mesh_ca(mesh), CLIENT, (-1, 1));
    assert!(request_with(mesh, "app/open", Some(&good)).contains("HTTP/1.1 200"));
    assert!(
        !request_with(mesh, "app/open", None).contains("HTTP/1.1 200"),
        "no certificate at all was answered"
    );
}

fn expired(mesh: &Mesh) {
    refused(
        mesh,
        "app/open",
        &certificate(mesh, &mesh_ca(mesh), CLIENT, (-2, -1)),
        "expired",
    );
}

fn foreign_domain(mesh: &Mesh) {
    let id = "spiffe://other.example/ns/app/sa/client";
    refused(
        mesh,
        "app/open",
        &certificate(mesh, &mesh_ca(mesh), id, (-1, 1)),
        "wrong_identity",
    );
}

fn not_allowed(mesh: &Mesh) {
    // `guarded` admits only app/client.
    assert_eq!(mesh.curl("app/client", &["http://guarded/"]).0, 200);
    let stranger = certificate(
        mesh,
        &mesh_ca(mesh),
        "spiffe://cluster.local/ns/app/sa/stranger",
        (-1, 1),
    );
    refused(mesh, "app/guarded", &stranger, "identity");
    let (status, body) = mesh.curl("app/stranger", &["http://guarded/"]);
    assert_ne!(status, 200, "{body}");
}

/// Behind the address of `guarded` answers a server that has a certificate of the mesh, but not that of the pod's account.
fn wrong_server(mesh: &Mesh) {
    let netns = mesh.pod("app/guarded")["netns"]
        .as_str()
        .unwrap()
        .to_owned();
    let inside = |program: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &netns, program]);
        command
    };
    let id = "spiffe://cluster.local/ns/app/sa/impostor";
    let keys = certificate(mesh, &mesh_ca(mesh), id, (-1, 1));
    weft_tests::programs::run(inside(&built("weft-init").display().to_string()).arg("clean"));
    let mut impostor = inside("openssl")
        .args([
            "s_server", "-accept", "8081", "-tls1_3", "-alpn", "weft/h1", "-www", "-quiet", "-cert",
        ])
        .arg(keys.join("cert.pem"))
        .arg("-key")
        .arg(keys.join("key.pem"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    mesh.write(
        "impostor.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: impostor, namespace: app}\nspec:\n  selector: {app: guarded}\n  ports: [{name: http, port: 80, targetPort: 8081}]\n",
    );
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until(
            "the client to refuse the impostor",
            Duration::from_secs(20),
            || {
                let (status, body) = mesh.curl("app/client", &["-i", "http://impostor/"]);
                if status == 503 && body.contains("tls_wrong_identity") {
                    Ok(())
                } else {
                    Err((status, body))
                }
            },
        );
    }));
    impostor.kill().unwrap();
    impostor.wait().unwrap();
    mesh.remove("impostor.yaml");
    assert!(refused.is_ok(), "the impostor was not refused");
    let count = mesh.metric(
        "app/client",
        "weft_tls_handshakes_total",
        &["direction=\"outbound\"", "result=\"wrong_identity\""],
    );
    assert!(count >= 1.0, "the refusal was not counted");
}

fn permissive(mesh: &Mesh) {
    let ip = mesh.ip("app/permissive");
    let (status, body) = mesh.curl("plain/outsider", &[&format!("http://{ip}:8080/")]);
    assert_eq!(status, 200, "{body}");
    let before = mesh.handshakes("app/permissive", "");
    assert_eq!(mesh.curl("app/client", &["http://permissive/"]).0, 200);
    assert!(
        mesh.handshakes("app/permissive", "") > before,
        "the mesh spoke plaintext"
    );
}

fn weft_identity(mesh: &Mesh) {
    let identity = mesh.json(&["identity", "-n", "app", "client"]);
    assert_eq!(identity["spiffeId"], CLIENT);
    assert!(
        identity["chain"].as_array().is_some_and(|c| !c.is_empty()),
        "{identity}"
    );
    assert!(
        identity["notAfter"].as_str().is_some() && identity["notBefore"].as_str().is_some(),
        "{identity}"
    );
}
