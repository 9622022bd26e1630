//! The thread that waits for changes.
//!
//! inotify says what happened; what there is now is then found by a [`scan`], so that links, renames and lost events all come out
//! right. A file that is being written is left alone until it is closed, so that nobody sees half of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::scan::{self, Freshness};
use super::store::FileStore;
use super::{Observed, Options};

/// Changes come in groups; this long without another ends one.
const QUIET: Duration = Duration::from_millis(2);
/// A group is not waited for longer than this.
const LONGEST_GROUP: Duration = Duration::from_millis(10);
/// A file that is open for writing is read after this all the same: its writer may never close it.
const LONGEST_WRITE: Duration = Duration::from_millis(250);
/// Everything is looked at this often, whatever inotify says: not every file system tells it.
const SWEEP: Duration = Duration::from_secs(10);
/// Events that may wait; when they are more, everything is looked at.
const WAITING_EVENTS: usize = 4096;

enum Message {
    Event(Event),
    /// Something was lost, or it is time to stop.
    Wake,
}

/// Ends the thread.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    stopped: Arc<AtomicBool>,
    wake: SyncSender<Message>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

impl Stop {
    pub(super) fn now(&self) {
        self.stopped.store(true, Ordering::Release);
        // When it is full there is something to wake up for.
        let _ = self.wake.try_send(Message::Wake);
    }
}

struct Watching {
    options: Options,
    store: FileStore,
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, (u64, u64)>,
    messages: Receiver<Message>,
    /// Being written, until when that is believed.
    writing: HashMap<PathBuf, Instant>,
    /// Written to since the last refresh.
    written: HashSet<PathBuf>,
    sender: watch::Sender<Arc<Observed>>,
    stopped: Arc<AtomicBool>,
}

/// Reads everything, then starts the thread.
pub(super) fn start(
    options: Options,
) -> io::Result<(watch::Receiver<Arc<Observed>>, Stop, JoinHandle<()>)> {
    let (wake, messages) = sync_channel(WAITING_EVENTS);
    let events = wake.clone();
    let handler = move |event: notify::Result<Event>| {
        if event.as_ref().is_ok_and(|e| is_reading(e.kind)) {
            return;
        }
        // When the channel is full, what is in it leads to a scan, which sees this too.
        let _ = events.try_send(event.map_or(Message::Wake, Message::Event));
    };
    let watcher = notify::recommended_watcher(handler).map_err(io::Error::other)?;
    let (sender, receiver) = watch::channel(Arc::new(Observed::default()));
    let stopped = Arc::new(AtomicBool::new(false));
    let mut watching = Watching {
        options,
        store: FileStore::default(),
        watcher,
        watched: BTreeMap::new(),
        messages,
        writing: HashMap::new(),
        written: HashSet::new(),
        sender,
        stopped: stopped.clone(),
    };
    watching.refresh();
    let thread = std::thread::Builder::new()
        .name("weft-manifests".into())
        .spawn(move || watching.run())?;
    Ok((receiver, Stop { stopped, wake }, thread))
}

/// Somebody looked, ourselves among others: a scan must not lead to the next one.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

impl Watching {
    fn run(mut self) {
        while !self.stopped.load(Ordering::Acquire) {
            // 1 until something happens, a writer has had its time, or it is time for a sweep
            let now = Instant::now();
            let patience = self
                .writing
                .values()
                .map(|until| until.saturating_duration_since(now))
                .min();
            match self
                .messages
                .recv_timeout(patience.unwrap_or(SWEEP).min(SWEEP))
            {
                Ok(message) => self.note(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // 2 the rest of the group
            let end = Instant::now() + LONGEST_GROUP;
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                match self.messages.recv_timeout(QUIET.min(left)) {
                    Ok(message) => self.note(message),
                    Err(_) => break,
                }
            }
            // 3 what there is now
            self.refresh();
        }
    }

    fn note(&mut self, message: Message) {
        let Message::Event(event) = message else {
            return;
        };
        for path in event.paths {
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.writing.remove(&path);
                    self.written.insert(path);
                }
                EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                    self.writing.insert(path, Instant::now() + LONGEST_WRITE);
                }
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    // The kernel forgets a directory that is gone; one of the same name has to be watched anew.
                    self.watched.remove(&path);
                    self.writing.remove(&path);
                    self.written.insert(path);
                }
                _ => {
                    self.written.insert(path);
                }
            }
        }
    }

    fn refresh(&mut self) {
        let now = Instant::now();
        let expired: Vec<PathBuf> = self
            .writing
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(p, _)| p.clone())
            .collect();
        for path in expired {
            self.writing.remove(&path);
            self.written.insert(path);
        }
        let mut found = scan::scan(&self.options);
        // What appeared in a directory before it was watched was not told: look once more until nothing is new.
        for _ in 0..8 {
            if !self.watch(&found.directories) {
                break;
            }
            found = scan::scan(&self.options);
        }
        let (writing, written) = (&self.writing, std::mem::take(&mut self.written));
        let freshness = |path: &Path| {
            if writing.contains_key(path) {
                Freshness::Writing
            } else if written.contains(path) {
                Freshness::Written
            } else {
                Freshness::Ready
            }
        };
        if self.store.refresh(found.files, found.problems, &freshness) {
            self.sender.send_replace(Arc::new(self.store.observed()));
        }
    }

    /// Watches these directories and no others. Gives back whether any is new.
    fn watch(&mut self, wanted: &BTreeMap<PathBuf, (u64, u64)>) -> bool {
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in stale {
            self.watched.remove(&path);
            // It fails when the directory is gone, and then there is nothing to undo.
            let _ = self.watcher.unwatch(&path);
        }
        let mut new = false;
        for (path, id) in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => new |= self.watched.insert(path.clone(), *id).is_none(),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "this directory is not watched, only looked at every 10 s");
                }
            }
        }
        new
    }
}
