//! Removing a mesh: processes, namespaces, links, rules and files, whether its supervisor left in order or crashed.
//!
//! Works from the names alone ([`crate::names::Layout`]), needs no state, and may be repeated. Called by [`crate::up`]
//! before and after a mesh, and by [`crate::client::down`].

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::names::Layout;
use crate::network::host;
use crate::{Error, sys, tool};

/// Time for killed processes to vanish.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Removes everything of a mesh whose supervisor is not running. Blocking.
pub(crate) fn teardown(layout: &Layout) -> Result<(), Error> {
    let _one_at_a_time = host::lock()?;
    let mut namespaces: Vec<String> = layout
        .pods()
        .iter()
        .map(|(ns, pod)| layout.pod_netns(ns, pod))
        .collect();
    namespaces.push(layout.node_netns());
    namespaces.retain(|name| sys::netns_path(name).exists());
    kill_all(&namespaces);
    // The pods' ends of the links first: a namespace frees its links only some time after it is deleted.
    for namespace in namespaces
        .iter()
        .filter(|name| **name != layout.node_netns())
    {
        let _ = tool::ip(Some(namespace), "link delete eth0\n");
    }
    host::restore(layout);
    for name in &namespaces {
        tool::ip_force(&format!("netns delete {name}\n"));
    }
    for directory in [layout.memory(), layout.run().to_owned()] {
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::at(directory)(error));
        }
    }
    host::leave();
    Ok(())
}

/// Kills every process in the namespaces and waits until they are gone.
fn kill_all(namespaces: &[String]) {
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let left = sys::processes_in(namespaces);
        if left.is_empty() {
            return;
        }
        for (pid, command) in &left {
            tracing::debug!(pid, %command, "killed");
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            tracing::warn!(?left, "these processes could not be killed");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
