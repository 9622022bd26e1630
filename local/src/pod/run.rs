//! A pod's task: network, volumes, init containers in order, the containers, and the way back.
//!
//! [`run`] is the spine, from top to bottom. Started by [`super::PodTask`]; each container is [`super::lifecycle::keep`].

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::PodContext;
use super::build::fs_group;
use super::lifecycle::{Restart, Stop, keep};
use super::report::{Phase, Role};
use super::volumes::{shortest_token, write};
use crate::names::Layout;

/// The least time a sidecar gets to end after the application has.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// Wait before volumes are tried again because an object is missing.
const VOLUME_RETRY: Duration = Duration::from_secs(1);

/// The pod's containers in the order they start, with their roles.
pub(crate) fn roles(pod: &Pod) -> Vec<(String, Role)> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let inits = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| (c.name.clone(), init_role(c)));
    inits
        .chain(spec.containers.iter().map(|c| (c.name.clone(), Role::Main)))
        .collect()
}

fn init_role(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") {
        Role::Sidecar
    } else {
        Role::Init
    }
}

/// A container that runs beside others.
struct Beside {
    stop: watch::Sender<Stop>,
    task: JoinHandle<i32>,
}

impl Beside {
    fn start(pod: &PodContext, container: &Container, role: Role, restart: Restart) -> Self {
        let (stop, stopped) = watch::channel(None);
        Self {
            stop,
            task: tokio::spawn(keep(pod.clone(), container.clone(), role, restart, stopped)),
        }
    }

    fn stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
    }

    /// Its exit code; a broken task counts as an error.
    async fn end(self) -> i32 {
        self.task.await.unwrap_or(1)
    }
}

/// Runs a pod until it is told to stop, then removes it.
pub(crate) async fn run(pod: PodContext, mut stop: watch::Receiver<Stop>) {
    // 1 A network of its own, and volumes; both are there before any program is.
    if prepare(&pod, &mut stop).await {
        let refresher = tokio::spawn(refresh_volumes(pod.clone()));
        // 2 Containers, until all have ended or the pod is told to stop.
        let phase = run_containers(&pod, &mut stop).await;
        refresher.abort();
        pod.report.update(|report| report.phase = phase);
        // 3 A finished pod stays, with its logs, until its owner removes it.
        let _ = stop.wait_for(Option::is_some).await;
    }
    // 4 Nothing of it is left.
    let removal = pod.clone();
    let _ = tokio::task::spawn_blocking(move || remove(&removal)).await;
    pod.report.update(|report| report.gone = true);
}

/// Makes network and volumes, however long it takes. False when the pod was told to stop meanwhile.
async fn prepare(pod: &PodContext, stop: &mut watch::Receiver<Stop>) -> bool {
    let mut objects = pod.machine.objects.clone();
    loop {
        objects.mark_unchanged();
        let attempt = pod.clone();
        let made = tokio::task::spawn_blocking(move || {
            make_network(&attempt).and_then(|()| make_volumes(&attempt))
        });
        match made.await {
            Ok(Ok(())) => {
                pod.report.update(|report| report.trouble = None);
                return stop.borrow().is_none();
            }
            Ok(Err(reason)) => pod.report.update(|report| report.trouble = Some(reason)),
            Err(error) => pod
                .report
                .update(|report| report.trouble = Some(error.to_string())),
        }
        tokio::select! {
            () = sleep(VOLUME_RETRY) => {}
            Ok(()) = objects.changed() => {}
            _ = stop.wait_for(Option::is_some) => return false,
        }
    }
}

fn make_network(pod: &PodContext) -> Result<(), String> {
    std::fs::create_dir_all(&pod.directory)
        .map_err(|e| format!("{}: {e}", pod.directory.display()))?;
    if crate::sys::netns_path(&pod.netns).exists() {
        return Ok(());
    }
    let node = &pod.machine.node;
    node.add_pod(pod.namespace(), pod.name(), pod.host_part)
        .map_err(|error| {
            node.remove_pod(pod.namespace(), pod.name());
            format!("network: {error}")
        })
}

fn make_volumes(pod: &PodContext) -> Result<(), String> {
    let plans = pod.plan_volumes()?;
    let token = |audience: Option<&str>, seconds: i64| -> io::Result<String> {
        pod.machine
            .issuer
            .token(&pod.pod, audience, seconds)
            .map_err(io::Error::other)
    };
    for plan in &plans {
        write(plan, fs_group(&pod.pod), &token)
            .map_err(|e| format!("volume {}: {}: {e}", plan.name, plan.path.display()))?;
    }
    *pod.plans.lock().unwrap_or_else(PoisonError::into_inner) = plans;
    Ok(())
}

