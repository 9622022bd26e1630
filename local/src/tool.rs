//! Running `ip` and `nft` with a script on their standard input.
//!
//! Both apply a whole script in one process, `nft` even in one transaction, so a pod's network costs three processes
//! and a change of all services one. Used by [`crate::network`] and [`crate::teardown`].

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Error;

/// Runs `ip -batch`, inside a named namespace if one is given. Stops at the first line that fails.
pub(crate) fn ip(netns: Option<&str>, script: &str) -> Result<(), Error> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    command.args(["-batch", "-"]);
    feed(command, script).map(drop)
}

/// The same, but every line is tried; what fails is ignored. For removal, where any part may be gone already.
pub(crate) fn ip_force(script: &str) {
    let mut command = Command::new("ip");
    command.args(["-force", "-batch", "-"]);
    if let Err(error) = feed(command, script) {
        tracing::debug!(%error, "some parts were gone already");
    }
}

/// The output of an `ip` query.
pub(crate) fn ip_query(args: &[&str]) -> Result<String, Error> {
    let mut command = Command::new("ip");
    command.args(args);
    feed(command, "")
}

/// Applies an nft script as one transaction, inside a named namespace if one is given.
pub(crate) fn nft(netns: Option<&str>, script: &str) -> Result<(), Error> {
    let run = || {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        feed(command, script).map_err(std::io::Error::other)
    };
    match netns {
        Some(netns) => crate::sys::in_netns(netns, run),
        None => run(),
    }
    .map(drop)
    .map_err(|e| Error::Command(e.to_string()))
}

fn feed(mut command: Command, script: &str) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let shown = || {
        let args: Vec<_> = command_args(&command);
        format!("{program} {}", args.join(" "))
    };
    let description = shown();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::Command(format!("cannot run {program}: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that failed early has closed its end; its own message says more than our broken pipe.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|e| Error::Command(format!("{description}: {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(Error::Command(format!(
        "{description}: {}",
        message
            .trim()
            .lines()
            .take(6)
            .collect::<Vec<_>>()
            .join("; ")
    )))
}

fn command_args(command: &Command) -> Vec<String> {
    command
        .get_args()
        .map(|a| a.to_string_lossy().into_owned())
        .collect()
}
