//! Everything the helper needs to know about one container, written to a file only root can read.
//!
//! Made by [`crate::pod`] from the pod's spec, read by the stages in [`super`]. The file stays while the container
//! runs, so that `exec` joins with the same user and environment.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the directory of Weft's own programs appears in every container; first in `PATH`.
pub(crate) const BIN: &str = "/opt/weft/bin";

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    /// The UTS host name: the pod's.
    pub(crate) hostname: String,
    /// The directory that is the lower layer of the container's root.
    pub(crate) root: PathBuf,
    /// An empty directory to mount the layers of the root on.
    pub(crate) scratch: PathBuf,
    /// The host directory with Weft's programs, shown at [`BIN`].
    pub(crate) programs: PathBuf,
    /// Files written into the root: absolute path and content.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Volumes, in the order they are mounted.
    pub(crate) mounts: Vec<Mount>,
    /// `securityContext.readOnlyRootFilesystem`.
    pub(crate) read_only_root: bool,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// The working directory.
    pub(crate) cwd: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Numbers of the capabilities in the bounding set.
    pub(crate) capabilities: Vec<u8>,
    /// Set when no program may gain privileges (setuid bits, file capabilities).
    pub(crate) no_new_privileges: bool,
}

/// One volume mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The path on the host.
    pub(crate) source: PathBuf,
    /// The path in the container.
    pub(crate) target: PathBuf,
    /// Cannot be written through this mount.
    pub(crate) read_only: bool,
    /// Take mounts below the source along (`hostPath`).
    pub(crate) recursive: bool,
}

impl ContainerSpec {
    /// Writes it for the helper; the environment may hold secrets.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&json)
    }

    /// Reads it back.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let json = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_slice(&json).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Checks that the command exists in the root this process has entered, so that the mistake gets a clear message.
    pub(crate) fn find_command(&self) -> Result<(), String> {
        let Some(program) = self.command.first() else {
            return Err("the container has no command".into());
        };
        let executable = |path: &Path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        if program.contains('/') {
            let path = self.cwd.join(program);
            return if executable(&path) {
                Ok(())
            } else {
                Err(format!("{program}: no such program"))
            };
        }
        let path = self
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or("", |(_, value)| value.as_str());
        if path
            .split(':')
            .any(|directory| executable(&Path::new(directory).join(program)))
        {
            return Ok(());
        }
        Err(format!("{program}: no such program in {path}"))
    }
}
