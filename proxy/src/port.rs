//! One of the workload's own ports as a worker knows it: its policy, and the pooled connections to the application.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_model::{InboundPort, Meta, MtlsMode, Origin, Protocol};
use weft_xds::client::{Known, Watch};

use crate::discovery::DISCOVERY_PATIENCE;
use crate::http::pool::Pool;

/// How long an unused connection to the application is kept; Node closes after 5 s.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A port of the workload.
#[derive(Debug)]
pub struct Port {
    number: u16,
    watch: Watch<InboundPort>,
    /// By the application's address: a pod has one of each IP version.
    pools: RefCell<HashMap<SocketAddr, Rc<Pool>, foldhash::fast::RandomState>>,
    used: Cell<Instant>,
}

impl Port {
    /// The port, and what holds for it.
    pub fn new(number: u16, watch: Watch<InboundPort>) -> Self {
        Self {
            number,
            watch,
            pools: RefCell::default(),
            used: Cell::new(Instant::now()),
        }
    }

    /// The policy in force; waits a while for the first. `None`: the control plane has not answered, and never had before.
    pub async fn policy(&self) -> Option<Arc<InboundPort>> {
        self.used.set(Instant::now());
        match self.watch.get() {
            Known::Pending => {
                let deadline = tokio::time::Instant::now() + DISCOVERY_PATIENCE;
                self.judged(self.watch.ready(deadline).await)
            }
            known => self.judged(known),
        }
    }

    /// The policy in force now.
    pub fn policy_now(&self) -> Option<Arc<InboundPort>> {
        self.judged(self.watch.get())
    }

    /// Where nothing is configured, the strict default holds.
    fn judged(&self, known: Known<InboundPort>) -> Option<Arc<InboundPort>> {
        match known {
            Known::Present(policy) => Some(policy),
            Known::Absent => Some(Arc::new(InboundPort {
                port: self.number,
                protocol: Protocol::Detect,
                mtls: MtlsMode::Strict,
                allow: Vec::new(),
                meta: Meta {
                    origin: Origin::default_of("mtls"),
                    ..Meta::default()
                },
            })),
            Known::Pending => None,
        }
    }

    /// A watch of its own, to follow changes.
    pub fn watch(&self) -> Watch<InboundPort> {
        self.watch.clone()
    }

    /// The connections to the application at that address.
    pub fn pool(&self, address: SocketAddr) -> Rc<Pool> {
        Rc::clone(self.pools.borrow_mut().entry(address).or_default())
    }

    /// Closes idle connections. True: some are left.
    pub fn sweep(&self, now: Instant) -> bool {
        let mut left = false;
        for pool in self.pools.borrow().values() {
            left |= pool.sweep(now, IDLE_TIMEOUT);
        }
        left
    }

    /// When the last connection came.
    pub fn used(&self) -> Instant {
        self.used.get()
    }
}
