//! One container from its first start to its last end: start, probes, hooks, stop, restart.
//!
//! [`keep`] is the spine. Called by [`super::run`] for each container; starts processes through [`crate::sys`] with
//! the spec of [`super::build`], and tells what happens to the pod's [`Reporter`].

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::PodContext;
use super::backoff::Backoff;
use super::exec::Exec;
use super::logs::Log;
use super::probe::{Target, http_get};
use super::report::{Ended, Role, State};
use super::watching::watch_probes;
use crate::container::{HELPER_COMMAND, START_ERROR};
use crate::sys::{self, ProcessTree};

/// Until when a container may take to stop; `None` while it should run.
pub(crate) type Stop = Option<Instant>;

/// What to do when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Start it again.
    Always,
    /// Start it again unless it ended well.
    OnFailure,
    /// Leave it.
    Never,
}

/// Time left to a program after its deadline, before it is killed, in any case.
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// Wait before another attempt to make a container whose config map or secret is missing.
const CONFIG_RETRY: Duration = Duration::from_millis(500);

/// A started container.
struct Running {
    child: Child,
    exec: Exec,
    since: Timestamp,
}

/// Runs a container until it has ended and will not be started again, or until told to stop. Returns its last exit code.
pub(crate) async fn keep(
    pod: PodContext,
    container: Container,
    role: Role,
    restart: Restart,
    mut stop: watch::Receiver<Stop>,
) -> i32 {
    let mut backoff = Backoff::default();
    let mut starts: u32 = 0;
    loop {
        let began = Instant::now();
        let ended = match start(&pod, &container, starts) {
            Ok(running) => attend(&pod, &container, running, &mut stop).await,
            Err(message) => {
                pod.report.container(&container.name, |c| {
                    c.state = State::Waiting {
                        reason: "CreateContainerConfigError",
                        message,
                    };
                });
                tokio::select! {
                    () = sleep(CONFIG_RETRY) => continue,
                    _ = stop.wait_for(Option::is_some) => return 0,
                }
            }
        };
        starts += 1;
        let code = ended.code;
        pod.report.container(&container.name, |c| {
            (c.started, c.ready, c.probe_failure) = (false, false, None);
            c.state = State::Terminated(ended.clone());
        });
        let again = match restart {
            Restart::Always => true,
            Restart::OnFailure => code != 0,
            Restart::Never => false,
        };
        if stop.borrow().is_some() || !again {
            return code;
        }
        let wait = backoff.after(began.elapsed());
        if !wait.is_zero() {
            let more = if ended.message.is_empty() {
                String::new()
            } else {
                format!(": {}", ended.message)
            };
            let message = format!(
                "ended with code {code}{more}; next start in {}s",
                wait.as_secs()
            );
            pod.report.container(&container.name, |c| {
                c.last = Some(ended.clone());
                c.state = State::Waiting {
                    reason: "CrashLoopBackOff",
                    message,
                };
            });
            tokio::select! {
                () = sleep(wait) => {}
                _ = stop.wait_for(Option::is_some) => return code,
            }
        }
        pod.report.container(&container.name, |c| {
            c.last = Some(ended);
            // A sidecar's or init container's restart counts as any other's.
            c.restarts += 1;
        });
        tracing::debug!(pod = %pod.name(), container = %container.name, ?role, starts, "starting again");
    }
}

fn start(pod: &PodContext, container: &Container, restart: u32) -> Result<Running, String> {
    let directory = pod.directory.join("containers").join(&container.name);
    std::fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let spec = pod.container_spec(container, directory.join("scratch"))?;
    let path = directory.join("spec.json");
    spec.write(&path)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let _ = std::fs::remove_file(directory.join("start-error"));
    let log =
        Log::create(&pod.directory, &container.name, restart).map_err(|e| format!("log: {e}"))?;
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command
        .arg0(HELPER_COMMAND)
        .arg(HELPER_COMMAND)
        .arg("init")
        .arg(&path);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear();
    let mut child = sys::spawn_in_netns(&pod.netns, ProcessTree::Isolated, command)
        .map_err(|e| format!("cannot start: {e}"))?;
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        tokio::spawn(log.clone().copy("stdout", out));
        tokio::spawn(log.copy("stderr", err));
    }
    let pid = child.id().ok_or("ended at once")?;
    Ok(Running {
        child,
        exec: Exec { spec: path, pid },
        since: Timestamp::now(),
    })
}

