//! When to stop: SIGTERM from a kubelet, SIGINT from a terminal. Every service waits for [`requested`].

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process is asked to stop. Never resolves if signals cannot be watched, which only means that
/// the process then dies of the signal at once.
pub(crate) async fn requested() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
