//! `weft inject -f`: manifests with the sidecar added, by the function that the mesh itself uses.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_yaml::Value;
use weft_k8s::inject::{Decision, InjectConfig, NamespaceInfo, Outcome, inject_document};

use crate::failure::Failure;

/// The command. Warnings go to standard error; a pod that cannot be in the mesh fails it.
pub(crate) fn run(paths: &[PathBuf], namespace_enabled: bool) -> Result<ExitCode, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        for (file, text) in texts(path)? {
            for document in serde_yaml::Deserializer::from_str(&text) {
                let value = Value::deserialize(document)
                    .map_err(|e| Failure::Value(format!("{}: {e}", file.display())))?;
                documents.push((file.clone(), value));
            }
        }
    }
    let namespaces = namespaces(&documents, namespace_enabled);
    let config = InjectConfig::default();
    let (mut out, mut failed) = (std::io::stdout().lock(), false);
    for (file, mut document) in documents {
        let lookup = |name: &str| {
            namespaces
                .get(name)
                .cloned()
                .unwrap_or_else(|| unknown(name, namespace_enabled))
        };
        match inject_document(&mut document, &lookup, &config) {
            Ok(outcomes) => outcomes.iter().for_each(|outcome| say(&file, outcome)),
            Err(refusals) => {
                failed = true;
                for problem in &refusals {
                    eprintln!("{}: {problem}", file.display());
                }
            }
        }
        let text = serde_yaml::to_string(&document).map_err(std::io::Error::other)?;
        writeln!(out, "---\n{}", text.trim_end())?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Why an object was left as it is, and its warnings.
fn say(file: &Path, outcome: &Outcome) {
    if let Decision::Skipped(reason) = &outcome.decision {
        eprintln!(
            "{}: {}: not injected: {reason}",
            file.display(),
            outcome.object
        );
    }
    for warning in &outcome.warnings {
        eprintln!("{}: {warning}", file.display());
    }
}

/// The namespaces that the manifests define.
fn namespaces(documents: &[(PathBuf, Value)], enabled: bool) -> BTreeMap<String, NamespaceInfo> {
    let namespaces = documents.iter().filter(|(_, d)| d["kind"] == "Namespace");
    let map = |v: &Value| -> BTreeMap<String, String> {
        serde_yaml::from_value(v.clone()).unwrap_or_default()
    };
    namespaces
        .filter_map(|(_, d)| {
            let name = d["metadata"]["name"].as_str()?.to_owned();
            let mut info = unknown(&name, enabled);
            info.labels.extend(map(&d["metadata"]["labels"]));
            info.annotations = map(&d["metadata"]["annotations"]);
            Some((name, info))
        })
        .collect()
}

fn unknown(name: &str, enabled: bool) -> NamespaceInfo {
    let label = enabled.then(|| ("weft.dev/inject".to_owned(), "enabled".to_owned()));
    NamespaceInfo {
        name: name.to_owned(),
        labels: label.into_iter().collect(),
        ..NamespaceInfo::default()
    }
}

/// The texts of a file, of every manifest below a folder, or of standard input for `-`.
fn texts(path: &Path) -> Result<Vec<(PathBuf, String)>, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let failed =
        |path: &Path, e: std::io::Error| Failure::Value(format!("-f {}: {e}", path.display()));
    if !path.is_dir() {
        return Ok(vec![(
            path.to_owned(),
            std::fs::read_to_string(path).map_err(|e| failed(path, e))?,
        )]);
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(|e| failed(path, e))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.is_dir()
                || p.extension()
                    .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        })
        .collect();
    entries.sort();
    let below: Result<Vec<_>, _> = entries.iter().map(|entry| texts(entry)).collect();
    Ok(below?.concat())
}
