//! What is wrong with a manifest: file, object, field path, reason and a hint.
//!
//! Raised by [`crate::parse`], [`crate::source`], [`mod@crate::compile`] and [`crate::inject`]; shown by the control plane's log and
//! `/status`, and by `weft check`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How bad it is. Ordered: the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The object, or a part of it, is not in force.
    Error,
    /// It is in force, but likely not what was meant.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a file. From the API server: no file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// The file; empty where objects come from no file.
    pub file: Arc<PathBuf>,
    /// Line of the document's first line, or of the mistake; from 1, 0 where unknown.
    pub line: usize,
    /// Column of the mistake; from 1, 0 where unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub column: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// One mistake, with everything needed to correct it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where the object stands.
    pub source: Location,
    /// The object, e.g. `HTTPRoute shop/recommendations`; empty when the file as a whole is meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field's path, e.g. `spec.rules[0].backendRefs[1].port`; empty when the object as a whole is meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// An error in a file or object.
    pub fn error(
        source: Location,
        object: impl Into<String>,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            source,
            object: object.into(),
            field: field.into(),
            reason: reason.into(),
            hint: None,
        }
    }

    /// The same, with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with a hint if there is one.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// The same, less severe.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        if !self.source.file.as_os_str().is_empty() {
            write!(f, "{}: ", self.source)?;
        }
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The candidate that was likely meant, e.g. `containers` for `contianers`: at most a third of its letters differ, case aside.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    candidates
        .into_iter()
        .map(|c| {
            (
                edits(&word, &c.to_lowercase().chars().collect::<Vec<_>>()),
                c,
            )
        })
        .filter(|(n, c)| *n <= (c.len() / 3).max(1))
        .min()
        .map(|(_, c)| c)
}

/// `did you mean "containers"?`
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|near| format!("did you mean {near:?}?"))
}

/// Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_words() {
        let fields = ["containers", "initContainers", "volumes", "hostNetwork"];
        assert_eq!(nearest("contianers", fields), Some("containers"));
        assert_eq!(nearest("hostnetwork", fields), Some("hostNetwork"));
        assert_eq!(nearest("volume", fields), Some("volumes"));
        assert_eq!(nearest("replicas", fields), None);
    }

    #[test]
    fn one_line_says_everything() {
        let at = Location {
            file: Arc::new("k8s/shop.yaml".into()),
            line: 12,
            column: 0,
        };
        let problem = Problem::error(at, "HTTPRoute shop/web", "spec.rules[0]", "it is wrong")
            .hint("make it right");
        assert_eq!(
            problem.to_string(),
            "error: k8s/shop.yaml:12: HTTPRoute shop/web: spec.rules[0]: it is wrong (make it right)"
        );
    }
}
