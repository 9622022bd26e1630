//! `weft local up`: in the foreground until told to stop, or detached.
//!
//! The supervisor is this process, or, detached, this program again with [`SUPERVISE_ARGUMENTS`]. Next stop:
//! [`crate::supervisor`].

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::Error;
use crate::client::{is_up, state};
use crate::names::Layout;
use crate::network::host;
use crate::options::{DOWN_GRACE, UpOptions};
use crate::preflight::preflight;
use crate::progress::Progress;
use crate::state::State;
use crate::supervisor::Supervisor;
use crate::teardown::teardown;

/// The arguments that [`detach`] gives this program, before the mesh's name; the program must then call [`supervise`].
pub const SUPERVISE_ARGUMENTS: [&str; 3] = ["local", "supervise", "--name"];

/// How often a detached supervisor's state is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long a supervisor may take to make its node; the machine may be busy.
const STARTUP: Duration = Duration::from_secs(30);

/// A mesh whose directory and lock are ours.
struct Claim {
    layout: Layout,
    lock: Flock<File>,
}

/// Takes the mesh's lock. Unless [`detach`] has just `prepared` the directory, what a crashed supervisor of that name left
/// is removed first.
fn claim(name: &str, prepared: bool) -> Result<Claim, Error> {
    let layout = Layout::new(name)?;
    if is_up(&layout) {
        return Err(Error::AlreadyUp(name.to_owned()));
    }
    if !prepared {
        teardown(&layout)?;
    }
    make_directory(&layout)?;
    let file = File::create(layout.lock()).map_err(Error::at(layout.lock()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Claim { layout, lock }),
        Err(_) => Err(Error::AlreadyUp(name.to_owned())),
    }
}

/// Makes the mesh's directory, while no other mesh is tidying up after itself.
fn make_directory(layout: &Layout) -> Result<(), Error> {
    let _one_at_a_time = host::lock()?;
    fs::create_dir_all(layout.logs()).map_err(Error::at(layout.logs()))
}

/// Brings a mesh up and keeps it until Ctrl-C, SIGTERM or `down`; then removes it. `line` gets one line of progress at a
/// time. Must be called on a multi-threaded runtime.
pub async fn up(options: &UpOptions, line: impl FnMut(&str)) -> Result<(), Error> {
    preflight(options)?;
    keep(options, claim(&options.name, false)?, line).await
}

async fn keep(options: &UpOptions, claim: Claim, mut line: impl FnMut(&str)) -> Result<(), Error> {
    let result = run(options, &claim.layout, &mut line).await;
    let layout = claim.layout.clone();
    let removed = tokio::task::spawn_blocking(move || {
        let removed = teardown(&layout);
        drop(claim.lock);
        removed
    });
    result.and(
        removed
            .await
            .map_err(|e| Error::Io(std::io::Error::other(e)))?,
    )
}

async fn run(
    options: &UpOptions,
    layout: &Layout,
    line: &mut impl FnMut(&str),
) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let supervisor = Supervisor::start(options, layout)?;
    let mut states = supervisor.state();
    let mut progress = Progress::new();
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        DOWN_GRACE
    };
    let supervisor = supervisor.run(stop);
    tokio::pin!(supervisor);
    let mut stopping = false;
    loop {
        tokio::select! {
            () = &mut supervisor => return Ok(()),
            // The clock too: a pod that stays stuck is told after a while.
            _ = tokio::time::timeout(Duration::from_secs(1), states.changed()) => {}
        }
        let state = states.borrow_and_update().clone();
        if state.stopping && !stopping {
            stopping = true;
            line("taking everything down");
        }
        for text in progress.lines(&state) {
            line(&text);
        }
    }
}

/// Brings a mesh up in the background and returns when everything is as wanted, or after `patience`: then pods that are
/// not ready are in the returned state, and the mesh stays up. An error means that nothing was left behind.
pub async fn detach(
    options: &UpOptions,
    patience: Duration,
    mut line: impl FnMut(&str),
) -> Result<State, Error> {
    preflight(options)?;
    let layout = Layout::new(&options.name)?;
    if is_up(&layout) {
        return Err(Error::AlreadyUp(options.name.clone()));
    }
    teardown(&layout)?;
    make_directory(&layout)?;
    let mut options = options.clone();
    options.files = options
        .files
        .iter()
        .map(std::path::absolute)
        .collect::<Result<_, _>>()?;
    fs::write(layout.options_file(), serde_json::to_vec_pretty(&options)?)
        .map_err(Error::at(layout.options_file()))?;
    let log_path = layout.logs().join("supervisor.log");
    let mut log = File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(&log_path)
        .map_err(Error::at(&log_path))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("weft")
        .args(SUPERVISE_ARGUMENTS)
        .arg(&options.name)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .process_group(0)
        .spawn()?;
    // Read through the open file: a supervisor that fails removes its directory.
    let mut said = || {
        let mut text = String::new();
        let read = log.rewind().and_then(|()| log.read_to_string(&mut text));
        read.map_or(String::new(), |_| text)
    };
    let started = Instant::now();
    let mut progress = Progress::new();
    let outcome = loop {
        if let Some(status) = child.try_wait()? {
            let text = said();
            break Err(Error::Command(format!(
                "the supervisor ended ({status}): {}",
                text.trim()
            )));
        }
        if let Ok(state) = state(&options.name) {
            for text in progress.lines(&state) {
                line(&text);
            }
            if state.settled() || started.elapsed() > patience {
                break Ok(state);
            }
        } else if started.elapsed() > STARTUP {
            let _ = child.kill();
            break Err(Error::Command(format!(
                "the supervisor does not answer: {}",
                said().trim()
            )));
        }
        sleep(POLL).await;
    };
    if outcome.is_err() {
        let _ = child.wait();
        teardown(&layout)?;
    }
    outcome
}

/// The detached supervisor: what [`detach`] starts in the background. Writes progress to `line`.
pub async fn supervise(name: &str, line: impl FnMut(&str)) -> Result<(), Error> {
    // Away from the terminal: its Ctrl-C and its end are not ours.
    let _ = nix::unistd::setsid();
    let layout = Layout::new(name)?;
    let path = layout.options_file();
    let options: UpOptions = serde_json::from_slice(&fs::read(&path).map_err(Error::at(&path))?)?;
    keep(&options, claim(name, true)?, line).await
}
