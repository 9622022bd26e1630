//! What the documentation says of the source: linked files exist, named items are in them, and the tables of metrics and
//! reasons are complete.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// `README.md` and everything below `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// Text and target of every inline link outside of fenced code.
fn links(page: &str) -> Vec<(String, String)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("](") {
            let text = before.rsplit_once('[').map_or(before, |(_, text)| text);
            let (target, after) = after.split_once(')').unwrap_or((after, ""));
            found.push((text.to_owned(), target.to_owned()));
            rest = after;
        }
    }
    found
}

/// Does the source define an item of this name?
fn defines(source: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "mod", "trait", "const"]
        .iter()
        .any(|keyword| {
            let item = format!("{keyword} {name}");
            source.match_indices(&item).any(|(at, _)| {
                let next = source[at + item.len()..].chars().next();
                next.is_none_or(|c| !(c.is_alphanumeric() || c == '_'))
            })
        })
}

/// The anchor that a heading gets: lower case, words joined by `-`, punctuation left out.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>()
        .trim()
        .to_lowercase()
        .replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (label, target) in links(&text) {
            if target.contains("://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let wrong = |why: &str| {
                let page = page.strip_prefix(root()).unwrap().display();
                format!("{page}: [{label}]({target}): {why}")
            };
            if !path.exists() {
                broken.push(wrong("there is no such file"));
                continue;
            }
            let item = label.strip_prefix('`').and_then(|l| l.strip_suffix('`'));
            if let Some(item) = item
                && path.extension().is_some_and(|e| e == "rs")
            {
                let name = item.rsplit("::").next().unwrap_or(item);
                if !defines(&fs::read_to_string(&path).unwrap(), name) {
                    broken.push(wrong("the file has no such item"));
                }
            }
            if !fragment.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let mut headings = text.lines().filter(|l| l.starts_with('#'));
                if !headings.any(|h| anchor(h.trim_start_matches('#')) == fragment) {
                    broken.push(wrong("there is no such heading"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Every string literal of a source file that `wanted` takes.
fn literals(file: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let source = fs::read_to_string(root().join(file)).unwrap();
    let code = source.split("#[cfg(test)]").next().unwrap();
    let strings = code
        .lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2));
    strings.filter(|s| wanted(s)).map(str::to_owned).collect()
}

/// Words in backquotes, without their labels: `weft_refused_total{direction}` is `weft_refused_total`.
fn quoted(page: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let words = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    words
        .map(|w| w.split('{').next().unwrap_or(w).to_owned())
        .collect()
}

#[test]
fn operations_lists_the_metrics() {
    let documented = quoted("docs/operations.md");
    let bare = |name: &str| name.trim_end_matches("_total").to_owned();
    let known: BTreeSet<String> = documented.iter().map(|n| bare(n)).collect();
    let ours = |s: &str| s.starts_with("weft_") && !s.contains([' ', '=']);
    let mut sources = literals("proxy/src/metrics.rs", ours);
    sources.extend(literals("proxy/src/admin/metrics.rs", ours));
    let missing: Vec<_> = sources.iter().filter(|n| !known.contains(*n)).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");

    let control_plane = literals("control-plane/src/metrics.rs", |_| true);
    let gone: Vec<_> = known
        .iter()
        .filter(|n| n.starts_with("weft_"))
        .filter(|n| match n.strip_prefix("weft_control_plane_") {
            Some(name) => !control_plane.contains(name),
            None => !sources.contains(*n),
        })
        .collect();
    assert!(gone.is_empty(), "only in docs/operations.md: {gone:?}");
}

#[test]
fn operations_lists_the_reasons() {
    let documented = quoted("docs/operations.md");
    // The lines of the table end in: "proxy_status", "reason", A::Again, F::Fault.
    let source = fs::read_to_string(root().join("proxy/src/error.rs")).unwrap();
    let table = source
        .lines()
        .filter(|l| l.contains("=> (") && l.contains("A::"));
    let reasons: Vec<&str> = table.filter_map(|l| l.split('"').nth(3)).collect();
    assert!(reasons.len() > 30, "the table has moved: {reasons:?}");
    let of_handshakes = literals("proxy/src/tls/failure.rs", |s| {
        s.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    });
    let missing: Vec<&str> = reasons
        .into_iter()
        .chain(of_handshakes.iter().map(String::as_str))
        .filter(|r| !documented.contains(*r))
        .collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
}

#[test]
fn decisions_are_in_the_index() {
    let index = fs::read_to_string(root().join("docs/adr/README.md")).unwrap();
    for entry in fs::read_dir(root().join("docs/adr")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "README.md" {
            let text = fs::read_to_string(root().join("docs/adr").join(&name)).unwrap();
            let title = text.lines().next().unwrap_or_default();
            let title = title.trim_start_matches("# ").get(5..).unwrap_or_default();
            let row = format!("| [{}]({name}) | {title} |", &name[..4]);
            assert!(index.contains(&row), "docs/adr/README.md lacks {row}");
        }
    }
}
