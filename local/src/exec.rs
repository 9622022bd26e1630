//! `weft local exec`: a command in a running container, on the caller's own terminal.

use std::process::{Command, ExitStatus};

use crate::Error;
use crate::client::{find_container, find_pod, state};
use crate::container::HELPER_COMMAND;

/// Runs a command in a container, as its user and in its environment, with this process's standard streams. `pod` is a
/// name, `namespace/name` or `deploy/NAME`; the first of its containers unless one is named. Blocks until it ends.
pub fn exec(
    mesh: &str,
    pod: &str,
    container: Option<&str>,
    command: &[String],
) -> Result<ExitStatus, Error> {
    let state = state(mesh)?;
    let pod = find_pod(&state, pod)?;
    let container = find_container(pod, container)?;
    let Some(init) = container.init_pid else {
        return Err(Error::NotFound(format!(
            "container {} of pod {} is not running: {}",
            container.name, pod.name, pod.status
        )));
    };
    // This process waits while the command has the terminal: its signals are the command's.
    let mut helper = Command::new("/proc/self/exe");
    helper
        .arg(HELPER_COMMAND)
        .arg("exec")
        .arg(&container.spec)
        .arg(init.to_string())
        .arg("--")
        .args(command);
    Ok(helper.status()?)
}
