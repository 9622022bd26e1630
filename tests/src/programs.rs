//! Where the programs under test are, and what this machine must have.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A program of the workspace, as `cargo build --workspace` left it beside the tests.
pub fn built(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let path = exe
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// Fails loudly unless the test can make namespaces and the programs it needs are there.
pub fn require(programs: &[&str]) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "end-to-end tests make network namespaces: run them as root"
    );
    let missing: Vec<_> = programs.iter().filter(|p| which(p).is_none()).collect();
    assert!(
        missing.is_empty(),
        "programs missing: {missing:?}; `make test` installs them"
    );
}

/// The full path of a program, also from the folders that only root searches.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|d| PathBuf::from(d).join(program))
        .find(|p| p.is_file())
}

/// Runs a program to its end and returns what it printed; panics when it fails.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end, whatever its end.
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} did not start: {e}"))
}
