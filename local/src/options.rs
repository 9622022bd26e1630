//! What `weft local up` is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of a mesh that was given none.
pub const DEFAULT_NAME: &str = "weft";

/// The parameters of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpOptions {
    /// The mesh's name; see [`crate::MESH_NAME_MAX`].
    pub name: String,
    /// Manifests: files, and directories with everything below them. Watched.
    pub files: Vec<PathBuf>,
    /// The program `weft-control-plane` (see [`crate::find_control_plane`]). Without one there is no mesh: pods run
    /// without sidecars.
    pub control_plane: Option<PathBuf>,
    /// The directory with `weft-proxy` and `weft-init`; that of the running program unless given.
    pub programs: Option<PathBuf>,
    /// Additional environment of the control plane, e.g. `WEFT_CP_LOG`.
    pub control_plane_env: Vec<(String, String)>,
}

impl UpOptions {
    /// Options with defaults for everything but the manifests.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            files,
            control_plane: crate::find_control_plane(),
            programs: None,
            control_plane_env: Vec::new(),
        }
    }
}

/// The longest a pod may take to stop when the whole mesh goes, unless told otherwise.
pub const DOWN_GRACE: Duration = Duration::from_secs(10);