/// Watches over a running container until its process is gone.
async fn attend(
    pod: &PodContext,
    container: &Container,
    mut running: Running,
    stop: &mut watch::Receiver<Stop>,
) -> Ended {
    let (pid, since) = (running.exec.pid, running.since);
    pod.report.container(&container.name, |c| {
        c.state = State::Running {
            since,
            init_pid: pid,
            pid: None,
        };
        c.started = container.startup_probe.is_none();
        c.ready = c.started && container.readiness_probe.is_none();
    });
    let target = Target {
        netns: pod.netns.clone(),
        ip: pod.ip(),
        exec: running.exec.clone(),
        container: container.clone(),
    };
    let probes = watch_probes(pod, &target);
    let hook = post_start(pod, &target);
    let mut note = String::new();
    let end = tokio::select! {
        end = running.child.wait() => Some(end),
        reason = probes => { note = reason; None }
        reason = hook => { note = reason; None }
        () = find_command(pod, container, pid) => None,
        _ = stop.wait_for(Option::is_some) => None,
    };
    let status = match end {
        Some(status) => status,
        None => {
            // A stopping pod is taken out of its services by its own status; a container that fails its probe here.
            pod.report.container(&container.name, |c| c.ready = false);
            let deadline = (*stop.borrow()).unwrap_or_else(|| Instant::now() + pod.grace());
            terminate(&mut running, &target, deadline, stop).await
        }
    };
    ended(&running, status.ok(), note)
}

/// Notes the number of the command's process once the helper has started it; never returns.
async fn find_command(pod: &PodContext, container: &Container, init: u32) {
    loop {
        if let Some(command) = sys::first_child(init) {
            pod.report.container(&container.name, |c| {
                if let State::Running { pid, .. } = &mut c.state {
                    *pid = Some(command);
                }
            });
            return std::future::pending().await;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// `preStop`, SIGTERM, and SIGKILL at the deadline; a deadline that is moved closer counts.
async fn terminate(
    running: &mut Running,
    target: &Target,
    deadline: Instant,
    stop: &mut watch::Receiver<Stop>,
) -> std::io::Result<std::process::ExitStatus> {
    let pre_stop = target
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.pre_stop.as_ref());
    if let Some(handler) = pre_stop {
        let hook = timeout_at(deadline, run_hook(handler, target));
        tokio::select! {
            outcome = hook => if let Ok(Err(reason)) = outcome {
                tracing::warn!(container = %target.container.name, %reason, "preStop failed");
            },
            status = running.child.wait() => return status,
        }
    }
    signal(running, Signal::SIGTERM);
    loop {
        let until = (*stop.borrow_and_update()).map_or(deadline, |moved| moved.min(deadline));
        tokio::select! {
            status = running.child.wait() => return status,
            () = tokio::time::sleep_until(until) => break,
            Ok(()) = stop.changed() => {}
        }
    }
    signal(running, Signal::SIGKILL);
    match tokio::time::timeout(LAST_CHANCE * 20, running.child.wait()).await {
        Ok(status) => status,
        Err(_) => Err(std::io::Error::other("could not be killed")),
    }
}

fn signal(running: &Running, signal: Signal) {
    // While the child has not been waited for, its number cannot belong to another process.
    if running.child.id().is_some() {
        let _ = kill(Pid::from_raw(running.exec.pid.cast_signed()), signal);
    }
}

fn ended(running: &Running, status: Option<std::process::ExitStatus>, note: String) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .and_then(|s| s.code().or_else(|| s.signal().map(|n| 128 + n)))
        .unwrap_or(137);
    let start_error = std::fs::read_to_string(running.exec.spec.with_file_name("start-error"))
        .unwrap_or_default();
    let (reason, message) = match (code, start_error.is_empty(), note.is_empty()) {
        (code, false, _) if code == i32::from(START_ERROR) => ("StartError", start_error),
        (_, _, false) => ("Error", note),
        (0, ..) => ("Completed", String::new()),
        _ => ("Error", String::new()),
    };
    Ended {
        code,
        reason,
        message,
        started: running.since,
        finished: Timestamp::now(),
    }
}

async fn run_hook(handler: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let (code, output) = target
            .exec
            .run(action.command.as_deref().unwrap_or_default())
            .await?;
        return if code == 0 {
            Ok(())
        } else {
            Err(format!("exit code {code}: {}", output.trim()))
        };
    }
    if let Some(action) = &handler.http_get {
        return http_get(action, target).await;
    }
    if let Some(action) = &handler.sleep {
        sleep(Duration::from_secs(action.seconds.unsigned_abs())).await;
    }
    Ok(())
}

/// Runs `postStart`; returns only if it failed, with the reason to stop the container.
async fn post_start(pod: &PodContext, target: &Target) -> String {
    if let Some(handler) = target
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.post_start.as_ref())
        && let Err(reason) = run_hook(handler, target).await
    {
        tracing::warn!(pod = %pod.name(), container = %target.container.name, %reason, "postStart failed");
        return format!("postStart failed: {reason}");
    }
    std::future::pending().await
}
