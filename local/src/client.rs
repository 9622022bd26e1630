//! What the command line asks of a mesh that runs: its state, a hold of the control plane, its end.
//!
//! State comes from `state.json`, orders go over the control socket ([`crate::supervisor`]).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use crate::Error;
use crate::names::Layout;
use crate::state::{ContainerState, PodRow, PodState, State};
use crate::supervisor::{Answer, Order};
use crate::teardown::teardown;

/// Time beyond the pods' own that a supervisor gets to end.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(15);

/// Whether a supervisor of this mesh runs: it holds the lock as long as it lives.
pub(crate) fn is_up(layout: &Layout) -> bool {
    let Ok(file) = File::open(layout.lock()) else {
        return false;
    };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

/// The names of all meshes on this machine that are up or left something behind.
pub fn meshes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/weft") else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.path().is_dir())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn not_up(name: &str) -> Error {
    let others: Vec<String> = meshes().into_iter().filter(|other| other != name).collect();
    let hint = if others.is_empty() {
        String::new()
    } else {
        format!("; there is {}", others.join(", "))
    };
    Error::NotUp(name.to_owned(), hint)
}

/// What runs in a mesh.
pub fn state(name: &str) -> Result<State, Error> {
    let layout = Layout::new(name)?;
    if !is_up(&layout) {
        return Err(not_up(name));
    }
    let path = layout.state_file();
    Ok(serde_json::from_slice(
        &fs::read(&path).map_err(Error::at(path))?,
    )?)
}

/// The pods of a mesh, by namespace and name.
pub fn ps(name: &str) -> Result<Vec<PodRow>, Error> {
    let now = Timestamp::now();
    Ok(state(name)?
        .pods
        .iter()
        .map(|pod| PodRow::new(pod, now))
        .collect())
}

/// Ends the control plane and keeps it down for `hold`; zero ends an earlier hold. For fault tests.
pub fn hold_control_plane(name: &str, hold: Duration) -> Result<(), Error> {
    order(
        name,
        &Order::HoldControlPlane {
            hold: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
        },
    )
}

/// Takes a mesh down and waits until nothing of it is left. Pods get `grace` at most. Works on what a crashed
/// supervisor left, too.
pub fn down(name: &str, grace: Duration) -> Result<(), Error> {
    let layout = Layout::new(name)?;
    if is_up(&layout) {
        order(
            name,
            &Order::Stop {
                grace: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            },
        )?;
        let deadline = Instant::now() + grace + SUPERVISOR_GRACE;
        while is_up(&layout) {
            if Instant::now() > deadline {
                return Err(Error::Refused {
                    name: name.to_owned(),
                    message: format!(
                        "not down after {:?}; see {}",
                        grace + SUPERVISOR_GRACE,
                        layout.logs().display()
                    ),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    } else if !Path::exists(layout.run()) {
        return Err(not_up(name));
    }
    teardown(&layout)
}

fn order(name: &str, order: &Order) -> Result<(), Error> {
    let layout = Layout::new(name)?;
    if !is_up(&layout) {
        return Err(not_up(name));
    }
    let path = layout.socket();
    let mut stream = UnixStream::connect(&path).map_err(Error::at(&path))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match serde_json::from_str::<Answer>(&answer)?.error {
        None => Ok(()),
        Some(message) => Err(Error::Refused {
            name: name.to_owned(),
            message,
        }),
    }
}

/// Finds a pod by `name`, `namespace/name` or `deploy/NAME` and the like (then the first ready pod of that workload).
/// A name that does not exist gets the nearest that does.
pub(crate) fn find_pod<'a>(state: &'a State, wanted: &str) -> Result<&'a PodState, Error> {
    let exact =
        |pod: &&PodState| pod.name == wanted || format!("{}/{}", pod.namespace, pod.name) == wanted;
    let mut found = state.pods.iter().filter(exact);
    if let Some(pod) = found.next() {
        return match found.next() {
            None => Ok(pod),
            Some(other) => Err(Error::NotFound(format!(
                "{wanted} is in more than one namespace: say {}/{wanted} or {}/{wanted}",
                pod.namespace, other.namespace
            ))),
        };
    }
    if let Some((kind, name)) = wanted.split_once('/') {
        let kind = match kind.to_lowercase().as_str() {
            "deploy" | "deployment" | "deployments" => "Deployment",
            "sts" | "statefulset" | "statefulsets" => "StatefulSet",
            "job" | "jobs" => "Job",
            "ds" | "daemonset" | "daemonsets" => "DaemonSet",
            "rs" | "replicaset" | "replicasets" => "ReplicaSet",
            _ => "",
        };
        let owner = format!("{kind}/{name}");
        let mut own: Vec<&PodState> = state.pods.iter().filter(|pod| pod.owner == owner).collect();
        own.sort_by_key(|pod| !pod.ready);
        if let Some(pod) = own.first() {
            return Ok(pod);
        }
    }
    let names = state.pods.iter().map(|pod| pod.name.as_str());
    let hint =
        weft_k8s::problem::nearest(wanted, names).map(|near| format!("; did you mean {near}?"));
    Err(Error::NotFound(format!(
        "no pod named {wanted}{}",
        hint.unwrap_or_default()
    )))
}

/// A container of a pod: the named one, or the first of `containers`.
pub(crate) fn find_container<'a>(
    pod: &'a PodState,
    wanted: Option<&str>,
) -> Result<&'a ContainerState, Error> {
    let found = match wanted {
        Some(name) => pod
            .containers
            .iter()
            .find(|container| container.name == name),
        None => pod
            .containers
            .iter()
            .find(|container| container.role == "main"),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = pod.containers.iter().map(|c| c.name.as_str()).collect();
        let wanted = wanted.unwrap_or("main");
        Error::NotFound(format!(
            "pod {} has no container {wanted}; it has {}",
            pod.name,
            names.join(", ")
        ))
    })
}
