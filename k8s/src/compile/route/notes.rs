//! What is said about one route while it is read.

use super::backend::Unresolved;
use crate::compile::report::Report;
use crate::compile::status::Reason;
use crate::problem::{Location, Problem, Severity};

/// Problems of one route on their way to the report.
pub(super) struct Notes<'n> {
    pub(super) source: &'n Location,
    pub(super) object: String,
    pub(super) report: &'n mut Report,
    pub(super) unresolved: Option<(Reason, String)>,
}

impl Notes<'_> {
    pub(super) fn note(
        &mut self,
        severity: Severity,
        field: String,
        reason: String,
        hint: Option<String>,
    ) {
        let problem = Problem::error(self.source.clone(), self.object.clone(), field, reason);
        self.report
            .problems
            .push(problem.maybe_hint(hint).severity(severity));
    }

    pub(super) fn unresolved(&mut self, field: &str, why: Unresolved) {
        self.note(
            Severity::Error,
            format!("{field}{}", why.field),
            why.message.clone(),
            why.hint,
        );
        self.unresolved.get_or_insert((why.reason, why.message));
    }
}
