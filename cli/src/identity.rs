//! `weft identity POD`: the certificate that a sidecar presents, as it holds it now.

use std::io::Write;

use serde::{Deserialize, Serialize};
use weft_model::Namespace;

use crate::access::Mesh;
use crate::failure::Failure;
use crate::output::{self, Format, Table};

/// What `/certs` of the sidecar's admin port says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificates {
    spiffe_id: String,
    not_before: String,
    not_after: String,
    /// Leaf first.
    chain: Vec<Certificate>,
    /// The roots that it trusts now.
    roots: Vec<Certificate>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    /// SHA-256 of the DER, hexadecimal.
    fingerprint: String,
}

#[derive(Serialize)]
struct Row<'a>(&'static str, &'a Certificate);

impl Table for Row<'_> {
    const HEADER: &'static [&'static str] = &[
        "ROLE",
        "SUBJECT",
        "ISSUER",
        "SERIAL",
        "NOT BEFORE",
        "NOT AFTER",
        "SHA-256",
    ];

    fn cells(&self) -> Vec<String> {
        let c = self.1;
        let or_dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        let short = c.fingerprint.chars().take(16).collect();
        vec![
            self.0.into(),
            or_dash(&c.subject),
            or_dash(&c.issuer),
            c.serial.clone(),
            c.not_before.clone(),
            c.not_after.clone(),
            short,
        ]
    }
}

/// The command.
pub(crate) async fn run(
    mesh: &Mesh,
    namespace: &Namespace,
    workload: &str,
    format: Format,
) -> Result<(), Failure> {
    let pod = mesh.one_pod(namespace, workload)?;
    if !mesh.has_sidecar(&pod) {
        return Err(Failure::NotMeshed(pod.to_string()));
    }
    let certificates: Certificates = mesh.sidecar(&pod, "/certs").await?;
    if format != Format::Table {
        output::document(format, &certificates)?;
        return Ok(());
    }
    let mut out = std::io::stdout();
    writeln!(out, "{pod} is {}", certificates.spiffe_id)?;
    writeln!(
        out,
        "valid {} to {}\n",
        certificates.not_before, certificates.not_after
    )?;
    let chain = certificates
        .chain
        .iter()
        .enumerate()
        .map(|(i, c)| Row(if i == 0 { "leaf" } else { "issuer" }, c));
    let rows: Vec<Row<'_>> = chain
        .chain(certificates.roots.iter().map(|c| Row("trusted root", c)))
        .collect();
    output::print(Format::Table, &rows, "no certificate")?;
    Ok(())
}
