//! Services: cluster IPs, names, NodePorts, and two meshes beside each other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::mesh::Mesh;

/// A server that answers with its pod's name, on port 8080 of both families.
pub(crate) const SERVER: &str = concat!(
    r#"["python3", "-c", ""#,
    r##"# weft-pods-test\n"##,
    r##"import http.server, socket, os\n"##,
    r##"class H(http.server.BaseHTTPRequestHandler):\n"##,
    r##"  def do_GET(s):\n"##,
    r##"    b = (os.environ['HOSTNAME'] + ' ' + s.client_address[0]).encode()\n"##,
    r##"    s.send_response(200); s.send_header('Content-Length', str(len(b))); s.end_headers(); s.wfile.write(b)\n"##,
    r##"  def log_message(s, *a): pass\n"##,
    r##"class S(http.server.ThreadingHTTPServer):\n"##,
    r##"  address_family = socket.AF_INET6\n"##,
    r##"S(('::', 8080), H).serve_forever()"##,
    r#""]"#,
);

/// A program that only stays.
pub(crate) const STAY: &str =
    r##"["sh", "-c", "# weft-pods-test\ntrap 'exit 0' TERM; while :; do sleep 0.1; done"]"##;

const FETCH: &str = "python3 -c \"import urllib.request,sys; print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())\"";

fn web(replicas: u32) -> String {
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
      containers:
      - name: web
        command: {SERVER}
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: http}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, labels: {{app: client}}}}
spec: {{containers: [{{name: client, command: {STAY}}}]}}
"
    )
}

pub(crate) fn services_and_names() {
    let services = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: heads}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
";
    let mesh = Mesh::up("a", &(web(2) + services));
    let names: Vec<String> = mesh
        .state()
        .pods
        .iter()
        .filter(|p| p.name.starts_with("web-"))
        .map(|p| p.name.clone())
        .collect();
    assert_eq!(names.len(), 2);
    // By name, over the cluster IP, both pods answer, and they see the client's own address.
    let own = mesh.pod("client").ips;
    let client = own[0].to_string();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = mesh.sh("client", &format!("{FETCH} http://web/"));
        let (pod, peer) = answer.split_once(' ').unwrap();
        assert!(
            own.iter().any(|ip| peer.ends_with(&ip.to_string())),
            "{peer}"
        );
        seen.insert(pod.to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), names);
    // Both families, the long name, an alias, the pods behind a headless service.
    let lookup = |name: &str, family: &str| {
        let script = format!(
            "python3 -c \"import socket; print(' '.join(sorted({{a[4][0] for a in socket.getaddrinfo('{name}', 80, socket.{family})}})))\""
        );
        mesh.sh("client", &script)
    };
    assert!(lookup("web", "AF_INET").starts_with("10.96."));
    let six = lookup("web.default.svc.cluster.local", "AF_INET6");
    assert!(six.starts_with("fd77:96::"), "{six}");
    mesh.sh("client", &format!("{FETCH} 'http://[{six}]/'"));
    assert_eq!(lookup("alias", "AF_INET"), lookup("web", "AF_INET"));
    let pods: Vec<String> = mesh
        .state()
        .pods
        .iter()
        .filter(|p| p.name.starts_with("web-"))
        .map(|p| p.ips[0].to_string())
        .collect();
    let mut heads: Vec<String> = lookup("heads", "AF_INET")
        .split(' ')
        .map(str::to_owned)
        .collect();
    heads.sort_by_key(|ip| pods.iter().position(|p| p == ip));
    assert_eq!(heads, pods);
    // SIGTERM arrives: a program that does not handle it ends at once.
    let (_, status) = mesh.try_sh("client", "sleep 60 & kill $!; wait $!");
    assert!(
        status.is_empty() || status.contains("Terminated"),
        "{status}"
    );
    assert_eq!(
        mesh.sh("web-", "grep SigBlk /proc/self/status | awk '{print $2}'"),
        "0000000000000000"
    );
    // A pod reaches itself through its own service.
    for _ in 0..6 {
        mesh.sh("web-", &format!("{FETCH} http://web.default/"));
    }
    // Nobody is there: refused at once. A name that is not there: an error, not a wait.
    let (_, refused) = mesh.try_sh("client", &format!("{FETCH} http://nobody/"));
    assert!(refused.contains("refused"), "{refused}");
    let (success, _) = mesh.try_sh("client", "getent hosts nope.default.svc.cluster.local");
    assert!(!success);
    // Pods reach this machine, and it reaches them.
    let direct: SocketAddr = format!("{}:8080", mesh.pod("web-").ips[0]).parse().unwrap();
    assert!(get(direct).contains(&mesh.pod("web-").name));
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let gate = mesh.state().subnet.v4(254);
    let asked = std::thread::spawn(move || listener.accept().unwrap().1.ip().to_string());
    mesh.sh(
        "client",
        &format!("python3 -c \"import socket; socket.create_connection(('{gate}', {port}), 3)\""),
    );
    assert_eq!(asked.join().unwrap(), client);
    mesh.down();
}

