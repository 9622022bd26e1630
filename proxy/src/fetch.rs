//! `weft-proxy fetch-identity`: the same identity in files, for applications that are in the mesh without a sidecar.
//!
//! gRPC and Envoy read `key.pem`, `cert-chain.pem` and `root-cert.pem` from a directory and follow their changes. Called by
//! `main`; asks through [`crate::identity::request`], exactly like the sidecar.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::Config;
use crate::identity::pem::{self, CERTIFICATE, PRIVATE_KEY};
use crate::identity::request::{self, Issued};
use crate::identity::store::{StoreError, write_whole};
use crate::identity::trust::{self, Bundle};
use crate::identity::{renewal, schedule};

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The directory; it has to exist.
    pub out: PathBuf,
    /// Keep renewing, instead of ending after the first certificate.
    pub watch: bool,
    /// Permissions of the key. Group-readable by default: containers of a pod share a volume through its `fsGroup`.
    pub key_mode: u32,
}

/// What the command line should have been.
pub const USAGE: &str = "weft-proxy fetch-identity --out DIR [--watch] [--key-mode 0640]";

impl Fetch {
    /// From the command line's words after `fetch-identity`.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut out, mut watch, mut key_mode) = (None, false, 0o640);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--out" => out = words.next(),
                "--watch" => watch = true,
                "--key-mode" => {
                    let text = words.next().unwrap_or_default();
                    key_mode = u32::from_str_radix(&text, 8)
                        .ok()
                        .filter(|m| *m <= 0o777)
                        .ok_or_else(|| {
                            format!("--key-mode {text:?} is not an octal mode such as 0640")
                        })?;
                }
                other => return Err(format!("{other:?} is not known here; usage: {USAGE}")),
            }
        }
        let out = out
            .ok_or_else(|| format!("--out is missing; usage: {USAGE}"))?
            .into();
        Ok(Self {
            out,
            watch,
            key_mode,
        })
    }

    /// Gets and writes the certificate; with `watch`, for ever. Requests are repeated until they succeed.
    pub async fn run(&self, config: &Config) -> Result<(), StoreError> {
        let settings = crate::identity::Settings::from(config);
        let mut failures = 0;
        loop {
            let asked = match trust::bootstrap(&settings.roots) {
                Ok(roots) => request::certificate(&settings.authority, roots.clone())
                    .await
                    .map(|issued| (issued, roots))
                    .map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match asked {
                Ok((issued, roots)) => {
                    failures = 0;
                    write(&self.out, &issued, &roots, self.key_mode)?;
                    tracing::info!(id = %issued.credentials.id, out = %self.out.display(), "certificate written");
                    if !self.watch {
                        return Ok(());
                    }
                    let now = SystemTime::now();
                    let not_after = issued.credentials.not_after;
                    renewal::until(schedule::due(
                        now,
                        not_after,
                        settings.renew_after,
                        fastrand::f64(),
                    ))
                    .await;
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error, attempt = failures, "no certificate yet");
                    tokio::time::sleep(schedule::backoff(failures, fastrand::f64())).await;
                }
            }
        }
    }
}

/// The key last: readers that look at its change find the chain in place already.
fn write(out: &Path, issued: &Issued, roots: &Bundle, key_mode: u32) -> Result<(), StoreError> {
    let certificates = |list: &[rustls::pki_types::CertificateDer<'_>]| -> String {
        list.iter().map(|c| pem::encode(CERTIFICATE, c)).collect()
    };
    write_whole(
        &out.join("root-cert.pem"),
        certificates(&roots.certificates).as_bytes(),
        0o644,
    )?;
    write_whole(
        &out.join("cert-chain.pem"),
        certificates(&issued.chain).as_bytes(),
        0o644,
    )?;
    let key = pem::encode(PRIVATE_KEY, issued.key.secret_pkcs8_der());
    write_whole(&out.join("key.pem"), key.as_bytes(), key_mode)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fetch, String> {
        Fetch::parse(text.split_ascii_whitespace().map(Into::into))
    }

    #[test]
    fn the_command_line_is_read() {
        let expected = Fetch {
            out: "/x".into(),
            watch: true,
            key_mode: 0o600,
        };
        assert_eq!(parse("--out /x --watch --key-mode 0600"), Ok(expected));
        assert_eq!(parse("--out /x").unwrap().key_mode, 0o640);
        for wrong in [
            "",
            "--out",
            "--watch",
            "--out /x --key-mode 9",
            "--out /x y",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// What is written is what `WEFT_IDENTITY_FILES` reads.
    #[test]
    fn the_files_are_an_identity() {
        use crate::identity::testing::{Authority, DAY, uri};
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("root");
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        let (leaf, key) = authority.leaf(&Authority::params(&[uri(id)], DAY));
        let rustls::pki_types::PrivateKeyDer::Pkcs8(key) = key else {
            panic!("rcgen writes PKCS #8")
        };
        let pem = pem::encode(CERTIFICATE, &leaf);
        let issued = request::accept(
            pem.as_bytes(),
            key,
            authority.bundle(),
            &id.parse().unwrap(),
        )
        .unwrap();
        write(dir.path(), &issued, &authority.bundle(), 0o600).unwrap();
        let credentials = crate::identity::files::load(dir.path()).unwrap();
        assert_eq!(credentials.id.to_string(), id);
    }
}
