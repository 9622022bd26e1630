//! Prints an explanation.

use std::io::{self, Write};

use serde::Serialize;
use weft_model::decide::Verdict;

use super::{Explanation, Outcome, Stage};
use crate::output::{self, Format, Table, Tone};

#[derive(Serialize)]
struct Row<'a>(&'a Stage);

impl Table for Row<'_> {
    const HEADER: &'static [&'static str] = &["STAGE", "VERDICT", "ORIGIN", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        let step = &self.0.step;
        let verdict = match step.verdict {
            Verdict::Matched => "matched",
            Verdict::Passed => "passed",
            Verdict::Refused => "refused",
        };
        vec![
            self.0.stage.into(),
            verdict.into(),
            step.origin.to_string(),
            step.detail.clone(),
        ]
    }

    fn tone(&self, column: usize) -> Tone {
        match (column, self.0.step.verdict) {
            (1, Verdict::Matched) => Tone::Good,
            (1, Verdict::Refused) => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}

/// As a table with a closing sentence, or as one document.
pub(crate) fn print(format: Format, explanation: &Explanation) -> io::Result<()> {
    if format != Format::Table {
        return output::document(format, explanation);
    }
    let mut out = io::stdout();
    writeln!(out, "{} -> {}\n", explanation.from, explanation.to)?;
    let rows: Vec<Row<'_>> = explanation.steps.iter().map(Row).collect();
    output::print(Format::Table, &rows, "no step was taken")?;
    writeln!(out, "\nResult: {}", sentence(&explanation.result))
}

fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Forward { backends } => {
            let shares = backends.iter().map(|s| match &s.backend {
                Some(key) => format!("{key} (weight {})", s.weight),
                None => format!("an invalid backend (weight {}, answered 500)", s.weight),
            });
            format!("forwarded to {}", shares.collect::<Vec<_>>().join(" or "))
        }
        Outcome::Redirect { status, location } => {
            format!("answered {status}, Location: {location}")
        }
        Outcome::Passthrough => {
            "leaves the mesh; the pod's outbound policy allows or refuses it".into()
        }
        Outcome::Refused { side, refusal } => format!("refused {side}: {refusal}"),
    }
}
