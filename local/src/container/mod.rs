//! The inside of a container: `local-exec-helper`, a hidden command of the program that starts the mesh.
//!
//! Entering namespaces, mounting and dropping privileges must happen between fork and exec. Rust's hook for that
//! (`pre_exec`) is unsafe, and util-linux (`unshare`, `setpriv`) cannot build the mounts, so the program starts itself
//! again in three stages:
//!
//! - `init SPEC`: the container's process 1. [`root`] builds its mount namespace, then it starts the next stage, hands
//!   signals on, reaps what is orphaned, and ends with the command's status.
//! - `run FLAGS -- COMMAND`: [`privilege`] takes the container's user, groups and capabilities, then executes the command.
//! - `exec SPEC PID -- COMMAND`: joins the namespaces of a running container; for `weft local exec` and exec probes.
//!
//! Started by [`crate::pod`]; every stage is single-threaded and must run before any runtime is made.

pub(crate) mod privilege;
pub(crate) mod root;
pub(crate) mod spec;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use spec::ContainerSpec;

/// The command line word that leads to [`helper_main`].
pub const HELPER_COMMAND: &str = "local-exec-helper";

/// Exit status when the container could not be set up; the reason is in its `start-error` file.
pub(crate) const START_ERROR: u8 = 128;

/// What a stage failed at, in words.
type Failure = String;

/// Runs a stage of the helper: `arguments` are those after [`HELPER_COMMAND`]. Call it first thing in `main`, before
/// any thread exists: a process with threads cannot change its mount namespace.
pub fn helper_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(word) => words.push(word),
            Err(argument) => {
                return refuse(&format!("{} is not UTF-8", argument.to_string_lossy()));
            }
        }
    }
    let (stage, rest) = match words.split_first() {
        Some((stage, rest)) => (stage.as_str(), rest),
        None => return refuse("a stage is missing"),
    };
    match (stage, rest) {
        ("init", [spec]) => init(Path::new(spec)),
        ("run", rest) => privilege::run(rest),
        ("exec", [spec, pid, separator, command @ ..]) if separator == "--" => {
            match exec(Path::new(spec), pid, command) {
                Ok(code) => ExitCode::from(code),
                Err(reason) => refuse(&reason),
            }
        }
        _ => refuse("the program starts this command itself; it is not meant to be typed"),
    }
}

fn refuse(reason: &str) -> ExitCode {
    // The reader may be gone; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "weft {HELPER_COMMAND}: {reason}");
    ExitCode::from(START_ERROR)
}

fn init(spec_path: &Path) -> ExitCode {
    let spec = match ContainerSpec::read(spec_path) {
        Ok(spec) => spec,
        Err(reason) => return refuse(&reason),
    };
    // Opened now: the path will not exist in the new root.
    let mut report = File::create(spec_path.with_file_name("start-error")).ok();
    let mut fail = |reason: String| {
        if let Some(file) = &mut report {
            let _ = file.write_all(reason.as_bytes());
        }
        refuse(&reason)
    };
    // The name `ps` shows for this process.
    let _ = nix::sys::prctl::set_name(c"weft-container");
    let mut signals = SigSet::all();
    // Faults must kill this process, not wait in its mask.
    for fault in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
    ] {
        signals.remove(fault);
    }
    if let Err(errno) = signals.thread_block() {
        return fail(format!("cannot block signals: {errno}"));
    }
    if let Err(reason) = root::enter(&spec) {
        return fail(reason);
    }
    if let Err(reason) = spec.find_command() {
        return fail(reason);
    }
    let child = match command(&spec, &spec.command).spawn() {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => return fail(format!("cannot start: {error}")),
    };
    match supervise(child, &signals) {
        Ok(code) => ExitCode::from(code),
        Err(errno) => refuse(&format!("lost the container's process: {errno}")),
    }
}

/// The `run` stage for a command, with the container's environment and nothing else.
fn command(spec: &ContainerSpec, words: &[String]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(HELPER_COMMAND)
        .arg(HELPER_COMMAND)
        .arg("run")
        .args(privilege::flags(spec))
        .arg("--")
        .args(words);
    command
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)));
    command
}

/// Process 1's duties until the container's process ends: its exit code, or 128 and the signal that killed it.
fn supervise(child: Pid, signals: &SigSet) -> nix::Result<u8> {
    loop {
        let signal = signals.wait()?;
        if signal != Signal::SIGCHLD {
            // Gone between two signals: the next SIGCHLD tells.
            let _ = kill(child, signal);
            continue;
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                    return Ok(u8::try_from(code & 0xff).unwrap_or(1));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                    return Ok(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)));
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Joins the container whose process 1 is `pid` and runs a command there as its user. Returns the command's status.
fn exec(spec_path: &Path, pid: &str, words: &[String]) -> Result<u8, Failure> {
    let spec = ContainerSpec::read(spec_path)?;
    if words.is_empty() {
        return Err("a command is missing".into());
    }
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).map_err(|e| format!("the container has stopped ({path}: {e})"))
    };
    let wanted = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("pid", CloneFlags::CLONE_NEWPID),
        // The mounts last: after this, `/proc` is the container's.
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let files = wanted
        .iter()
        .map(|(kind, flag)| Ok((open(kind)?, *flag)))
        .collect::<Result<Vec<_>, Failure>>()?;
    for (file, flag) in files {
        setns(file, flag).map_err(|errno| format!("cannot join the container: {errno}"))?;
    }
    // The terminal's signals go to the command; this process only waits for it.
    let mut terminal = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP] {
        terminal.add(signal);
    }
    let _ = terminal.thread_block();
    let mut command = command(&spec, words);
    if let Ok(term) = std::env::var("TERM") {
        command.env("TERM", term);
    }
    let status = command
        .status()
        .map_err(|e| format!("cannot start in the container: {e}"))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(u8::try_from(code & 0xff).unwrap_or(1))
}
