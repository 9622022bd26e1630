//! `weft check`: every problem of a running mesh, or of manifests alone; fails when there is one.
//!
//! Both ways show the same problems, because both use the parser and the compiler of the control plane.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_k8s::compile::{CompileOptions, compile};
use weft_k8s::source::directory::{Directory, Options};
use weft_k8s::source::{ObjectSource, Observed};
use weft_k8s::{Problem, Severity};

use crate::access::Mesh;
use crate::clients::Client;
use crate::failure::Failure;
use crate::output::{self, Format, Table, Tone};

/// What of `/status` counts here.
#[derive(Debug, Deserialize)]
struct Status {
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Row(Problem);

impl Table for Row {
    const HEADER: &'static [&'static str] = &["SEVERITY", "WHERE", "OBJECT", "FIELD", "PROBLEM"];

    fn cells(&self) -> Vec<String> {
        let p = &self.0;
        let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
        let reason = match &p.hint {
            Some(hint) => format!("{} ({hint})", p.reason),
            None => p.reason.clone(),
        };
        vec![
            p.severity.to_string(),
            or_dash(p.source.to_string()),
            or_dash(p.object.clone()),
            or_dash(p.field.clone()),
            reason,
        ]
    }

    fn tone(&self, column: usize) -> Tone {
        match (column, self.0.severity) {
            (0, Severity::Error) => Tone::Bad,
            (0, Severity::Warning) => Tone::Warning,
            _ => Tone::Plain,
        }
    }
}

/// Of a running mesh: what the control plane found, and what proxies refused.
pub(crate) async fn mesh(mesh: &Mesh, format: Format) -> Result<(), Failure> {
    let status: Status = mesh.control_plane("/status").await?;
    let mut problems = status.problems;
    problems.extend(mesh.clients().await?.iter().flat_map(refusals));
    report(problems, format)
}

/// A proxy that refused what it was sent runs on its last good version: worth an error.
fn refusals(client: &Client) -> Vec<Problem> {
    let refusals = client
        .types
        .iter()
        .filter_map(|(kind, status)| Some((kind, status.nack.as_ref()?)));
    refusals
        .map(|(kind, nack)| {
            let reason = format!("its {kind} configuration was refused: {}", nack.message);
            Problem::error(
                weft_k8s::Location::default(),
                format!("proxy {}", client.id),
                "",
                reason,
            )
        })
        .collect()
}

/// Of manifests, without a mesh.
pub(crate) fn files(paths: &[PathBuf], format: Format) -> Result<(), Failure> {
    let observed = read(paths)?;
    let trust_domain = "cluster.local"
        .parse()
        .map_err(|e| Failure::Value(format!("{e}")))?;
    let options = CompileOptions {
        trust_domain,
        cluster_domain: "cluster.local".into(),
    };
    let mut problems = observed.problems.clone();
    problems.extend(compile(&observed.objects, &options, None).problems);
    report(problems, format)
}

/// Reads files and folders once. A path that does not exist is an error of the command line.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Arc<Observed>, Failure> {
    if let Some(missing) = paths.iter().find(|p| !p.exists()) {
        return Err(Failure::Value(format!(
            "-f {}: there is no such file or folder",
            missing.display()
        )));
    }
    let source = Directory::start(Options {
        paths: paths.to_vec(),
        write_back: None,
    })?;
    let observed = source.observe().borrow().clone();
    Ok(observed)
}

fn report(mut problems: Vec<Problem>, format: Format) -> Result<(), Failure> {
    problems.sort();
    problems.dedup();
    let failed = problems.iter().any(|p| p.severity <= Severity::Warning);
    let rows: Vec<Row> = problems.into_iter().map(Row).collect();
    output::print(format, &rows, "no problems found")?;
    if failed { Err(Failure::Found) } else { Ok(()) }
}
