//! The root that the control plane makes for itself on first start and keeps in its state directory.
//!
//! The key is written first, then the certificate, each atomically: whoever dies between them leaves a key without a
//! certificate, which the next start completes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use tracing::{info, warn};
use weft_model::TrustDomain;

use super::{CLOCK_SKEW, CaError, IssueError, certificate_pem, load, serial_number};

/// How long a new root lives: ten years.
pub const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Where the two files lie below the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFiles {
    /// `ca/root-cert.pem`.
    pub certificate: PathBuf,
    /// `ca/root-key.pem`, mode 0600.
    pub key: PathBuf,
}

impl RootFiles {
    /// The files of a state directory.
    pub fn below(state_dir: &Path) -> Self {
        let directory = state_dir.join("ca");
        Self {
            certificate: directory.join("root-cert.pem"),
            key: directory.join("root-key.pem"),
        }
    }
}

/// Makes the files unless they are there.
pub fn ensure(
    files: &RootFiles,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), CaError> {
    match (files.certificate.exists(), files.key.exists()) {
        (true, true) => {
            tighten(&files.key);
            Ok(())
        }
        (true, false) => Err(CaError::HalfThere {
            present: files.certificate.clone(),
            missing: files.key.clone(),
        }),
        (false, true) => {
            let pem = load::read_bounded(&files.key).map_err(|source| CaError::Read {
                file: files.key.clone(),
                source,
            })?;
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|e| e.to_string())
                .and_then(|der| KeyPair::try_from(&der).map_err(|e| e.to_string()))
                .map_err(|reason| CaError::BadKey {
                    file: files.key.clone(),
                    reason,
                })?;
            write_certificate(files, &key, trust_domain, now)
        }
        (false, false) => {
            let key =
                KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(IssueError::from)?;
            write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
            write_certificate(files, &key, trust_domain, now)
        }
    }
}

fn write_certificate(
    files: &RootFiles,
    key: &KeyPair,
    domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), CaError> {
    let pem = self_signed(key, domain, now)?;
    write(&files.certificate, pem.as_bytes(), 0o644)?;
    info!(file = %files.certificate.display(), "made a new root certificate");
    Ok(())
}

fn self_signed(
    key: &KeyPair,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<String, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Weft");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Weft root of {trust_domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial_number()?);
    params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
    params.not_after = OffsetDateTime::from(now + LIFETIME);
    Ok(certificate_pem(params.self_signed(key)?.der()))
}

/// Writes beside the file, syncs, and renames over it: a reader sees the old or the new, never a half.
fn write(file: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    write_atomically(file, content, mode).map_err(|source| CaError::Write {
        file: file.to_owned(),
        uid: fs::metadata("/proc/self").map_or(0, |m| m.uid()),
        source,
    })
}

fn write_atomically(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut f| f.write_all(content).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, file))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A key that others may read is closed again, loudly.
fn tighten(key: &Path) {
    let Ok(metadata) = fs::metadata(key) else {
        return;
    };
    const OTHERS: u32 = 0o077;
    if metadata.permissions().mode() & OTHERS == 0 {
        return;
    }
    let result = fs::set_permissions(key, fs::Permissions::from_mode(0o600));
    warn!(file = %key.display(), closed = result.is_ok(), "the root's private key was readable for others");
}
