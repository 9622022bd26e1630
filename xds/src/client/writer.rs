//! Brings the table to disk some time after it changed.

use std::sync::Arc;

use tokio::sync::watch;

use super::disk;
use super::stream::gone;
use super::table::Table;

/// Runs until the last handle is gone, and writes a last time then.
pub(super) async fn run(table: Arc<Table>, mut alive: watch::Receiver<()>) {
    if table.options.state_dir.is_none() {
        return;
    }
    loop {
        tokio::select! {
            () = table.content_changed.notified() => {}
            () = gone(&mut alive) => return,
        }
        // What changes meanwhile is written with it.
        tokio::select! {
            () = tokio::time::sleep(table.options.save_after) => save(&table).await,
            () = gone(&mut alive) => return save(&table).await,
        }
    }
}

/// Writes the whole table, on a thread where that may block.
pub(super) async fn save(table: &Arc<Table>) {
    let Some(dir) = table.options.state_dir.clone() else {
        return;
    };
    let _saving = table.saving.lock().await;
    let content = table.content();
    let written =
        tokio::task::spawn_blocking(move || disk::write(&dir, &content).map_err(|e| (dir, e)))
            .await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err((dir, error))) => {
            tracing::warn!(dir = %dir.display(), %error, "the resources cannot be saved; a restart would begin without them");
        }
        Err(error) => tracing::error!(%error, "the resources could not be saved"),
    }
}
