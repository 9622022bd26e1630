//! What the compilation has to say besides the mesh: problems and statuses, collected as it goes.

use kube::Resource;

use super::status::Status;
use crate::object::Stored;
use crate::problem::{Problem, Severity};

/// The collection.
#[derive(Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    pub(super) statuses: Vec<Status>,
}

impl Report {
    /// Notes a mistake in a field of an object; gives it back for a hint or another severity.
    pub(super) fn error<T: Resource<DynamicType = ()>>(
        &mut self,
        stored: &Stored<T>,
        field: impl Into<String>,
        reason: impl Into<String>,
        hint: Option<String>,
    ) {
        let object = format!("{} {}", T::kind(&()), stored.key());
        self.problems
            .push(Problem::error(stored.source.clone(), object, field, reason).maybe_hint(hint));
    }

    /// The same for what is in force, but likely not meant.
    pub(super) fn warning<T: Resource<DynamicType = ()>>(
        &mut self,
        stored: &Stored<T>,
        field: impl Into<String>,
        reason: impl Into<String>,
        hint: Option<String>,
    ) {
        self.error(stored, field, reason, hint);
        if let Some(problem) = self.problems.last_mut() {
            problem.severity = Severity::Warning;
        }
    }
}
