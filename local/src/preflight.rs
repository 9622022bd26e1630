//! What this machine must have before a mesh can be made on it; everything missing is reported at once.
//!
//! Called first by [`crate::up`].

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;
use crate::options::UpOptions;

/// Checks the machine and the options; an error lists all that is missing, and why it is needed.
pub fn preflight(options: &UpOptions) -> Result<(), Error> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push(
            "root: pods are network and mount namespaces, which only root may make (try sudo)"
                .to_owned(),
        );
        return Err(Error::Preflight(missing));
    }
    for (program, version, package) in [("ip", "-V", "iproute2"), ("nft", "--version", "nftables")]
    {
        let run = Command::new(program)
            .arg(version)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !run.is_ok_and(|status| status.success()) {
            missing.push(format!(
                "the program `{program}` (Debian package {package}): it sets up the pods' network"
            ));
        }
    }
    if let Some(reason) = failure(Command::new("nft").args(["list", "tables"]))
        && missing.is_empty()
    {
        missing.push(format!(
            "nf_tables in the kernel: services are nft rules ({reason})"
        ));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.contains("\toverlay") {
        let loaded = Command::new("modprobe")
            .arg("overlay")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !loaded.is_ok_and(|status| status.success()) {
            missing.push(
                "overlayfs in the kernel: it keeps what pods write off this machine's disk"
                    .to_owned(),
            );
        }
    }
    for file in &options.files {
        if let Err(error) = std::fs::metadata(file) {
            missing.push(format!("{}: {error}", file.display()));
        }
    }
    if let Some(program) = options
        .control_plane
        .as_deref()
        .filter(|program| !Path::is_file(program))
    {
        missing.push(format!("{}: no such program", program.display()));
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Preflight(missing))
    }
}

fn failure(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
