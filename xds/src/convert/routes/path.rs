//! Path rewrites, with the slashes as [`weft_model::path::replace_prefix`] has them.
//!
//! Envoy's `prefix_rewrite` replaces text. It does the same as the model where prefix and replacement both end without
//! a slash, and where the prefix is `/` and the replacement ends with one. To strip a prefix takes a regular expression.

use weft_model::route::{PathMatch, PathRewrite};

use crate::convert::DecodeError;
use crate::convert::proto::{matcher, regex, regex_literal};

/// How Envoy rewrites a path.
#[derive(Debug, PartialEq)]
pub(super) enum Rewriting {
    /// `prefix_rewrite`.
    Prefix(String),
    /// `regex_rewrite`.
    Regex(matcher::RegexMatchAndSubstitute),
}

/// Any whole path.
const WHOLE: &str = "^.*$";

/// As Envoy does it, in a route with that match.
pub(super) fn encode(rewrite: &PathRewrite, matched: &PathMatch) -> Option<Rewriting> {
    match (rewrite, matched) {
        (PathRewrite::Full(path), _) => Some(substitute(WHOLE.to_owned(), path)),
        (PathRewrite::Prefix(replacement), PathMatch::Prefix(prefix)) => {
            let (prefix, replacement) = (
                prefix.trim_end_matches('/'),
                replacement.trim_end_matches('/'),
            );
            Some(match (prefix.is_empty(), replacement.is_empty()) {
                (true, true) => Rewriting::Prefix("/".into()),
                (true, false) => Rewriting::Prefix(format!("{replacement}/")),
                (false, false) => Rewriting::Prefix(replacement.to_owned()),
                (false, true) => substitute(format!("^{}/?", regex_literal(prefix)), "/"),
            })
        }
        // Compile refuses a prefix rewrite without a prefix match; the model leaves the path alone then.
        (PathRewrite::Prefix(_), _) => None,
    }
}

fn substitute(pattern: String, replacement: &str) -> Rewriting {
    Rewriting::Regex(matcher::RegexMatchAndSubstitute {
        pattern: Some(regex(&pattern)),
        // A single backslash would begin a reference to a group.
        substitution: replacement.replace('\\', r"\\"),
    })
}

/// What was meant, as far as it can be seen.
pub(super) fn decode(rewriting: &Rewriting) -> Result<PathRewrite, DecodeError> {
    match rewriting {
        Rewriting::Prefix(replacement) => Ok(PathRewrite::Prefix(
            match replacement.trim_end_matches('/') {
                "" => "/".into(),
                trimmed => trimmed.to_owned(),
            },
        )),
        Rewriting::Regex(rule) => {
            let pattern = rule.pattern.as_ref().map_or("", |p| p.regex.as_str());
            match pattern {
                WHOLE => Ok(PathRewrite::Full(rule.substitution.replace(r"\\", r"\"))),
                _ if pattern.ends_with("/?") && rule.substitution == "/" => {
                    Ok(PathRewrite::Prefix("/".into()))
                }
                _ => Err(DecodeError::new(
                    "this regular expression is not a path rewrite",
                )),
            }
        }
    }
}
