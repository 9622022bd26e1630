//! One worker: a thread with its own runtime, sockets, pools and balancer state. Nothing here is shared but [`Shared`].
//!
//! [`crate::serve`] makes one for each thread and hands it to every connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_local;
use weft_model::BackendKey;
use weft_xds::client::Client;

use crate::access_log::AccessLog;
use crate::backend::Backend;
use crate::balance::limits::Limits;
use crate::config::Config;
use crate::destination::Destination;
use crate::drain::Drain;
use crate::identity::Identity;
use crate::metrics::{DestinationMetrics, Metrics};
use crate::port::Port;
use crate::tls::client::Dialer;
use crate::tls::server::{Acceptor, Configs};

/// State that nothing has used for this long is forgotten, and its resources are unsubscribed.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// How often idle connections are looked through, while there are any.
const SWEEP: Duration = Duration::from_secs(1);

/// What all workers share: handles and configuration.
pub struct Shared {
    /// The environment's settings.
    pub config: Config,
    /// The control plane's answers.
    pub discovery: Client,
    /// This workload's certificate.
    pub identity: Identity,
    /// The end.
    pub drain: Drain,
    /// One line for each request.
    pub access_log: AccessLog,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Server configurations, with the key of session tickets.
    tls: Arc<Configs>,
}

impl Shared {
    /// Brings the handles together.
    pub fn new(
        config: Config,
        discovery: Client,
        identity: Identity,
        drain: Drain,
        access_log: AccessLog,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let tls = Arc::new(Configs::new(identity.clone()));
        Arc::new(Self {
            config,
            discovery,
            identity,
            drain,
            access_log,
            metrics,
            tls,
        })
    }
}

/// The state of one worker.
pub struct Worker {
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Accepts mutual TLS.
    pub acceptor: Acceptor,
    /// Makes mutual TLS.
    pub dialer: Dialer,
    /// Something changed by which living connections are judged: drain, policy, roots.
    pub judge: Notify,
    destinations: RefCell<Map<SocketAddr, Rc<Destination>>>,
    backends: RefCell<Map<BackendKey, Rc<Backend>>>,
    ports: RefCell<Map<u16, Rc<Port>>>,
    /// There is something to sweep.
    busy: Notify,
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

impl Worker {
    /// Without any state yet. Call it inside a [`tokio::task::LocalSet`]; [`Worker::keep_house`] is to run beside.
    pub fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            acceptor: Acceptor::new(Arc::clone(&shared.tls)),
            dialer: Dialer::new(shared.identity.clone()),
            judge: Notify::new(),
            destinations: RefCell::default(),
            backends: RefCell::default(),
            ports: RefCell::default(),
            busy: Notify::new(),
            shared,
        })
    }

    /// What is at a captured address.
    pub fn destination(&self, address: SocketAddr) -> Rc<Destination> {
        let new = || Destination::new(address, self.shared.discovery.destination(address));
        get_or_insert(&self.destinations, &address, new)
    }

    /// A backend with its endpoints.
    pub fn backend(&self, key: &BackendKey) -> Rc<Backend> {
        if let Some(known) = self.backends.borrow().get(key) {
            return Rc::clone(known);
        }
        self.busy.notify_one();
        get_or_insert(&self.backends, key, || {
            let discovery = &self.shared.discovery;
            Backend::new(
                key.clone(),
                discovery.cluster(key),
                discovery.endpoints(key),
                DestinationMetrics::new(Arc::clone(&self.shared.metrics), key.to_string()),
                Limits::new(self.shared.config.workers.get()),
            )
        })
    }

    /// One of the workload's own ports.
    pub fn port(self: &Rc<Self>, port: u16) -> Rc<Port> {
        if let Some(known) = self.ports.borrow().get(&port) {
            return Rc::clone(known);
        }
        self.busy.notify_one();
        let made = get_or_insert(&self.ports, &port, || {
            Port::new(port, self.shared.discovery.inbound(port))
        });
        let (mut policy, worker) = (made.watch(), Rc::downgrade(self));
        let held = Rc::downgrade(&made);
        spawn_local(async move {
            // Ends at the first change after the port was forgotten.
            while held.strong_count() > 0 {
                policy.changed().await;
                let Some(worker) = worker.upgrade() else {
                    return;
                };
                worker.judge.notify_waiters();
            }
        });
        made
    }

    /// Is the address one of this proxy's own listeners?
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let ports = &self.shared.config.ports;
        let here = |ip: IpAddr| {
            ip.is_loopback() || ip.is_unspecified() || self.shared.config.pod.ips.contains(&ip)
        };
        (address.port() == ports.outbound || address.port() == ports.inbound) && here(address.ip())
    }

    /// Resolves when `refused` says so after a change of policy or roots. `on_drain`: also when the proxy drains.
    pub async fn changed(&self, on_drain: bool, refused: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.judge.notified());
            changed.as_mut().enable();
            if (on_drain && self.shared.drain.is_draining()) || refused() {
                return;
            }
            changed.await;
        }
    }

    /// Everything that goes on beside connections: closing idle ones, forgetting what is unused, following changes.
    pub async fn keep_house(self: Rc<Self>) {
        let sweeping = async {
            loop {
                while self.sweep(Instant::now()) {
                    tokio::time::sleep(SWEEP).await;
                }
                self.busy.notified().await;
            }
        };
        let draining = async {
            self.shared.drain.watch().await;
            self.judge.notify_waiters();
            std::future::pending::<()>().await;
        };
        let following = async {
            let mut credentials = self.shared.identity.subscribe();
            let mut roots = Arc::clone(&credentials.borrow_and_update().roots);
            while credentials.changed().await.is_ok() {
                let new = Arc::clone(&credentials.borrow_and_update().roots);
                if new.roots != roots.roots {
                    self.roots_changed();
                }
                roots = new;
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(sweeping, draining, following);
    }

    /// A root came or went: pooled connections are made anew, and accepted ones judged again.
    fn roots_changed(&self) {
        self.backends
            .borrow()
            .values()
            .for_each(|b| b.retire_connections());
        self.judge.notify_waiters();
    }

    /// True: there is something left that will have to be swept.
    fn sweep(&self, now: Instant) -> bool {
        let fresh = |used: Instant| now.saturating_duration_since(used) < FORGET_AFTER;
        let mut backends = self.backends.borrow_mut();
        let mut pooled = false;
        backends.retain(|_, backend| {
            let left = backend.sweep(now);
            pooled |= left;
            left || Rc::strong_count(backend) > 1 || fresh(backend.used())
        });
        let mut ports = self.ports.borrow_mut();
        ports.values().for_each(|port| pooled |= port.sweep(now));
        let mut destinations = self.destinations.borrow_mut();
        destinations.retain(|_, d| Rc::strong_count(d) > 1 || fresh(d.used()));
        if !pooled {
            // Ports are few, but anybody can knock at all 65,535.
            ports.retain(|_, port| Rc::strong_count(port) > 1 || fresh(port.used()));
        }
        pooled || !backends.is_empty() || !destinations.is_empty() || !ports.is_empty()
    }
}

fn get_or_insert<K: Clone + Eq + Hash, V>(
    map: &RefCell<Map<K, Rc<V>>>,
    key: &K,
    new: impl FnOnce() -> V,
) -> Rc<V> {
    if let Some(known) = map.borrow().get(key) {
        return Rc::clone(known);
    }
    let made = Rc::new(new());
    map.borrow_mut().insert(key.clone(), Rc::clone(&made));
    made
}
