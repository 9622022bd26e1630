//! The supervisor's control socket: one JSON request a connection, one JSON answer.
//!
//! Only root can open it. The other end is [`crate::client`].

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::names::Layout;

/// The longest request, in bytes.
const LONGEST: u64 = 4096;

/// A request as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Order {
    /// Take everything down; pods get so many milliseconds at most.
    Stop {
        /// Milliseconds.
        grace: u64,
    },
    /// End the control plane and keep it down for so many milliseconds.
    HoldControlPlane {
        /// Milliseconds; 0 ends an earlier hold.
        hold: u64,
    },
}

/// The answer as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Why not, if not.
    pub(crate) error: Option<String>,
}

/// A request as the supervisor gets it.
#[derive(Debug)]
pub(crate) enum Request {
    /// Take everything down.
    Stop {
        /// The most a pod gets to end.
        grace: Duration,
    },
    /// Keep the control plane down.
    Hold {
        /// For how long.
        hold: Duration,
        /// Where the answer goes.
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// Listens until the runtime ends.
pub(crate) fn listen(layout: &Layout, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let path = layout.socket();
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, requests.clone()));
        }
    });
    Ok(())
}

async fn serve(stream: UnixStream, requests: mpsc::Sender<Request>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(reader.take(LONGEST))
        .read_line(&mut line)
        .await
        .is_err()
    {
        return;
    }
    let error = match serde_json::from_str::<Order>(&line) {
        Ok(order) => carry_out(order, &requests).await.err(),
        Err(error) => Some(error.to_string()),
    };
    if let Ok(mut answer) = serde_json::to_vec(&Answer { error }) {
        answer.push(b'\n');
        let _ = writer.write_all(&answer).await;
    }
}

async fn carry_out(order: Order, requests: &mpsc::Sender<Request>) -> Result<(), String> {
    let gone = || "the supervisor is ending".to_owned();
    match order {
        Order::Stop { grace } => requests
            .send(Request::Stop {
                grace: Duration::from_millis(grace),
            })
            .await
            .map_err(|_| gone()),
        Order::HoldControlPlane { hold } => {
            let (done, answer) = oneshot::channel();
            let hold = Duration::from_millis(hold);
            requests
                .send(Request::Hold { hold, done })
                .await
                .map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        }
    }
}
