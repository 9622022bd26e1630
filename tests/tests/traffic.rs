//! Programs that know nothing of the mesh work through it, whatever they speak and however they are addressed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;
use std::time::Duration;

use weft_tests::mesh::Mesh;
use weft_tests::{suite, wait};

const BASE: &str = include_str!("manifests/base.yaml");
const DATABASES: &str = include_str!("manifests/databases.yaml");
const TOPOLOGY: &str = include_str!("manifests/topology.yaml");

fn main() -> ExitCode {
    suite::run(
        "traffic",
        &[BASE, DATABASES, TOPOLOGY],
        &[
            ("nginx_declared_and_undeclared", nginx),
            ("redis_declared_and_undeclared", redis),
            ("postgresql_declared_and_undeclared", postgresql),
            ("mariadb_declared_and_undeclared", mariadb),
            (
                "an_undeclared_mariadb_port_speaks_first_without_a_stall",
                mariadb_first_byte,
            ),
            ("localhost_is_never_touched", localhost),
            ("a_pod_reaches_itself_through_its_own_service", own_service),
            ("headless_services", headless),
            ("calls_to_a_pods_address", pod_address),
            ("addresses_outside_the_mesh", outside),
            ("ipv6", ipv6),
            ("dns", dns),
            ("half_close_and_large_bodies", half_close),
            ("websocket_upgrade_and_chunked_upload", http_features),
        ],
    )
}

fn nginx(mesh: &Mesh) {
    for url in [
        "http://nginx/a?b=c",
        "http://nginx:8080/a?b=c",
        "http://nginx.app.svc.cluster.local/a?b=c",
    ] {
        let (status, body) = mesh.curl("app/client", &[url]);
        assert_eq!(
            (status, body.as_str()),
            (200, "nginx GET /a?b=c marker-in-the-clear\n"),
            "{url}"
        );
    }
    let handshakes = mesh.handshakes("app/nginx", "sa/client");
    assert!(
        handshakes >= 1.0,
        "nginx's sidecar saw no handshake of the client"
    );
}

fn redis(mesh: &Mesh) {
    for (port, key) in [("6379", "declared"), ("6380", "undeclared")] {
        let cli = format!("redis-cli -h redis -p {port}");
        assert_eq!(
            mesh.sh("app/client", &format!("{cli} SET {key} value-{port}"))
                .trim(),
            "OK"
        );
        assert_eq!(
            mesh.sh("app/client", &format!("{cli} GET {key}")).trim(),
            format!("value-{port}")
        );
    }
}

fn postgresql(mesh: &Mesh) {
    for port in ["5432", "5433"] {
        let answer = mesh.sh(
            "app/client",
            &format!(
                "PGSSLMODE=prefer psql -h postgres -p {port} -U app -d postgres -Atc 'select 6*7'"
            ),
        );
        assert_eq!(answer.trim(), "42", "port {port}");
    }
}

fn mariadb(mesh: &Mesh) {
    for port in ["3306", "3307"] {
        let answer = mesh.sh(
            "app/client",
            &format!("mariadb --no-defaults -h mariadb -P {port} --skip-ssl -N -e 'select 6*7'"),
        );
        assert_eq!(answer.trim(), "42", "port {port}");
    }
}

