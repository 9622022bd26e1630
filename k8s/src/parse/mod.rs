//! Text to typed objects: YAML or JSON of any number of documents.
//!
//! Called by [`crate::source`] for each file. [`bounded`] reads text to a tree within limits, [`typed`] reads the tree to a type and
//! tells which fields nobody knows, [`kinds`] says which kinds there are. Pure: text in, objects and problems out.

mod bounded;
mod kinds;
mod typed;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use weft_model::UnixMillis;

use crate::check::check;
use crate::object::{AnyObject, Kind, ObjectKey, Read};
use crate::problem::{Location, Problem, Severity, did_you_mean};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Most documents in a file, items of Lists included.
pub const MAX_DOCUMENTS: usize = 20_000;

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The objects that can be used.
    pub objects: Vec<AnyObject>,
    /// Objects that are there but cannot be used: their last good version stays in force.
    pub broken: Vec<(Kind, ObjectKey)>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The file cannot be read at all (half-written, too large): all of its last good version stays in force.
    pub unreadable: bool,
}

/// Reads a file's text. `.json` files are read as JSON, which is YAML too.
pub fn parse(file: &Arc<PathBuf>, text: &str, changed_at: UnixMillis) -> Parsed {
    let mut parsed = Parsed::default();
    let at = |line, column| Location {
        file: file.clone(),
        line,
        column,
    };
    if text.len() > MAX_FILE_BYTES {
        let reason = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        parsed
            .problems
            .push(Problem::error(at(0, 0), "", "", reason).hint("split it"));
        parsed.unreadable = true;
        return parsed;
    }
    let mut budget = bounded::Budget::default();
    let mut trees = Vec::new();
    for (line, document) in documents(text) {
        match bounded::read(document, &mut budget) {
            Ok(Value::Null) => {}
            Ok(tree) => trees.push((line, tree)),
            Err(error) => {
                let location = at(
                    error.line.map_or(line, |l| line + l - 1),
                    error.column.unwrap_or(0),
                );
                let problem = Problem::error(location, "", "", error.reason)
                    .hint("the last good version of this file stays in force");
                parsed.problems.push(problem);
                parsed.unreadable = true;
                return parsed;
            }
        }
    }
    for (line, tree) in trees {
        one(tree, &at(line, 0), changed_at, &mut parsed);
    }
    parsed
}

/// The documents of a YAML stream with the line each begins at. A document ends at a line that begins with `---`; inside of a
/// document that is never content (YAML 1.2, 9.1.2).
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset, mut blank) = (0, 1, 0, true);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            found.push((start_line, &text[start..offset]));
            (start, start_line, blank) = (offset, index + 1, true);
        } else if blank {
            let content = line.trim();
            blank = content.is_empty() || content.starts_with('#');
            if !blank {
                start_line = index + 1;
                start = offset;
            }
        }
        offset += line.len();
    }
    found.push((start_line, &text[start..]));
    found
}

/// One document: an object, or a List of them.
fn one(tree: Value, at: &Location, changed_at: UnixMillis, parsed: &mut Parsed) {
    if parsed.objects.len() + parsed.broken.len() >= MAX_DOCUMENTS {
        if parsed
            .problems
            .last()
            .is_none_or(|p| !p.reason.starts_with("more than"))
        {
            let reason = format!(
                "more than {MAX_DOCUMENTS} objects in one file; this and what follows is not read"
            );
            parsed
                .problems
                .push(Problem::error(at.clone(), "", "", reason).hint("split it"));
        }
        return;
    }
    let text = |field: &str| tree.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind_name.is_empty() {
        let missing = if kind_name.is_empty() {
            "kind"
        } else {
            "apiVersion"
        };
        let reason = "this is not a Kubernetes object: it has no such field";
        parsed.problems.push(Problem::error(
            at.clone(),
            name_of(&tree, kind_name),
            missing,
            reason,
        ));
        return;
    }
    if kind_name.ends_with("List") && tree.get("items").is_some_and(Value::is_array) {
        list(tree, at, changed_at, parsed);
        return;
    }
    match kinds::find(api_version, kind_name) {
        kinds::Found::Read(kind) => object(kind, tree, at, changed_at, parsed),
        kinds::Found::Ignored => {}
        kinds::Found::Unknown {
            field,
            reason,
            hint,
        } => {
            let problem = Problem::error(at.clone(), name_of(&tree, kind_name), field, reason)
                .maybe_hint(hint);
            parsed.problems.push(problem);
        }
    }
}

