//! A worker's sockets: accepting, and handing each connection over.
//!
//! `main` calls [`run`] on one thread for each core. A connection's way: [`crate::listen::accept`] -> [`crate::outbound::serve`] or
//! [`crate::inbound::serve`] -> detect -> decide -> http or tcp -> balance -> connect.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

use crate::listen::{Sockets, accept};
use crate::worker::{Shared, Worker};
use crate::{inbound, outbound};

/// Runs a worker on the current thread, until the drain has finished.
pub fn run(shared: Arc<Shared>, sockets: Sockets) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let worker = Worker::new(shared);
        spawn_local(Rc::clone(&worker).keep_house());
        for socket in sockets.outbound {
            let listener = TcpListener::from_std(socket)?;
            spawn_local(accept_outbound(listener, Rc::clone(&worker)));
        }
        for socket in sockets.inbound {
            let listener = TcpListener::from_std(socket)?;
            spawn_local(accept_inbound(listener, Rc::clone(&worker)));
        }
        worker.shared.drain.finished().await;
        Ok(())
    })
}

/// Goes on while the proxy drains: the application may need others to finish its own work.
async fn accept_outbound(listener: TcpListener, worker: Rc<Worker>) {
    loop {
        let connection = accept(&listener).await;
        let worker = Rc::clone(&worker);
        spawn_local(async move {
            let guard = worker.shared.drain.guard();
            outbound::serve(connection, &worker).await;
            drop(guard);
        });
    }
}

/// Ends with the drain: who connects now is refused by the kernel, and goes elsewhere.
async fn accept_inbound(listener: TcpListener, worker: Rc<Worker>) {
    let mut draining = std::pin::pin!(worker.shared.drain.watch());
    loop {
        let connection = tokio::select! {
            connection = accept(&listener) => connection,
            _ = draining.as_mut() => return,
        };
        let worker = Rc::clone(&worker);
        spawn_local(async move {
            let guard = worker.shared.drain.guard();
            inbound::serve(connection, &worker).await;
            drop(guard);
        });
    }
}
