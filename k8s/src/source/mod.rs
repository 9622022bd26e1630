//! Where objects come from: a watched directory now, the API server behind the same trait.
//!
//! Followed by the control plane and the local runner, which compile what they observe.

pub mod directory;

use std::sync::Arc;

use tokio::sync::watch;

use crate::object::Objects;
use crate::problem::Problem;

/// What a source holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The objects in force.
    pub objects: Arc<Objects>,
    /// What could not be read; the last good version of each is among the objects.
    pub problems: Vec<Problem>,
    /// Grows with each change.
    pub version: u64,
}

/// Something that holds objects and says when they change.
pub trait ObjectSource: Send + Sync {
    /// The newest state now and from now on. The channel closes when the source ends.
    fn observe(&self) -> watch::Receiver<Arc<Observed>>;
}
