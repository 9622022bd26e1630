//! Objects written for the control plane: one file each below `objects/`, replaced by a rename and only when changed.
//!
//! Half-written files are never seen, and the control plane's watch wakes only for what is new. Used by
//! [`crate::supervisor`].

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;

/// The directory, and what each file in it holds.
#[derive(Debug)]
pub(crate) struct WriteBack {
    directory: PathBuf,
    written: HashMap<String, Vec<u8>>,
    seen: Vec<String>,
}

impl WriteBack {
    /// Starts with an empty directory.
    pub(crate) fn new(directory: PathBuf) -> Result<Self, Error> {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).map_err(Error::at(&directory))?;
        Ok(Self {
            directory,
            written: HashMap::new(),
            seen: Vec::new(),
        })
    }

    /// Writes an object, unless its file holds the same already.
    pub(crate) fn put(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        object: &impl Serialize,
    ) -> Result<(), Error> {
        let file = match namespace {
            "" => format!("{kind}_{name}.json"),
            _ => format!("{kind}_{namespace}_{name}.json"),
        }
        .to_lowercase();
        self.seen.push(file.clone());
        let bytes = serde_json::to_vec(object)?;
        if self.written.get(&file) == Some(&bytes) {
            return Ok(());
        }
        let path = self.directory.join(&file);
        // The dot and the ending keep it out of sight of anyone who looks for manifests.
        let next = self.directory.join(format!(".{file}.next"));
        fs::write(&next, &bytes).map_err(Error::at(&next))?;
        fs::rename(&next, &path).map_err(Error::at(&path))?;
        self.written.insert(file, bytes);
        Ok(())
    }

    /// Removes the files of objects that were not put since the last call.
    pub(crate) fn sweep(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        let directory = &self.directory;
        self.written.retain(|file, _| {
            let keep = seen.contains(file);
            if !keep {
                remove(&directory.join(file));
            }
            keep
        });
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_appear_change_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("objects");
        let mut store = WriteBack::new(path.clone()).unwrap();
        let file = path.join("pod_shop_web.json");
        store.put("Pod", "shop", "web", &json!({"a": 1})).unwrap();
        store.put("Namespace", "", "shop", &json!({})).unwrap();
        store.sweep();
        let first = fs::metadata(&file).unwrap().modified().unwrap();
        store.put("Pod", "shop", "web", &json!({"a": 1})).unwrap();
        store.sweep();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first);
        assert!(!path.join("namespace_shop.json").exists());
        store.put("Pod", "shop", "web", &json!({"a": 2})).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), r#"{"a":2}"#);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }
}