pub(crate) fn stateful_pods_have_names() {
    let mesh = Mesh::up(
        "s",
        &format!(
            "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: shop}}
spec:
  replicas: 2
  serviceName: db
  selector: {{matchLabels: {{app: db}}}}
  volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{}}}}]
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      containers: [{{name: db, command: {SERVER}, readinessProbe: {{httpGet: {{port: 8080}}}},
        volumeMounts: [{{name: data, mountPath: /data}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: shop}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 8080}}]}}
"
        ),
    );
    let names: Vec<String> = mesh.state().pods.iter().map(|p| p.name.clone()).collect();
    assert_eq!(names, ["db-0", "db-1"]);
    mesh.sh("db-0", "echo kept > /data/file");
    assert_eq!(
        mesh.sh("db-0", "hostname; hostname -f"),
        "db-0\ndb-0.db.shop.svc.cluster.local"
    );
    let other = mesh.sh("db-0", "getent hosts db-1.db | awk '{print $1}'");
    assert_eq!(other, mesh.pod("db-1").ips[0].to_string());
    // A pod of the same name finds its claim again.
    let first = mesh.pod("db-0");
    let log = |pod: &str| mesh.pod(pod).containers[0].init_pid.unwrap();
    let before = log("db-0");
    nix_kill(before);
    mesh.wait_for("db-0 to be back", |s| {
        s.pods
            .iter()
            .any(|p| p.name == "db-0" && p.ready && p.containers[0].init_pid != Some(before))
    });
    assert_eq!(mesh.sh("db-0", "cat /data/file"), "kept");
    assert_eq!(mesh.pod("db-0").ips, first.ips);
    mesh.down();
}

/// Ends a process of a test as an operator would.
pub(crate) fn nix_kill(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}

pub(crate) fn node_ports_open_on_the_host() {
    let service = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";
    let mesh = Mesh::up("n", &(web(1) + service));
    let state = mesh.state();
    let ports = &state
        .services
        .iter()
        .find(|s| s.name == "web")
        .unwrap()
        .ports[0];
    let port: u16 = ports.split(':').nth(1).unwrap().parse().unwrap();
    assert!((30_000..32_768).contains(&port));
    for ip in ["127.0.0.1", "[::1]"] {
        let answer = get(format!("{ip}:{port}").parse().unwrap());
        assert!(answer.contains("web-"), "{answer}");
    }
    mesh.down();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&address, crate::mesh::PATIENCE).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn two_meshes_at_once() {
    let one = Mesh::up("x", &web(1));
    let two = Mesh::up("x-2", &web(1));
    assert_ne!(one.state().subnet, two.state().subnet);
    assert_eq!(weft_local::ps(&one.name).unwrap().len(), 2);
    one.down();
    two.sh(
        "client",
        &format!("{FETCH} http://{}:8080/", two.pod("web-").ips[0]),
    );
    two.down();
}