/// Milliseconds from connect to the server's first byte, the smallest and the first of a few.
fn first_bytes(mesh: &Mesh, pod: &str, host: &str, port: u16) -> Vec<f64> {
    let script = format!(
        "import socket,time\nfor _ in range(7):\n t=time.perf_counter(); s=socket.create_connection(({host:?},{port})); \
         s.recv(1); print((time.perf_counter()-t)*1000); s.close()"
    );
    let output = mesh.exec(pod, &["python3", "-c", &script]);
    let text = String::from_utf8_lossy(&output.stdout);
    let times: Vec<f64> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(
        times.len(),
        7,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    times
}

fn mariadb_first_byte(mesh: &Mesh) {
    let without = first_bytes(mesh, "app/mariadb", "127.0.0.1", 3306);
    let through = first_bytes(mesh, "app/client", "mariadb", 3307);
    let mut sorted = without.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    // Every connection counts, also the first one, before anything was learned of the port.
    for time in &through {
        assert!(
            *time <= median + 50.0,
            "through the mesh {through:?} ms, without {without:?} ms"
        );
    }
}

fn localhost(mesh: &Mesh) {
    let before = mesh.metric("app/nginx", "weft_tcp_connections_total", &[]);
    let (status, _) = mesh.curl("app/nginx", &["http://127.0.0.1:8080/"]);
    assert_eq!(status, 200);
    let ip = mesh.ip("app/nginx");
    let (status, _) = mesh.curl("app/nginx", &[&format!("http://{ip}:8080/")]);
    assert_eq!(status, 200);
    assert!(
        mesh.metric("app/nginx", "weft_tcp_connections_total", &[]) <= before,
        "loopback traffic reached the sidecar"
    );
}

fn own_service(mesh: &Mesh) {
    for _ in 0..3 {
        let (status, body) = mesh.curl("app/nginx", &["http://nginx.app/self"]);
        assert_eq!(
            (status, body.as_str()),
            (200, "nginx GET /self marker-in-the-clear\n")
        );
    }
}

fn headless(mesh: &Mesh) {
    for pod in ["web-0", "web-1"] {
        let url = format!("http://{pod}.web-headless.app.svc.cluster.local:8080/");
        let (status, body) = mesh.curl("app/client", &[&url]);
        assert_eq!((status, body.trim()), (200, pod), "{url}");
    }
    let (status, body) = mesh.curl("app/client", &["http://web-headless:8080/"]);
    assert_eq!(status, 200, "{body}");
    assert!(mesh.handshakes("app/web-0", "") >= 1.0);
}

fn pod_address(mesh: &Mesh) {
    let ip = mesh.ip("app/web-0");
    let (status, body) = mesh.curl("app/client", &[&format!("http://{ip}:8080/")]);
    assert_eq!((status, body.trim()), (200, "web-0"));
}

fn outside(mesh: &Mesh) {
    // A pod of a namespace that is not in the mesh, by its address and by its service.
    let ip = mesh.ip("plain/unmeshed");
    for url in [
        format!("http://{ip}:8080/"),
        "http://unmeshed.plain/".to_owned(),
    ] {
        let (status, body) = mesh.curl("app/client", &[&url]);
        assert_eq!((status, body.trim()), (200, "unmeshed"), "{url}");
    }
    // An address that belongs to nobody here: refused by nobody, so it times out or is unreachable, but never answered by us.
    let (status, body) = mesh.curl("app/client", &["-m", "2", "http://192.0.2.1/"]);
    assert_eq!(status, 0, "{body}");
}

fn ipv6(mesh: &Mesh) {
    let pod = mesh.pod("app/web-0");
    let v6 = pod["ips"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i.as_str())
        .find(|i| i.contains(':'))
        .expect("a pod has an IPv6 address")
        .to_owned();
    let (status, body) = mesh.curl("app/client", &[&format!("http://[{v6}]:8080/")]);
    assert_eq!((status, body.trim()), (200, "web-0"), "{v6}");
    let (status, body) = mesh.curl("app/client", &["-6", "http://web-dual/"]);
    assert_eq!(status, 200, "{body}");
}

fn dns(mesh: &Mesh) {
    let lookup = |name: &str, family: &str| {
        let script = format!(
            "import socket; print(sorted({{a[4][0] for a in socket.getaddrinfo({name:?}, None, socket.{family})}}))"
        );
        let output = mesh.exec("app/client", &["python3", "-c", &script]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert!(lookup("nginx", "AF_INET").contains("10."), "short name");
    assert_eq!(
        lookup("nginx", "AF_INET"),
        lookup("nginx.app.svc.cluster.local", "AF_INET")
    );
    let both = lookup("web-headless", "AF_INET");
    assert!(
        both.contains(&mesh.ip("app/web-0")) && both.contains(&mesh.ip("app/web-1")),
        "{both}"
    );
    assert!(
        lookup("web-dual", "AF_INET6").contains("fd"),
        "a dual-stack service has an AAAA record"
    );
    assert_eq!(
        lookup("no-such-service", "AF_INET"),
        "",
        "an unknown name has no address"
    );
    assert!(
        lookup("unmeshed.plain", "AF_INET").contains("10."),
        "services outside the mesh have names too"
    );
    assert!(
        lookup("elsewhere", "AF_INET").contains("10."),
        "an ExternalName leads to its target"
    );
}

/// A TCP echo through the mesh: everything that was sent comes back after the sender closed its half.
fn half_close(mesh: &Mesh) {
    let script = "import socket,threading\n\
        s=socket.create_connection(('tcp-echo',7000))\n\
        data=bytes(range(256))*40000\n\
        threading.Thread(target=lambda:(s.sendall(data),s.shutdown(socket.SHUT_WR))).start()\n\
        got=b''\n\
        while chunk:=s.recv(65536): got+=chunk\n\
        print(got==data, len(got))";
    let output = mesh.exec("app/client", &["python3", "-c", script]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "True 10240000",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn http_features(mesh: &Mesh) {
    let switched = wait::until("a WebSocket upgrade", Duration::from_secs(10), || {
        let script = "import socket\n\
            s=socket.create_connection(('upgrade',80)); s.settimeout(5)\n\
            s.sendall(b'GET /chat HTTP/1.1\\r\\nHost: upgrade\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')\n\
            head=b''\n\
            while b'\\r\\n\\r\\n' not in head: head+=s.recv(1)\n\
            s.sendall(b'ping'); print(head.split(b'\\r\\n')[0].decode(), s.recv(4).decode())";
        let output = mesh.exec("app/client", &["python3", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if text.is_empty() {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        } else {
            Ok(text)
        }
    });
    assert_eq!(switched, "HTTP/1.1 101 Switching Protocols ping");
    let sent = mesh.sh("app/client", "head -c 300000 /dev/zero | curl -sS -m 10 -H 'Transfer-Encoding: chunked' -T - http://web-dual/ -o /dev/null -w '%{http_code}'");
    assert!(
        ["200", "405"].contains(&sent.trim()),
        "a chunked upload: {sent}"
    );
    let expect = mesh.sh("app/client", "head -c 2000000 /dev/zero | curl -sS -m 10 -H 'Expect: 100-continue' --data-binary @- http://tcp-sink/ -o /dev/null -w '%{http_code} %{size_upload}'");
    assert_eq!(expect.trim(), "200 2000000");
}
