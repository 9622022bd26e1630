//! The last good certificate, key and trust bundle in the state directory, for a restart while the control plane is away.
//!
//! That the key touches a file at all is a trade, argued in `docs/adr/`: the directory is an emptyDir in memory (tmpfs), which
//! lives and dies with the pod, the files belong to the proxy's own user with mode 0600, and whoever can read them can as well
//! read this process's memory or use its service-account token to get a certificate of their own. In return a sidecar that
//! restarts serves at once. What is read is checked like what comes from the CA: an expired or foreign certificate is not used.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::pem::{self, CERTIFICATE, PRIVATE_KEY, PemError};

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Its error.
        error: io::Error,
    },
    /// What is there is not what we write.
    #[error("{path}: {error}")]
    Pem {
        /// The file.
        path: String,
        /// What is wrong.
        error: PemError,
    },
    /// Others may read the key.
    #[error("{path}: its mode is {mode:o}, so others may know the key; it is not used")]
    Mode {
        /// The file.
        path: String,
        /// The permission bits.
        mode: u32,
    },
}

impl StoreError {
    /// There is nothing, which is how every pod begins.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A chain, leaf first, and its key.
pub type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Store {
    /// Below the state directory, which is made when first written to.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.join("identity"),
        }
    }

    /// Chain and key, unchecked.
    pub fn read_certificate(&self) -> Result<ChainAndKey, StoreError> {
        let path = self.directory.join("certificate.pem");
        let mode = fs::metadata(&path)
            .map_err(io_error(&path))?
            .permissions()
            .mode()
            & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display().to_string();
            return Err(StoreError::Mode { path, mode });
        }
        let text = fs::read(&path).map_err(io_error(&path))?;
        let wrong = |error| StoreError::Pem {
            path: path.display().to_string(),
            error,
        };
        let key = pem::private_key(&text).map_err(wrong)?;
        Ok((pem::certificates(&text).map_err(wrong)?, key))
    }

    /// Key and chain in one file, so that they always belong together.
    pub fn write_certificate(
        &self,
        chain: &[CertificateDer<'_>],
        key: &PrivatePkcs8KeyDer<'_>,
    ) -> Result<(), StoreError> {
        let mut text = pem::encode(PRIVATE_KEY, key.secret_pkcs8_der());
        text.extend(chain.iter().map(|c| pem::encode(CERTIFICATE, c)));
        self.write("certificate.pem", text.as_bytes())
    }

    /// The trust bundle that the control plane sent last.
    pub fn read_roots(&self) -> Result<Vec<CertificateDer<'static>>, StoreError> {
        let path = self.directory.join("roots.pem");
        let text = fs::read(&path).map_err(io_error(&path))?;
        pem::certificates(&text).map_err(|error| StoreError::Pem {
            path: path.display().to_string(),
            error,
        })
    }

    /// Keeps a trust bundle.
    pub fn write_roots(&self, roots: &[CertificateDer<'_>]) -> Result<(), StoreError> {
        let text: String = roots.iter().map(|c| pem::encode(CERTIFICATE, c)).collect();
        self.write("roots.pem", text.as_bytes())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.directory)
            .map_err(io_error(&self.directory))?;
        write_whole(&self.directory.join(name), content, 0o600)
    }
}

/// Writes a file so that readers see the old or the new content, never a part. The mode is the file's from its first byte.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(io_error(path))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| StoreError::Io {
        path: path.clone(),
        error,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::identity::testing::{Authority, DAY, uri};

    #[test]
    fn what_is_written_is_read_again_and_others_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert!(store.read_certificate().unwrap_err().is_absent());
        assert!(store.read_roots().unwrap_err().is_absent());
        let authority = Authority::new("root");
        for _ in 0..2 {
            let (leaf, key) =
                authority.leaf(&Authority::params(&[uri("spiffe://a/ns/b/sa/c")], DAY));
            let PrivateKeyDer::Pkcs8(key) = key else {
                panic!("rcgen writes PKCS #8")
            };
            store
                .write_certificate(std::slice::from_ref(&leaf), &key)
                .unwrap();
            let (chain, read) = store.read_certificate().unwrap();
            assert_eq!(chain, [leaf]);
            assert_eq!(read.secret_der(), key.secret_pkcs8_der());
        }
        store
            .write_roots(std::slice::from_ref(&authority.root))
            .unwrap();
        assert_eq!(store.read_roots().unwrap(), [authority.root]);

        let file = dir.path().join("identity/certificate.pem");
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&file), mode(&dir.path().join("identity"))),
            (0o600, 0o700)
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            store.read_certificate(),
            Err(StoreError::Mode { mode: 0o640, .. })
        ));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "half a file").unwrap();
        assert!(matches!(
            store.read_certificate(),
            Err(StoreError::Pem { .. })
        ));
    }
}
