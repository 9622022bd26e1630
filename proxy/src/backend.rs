//! One backend as one worker knows it: its endpoints with their state, which survives new snapshots.
//!
//! [`crate::worker::Worker::backend`] hands them out. [`Backend::ready`] waits for the first snapshot, [`Backend::pick`]
//! chooses; the [`InFlight`] it returns must be told how it went.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_model::{BackendKey, Balancer, Cluster, Endpoints, Health, SpiffeId};
use weft_xds::client::{Known, Watch};

use crate::balance::limits::Limits;
use crate::balance::load::PeakEwma;
use crate::balance::outlier::{Outlier, may_eject};
use crate::balance::pick::{Candidates, pick};
use crate::error::{DestinationError, Error, PickError};
use crate::http::pool::Pool;
use crate::metrics::DestinationMetrics;

/// A backend.
#[derive(Debug)]
pub struct Backend {
    /// Its key.
    pub key: BackendKey,
    /// Its series.
    pub metrics: DestinationMetrics,
    /// What is in use of it.
    pub limits: Limits,
    cluster: Watch<Cluster>,
    members: Watch<Endpoints>,
    set: RefCell<Set>,
    used: Cell<Instant>,
}

/// The endpoints of the newest snapshot, with their state.
#[derive(Debug, Default)]
struct Set {
    of: Option<Arc<Endpoints>>,
    known: HashMap<SocketAddr, Rc<Endpoint>, foldhash::fast::RandomState>,
    ready: Members,
    /// Used when nothing is ready.
    draining: Members,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Member>,
    equal_weights: bool,
    turn: usize,
}

#[derive(Debug)]
struct Member {
    endpoint: Rc<Endpoint>,
    weight: u32,
}

/// One endpoint, as this worker has come to know it.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Whom to expect there; `None`: plaintext.
    pub identity: Option<SpiffeId>,
    /// Connections to it.
    pub pool: Rc<Pool>,
    in_flight: Cell<u32>,
    load: PeakEwma,
    outlier: Outlier,
}

impl Backend {
    /// A backend whose snapshots come through the watches.
    pub fn new(
        key: BackendKey,
        cluster: Watch<Cluster>,
        endpoints: Watch<Endpoints>,
        metrics: DestinationMetrics,
        limits: Limits,
    ) -> Self {
        Self {
            key,
            metrics,
            limits,
            cluster,
            members: endpoints,
            set: RefCell::default(),
            used: Cell::new(Instant::now()),
        }
    }

    /// The newest snapshot, waited for until `deadline` if there is none yet.
    pub async fn ready(
        &self,
        deadline: impl FnOnce() -> tokio::time::Instant,
    ) -> Result<Arc<Cluster>, Error> {
        let (mut cluster, mut endpoints) = (self.cluster.get(), self.members.get());
        if cluster.is_pending() || endpoints.is_pending() {
            let deadline = deadline();
            cluster = self.cluster.ready(deadline).await;
            endpoints = self.members.ready(deadline).await;
        }
        let cluster = match cluster {
            Known::Present(cluster) => cluster,
            Known::Absent => return Err(DestinationError::NoSuchBackend.into()),
            Known::Pending => return Err(DestinationError::Pending.into()),
        };
        match endpoints {
            Known::Present(endpoints) => self.set.borrow_mut().update(&endpoints),
            Known::Absent => return Err(PickError::NoneReady.into()),
            Known::Pending => return Err(DestinationError::Pending.into()),
        }
        Ok(cluster)
    }

    /// Chooses an endpoint, rather one that was not `tried`. With none usable, one that is ejected is better than none.
    pub fn pick(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        tried: &[SocketAddr],
    ) -> Result<InFlight, PickError> {
        let now = Instant::now();
        self.used.set(now);
        let balancer = cluster.policy.balancer;
        let mut set = self.set.borrow_mut();
        let Set {
            ready, draining, ..
        } = &mut *set;
        let members = if ready.list.is_empty() {
            draining
        } else {
            ready
        };
        let fresh = |e: &Endpoint| e.outlier.available(now) && !tried.contains(&e.address);
        let endpoint = members
            .pick(balancer, now, fresh)
            .or_else(|| members.pick(balancer, now, |e| !tried.contains(&e.address)))
            .or_else(|| members.pick(balancer, now, |e| e.outlier.available(now)))
            .or_else(|| members.pick(balancer, now, |_| true))
            .ok_or(PickError::NoneReady)?;
        endpoint.in_flight.set(endpoint.in_flight.get() + 1);
        Ok(InFlight {
            probe: endpoint.outlier.picked(now),
            endpoint,
            backend: Rc::clone(self),
            cluster: Arc::clone(cluster),
            began: now,
        })
    }

    /// Closes idle connections. True: some are left.
    pub fn sweep(&self, now: Instant) -> bool {
        let idle_timeout = match self.cluster.get() {
            Known::Present(cluster) => cluster.policy.idle_timeout,
            Known::Absent | Known::Pending => Duration::ZERO,
        };
        let mut left = false;
        for endpoint in self.set.borrow().known.values() {
            left |= endpoint.pool.sweep(now, idle_timeout);
        }
        left
    }

