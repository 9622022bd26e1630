//! Commands inside a running container, for exec probes and lifecycle hooks.
//!
//! Starts the `exec` stage of [`crate::container`]; `weft local exec` does the same from the user's terminal
//! ([`crate::exec`]).

use std::path::PathBuf;
use std::process::Stdio;

use crate::container::HELPER_COMMAND;

/// The output kept of a command, in bytes.
const OUTPUT: usize = 1024;

/// A running container, as the helper finds it.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    /// Its spec file.
    pub(crate) spec: PathBuf,
    /// Its process 1, as the host numbers it.
    pub(crate) pid: u32,
}

impl Exec {
    /// Runs a command to its end; its exit code and the start of its output. Dropping the future kills it.
    pub(crate) async fn run(&self, words: &[String]) -> Result<(i32, String), String> {
        let output = tokio::process::Command::new("/proc/self/exe")
            .arg(HELPER_COMMAND)
            .arg("exec")
            .arg(&self.spec)
            .arg(self.pid.to_string())
            .arg("--")
            .args(words)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| e.to_string())?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        let end = (0..=OUTPUT.min(text.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        Ok((output.status.code().unwrap_or(-1), text))
    }
}
