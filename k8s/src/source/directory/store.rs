//! What each file last meant, and all of them together.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Observed;
use super::scan::{Freshness, Layer, Signature};
use crate::object::{AnyObject, Kind, ObjectKey, Objects};
use crate::parse::{self, MAX_FILE_BYTES};
use crate::problem::{Location, Problem};

type Identity = (Kind, ObjectKey);

/// All files.
#[derive(Default)]
pub(super) struct FileStore {
    files: BTreeMap<PathBuf, File>,
    /// Paths in the order in which they count.
    order: Vec<PathBuf>,
    /// Which file an object is in force from: it stays so when the object appears in another one too.
    owners: HashMap<Identity, PathBuf>,
    merged: Arc<Objects>,
    /// Of the last scan.
    scan_problems: Vec<Problem>,
    /// All of them.
    problems: Vec<Problem>,
    version: u64,
}

struct File {
    layer: Layer,
    signature: Signature,
    /// What is in force of it.
    objects: Vec<AnyObject>,
    problems: Vec<Problem>,
}

impl FileStore {
    /// Brings everything up to date with a scan. Gives back whether anything changed.
    pub(super) fn refresh(
        &mut self,
        found: Vec<(PathBuf, Layer, Signature)>,
        problems: Vec<Problem>,
        freshness: &dyn Fn(&Path) -> Freshness,
    ) -> bool {
        let mut changed = false;
        let mut before = std::mem::take(&mut self.files);
        self.order.clear();
        for (path, layer, signature) in found {
            let known = before.remove(&path);
            let state = freshness(&path);
            let file = match known {
                Some(file) if state == Freshness::Writing => file,
                Some(file)
                    if state == Freshness::Ready
                        && file.signature == signature
                        && file.layer == layer =>
                {
                    file
                }
                None if state == Freshness::Writing => continue,
                known => {
                    let file = read(&path, layer, signature, known.as_ref());
                    changed |= known.is_none_or(|k| {
                        k.objects != file.objects || k.problems != file.problems || k.layer != layer
                    });
                    file
                }
            };
            self.order.push(path.clone());
            self.files.insert(path, file);
        }
        changed |= !before.is_empty();
        if changed || self.version == 0 || self.scan_problems != problems {
            self.scan_problems.clone_from(&problems);
            self.merge(problems);
            self.version += 1;
            return true;
        }
        false
    }

    /// All objects in force.
    pub(super) fn observed(&self) -> Observed {
        Observed {
            objects: self.merged.clone(),
            problems: self.problems.clone(),
            version: self.version,
        }
    }

    fn merge(&mut self, problems: Vec<Problem>) {
        self.problems = problems;
        let mut objects = Objects::default();
        let mut owners: HashMap<Identity, PathBuf> = HashMap::new();
        let mut places: HashMap<Identity, Vec<(&PathBuf, &AnyObject)>> = HashMap::new();
        let mut order = Vec::new();
        for path in &self.order {
            let Some(file) = self.files.get(path) else {
                continue;
            };
            self.problems.extend(file.problems.iter().cloned());
            for object in file.objects.iter().filter(|_| file.layer == Layer::Source) {
                let identity = (object.kind(), object.key());
                let all = places.entry(identity.clone()).or_default();
                if all.is_empty() {
                    order.push(identity);
                }
                all.push((path, object));
            }
        }
        for identity in order {
            let all = places.remove(&identity).unwrap_or_default();
            let owner = self.owners.get(&identity);
            let winner = all
                .iter()
                .position(|(path, _)| Some(*path) == owner)
                .unwrap_or(0);
            for (i, (path, object)) in all.iter().enumerate() {
                if i == winner {
                    owners.insert(identity.clone(), (*path).clone());
                    objects.insert((*object).clone());
                } else {
                    let reason = format!(
                        "the same object is in {}, which stays in force",
                        all[winner].1.source()
                    );
                    let problem =
                        Problem::error(object.source().clone(), object.describe(), "", reason);
                    self.problems
                        .push(problem.hint("remove one of them, or rename it"));
                }
            }
        }
        let written_back = self
            .order
            .iter()
            .filter_map(|p| self.files.get(p))
            .filter(|f| f.layer == Layer::WrittenBack);
        for object in written_back.flat_map(|f| &f.objects) {
            objects.insert(object.clone());
        }
        self.owners = owners;
        self.merged = Arc::new(objects);
    }
}

/// Reads one file. What of it cannot be used keeps its last good version.
fn read(path: &Path, layer: Layer, signature: Signature, known: Option<&File>) -> File {
    let file = Arc::new(path.to_owned());
    let refused = |reason: String| File {
        layer,
        signature,
        objects: known.map(|k| k.objects.clone()).unwrap_or_default(),
        problems: vec![unreadable(&file, reason, known)],
    };
    if signature.size > MAX_FILE_BYTES as u64 {
        return refused(format!(
            "the file is larger than {} MiB",
            MAX_FILE_BYTES >> 20
        ));
    }
    let text = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            return refused(format!(
                "the file is not UTF-8 text: byte {} is the first that is none",
                error.utf8_error().valid_up_to()
            ));
        }
        Err(error) => return refused(format!("cannot be read: {error}")),
    };
    let mut parsed = parse::parse(&file, &text, signature.changed_at());
    let before: HashMap<Identity, &AnyObject> = known
        .iter()
        .flat_map(|k| &k.objects)
        .map(|o| ((o.kind(), o.key()), o))
        .collect();
    if parsed.unreadable {
        let objects = known.map(|k| k.objects.clone()).unwrap_or_default();
        return File {
            layer,
            signature,
            objects,
            problems: parsed.problems,
        };
    }
    for object in &mut parsed.objects {
        if let Some(before) = before
            .get(&(object.kind(), object.key()))
            .filter(|b| b.same_object(object))
        {
            if before.source() == object.source() {
                *object = (*before).clone();
            } else {
                object.keep_age(before);
            }
        }
    }
    let kept = parsed
        .broken
        .into_iter()
        .filter_map(|identity| before.get(&identity).map(|o| (*o).clone()));
    parsed.objects.extend(kept);
    File {
        layer,
        signature,
        objects: parsed.objects,
        problems: parsed.problems,
    }
}

fn unreadable(file: &Arc<PathBuf>, reason: String, known: Option<&File>) -> Problem {
    let source = Location {
        file: file.clone(),
        line: 0,
        column: 0,
    };
    let problem = Problem::error(source, "", "", reason);
    match known {
        Some(file) if !file.objects.is_empty() => {
            problem.hint("its last good version stays in force")
        }
        _ => problem,
    }
}
