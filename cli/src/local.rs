//! `weft local`: meshes on this machine. The work is done in [`weft_local`]; here are its words and exit codes.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use weft_local::{LogOptions, PodRow, State, UpOptions};
use weft_model::duration;

use crate::access;
use crate::failure::Failure;
use crate::output::{self, Format, Table, Tone};

/// The arguments of `weft local`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The mesh; needed when several run on this machine.
    #[arg(long, visible_alias = "mesh", env = "WEFT_MESH", global = true)]
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring manifests up, and follow their changes until Ctrl-C.
    Up {
        /// Files or folders of manifests; watched.
        #[arg(short, long = "filename", num_args = 1.., required = true)]
        filename: Vec<PathBuf>,
        /// Return as soon as everything is ready, and run on in the background.
        #[arg(short, long)]
        detach: bool,
        /// With --detach: how long pods may take to become ready.
        #[arg(long, default_value = "2m", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Take a mesh down; nothing of it is left.
    Down {
        /// What pods get to end by themselves.
        #[arg(long, default_value = "10s", value_parser = duration::parse)]
        grace: Duration,
    },
    /// List the pods.
    Ps {
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Print a container's log.
    Logs {
        /// POD or deploy/NAME and its like.
        pod: String,
        /// The pod's namespace, where the name alone is not enough.
        #[arg(short, long)]
        namespace: Option<String>,
        /// The container; the first one unless given.
        #[arg(short, long)]
        container: Option<String>,
        /// Go on as more is written.
        #[arg(short, long)]
        follow: bool,
        /// Only so many last lines.
        #[arg(long)]
        tail: Option<usize>,
        /// Of the start before the current one.
        #[arg(short, long)]
        previous: bool,
        /// With the time in front of each line.
        #[arg(long)]
        timestamps: bool,
    },
    /// Run a command in a container, as its user and in its environment.
    Exec {
        /// POD or deploy/NAME and its like.
        pod: String,
        /// The pod's namespace, where the name alone is not enough.
        #[arg(short, long)]
        namespace: Option<String>,
        /// The container; the first one unless given.
        #[arg(short, long)]
        container: Option<String>,
        /// The command, after --.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// End the control plane and keep it down for a while, to see what then happens; 0s starts it again.
    HoldControlPlane {
        /// For how long, e.g. 30s.
        #[arg(value_parser = duration::parse)]
        hold: Duration,
    },
    #[command(hide = true)]
    Supervise,
}

/// What the helper of a container is started with, if this process is one. Has to be asked before any thread starts.
pub(crate) fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let first: Option<OsString> = arguments.nth(1);
    first
        .filter(|a| a == weft_local::HELPER_COMMAND)
        .map(|_| weft_local::helper_main(arguments))
}

/// The command.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let wanted = arguments.name.as_deref();
    let name = || access::mesh_name(wanted);
    match arguments.command {
        Command::Up {
            filename,
            detach,
            timeout,
        } => {
            let mut options = UpOptions::new(filename);
            options.name = wanted.map_or(options.name, str::to_owned);
            return up(&options, detach.then_some(timeout));
        }
        Command::Supervise => {
            let name = name()?;
            runtime()?.block_on(weft_local::supervise(&name, |line| println!("{line}")))?;
        }
        Command::Down { grace } => weft_local::down(&name()?, grace)?,
        Command::Ps { output } => {
            let rows: Vec<Row> = weft_local::ps(&name()?)?.into_iter().map(Row).collect();
            output::print(output, &rows, "no pods")?;
        }
        Command::Logs {
            pod,
            namespace,
            container,
            follow,
            tail,
            previous,
            timestamps,
        } => {
            let options = LogOptions {
                container,
                follow,
                tail,
                previous,
                timestamps,
            };
            let mut out = io::stdout().lock();
            weft_local::logs(&name()?, &qualified(namespace, pod), &options, |line| {
                writeln!(out, "{line}")
            })?;
        }
        Command::Exec {
            pod,
            namespace,
            container,
            command,
        } => {
            let status = weft_local::exec(
                &name()?,
                &qualified(namespace, pod),
                container.as_deref(),
                &command,
            )?;
            let code = status
                .code()
                .or_else(|| status.signal().map(|s| 128 + s))
                .unwrap_or(1);
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Command::HoldControlPlane { hold } => weft_local::hold_control_plane(&name()?, hold)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn up(options: &UpOptions, detach: Option<Duration>) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let say = |line: &str| eprintln!("{line}");
    let Some(patience) = detach else {
        runtime.block_on(weft_local::up(options, say))?;
        return Ok(ExitCode::SUCCESS);
    };
    let state = runtime.block_on(weft_local::detach(options, patience, say))?;
    if state.settled() {
        eprintln!(
            "mesh {:?} is up: {} pods are ready",
            state.name,
            state.pods.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::NotReady {
        name: state.name.clone(),
        pods: waiting(&state),
        patience: duration::format(patience),
    })
}

/// What is not ready yet, and why.
fn waiting(state: &State) -> String {
    let pods = state.pods.iter().filter(|p| !p.ready);
    let lines = pods.map(|p| {
        format!(
            "\n  {}/{}: {} {}",
            p.namespace,
            p.name,
            p.status,
            p.reason.as_deref().unwrap_or("")
        )
    });
    lines.collect()
}

/// `namespace/name` where a namespace is given and the name has none.
fn qualified(namespace: Option<String>, pod: String) -> String {
    match namespace {
        Some(namespace) if !pod.contains('/') => format!("{namespace}/{pod}"),
        _ => pod,
    }
}

#[derive(Serialize)]
struct Row(PodRow);

impl Table for Row {
    const HEADER: &'static [&'static str] = &[
        "NAMESPACE",
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "MESH",
    ];

    fn cells(&self) -> Vec<String> {
        let p = &self.0;
        let why = p
            .reason
            .as_ref()
            .filter(|_| io::stdout().is_terminal())
            .map(|r| format!(" ({r})"));
        vec![
            p.namespace.clone(),
            p.name.clone(),
            p.ready.clone(),
            format!("{}{}", p.status, why.unwrap_or_default()),
            p.restarts.to_string(),
            output::age(p.age_seconds),
            p.ips
                .first()
                .map_or_else(|| "-".into(), ToString::to_string),
            if p.meshed { "yes".into() } else { "no".into() },
        ]
    }

    fn tone(&self, column: usize) -> Tone {
        match (column, self.0.status.as_str()) {
            (3, "Running" | "Completed" | "Succeeded") => Tone::Good,
            (3, "CrashLoopBackOff" | "Error" | "Failed") => Tone::Bad,
            (3, _) => Tone::Warning,
            _ => Tone::Plain,
        }
    }
}
