//! A container's log: one file a start, in the CRI format `TIME STREAM F LINE`, of bounded size.
//!
//! A file that reaches [`MAX_BYTES`] is renamed to `.1` (replacing the one before) and started anew; the files of the
//! last [`KEEP_STARTS`] starts are kept. Written by [`super::lifecycle`], read by [`crate::logs`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A log file's limit, in bytes.
pub(crate) const MAX_BYTES: u64 = 10 << 20;

/// Of how many starts logs are kept.
pub(crate) const KEEP_STARTS: u32 = 3;

/// The longest line kept whole, in bytes; longer ones are cut into several.
const MAX_LINE: usize = 16 << 10;

/// Where the log of a container's start number `restart` is (0 is the first).
pub(crate) fn path(pod_directory: &Path, container: &str, restart: u32) -> PathBuf {
    pod_directory
        .join("logs")
        .join(container)
        .join(format!("{restart}.log"))
}

/// The older half of a log that was rotated.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// An open log, shared by the readers of both streams.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Log {
    /// Starts the log of a container's start, and removes those too old to keep.
    pub(crate) fn create(pod_directory: &Path, container: &str, restart: u32) -> io::Result<Self> {
        let path = path(pod_directory, container, restart);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        if let Some(old) = restart.checked_sub(KEEP_STARTS) {
            let old = self::path(pod_directory, container, old);
            let _ = fs::remove_file(rotated(&old));
            let _ = fs::remove_file(old);
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self(Arc::new(Mutex::new(Open {
            path,
            file,
            written: 0,
        }))))
    }

    /// Appends one line.
    pub(crate) fn line(&self, stream: &str, line: &str) -> io::Result<()> {
        let entry = format!("{} {stream} F {line}\n", Timestamp::now());
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.written + entry.len() as u64 > MAX_BYTES {
            fs::rename(&open.path, rotated(&open.path))?;
            open.file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&open.path)?;
            open.written = 0;
        }
        open.file.write_all(entry.as_bytes())?;
        open.written += entry.len() as u64;
        Ok(())
    }

    /// Copies a stream's lines until it ends.
    pub(crate) async fn copy(self, name: &'static str, stream: impl AsyncRead + Unpin) {
        let mut reader = BufReader::with_capacity(MAX_LINE, stream);
        let mut line = Vec::new();
        loop {
            let Ok(buffer) = reader.fill_buf().await else {
                return;
            };
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let room = MAX_LINE - line.len();
            let taken = end.map_or(buffer.len(), |end| end + 1).min(room);
            line.extend_from_slice(&buffer[..taken]);
            reader.consume(taken);
            if line.last() == Some(&b'\n') || line.len() >= MAX_LINE {
                self.flush(name, &mut line);
            }
        }
        if !line.is_empty() {
            self.flush(name, &mut line);
        }
    }

    fn flush(&self, name: &str, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        // A full disk must not stop the container, which would block on its pipe.
        let _ = self.line(name, text.trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_stamped_cut_and_completed() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), "app", 0).unwrap();
        let text = format!("one\r\n\n{}\nlast", "x".repeat(MAX_LINE + 10));
        log.copy("stdout", text.as_bytes()).await;
        let written = fs::read_to_string(path(directory.path(), "app", 0)).unwrap();
        let lines: Vec<&str> = written
            .lines()
            .map(|l| l.split_once(" stdout F ").unwrap().1)
            .collect();
        assert_eq!((lines[0], lines[1], lines[4]), ("one", "", "last"));
        assert_eq!((lines[2].len(), lines[3].len()), (MAX_LINE, 10));
    }

    #[test]
    fn files_are_bounded_and_old_starts_go() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), "app", 0).unwrap();
        let line = "y".repeat(1 << 20);
        for _ in 0..12 {
            log.line("stderr", &line).unwrap();
        }
        let file = path(directory.path(), "app", 0);
        assert!(fs::metadata(&file).unwrap().len() < MAX_BYTES && rotated(&file).exists());
        for restart in 1..=KEEP_STARTS {
            Log::create(directory.path(), "app", restart).unwrap();
        }
        assert!(!file.exists() && path(directory.path(), "app", 1).exists());
    }
}