    /// Lets go of all pooled connections.
    pub fn retire_connections(&self) {
        self.set
            .borrow()
            .known
            .values()
            .for_each(|e| e.pool.retire());
    }

    /// When it was last picked from.
    pub fn used(&self) -> Instant {
        self.used.get()
    }

    /// Endpoints that are out now, and all.
    fn ejected(&self) -> (usize, usize) {
        let set = self.set.borrow();
        let members = &set.ready.list;
        let out = members
            .iter()
            .filter(|m| m.endpoint.outlier.ejected())
            .count();
        (out, members.len())
    }
}

impl Set {
    fn update(&mut self, endpoints: &Arc<Endpoints>) {
        if self
            .of
            .as_ref()
            .is_some_and(|of| Arc::ptr_eq(of, endpoints))
        {
            return;
        }
        let now = Instant::now();
        let mut old = std::mem::take(&mut self.known);
        // A newcomer is taken for an average one: it gets its share at once, and not everything.
        let guess = (!old.is_empty()).then(|| {
            let sum: f64 = old.values().map(|e| e.load.estimate(now)).sum();
            Duration::from_nanos((sum / old.len() as f64) as u64)
        });
        self.ready.list.clear();
        self.draining.list.clear();
        for given in &endpoints.endpoints {
            let known = old
                .remove(&given.address)
                .filter(|e| e.identity == given.identity);
            let endpoint = known.unwrap_or_else(|| {
                Rc::new(Endpoint {
                    address: given.address,
                    identity: given.identity.clone(),
                    pool: Rc::default(),
                    in_flight: Cell::new(0),
                    load: PeakEwma::new(guess, now),
                    outlier: Outlier::default(),
                })
            });
            self.known.insert(given.address, Rc::clone(&endpoint));
            let weight = given.weight;
            let member = Member { endpoint, weight };
            match given.health {
                Health::Ready => self.ready.list.push(member),
                Health::Draining => self.draining.list.push(member),
                Health::NotReady => {}
            }
        }
        for gone in old.values() {
            gone.pool.retire();
        }
        for members in [&mut self.ready, &mut self.draining] {
            members.equal_weights = members.list.windows(2).all(|w| w[0].weight == w[1].weight);
        }
        self.of = Some(Arc::clone(endpoints));
    }
}

impl Members {
    fn pick(
        &mut self,
        balancer: Balancer,
        now: Instant,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Option<Rc<Endpoint>> {
        // The common case needs no draw.
        if let [only] = self.list.as_slice() {
            return usable(&only.endpoint).then(|| Rc::clone(&only.endpoint));
        }
        let field = Field {
            members: &self.list,
            balancer,
            now,
            usable,
        };
        let at = pick(balancer, &field, self.equal_weights, &mut self.turn, || {
            fastrand::u64(..)
        })?;
        Some(Rc::clone(&self.list[at].endpoint))
    }
}

/// The members as a pick at a certain time sees them.
struct Field<'a, U> {
    members: &'a [Member],
    balancer: Balancer,
    now: Instant,
    usable: U,
}

impl<U: Fn(&Endpoint) -> bool> Candidates for Field<'_, U> {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn weight(&self, at: usize) -> u32 {
        self.members[at].weight
    }

    fn usable(&self, at: usize) -> bool {
        (self.usable)(&self.members[at].endpoint)
    }

    fn load(&self, at: usize) -> f64 {
        let endpoint = &self.members[at].endpoint;
        let waiting = f64::from(endpoint.in_flight.get() + 1);
        match self.balancer {
            Balancer::PeakEwma => endpoint.load.estimate(self.now) * waiting,
            Balancer::LeastRequest | Balancer::RoundRobin | Balancer::Random => waiting,
        }
    }
}

/// A request or connection on its way to an endpoint. Dropped without a word it was given up by the client.
#[derive(Debug)]
pub struct InFlight {
    /// Where it goes.
    pub endpoint: Rc<Endpoint>,
    backend: Rc<Backend>,
    cluster: Arc<Cluster>,
    began: Instant,
    probe: bool,
}

impl InFlight {
    /// The endpoint answered.
    pub fn answered(&mut self) {
        let now = Instant::now();
        self.probe = false;
        self.endpoint
            .load
            .observe(now.saturating_duration_since(self.began), now);
        self.endpoint.outlier.succeeded(now);
    }

    /// The endpoint failed: no answer, or a server error (`answered` with one).
    pub fn failed(&mut self, answered: bool) {
        let now = Instant::now();
        self.probe = false;
        if answered {
            self.endpoint
                .load
                .observe(now.saturating_duration_since(self.began), now);
        } else {
            self.endpoint.load.penalize(now);
        }
        let Some(policy) = &self.cluster.policy.outlier_detection else {
            return;
        };
        let may = || {
            let (out, all) = self.backend.ejected();
            may_eject(policy, out, all)
        };
        if self.endpoint.outlier.failed(policy, now, may) {
            self.backend.metrics.ejected();
            tracing::info!(backend = %self.backend.key, endpoint = %self.endpoint.address, "an endpoint is ejected for a while");
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = &self.endpoint.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
        if self.probe {
            self.endpoint.outlier.abandoned(Instant::now());
        }
    }
}
