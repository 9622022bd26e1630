//! Why a command failed, in words that say what to do next; and the exit codes.
//!
//! 0: done. 1: it failed, or `weft check` found a problem. 2: the command line is wrong (clap's own).

use std::fmt::Display;
use std::net::SocketAddr;

/// The error of every command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The local runner's own words.
    #[error(transparent)]
    Local(#[from] weft_local::Error),
    /// Several meshes run, and none was named.
    #[error("several meshes are on this machine, say which with --name: {0}")]
    WhichMesh(String),
    /// Pods that did not become ready in time; the mesh stays up.
    #[error(
        "mesh {name:?} is up, but after {patience} not everything is ready:{pods}\n`weft local logs` and `weft check` say more"
    )]
    NotReady {
        name: String,
        pods: String,
        patience: String,
    },
    /// The control plane is not running.
    #[error("the control plane of mesh {0:?} is not running; `weft local ps` shows what is")]
    NoControlPlane(String),
    /// A part of the mesh does not answer.
    #[error("{what} at {address} cannot be asked: {why}")]
    Unreachable {
        what: String,
        address: SocketAddr,
        why: String,
    },
    /// No such pod.
    #[error("there is no pod {name}{hint}")]
    NoPod { name: String, hint: String },
    /// Not a kind of workload.
    #[error("{0:?} is not a kind of workload: use pod, deploy, sts, ds or job, e.g. deploy/web")]
    Kind(String),
    /// No such service.
    #[error("there is no service {name}{hint}")]
    NoService { name: String, hint: String },
    /// The pod has no sidecar.
    #[error(
        "pod {0} is not in the mesh: its namespace is not labelled weft.dev/inject: enabled, or it opted out"
    )]
    NotMeshed(String),
    /// The destination is not understood.
    #[error(transparent)]
    Target(#[from] crate::target::TargetError),
    /// A value on the command line.
    #[error("{0}")]
    Value(String),
    /// Printing, reading.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What it found was already printed.
    #[error("")]
    Found,
}

impl Failure {
    /// A part of the mesh does not answer, and why.
    pub(crate) fn unreachable(what: &str, address: SocketAddr, why: impl Display) -> Self {
        Self::Unreachable {
            what: what.to_owned(),
            address,
            why: why.to_string(),
        }
    }
}
