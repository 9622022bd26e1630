//! `weft`: runs meshes on this machine, and shows what a mesh does and why.
//!
//! This module reads the command line and hands over to one module per command. Results go to standard output,
//! errors to standard error; exit codes are in [`failure`].

mod access;
mod check;
mod clients;
mod endpoints;
mod explain;
mod failure;
mod identity;
mod inject;
mod local;
mod output;
mod routes;
mod suggest;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use weft_model::Namespace;

use access::Mesh;
use failure::Failure;
use output::Format;

/// A service mesh for Kubernetes manifests, on a cluster or on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What most commands share.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// The mesh, when several run on this machine.
    #[arg(long = "name", visible_alias = "mesh", env = "WEFT_MESH", id = "mesh")]
    mesh: Option<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: Namespace,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run manifests as a mesh on this machine (root).
    Local(local::Arguments),
    /// Find what is wrong: in the running mesh, or in manifests with -f.
    Check {
        /// Check these files or folders instead of a running mesh.
        #[arg(short, long = "filename", num_args = 1..)]
        filename: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Show what a workload can call: destinations, rules, backends, retries, timeouts, and what its proxy acknowledged.
    Routes {
        /// A pod, or deploy/NAME, sts/NAME, ds/NAME, job/NAME.
        workload: String,
        /// Pods' own addresses too.
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show the endpoints of a service.
    Endpoints {
        /// The service, NAME or NAME.NAMESPACE.
        service: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show the identity of a pod: certificate chain, SPIFFE ID, times.
    Identity {
        /// A pod, or deploy/NAME and its like (the first pod).
        workload: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show each step of the decision for a request or connection, by the code that the proxies run.
    Explain {
        /// Who calls: a pod, or deploy/NAME and its like (the first pod).
        from: String,
        /// What is called: SERVICE[.NAMESPACE][:PORT], IP:PORT or http://HOST[:PORT][/PATH].
        to: String,
        /// The request's method.
        #[arg(long, default_value = "GET")]
        method: http::Method,
        /// The request's path and query; in place of the URL's.
        #[arg(long)]
        path: Option<String>,
        /// A header of the request, NAME: VALUE; may be repeated.
        #[arg(long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Print manifests with the sidecar added, as the mesh would run them.
    Inject {
        /// Files or folders; `-` is standard input.
        #[arg(short, long = "filename", num_args = 1.., required = true)]
        filename: Vec<PathBuf>,
        /// Treat every namespace as if it were labelled weft.dev/inject: enabled.
        #[arg(long)]
        namespace_enabled: bool,
    },
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    if let Some(code) = local::helper() {
        return code;
    }
    let arguments = Arguments::parse();
    // Log lines of the libraries; the commands' own words go to standard output and error.
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(arguments.command) {
        Ok(code) => code,
        Err(Failure::Found) => ExitCode::FAILURE,
        // A reader that went away (`weft routes | head`) is no failure.
        Err(Failure::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let command = match command {
        Command::Local(arguments) => return local::run(arguments),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "weft",
                &mut std::io::stdout(),
            );
            return Ok(ExitCode::SUCCESS);
        }
        Command::Inject {
            filename,
            namespace_enabled,
        } => return inject::run(&filename, namespace_enabled),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ask(command))
}

/// The commands that ask a running mesh.
async fn ask(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { filename, common } if filename.is_empty() => {
            check::mesh(&Mesh::find(common.mesh.as_deref())?, common.output).await?;
        }
        Command::Check { filename, common } => check::files(&filename, common.output)?,
        Command::Routes {
            workload,
            all,
            common,
        } => {
            let mesh = Mesh::find(common.mesh.as_deref())?;
            routes::run(&mesh, &common.namespace, &workload, all, common.output).await?;
        }
        Command::Endpoints { service, common } => {
            let mesh = Mesh::find(common.mesh.as_deref())?;
            endpoints::run(&mesh, &common.namespace, &service, common.output).await?;
        }
        Command::Identity { workload, common } => {
            let mesh = Mesh::find(common.mesh.as_deref())?;
            identity::run(&mesh, &common.namespace, &workload, common.output).await?;
        }
        Command::Explain {
            from,
            to,
            method,
            path,
            headers,
            common,
        } => {
            let mesh = Mesh::find(common.mesh.as_deref())?;
            let request = explain::Request::new(method, &to, path.as_deref(), &headers)?;
            explain::run(
                &mesh,
                &common.namespace,
                &from,
                &to,
                &request,
                common.output,
            )
            .await?;
        }
        Command::Local(_) | Command::Completion { .. } | Command::Inject { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
