//! A directory with manifests, keys and state, and a control plane that runs from it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const UID_0: &str = "a12fa123-7ca8-43d7-b923-c8081e2503c0";
pub(crate) const UID_1: &str = "a12fa123-7ca8-43d7-b923-c8081e2503c1";
pub(crate) const UID_2: &str = "a12fa123-7ca8-43d7-b923-c8081e2503c2";

const ISSUER: &str = "https://weft.local";
const DEADLINE: Duration = Duration::from_secs(20);

/// Tries again until there is something, at most for [`DEADLINE`].
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Files of one mesh.
pub(crate) struct Site {
    directory: TempDir,
    signing: EncodingKey,
}

impl Site {
    /// The service `shop/web` with one endpoint, the pod `web-0` on loopback and `web-1` elsewhere.
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let signing = EncodingKey::from_ec_der(&key.serialize_der());
        let directory = tempfile::tempdir().unwrap();
        let mut jwk = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".into());
        fs::write(
            directory.path().join("jwks.json"),
            json!({ "keys": [jwk] }).to_string(),
        )
        .unwrap();
        fs::create_dir(directory.path().join("manifests")).unwrap();
        let site = Self { directory, signing };
        site.write(
            "web.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
             spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], selector: {app: web}, \
             ports: [{name: http, port: 80, targetPort: 8080}]}\n",
        );
        site.write_pod("web-0", UID_0, "127.0.0.1");
        site.write_pod("web-1", UID_1, "10.244.0.8");
        site.write_endpoints(&["10.244.0.7"]);
        site
    }

    /// Replaces a manifest as editors and the local runner do: at once.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let temporary = self.path(&format!("{name}.tmp"));
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.path("manifests").join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path("manifests").join(name)).unwrap();
    }

    pub(crate) fn write_pod(&self, name: &str, uid: &str, address: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "uid": uid, "labels": {"app": "web", "weft.dev/meshed": "true"}},
            "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "web"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        });
        self.write(&format!("{name}.json"), &pod.to_string());
    }

    pub(crate) fn write_endpoints(&self, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|a| json!({"addresses": [a], "conditions": {"ready": true}}))
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        });
        self.write("endpoints.yaml", &slice.to_string()); // JSON is YAML
    }

    /// A projected token of the pod `web-0`, edited.
    pub(crate) fn token(&self, edit: impl Fn(&mut Value)) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "aud": ["weft-ca"], "iss": ISSUER, "iat": now, "nbf": now, "exp": now + 3600,
            "sub": "system:serviceaccount:shop:web",
            "kubernetes.io": {
                "namespace": "shop",
                "pod": {"name": "web-0", "uid": UID_0},
                "serviceaccount": {"name": "web", "uid": "09619ec9-8157-4f44-8c74-4835b31ea9b8"},
            },
        });
        edit(&mut claims);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".into());
        encode(&header, &claims, &self.signing).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The running binary; killed when dropped.
pub(crate) struct ControlPlane {
    child: Child,
    log: Arc<Mutex<String>>,
    /// The TLS port.
    pub(crate) listen: String,
    admin: String,
}

impl ControlPlane {
    /// Starts it on free ports and waits until it says that it is ready.
    pub(crate) async fn start(site: &Site) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft-control-plane"))
            .arg("--source")
            .arg(site.path("manifests"))
            .arg("--state-dir")
            .arg(site.path("state"))
            .arg("--jwks")
            .arg(site.path("jwks.json"))
            .args([
                "--token-issuer",
                ISSUER,
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ])
            .args(["--log-format", "json"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let ready = eventually("the control plane to be ready", async || {
            let log = log.lock().unwrap();
            let mut lines = log
                .lines()
                .filter_map(|l| serde_json::from_str::<Value>(l).ok());
            lines.find(|l| l["message"] == "ready")
        })
        .await;
        Self {
            child,
            log,
            listen: ready["listen"].as_str().unwrap().to_owned(),
            admin: ready["admin"].as_str().unwrap().to_owned(),
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A page of the admin port: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.admin).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    /// A JSON page of the admin port.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// SIGTERM; gives the exit code.
    pub(crate) async fn stop(mut self) -> Option<i32> {
        let kill = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(kill.success());
        eventually("the control plane to end", async || {
            self.child.try_wait().unwrap()
        })
        .await
        .code()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