/// The items of a List; those of a typed list (`PodList`) may leave their kind out, as the API server does.
fn list(mut tree: Value, at: &Location, changed_at: UnixMillis, parsed: &mut Parsed) {
    let inherited = |field: &str| tree.get(field).and_then(Value::as_str).map(str::to_owned);
    let (api_version, kind) = (inherited("apiVersion"), inherited("kind"));
    let item_kind = kind
        .as_deref()
        .and_then(|k| k.strip_suffix("List"))
        .filter(|k| !k.is_empty());
    let Some(Value::Array(items)) = tree.get_mut("items").map(Value::take) else {
        return;
    };
    for mut item in items {
        if let (Some(fields), Some(kind), Some(version)) =
            (item.as_object_mut(), item_kind, &api_version)
        {
            fields.entry("kind").or_insert_with(|| kind.into());
            fields
                .entry("apiVersion")
                .or_insert_with(|| version.as_str().into());
        }
        one(item, at, changed_at, parsed);
    }
}

/// `Pod shop/web`, as far as it can be told.
fn name_of(tree: &Value, kind: &str) -> String {
    let of = |field: &str| tree.pointer(field).and_then(Value::as_str);
    match (of("/metadata/namespace"), of("/metadata/name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind.to_owned(),
    }
}

/// Reads one tree to whichever type is asked for.
struct Tree<'t> {
    tree: &'t Value,
    unknown: &'t mut Vec<typed::Unknown>,
}

impl Read<typed::Mistake> for Tree<'_> {
    fn read<T: for<'de> Deserialize<'de>>(self) -> Result<T, typed::Mistake> {
        typed::read(self.tree, self.unknown)
    }
}

fn object(kind: Kind, tree: Value, at: &Location, changed_at: UnixMillis, parsed: &mut Parsed) {
    let name = tree
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let namespace = tree.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace = if kind.namespaced() {
        namespace.unwrap_or("default")
    } else {
        ""
    };
    let key = ObjectKey::new(namespace, name);
    let described = format!("{kind} {key}");
    let mut refuse = |field: &str, reason: String, hint| {
        parsed
            .problems
            .push(Problem::error(at.clone(), described.clone(), field, reason).maybe_hint(hint));
        if !name.is_empty() && !parsed.broken.contains(&(kind, key.clone())) {
            parsed.broken.push((kind, key.clone()));
        }
    };
    if let Err(error) = name.parse::<weft_model::Name>() {
        // Kinds outside of the mesh may have names that are no DNS names; all that are read here must.
        return refuse("metadata.name", error.to_string(), None);
    }
    if kind.namespaced()
        && let Err(error) = namespace.parse::<weft_model::Namespace>()
    {
        return refuse("metadata.namespace", error.to_string(), None);
    }
    let mut unknown = Vec::new();
    match AnyObject::read(
        kind,
        at.clone(),
        changed_at,
        Tree {
            tree: &tree,
            unknown: &mut unknown,
        },
    ) {
        Ok(object) => {
            let faults = check(&object);
            let good = faults.is_empty();
            for fault in faults {
                refuse(&fault.field, fault.reason, fault.hint);
            }
            if good {
                parsed.objects.push(object);
            }
        }
        Err(mistake) => return refuse(&mistake.field, mistake.reason, mistake.hint),
    }
    for field in unknown {
        let hint = did_you_mean(&field.name, field.known.iter().copied());
        let problem = Problem::error(
            at.clone(),
            described.clone(),
            field.path,
            "there is no such field; it is ignored",
        );
        parsed
            .problems
            .push(problem.maybe_hint(hint).severity(Severity::Warning));
    }
}

#[cfg(test)]
mod tests;
