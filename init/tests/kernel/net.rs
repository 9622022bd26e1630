//! Two network namespaces, "pod" and "peer", joined by two cables: eth0, the pod's default route, and net1.
//!
//! Used by every scenario in `main.rs`. Namespaces, listeners and files go when [`Net`] is dropped, panics included.

use nix::sched::{CloneFlags, setns};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;
use weft_init::Family;
use weft_init::verify::dial::original_destination;

const POLL: Duration = Duration::from_millis(5);

/// User and group.
pub(crate) type User = (u32, u32);
/// The application.
pub(crate) const APP: User = (1000, 1000);
/// The sidecar.
pub(crate) const PROXY: User = (1337, 1337);

/// One of the two namespaces.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// The pod.
    Pod,
    /// Everybody else.
    Peer,
}

/// Addresses of one IP version.
pub(crate) struct Addresses {
    /// The pod on eth0.
    pub(crate) pod: &'static str,
    /// The pod on net1.
    pub(crate) pod_net1: &'static str,
    /// The peer on net1.
    pub(crate) peer_net1: &'static str,
    /// Somewhere behind eth0.
    pub(crate) far: &'static str,
    /// Somewhere else behind eth0.
    pub(crate) other: &'static str,
    /// A network around `other`.
    pub(crate) other_net: &'static str,
    /// localhost
    pub(crate) local: &'static str,
}

/// The addresses of `family`, IPv6 ones in brackets.
pub(crate) fn addresses(family: Family) -> Addresses {
    match family {
        Family::V4 => Addresses {
            pod: "10.244.9.2",
            pod_net1: "10.245.9.2",
            peer_net1: "10.245.9.1",
            far: "203.0.113.7",
            other: "198.51.100.7",
            other_net: "198.51.100.0/24",
            local: "127.0.0.1",
        },
        Family::V6 => Addresses {
            pod: "[fd77:9::2]",
            pod_net1: "[fd78:9::2]",
            peer_net1: "[fd78:9::1]",
            far: "[2001:db8:7::7]",
            other: "[2001:db8:8::7]",
            other_net: "2001:db8:8::/48",
            local: "[::1]",
        },
    }
}

/// The two namespaces.
pub(crate) struct Net {
    name: String,
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    listeners: Vec<JoinHandle<()>>,
}

