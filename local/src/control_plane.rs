//! The control plane's process: started on the node, started again when it ends, held down on request.
//!
//! It runs in the node's network namespace but in the host's PID and mount namespaces, because it reads the user's files.
//! Driven by [`crate::supervisor`]; its trust bundle comes back through [`Roots`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::issuer::ISSUER;
use crate::pod::Machine;
use crate::sys::{self, ProcessTree};

/// ADS and certificate signing.
pub(crate) const PORT: u16 = 15012;

/// Admin and metrics.
pub(crate) const ADMIN_PORT: u16 = 15014;

/// Wait before a control plane that ended by itself is started again.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// Time to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// What is known of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Its number while it runs.
    pub(crate) pid: Option<u32>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// `/readyz` has answered since it was started last.
    pub(crate) ready: bool,
    /// The trust bundle as PEM, once known.
    pub(crate) roots: Option<Arc<str>>,
}

/// Orders from the supervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Do not start it again before this.
    pub(crate) held_until: Option<Instant>,
    /// End it for good.
    pub(crate) stop: bool,
}

/// What the process is started with.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// The program.
    pub(crate) program: PathBuf,
    /// The user's manifests.
    pub(crate) sources: Vec<PathBuf>,
    /// Additional environment, e.g. log levels.
    pub(crate) env: Vec<(String, String)>,
}

/// Keeps the control plane running until told to stop.
pub(crate) async fn keep(
    machine: Machine,
    launch: Launch,
    status: watch::Sender<Status>,
    mut orders: watch::Receiver<Orders>,
    changed: Arc<Notify>,
) {
    let tell = |change: &dyn Fn(&mut Status)| {
        status.send_modify(|s| change(s));
        changed.notify_one();
    };
    loop {
        let order = *orders.borrow_and_update();
        if order.stop {
            return;
        }
        if let Some(until) = order.held_until.filter(|until| *until > Instant::now()) {
            tokio::select! {
                () = sleep_until(until) => {}
                _ = orders.changed() => continue,
            }
        }
        match spawn(&machine, &launch) {
            Ok(mut child) => {
                tell(&|s| (s.pid, s.ready) = (child.id(), false));
                let follow = follow_roots(&machine, &status, &changed);
                let ended = tokio::select! {
                    ended = child.wait() => Some(ended),
                    () = follow => None,
                    _ = orders.wait_for(|o| o.stop || o.held_until.is_some_and(|until| until > Instant::now())) => None,
                };
                match ended {
                    Some(ended) => tracing::warn!(?ended, "the control plane ended"),
                    None => stop(&mut child).await,
                }
                tell(&|s| (s.pid, s.ready) = (None, false));
            }
            Err(error) => {
                tracing::error!(%error, program = %launch.program.display(), "the control plane cannot be started");
            }
        }
        tokio::select! {
            () = sleep(RESTART_WAIT) => {}
            _ = orders.wait_for(|o| o.stop) => return,
        }
        tell(&|s| s.restarts += 1);
    }
}

fn spawn(machine: &Machine, launch: &Launch) -> std::io::Result<tokio::process::Child> {
    let layout = &machine.layout;
    fs::create_dir_all(layout.control_plane())?;
    fs::create_dir_all(layout.objects())?;
    fs::create_dir_all(layout.logs())?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.logs().join("control-plane.log"))?;
    let mut command = tokio::process::Command::new(&launch.program);
    for source in &launch.sources {
        command.arg("--source").arg(source);
    }
    command.arg("--write-back").arg(layout.objects());
    command.arg("--state-dir").arg(layout.control_plane());
    command.arg("--jwks").arg(machine.issuer.jwks());
    command.args(["--token-issuer", ISSUER]);
    let any = if machine.node.subnet.ipv6 {
        "[::]"
    } else {
        "0.0.0.0"
    };
    command.args([
        "--listen",
        &format!("{any}:{PORT}"),
        "--admin",
        &format!("{any}:{ADMIN_PORT}"),
    ]);
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    command
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true);
    sys::spawn_in_netns(&layout.node_netns(), ProcessTree::Shared, command)
}

async fn stop(child: &mut tokio::process::Child) {
    let signal = |signal| {
        if let Some(pid) = child.id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    };
    signal(Signal::SIGTERM);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Watches readiness and the trust bundle while the process runs; never returns.
async fn follow_roots(machine: &Machine, status: &watch::Sender<Status>, changed: &Notify) {
    let Some(ip) = machine.node.addresses().first().copied() else {
        return std::future::pending().await;
    };
    let admin = SocketAddr::new(ip, ADMIN_PORT);
    let netns = machine.layout.node_netns();
    let mut wait = Duration::from_millis(20);
    loop {
        let ready = get(&netns, admin, "/readyz").await.is_some();
        let roots = if ready {
            get(&netns, admin, "/roots")
                .await
                .filter(|pem| pem.contains("BEGIN CERTIFICATE"))
        } else {
            None
        };
        let told = status.send_if_modified(|s| {
            let before = s.clone();
            s.ready = ready;
            if let Some(roots) = roots {
                s.roots = Some(roots.into());
            }
            *s != before
        });
        if told {
            changed.notify_one();
        }
        // Often until it is there; afterwards a changed bundle may take a second.
        wait = if ready {
            Duration::from_secs(1)
        } else {
            (wait * 3 / 2).min(Duration::from_secs(1))
        };
        sleep(wait).await;
    }
}

/// The body of a successful `GET` on the node's network.
pub(crate) async fn get(netns: &str, address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let socket = sys::in_netns(netns, || {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
            Ok(TcpSocket::from_std_stream(socket.into()))
        })?;
        let mut stream = socket.connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(Duration::from_secs(3), exchange).await.ok()?.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let success = head
        .split_whitespace()
        .nth(1)
        .is_some_and(|status| status.starts_with('2'));
    success.then(|| body.to_owned())
}

/// The program, next to this one or in `PATH`.
pub fn find_control_plane() -> Option<PathBuf> {
    find_program("weft-control-plane")
}

/// A program next to this one, or in `PATH`.
fn find_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .collect::<Vec<_>>();
    beside
        .into_iter()
        .chain(in_path)
        .find(|path: &PathBuf| Path::is_file(path))
}
