//! How a decision came about, step by step. Costs nothing when nobody listens.

use serde::{Deserialize, Serialize};

use crate::Origin;

/// Receives the steps of a decision.
pub trait Trace {
    /// A candidate was looked at. `detail` is only called when somebody listens.
    fn step(&mut self, origin: &Origin, verdict: Verdict, detail: impl FnOnce() -> String);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    #[inline]
    fn step(&mut self, _: &Origin, _: Verdict, _: impl FnOnce() -> String) {}
}

/// Keeps every step, in order.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    /// What happened.
    pub steps: Vec<Step>,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The object that was looked at.
    pub origin: Origin,
    /// What came of it.
    pub verdict: Verdict,
    /// The first condition that failed, or what was chosen.
    pub detail: String,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It applies.
    Matched,
    /// It does not apply; the next one is looked at.
    Passed,
    /// It ends here with an error.
    Refused,
}

impl Trace for Recorder {
    fn step(&mut self, origin: &Origin, verdict: Verdict, detail: impl FnOnce() -> String) {
        self.steps.push(Step {
            origin: origin.clone(),
            verdict,
            detail: detail(),
        });
    }
}
