//! A source of manifests in files and directories, watched with inotify.
//!
//! [`scan`] says which files there are and which changed, [`store`] holds what each one last meant and merges them, [`watching`] is the
//! thread that waits for the kernel to tell of changes. From a change to the new state it takes a few milliseconds.

mod scan;
mod store;
mod watching;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::{ObjectSource, Observed};

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files, and directories with everything below them: `*.yaml`, `*.yml` and `*.json`; what begins with a dot is left out.
    pub paths: Vec<PathBuf>,
    /// A directory whose objects replace those of the same kind, namespace and name, without that being a mistake.
    pub write_back: Option<PathBuf>,
}

/// The source. Stops watching when dropped.
#[derive(Debug)]
pub struct Directory {
    receiver: watch::Receiver<Arc<Observed>>,
    stop: watching::Stop,
    thread: Option<JoinHandle<()>>,
}

impl Directory {
    /// Reads everything once, then watches on a thread of its own. What is missing or wrong in the files is a problem, not an error;
    /// errors are those of inotify and of starting the thread.
    pub fn start(options: Options) -> io::Result<Self> {
        let (receiver, stop, thread) = watching::start(options)?;
        Ok(Self {
            receiver,
            stop,
            thread: Some(thread),
        })
    }
}

impl ObjectSource for Directory {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.receiver.clone()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            // It only ends by returning; a panic in it has been printed already.
            let _ = thread.join();
        }
    }
}

/// Reads files and directories once, as [`Directory`] does, without watching: for the command line.
pub fn read(options: &Options) -> Observed {
    let mut store = store::FileStore::default();
    let found = scan::scan(options);
    store.refresh(found.files, found.problems, &|_| scan::Freshness::Ready);
    store.observed()
}
