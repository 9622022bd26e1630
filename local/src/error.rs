//! What can go wrong between `weft local up` and `down`, in words for the person at the terminal.

use std::path::PathBuf;

/// An error of local mode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This machine lacks something; each entry says what and why it is needed.
    #[error("this machine cannot run pods:\n  - {}", .0.join("\n  - "))]
    Preflight(Vec<String>),
    /// A mesh of this name runs already.
    #[error(
        "a mesh named `{0}` is already up; `weft local down --name {0}` removes it, `--name OTHER` starts another"
    )]
    AlreadyUp(String),
    /// No mesh of this name runs.
    #[error("no mesh named `{0}` is up{1}")]
    NotUp(String, String),
    /// The mesh name cannot be used.
    #[error(
        "`{0}` cannot name a mesh: use 1 to 20 lower-case letters, digits and `-`, starting with a letter"
    )]
    BadName(String),
    /// The manifests have no usable object.
    #[error("{0}")]
    Manifests(String),
    /// No pod or container of that name.
    #[error("{0}")]
    NotFound(String),
    /// `ip`, `nft` or another program failed.
    #[error("{0}")]
    Command(String),
    /// All addresses of a range are taken.
    #[error("no free {0} left")]
    Exhausted(&'static str),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The running mesh refused a request.
    #[error("the mesh `{name}` answered: {message}")]
    Refused {
        /// The mesh.
        name: String,
        /// Its words.
        message: String,
    },
    /// Any other call to the system that failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Something made by this program cannot be written as JSON, or a file of it cannot be read back.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The local token issuer could not make or use its key.
    #[error("local token issuer: {0}")]
    Issuer(String),
}

impl Error {
    /// Attaches the path to an I/O error.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
