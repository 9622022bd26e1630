//! NodePorts: listeners on the host's own addresses that carry connections to ready endpoints.
//!
//! The process itself listens on `0.0.0.0` and `[::]` and dials pods over the host's link, so no rule of the host's
//! firewall is touched. TCP only. Driven by the supervisor through [`NodePortListeners::apply`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;

/// How often another endpoint is tried.
const ATTEMPTS: usize = 3;

/// All open NodePorts.
#[derive(Debug, Default)]
pub(crate) struct NodePortListeners {
    open: BTreeMap<u16, Open>,
}

#[derive(Debug)]
struct Open {
    endpoints: watch::Sender<Arc<Vec<SocketAddr>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl NodePortListeners {
    /// Opens, changes and closes ports so that they are as wanted; says which could not be opened, and why.
    pub(crate) fn apply(&mut self, wanted: BTreeMap<u16, Vec<SocketAddr>>) -> Vec<String> {
        self.open.retain(|port, _| wanted.contains_key(port));
        let mut problems = Vec::new();
        for (port, endpoints) in wanted {
            let endpoints = Arc::new(endpoints);
            if let Some(open) = self.open.get(&port) {
                open.endpoints.send_if_modified(|old| {
                    let changed = *old != endpoints;
                    *old = endpoints;
                    changed
                });
                continue;
            }
            match listen(port) {
                Ok(listeners) => {
                    let (sender, receiver) = watch::channel(endpoints);
                    let serve = |listener| tokio::spawn(accept(listener, receiver.clone()));
                    let tasks = listeners.into_iter().map(serve).collect();
                    self.open.insert(
                        port,
                        Open {
                            endpoints: sender,
                            tasks,
                        },
                    );
                }
                Err(error) => problems.push(format!(
                    "NodePort {port} cannot be opened on this machine: {error}"
                )),
            }
        }
        problems
    }
}

fn listen(port: u16) -> std::io::Result<Vec<TcpListener>> {
    let bind = |address: SocketAddr| -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            None,
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let mut listeners = vec![bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?];
    // A machine without IPv6 still has its NodePorts.
    listeners.extend(bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))));
    Ok(listeners)
}

async fn accept(listener: TcpListener, endpoints: watch::Receiver<Arc<Vec<SocketAddr>>>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let endpoints = endpoints.borrow().clone();
                tokio::spawn(carry(client, endpoints));
            }
            // Out of files: give others time to close some.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn carry(mut client: TcpStream, endpoints: Arc<Vec<SocketAddr>>) {
    if endpoints.is_empty() {
        return;
    }
    let first = fastrand::usize(..endpoints.len());
    for step in 0..ATTEMPTS.min(endpoints.len()) {
        let endpoint = endpoints[(first + step) % endpoints.len()];
        if let Ok(mut server) = TcpStream::connect(endpoint).await {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
