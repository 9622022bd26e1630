//! An identity from files that somebody else writes: for benchmarks, for use without a control plane's authority, and for
//! tools that already issue certificates.
//!
//! The directory holds `cert-chain.pem`, `key.pem` and `root-cert.pem`. It is looked at every few seconds; files that do not
//! belong together, as in the middle of a change, leave the last good credentials in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::credentials::{Credentials, CredentialsError, Unchecked};
use super::pem::{self, PemError};
use super::status::Status;
use super::trust::Bundle;
use super::{Identity, Settings};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

const CHAIN: &str = "cert-chain.pem";
const KEY: &str = "key.pem";
const ROOTS: &str = "root-cert.pem";

/// Why the files are not used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Its error.
        error: std::io::Error,
    },
    /// One is not PEM of the right kind.
    #[error("{path}: {error}")]
    Pem {
        /// The file.
        path: String,
        /// What is wrong.
        error: PemError,
    },
    /// They do not make usable credentials.
    #[error("{path}: {error}")]
    Credentials {
        /// The directory.
        path: String,
        /// What is wrong.
        error: CredentialsError,
    },
}

/// Reads and checks the files once.
pub fn load(directory: &Path) -> Result<Credentials, FilesError> {
    fn read<T>(
        path: PathBuf,
        parse: impl Fn(&[u8]) -> Result<T, PemError>,
    ) -> Result<T, FilesError> {
        let shown = || path.display().to_string();
        let text = std::fs::read(&path).map_err(|error| FilesError::Io {
            path: shown(),
            error,
        })?;
        parse(&text).map_err(|error| FilesError::Pem {
            path: shown(),
            error,
        })
    }
    let unchecked = Unchecked {
        chain: read(directory.join(CHAIN), pem::certificates)?,
        key: read(directory.join(KEY), pem::private_key)?,
        roots: read(directory.join(ROOTS), Bundle::read)?,
    };
    unchecked
        .check(None, SystemTime::now())
        .map_err(|error| FilesError::Credentials {
            path: directory.display().to_string(),
            error,
        })
}

/// Returns as soon as the files are good. From then on a task on this runtime follows their changes.
pub async fn start(settings: Settings, directory: PathBuf, status: Arc<Status>) -> Identity {
    let (mut seen, first) = loop {
        let seen = look(&directory);
        match load(&directory) {
            Ok(credentials) => break (seen, credentials),
            Err(error) => report(&status, &error),
        }
        tokio::time::sleep(INTERVAL.min(Duration::from_secs(1))).await;
    };
    if first.id != settings.authority.id {
        tracing::warn!(found = %first.id, expected = %settings.authority.id, "the certificate is for another identity than the pod's");
    }
    status.success(first.not_after);
    let (sender, identity) = Identity::new(first);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(INTERVAL).await;
            let now = look(&directory);
            if now == seen {
                continue;
            }
            match load(&directory) {
                Ok(mut credentials) => {
                    credentials.generation = sender.borrow().generation + 1;
                    tracing::info!(id = %credentials.id, "the certificate files have changed");
                    status.success(credentials.not_after);
                    sender.send_replace(Arc::new(credentials));
                    seen = now;
                }
                Err(error) => report(&status, &error),
            }
        }
    });
    identity
}

fn report(status: &Status, error: &FilesError) {
    tracing::warn!(%error, "the certificate files cannot be used");
    status.failure(error.to_string(), SystemTime::now() + INTERVAL);
}

/// What tells a file from its successor: the inode and the change time. Both change under Kubernetes' symlinks, too.
fn look(directory: &Path) -> [Option<(u64, i64, i64)>; 3] {
    use std::os::unix::fs::MetadataExt;
    [CHAIN, KEY, ROOTS].map(|name| {
        let metadata = std::fs::metadata(directory.join(name)).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::identity::testing::{Authority, DAY, uri};

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn write(directory: &Path, authority: &Authority, valid: std::ops::Range<i64>) {
        let (leaf, key) = authority.leaf(&Authority::params(&[uri(ID)], valid));
        std::fs::write(directory.join(CHAIN), pem::encode(pem::CERTIFICATE, &leaf)).unwrap();
        std::fs::write(
            directory.join(KEY),
            pem::encode(pem::PRIVATE_KEY, key.secret_der()),
        )
        .unwrap();
        std::fs::write(directory.join(ROOTS), authority.roots_pem()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_followed_and_bad_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("root");
        write(dir.path(), &authority, DAY);
        let status = Arc::new(Status::default());
        let settings = Settings::for_tests(dir.path(), ID);
        let identity = start(settings, dir.path().to_owned(), Arc::clone(&status)).await;
        assert_eq!(identity.current().id.to_string(), ID);
        let mut changes = identity.subscribe();

        std::fs::write(dir.path().join(KEY), "no key").unwrap();
        while status.failed() == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(!changes.has_changed().unwrap());
        write(dir.path(), &authority, DAY);
        changes.changed().await.unwrap();
        assert_eq!(identity.current().generation, 1);
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = |e: Result<Credentials, FilesError>| e.unwrap_err().to_string();
        assert!(error(load(dir.path())).contains(CHAIN));
        let authority = Authority::new("root");
        write(dir.path(), &authority, -100..-10);
        assert!(error(load(dir.path())).contains("expired"));
        write(dir.path(), &authority, DAY);
        std::fs::write(dir.path().join(ROOTS), Authority::new("other").roots_pem()).unwrap();
        assert!(error(load(dir.path())).contains("not issued by a trusted root"));
    }
}
