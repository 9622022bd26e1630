//! Which files there are, and by what one can tell that they changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_model::UnixMillis;

use super::Options;
use crate::problem::{Location, Problem};

/// Most files that are read.
const MAX_FILES: usize = 20_000;
/// Deepest directory below a source.
const MAX_DEPTH: usize = 32;

/// Changes when a file's content does. The clock of file systems is coarse (4 ms); what inotify names is read in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Signature {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When the file changed: its content, or its place (a rename keeps the time of the content).
    pub(super) fn changed_at(&self) -> UnixMillis {
        let (seconds, nanos) = self.modified.max(self.changed);
        UnixMillis(u64::try_from(seconds * 1000 + nanos / 1_000_000).unwrap_or(0))
    }
}

/// May a file be read now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// If its signature changed.
    Ready,
    /// In any case: it was written to.
    Written,
    /// Not yet: somebody is writing to it.
    Writing,
}

/// Where a file's objects stand: those that were written back replace the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Source,
    WrittenBack,
}

/// What was found.
#[derive(Default)]
pub(super) struct Scan {
    /// In the order of the sources, within a source by name.
    pub(super) files: Vec<(PathBuf, Layer, Signature)>,
    /// Directories to watch, with device and inode: a name may come to mean another directory.
    pub(super) directories: BTreeMap<PathBuf, (u64, u64)>,
    pub(super) problems: Vec<Problem>,
    seen: BTreeSet<PathBuf>,
}

/// Walks all sources.
pub(super) fn scan(options: &Options) -> Scan {
    let mut scan = Scan::default();
    for path in &options.paths {
        scan.source(path, Layer::Source);
    }
    if let Some(path) = &options.write_back {
        scan.source(path, Layer::WrittenBack);
    }
    scan
}

impl Scan {
    fn source(&mut self, path: &Path, layer: Layer) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(path, layer, 0),
            Ok(metadata) => {
                self.watch_around(path);
                self.file(path, layer, &metadata);
            }
            Err(error) => {
                let mut ancestors = path.ancestors().skip(1).map(|a| {
                    if a.as_os_str().is_empty() {
                        Path::new(".")
                    } else {
                        a
                    }
                });
                if let Some(existing) = ancestors.find(|a| a.is_dir()) {
                    self.watch(existing);
                }
                self.problem(path, &format!("cannot be read: {error}"));
            }
        }
    }

    fn problem(&mut self, path: &Path, reason: &str) {
        let source = Location {
            file: Arc::new(path.to_owned()),
            line: 0,
            column: 0,
        };
        self.problems.push(Problem::error(source, "", "", reason));
    }

    fn watch(&mut self, directory: &Path) {
        if let Ok(metadata) = fs::metadata(directory) {
            self.directories
                .insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
        }
    }

    /// Watches the directory that a file stands in and, if it is a link, the one that it leads to.
    fn watch_around(&mut self, file: &Path) {
        let parent = file.parent().map(|p| {
            if p.as_os_str().is_empty() {
                Path::new(".")
            } else {
                p
            }
        });
        if let Some(parent) = parent {
            self.watch(parent);
        }
        if file.is_symlink()
            && let Ok(target) = fs::canonicalize(file)
            && let Some(parent) = target.parent()
        {
            self.watch(parent);
        }
    }

    fn directory(&mut self, path: &Path, layer: Layer, depth: usize) {
        if depth > MAX_DEPTH {
            return self.problem(
                path,
                &format!("is more than {MAX_DEPTH} directories deep, or links to itself; not read"),
            );
        }
        self.watch(path);
        let mut entries: Vec<PathBuf> = match fs::read_dir(path) {
            Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
            Err(error) => return self.problem(path, &format!("cannot be read: {error}")),
        };
        entries.sort();
        for entry in entries {
            let hidden = entry
                .file_name()
                .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            // What vanished in between, or is a link to nowhere, is not there.
            let Ok(metadata) = fs::metadata(&entry) else {
                continue;
            };
            if metadata.is_dir() {
                self.directory(&entry, layer, depth + 1);
            } else if metadata.is_file() && is_manifest(&entry) {
                if entry.is_symlink() {
                    self.watch_around(&entry);
                }
                self.file(&entry, layer, &metadata);
            }
        }
    }

    fn file(&mut self, path: &Path, layer: Layer, metadata: &fs::Metadata) {
        if self.files.len() == MAX_FILES {
            if self.seen.insert(PathBuf::new()) {
                self.problem(
                    path,
                    &format!(
                        "is one of more than {MAX_FILES} files; it and those after it are not read"
                    ),
                );
            }
            return;
        }
        if self.seen.insert(path.to_owned()) {
            self.files
                .push((path.to_owned(), layer, Signature::of(metadata)));
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}
