//! Objects to the model: pure, from scratch each time, reusing what did not change.

pub mod status;

use weft_model::{Mesh, TrustDomain};

use crate::object::Objects;
use crate::problem::Problem;

pub use status::{Condition, ParentStatus, Reason, Status};

/// What the compilation is told besides the objects.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS domain of the cluster, e.g. `cluster.local`.
    pub cluster_domain: String,
}

/// What the objects mean.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The mesh.
    pub mesh: Mesh,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// What became of each route and policy.
    pub statuses: Vec<Status>,
}

/// Compiles the objects. Values equal to those in `previous` are shared with it, so that a change costs what it touches.
pub fn compile(_objects: &Objects, _options: &CompileOptions, _previous: Option<&Mesh>) -> Compiled {
    Compiled::default()
}
