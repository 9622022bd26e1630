//! `weft local logs`: a container's output, from its files.
//!
//! The files are written by [`crate::pod::logs`]; following is reading on at their end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::client::{find_container, find_pod, state};
use crate::pod::logs::rotated;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Which part of which log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The container; the first of the pod's `containers` unless given.
    pub container: Option<String>,
    /// Go on as more is written, until the pod is gone.
    pub follow: bool,
    /// Only this many last lines.
    pub tail: Option<usize>,
    /// The start before the current one.
    pub previous: bool,
    /// Keep the time in front of each line.
    pub timestamps: bool,
}

/// Gives a container's log to `line`, one line at a time, until it ends or `line` returns an error. `pod` is a name,
/// `namespace/name` or `deploy/NAME`. Blocking.
pub fn logs(
    mesh: &str,
    pod: &str,
    options: &LogOptions,
    mut line: impl FnMut(&str) -> io::Result<()>,
) -> Result<(), Error> {
    let known = state(mesh)?;
    let found = find_pod(&known, pod)?;
    let key = format!("{}/{}", found.namespace, found.name);
    let container = find_container(found, options.container.as_deref())?;
    let name = container.name.clone();
    let mut path = container.log.clone();
    if options.previous {
        let before = container
            .restarts
            .checked_sub(1)
            .filter(|_| container.restarts > 0);
        path = before
            .map(|n| path.with_file_name(format!("{n}.log")))
            .filter(|p| p.exists())
            .ok_or_else(|| {
                Error::NotFound(format!(
                    "container {name} of pod {key} has no earlier start whose log is kept"
                ))
            })?;
    }
    let mut show = |text: &str| {
        if options.timestamps {
            line(text)
        } else {
            line(strip(text))
        }
    };
    let mut text = String::new();
    for file in [rotated(&path), path.clone()] {
        if let Ok(mut file) = File::open(file) {
            file.read_to_string(&mut text)?;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let skip = options
        .tail
        .map_or(0, |tail| lines.len().saturating_sub(tail));
    for text in &lines[skip..] {
        show(text)?;
    }
    if !options.follow || options.previous {
        return Ok(());
    }
    let mut position = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    loop {
        position = read_on(&path, position, &mut show)?;
        std::thread::sleep(POLL);
        let Ok(now) = state(mesh) else { return Ok(()) };
        let Ok(pod) = find_pod(&now, &key) else {
            return Ok(());
        };
        let current = find_container(pod, Some(&name))?;
        if current.log != path {
            read_on(&path, position, &mut show)?;
            (path, position) = (current.log.clone(), 0);
        } else if current.state == "terminated" && pod.phase.is_over() {
            read_on(&path, position, &mut show)?;
            return Ok(());
        }
    }
}

/// Shows the whole lines after `position`; where the next ones will start.
fn read_on(
    path: &Path,
    position: u64,
    show: &mut impl FnMut(&str) -> io::Result<()>,
) -> io::Result<u64> {
    let Ok(mut file) = File::open(path) else {
        return Ok(position);
    };
    let mut position = position;
    if file.metadata()?.len() < position {
        // Rotated: what came after the last look is in the older file.
        let older: PathBuf = rotated(path);
        if let Ok(mut old) = File::open(older) {
            old.seek(SeekFrom::Start(position))?;
            whole_lines(old, show)?;
        }
        position = 0;
    }
    file.seek(SeekFrom::Start(position))?;
    Ok(position + whole_lines(file, show)?)
}

fn whole_lines(file: File, show: &mut impl FnMut(&str) -> io::Result<()>) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut taken, mut line) = (0, String::new());
    loop {
        line.clear();
        let length = reader.read_line(&mut line)?;
        if length == 0 || !line.ends_with('\n') {
            return Ok(taken);
        }
        taken += length as u64;
        show(line.trim_end_matches('\n'))?;
    }
}

/// A line without time, stream and tag.
fn strip(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reading_on_shows_whole_lines_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        let seen = std::cell::RefCell::new(Vec::new());
        let mut show = |text: &str| {
            seen.borrow_mut().push(strip(text).to_owned());
            Ok(())
        };
        file.write_all(b"T stdout F one\nT stdout F tw").unwrap();
        let position = read_on(&path, 0, &mut show).unwrap();
        file.write_all(b"o and more\n").unwrap();
        let position = read_on(&path, position, &mut show).unwrap();
        assert_eq!(*seen.borrow(), ["one", "two and more"]);
        assert_eq!(position, std::fs::metadata(&path).unwrap().len());
        assert_eq!(strip("T stdout F "), "");
    }
}