impl Net {
    /// Makes and connects them. Panics when it cannot: root, `ip` and `setpriv` are needed.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wi{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(format!("weft-init-{name}"));
        let net = Self {
            name,
            directory,
            stop: Arc::default(),
            listeners: vec![],
        };
        // The build directory may be closed to other users.
        fs::create_dir_all(&net.directory).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_weft-init"), net.binary()).unwrap();
        let (pod, peer) = (net.namespace(At::Pod), net.namespace(At::Peer));
        for namespace in [&pod, &peer] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        for (link, v4, v6) in [
            ("eth0", "10.244.9", "fd77:9:"),
            ("net1", "10.245.9", "fd78:9:"),
        ] {
            ip(&format!(
                "link add {link} netns {pod} type veth peer name {link} netns {peer}"
            ));
            for (namespace, host) in [(&pod, 2), (&peer, 1)] {
                ip(&format!(
                    "-n {namespace} addr add {v4}.{host}/24 dev {link}"
                ));
                ip(&format!(
                    "-n {namespace} addr add {v6}:{host}/64 dev {link} nodad"
                ));
                ip(&format!("-n {namespace} link set {link} up"));
            }
        }
        for far in [
            "203.0.113.7/32",
            "198.51.100.7/32",
            "2001:db8:7::7/128",
            "2001:db8:8::7/128",
        ] {
            ip(&format!("-n {peer} addr add {far} dev lo"));
        }
        ip(&format!("-n {pod} route add default via 10.244.9.1"));
        ip(&format!("-n {pod} route add default via fd77:9::1"));
        net
    }

    /// The namespace's name for `ip netns`.
    pub(crate) fn namespace(&self, at: At) -> String {
        match at {
            At::Pod => format!("{}-pod", self.name),
            At::Peer => format!("{}-peer", self.name),
        }
    }

    /// A copy of the program that every user may run.
    pub(crate) fn binary(&self) -> PathBuf {
        self.directory.join("weft-init")
    }

    /// Runs a program in the pod as root.
    pub(crate) fn run(&self, line: &str) -> Output {
        let output = self
            .command(At::Pod)
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", said(&output));
        output
    }

    /// A command in a namespace; the program and its arguments follow.
    pub(crate) fn command(&self, at: At) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(at)]);
        command
    }

    /// Runs weft-init in the pod.
    pub(crate) fn weft(&self, line: &str) -> Output {
        self.command(At::Pod)
            .arg(self.binary())
            .args(line.split_whitespace())
            .output()
            .unwrap()
    }

    /// Runs weft-init in the pod, which must succeed; returns what it printed.
    pub(crate) fn weft_ok(&self, line: &str) -> String {
        let output = self.weft(line);
        assert!(
            output.status.success(),
            "weft-init {line}: {}",
            said(&output)
        );
        said(&output)
    }

    /// Dials as `user` and returns what the listener says, see [`Net::listen`]. `target` may be followed by options.
    pub(crate) fn dial(&self, at: At, user: User, target: &str) -> String {
        let output = self
            .command(at)
            .args(["setpriv", "--clear-groups"])
            .args([format!("--reuid={}", user.0), format!("--regid={}", user.1)])
            .arg(self.binary())
            .arg("dial")
            .args(target.split_whitespace())
            .output()
            .unwrap();
        said(&output).trim().to_owned()
    }

    /// Listens until the end. TCP answers `NAME DESTINATION from PEER`, where DESTINATION is the original one of a
    /// redirected connection, else the one seen.
    pub(crate) fn listen(&mut self, at: At, address: &str, name: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        self.in_namespace(at, move |ready, stop| {
            let listener = TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            ready.send(()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, peer)) = listener.accept() else {
                    sleep(POLL);
                    continue;
                };
                let seen = stream.local_addr().unwrap();
                let meant = original_destination(&stream).unwrap_or(seen);
                // One write, for a reader that reads once.
                let _ = stream.write_all(format!("{name} {meant} from {}", peer.ip()).as_bytes());
            }
        });
    }

    /// The same for UDP: answers `NAME from PEER`.
    pub(crate) fn listen_udp(&mut self, at: At, address: &str, name: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        self.in_namespace(at, move |ready, stop| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(POLL)).unwrap();
            ready.send(()).unwrap();
            let mut query = [0u8; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut query) {
                    let _ = socket.send_to(format!("{name} from {peer}").as_bytes(), peer);
                }
            }
        });
    }

    fn in_namespace(
        &mut self,
        at: At,
        body: impl FnOnce(mpsc::Sender<()>, Arc<AtomicBool>) + Send + 'static,
    ) {
        let file = File::open(format!("/run/netns/{}", self.namespace(at))).unwrap();
        let stop = self.stop.clone();
        let (ready, is_ready) = mpsc::channel();
        self.listeners.push(thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            body(ready, stop);
        }));
        is_ready
            .recv_timeout(Duration::from_secs(5))
            .expect("the listener did not start");
    }

    /// Everything that rules consist of in the pod, and the addresses of lo, without counters.
    pub(crate) fn dump(&self) -> String {
        let mut text = String::new();
        for program in [
            "iptables-nft",
            "ip6tables-nft",
            "iptables-legacy",
            "ip6tables-legacy",
        ] {
            let output = self.run(&format!("{program}-save"));
            let _ = writeln!(text, "== {program}");
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if !line.starts_with('#') {
                    // The counters of a built-in chain follow its name.
                    text.push_str(line.split(" [").next().unwrap());
                    text.push('\n');
                }
            }
        }
        for line in ["nft -s list ruleset", "ip -o addr show dev lo"] {
            let _ = writeln!(text, "== {line}");
            text.push_str(&String::from_utf8_lossy(&self.run(line).stdout));
        }
        text
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        for at in [At::Pod, At::Peer] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(at)])
                .status();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What a program printed.
pub(crate) fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn ip(line: &str) {
    let output = Command::new("ip")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {line}: {}", said(&output));
}