/// Writes volumes again when an object changes, and tokens when half of their lifetime is over.
async fn refresh_volumes(pod: PodContext) {
    let mut objects = pod.machine.objects.clone();
    objects.mark_unchanged();
    loop {
        let plans = pod
            .plans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let half_life = shortest_token(&plans).map_or(1 << 20, |seconds| (seconds / 2).max(1));
        tokio::select! {
            () = sleep(Duration::from_secs(half_life.unsigned_abs())) => {}
            changed = objects.changed() => if changed.is_err() { return },
        }
        let changed = pod.plan_volumes().is_ok_and(|new| new != plans);
        if !changed && objects.has_changed().is_ok_and(|more| more) {
            continue;
        }
        let again = pod.clone();
        if let Ok(Err(reason)) = tokio::task::spawn_blocking(move || make_volumes(&again)).await {
            tracing::warn!(pod = %pod.name(), %reason, "volumes keep their old content");
        }
    }
}

/// Runs all containers; the phase the pod ends in.
async fn run_containers(pod: &PodContext, stop: &mut watch::Receiver<Stop>) -> Phase {
    let Some(spec) = &pod.pod.spec else {
        return Phase::Failed;
    };
    let restart = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let mut sidecars: Vec<Beside> = Vec::new();
    let mut phase = None;
    for container in spec.init_containers.iter().flatten() {
        let outcome = if init_role(container) == Role::Sidecar {
            sidecars.push(Beside::start(
                pod,
                container,
                Role::Sidecar,
                Restart::Always,
            ));
            wait_started(pod, container, stop).await
        } else {
            run_init(pod, container, restart, stop).await
        };
        if let Err(ended) = outcome {
            phase = Some(ended);
            break;
        }
    }
    let phase = match phase {
        Some(phase) => phase,
        None => {
            pod.report
                .update(|report| (report.initialized, report.phase) = (true, Phase::Running));
            run_main(pod, &spec.containers, restart, stop).await
        }
    };
    let asked = *stop.borrow();
    stop_sidecars(sidecars, asked, pod.grace()).await;
    phase
}

/// Waits until a sidecar's startup probe has passed.
async fn wait_started(
    pod: &PodContext,
    container: &Container,
    stop: &mut watch::Receiver<Stop>,
) -> Result<(), Phase> {
    let mut reports = pod.report.report.subscribe();
    let started = reports.wait_for(|report| {
        report
            .containers
            .iter()
            .any(|c| c.name == container.name && c.started)
    });
    tokio::select! {
        _ = started => Ok(()),
        _ = stop.wait_for(Option::is_some) => Err(Phase::Failed),
    }
}

async fn run_init(
    pod: &PodContext,
    container: &Container,
    restart: Restart,
    stop: &watch::Receiver<Stop>,
) -> Result<(), Phase> {
    // An init container that succeeded is never started again, whatever the pod's policy.
    let restart = if restart == Restart::Never {
        Restart::Never
    } else {
        Restart::OnFailure
    };
    let code = keep(
        pod.clone(),
        container.clone(),
        Role::Init,
        restart,
        stop.clone(),
    )
    .await;
    if code == 0 && stop.borrow().is_none() {
        Ok(())
    } else {
        Err(Phase::Failed)
    }
}

async fn run_main(
    pod: &PodContext,
    containers: &[Container],
    restart: Restart,
    stop: &mut watch::Receiver<Stop>,
) -> Phase {
    let running: Vec<Beside> = containers
        .iter()
        .map(|container| Beside::start(pod, container, Role::Main, restart))
        .collect();
    let stops: Vec<_> = running.iter().map(|beside| beside.stop.clone()).collect();
    let all = async {
        let mut worst = 0;
        for beside in running {
            worst = worst.max(beside.end().await);
        }
        worst
    };
    tokio::pin!(all);
    loop {
        tokio::select! {
            code = &mut all => return if code == 0 { Phase::Succeeded } else { Phase::Failed },
            Ok(()) = stop.changed() => {
                let deadline = *stop.borrow_and_update();
                for container in &stops {
                    container.send_replace(deadline);
                }
            }
        }
    }
}

/// Ends the sidecars in reverse order of their start, as Kubernetes does: the proxy goes on until the application has
/// ended.
async fn stop_sidecars(sidecars: Vec<Beside>, stop: Stop, grace: Duration) {
    let deadline = stop.unwrap_or_else(|| Instant::now() + grace);
    for sidecar in sidecars.into_iter().rev() {
        sidecar.stop(deadline.max(Instant::now() + SIDECAR_GRACE));
        sidecar.end().await;
    }
}

/// Removes what the pod had: its processes are gone, so nothing keeps the namespace alive.
fn remove(pod: &PodContext) {
    let machine = &pod.machine;
    machine.node.remove_pod(pod.namespace(), pod.name());
    let memory = machine.layout.pod_memory(pod.namespace(), pod.name());
    for directory in [&memory, &pod.directory] {
        if let Err(error) = std::fs::remove_dir_all(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "could not be removed");
        }
    }
    tracing::debug!(pod = %pod.name(), link = %Layout::pod_link(pod.namespace(), pod.name()), "removed");
}
