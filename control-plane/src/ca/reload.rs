//! Keeps the current [`Authority`] in a watch: read again when a file changes, the last good one while it is broken.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Authority, CaError, CaFiles, load};
use crate::clock::Rfc3339;
use crate::files::Watched;
use crate::problems::{Facility, Problems};

/// Loads the authority and starts to watch its files. The task ends when the last receiver is gone.
pub fn start(
    files: CaFiles,
    problems: Problems,
) -> Result<watch::Receiver<Arc<Authority>>, CaError> {
    let mut watched = Watched::new(files.all().cloned());
    let first = load::load(&files, SystemTime::now())?;
    info!(roots = first.roots().len(), not_after = %Rfc3339(first.not_after()), "certificate authority ready");
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = watched.changed() => {}
                () = sender.closed() => return,
            }
            match load::load(&files, SystemTime::now()) {
                Ok(next) => {
                    problems.clear(Facility::Authority);
                    info!(roots = next.roots().len(), not_after = %Rfc3339(next.not_after()), "certificate authority read again");
                    sender.send_replace(Arc::new(next));
                }
                Err(e) => {
                    warn!(error = %e, "the changed certificate authority cannot be used; the last good one stays in force");
                    problems.set(Facility::Authority, e.to_string());
                }
            }
        }
    });
    Ok(receiver)
}
