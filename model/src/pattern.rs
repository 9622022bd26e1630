//! Regular expressions that match a whole text, as Envoy's `safe_regex` does.

use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// A compiled regular expression, bounded to 64 KiB of program and 1 KiB of source. It must match the whole text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    source: String,
    compiled: Regex,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_text:?} is not a usable regular expression: {reason}")]
pub struct PatternError {
    /// The pattern as given, cut to 256 characters.
    pub source_text: String,
    /// What the compiler says, on one line.
    pub reason: String,
}

impl Pattern {
    /// The pattern as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Does the whole text match?
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(s: &str) -> Result<Self, PatternError> {
        let refuse = |reason: String| PatternError {
            source_text: s.chars().take(256).collect(),
            reason,
        };
        if s.len() > 1024 {
            return Err(refuse("it is longer than 1024 bytes".into()));
        }
        // Compiled alone first, so that `a)(b` cannot close the group that makes it match whole.
        Regex::new(s).map_err(|e| refuse(last_line(&e)))?;
        let compiled = RegexBuilder::new(&format!("^(?:{s})$"))
            .size_limit(1 << 16)
            .build()
            .map_err(|e| refuse(last_line(&e)))?;
        Ok(Self {
            source: s.into(),
            compiled,
        })
    }
}

/// The regex crate explains a mistake with a drawing; its last line says what it is.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;
    fn try_from(s: String) -> Result<Self, PatternError> {
        s.parse()
    }
}

impl From<Pattern> for String {
    fn from(p: Pattern) -> String {
        p.source
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_has_to_match() {
        let p: Pattern = "/v[0-9]+|/x".parse().unwrap();
        assert!(p.matches("/v12"));
        assert!(p.matches("/x"));
        assert!(!p.matches("/v12/a"));
        assert!(!p.matches("a/x"));
    }

    #[test]
    fn refusals_are_one_line() {
        for bad in ["a(", "a)(b", "(a{1000}){1000}", &"a".repeat(1025)] {
            let error = bad.parse::<Pattern>().unwrap_err();
            assert!(
                !error.reason.contains('\n') && !error.reason.is_empty(),
                "{error}"
            );
        }
    }
}
