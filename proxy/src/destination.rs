//! One captured address as a worker knows it: the control plane's answer, its route table, and what was learned of it.

use std::cell::{Cell, RefCell, RefMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_model::{BackendKey, HttpRoutes};
use weft_xds::client::{Client, Known, Watch};

use crate::discovery::DISCOVERY_PATIENCE;
use crate::error::{DestinationError, Error};

/// A captured address.
#[derive(Debug)]
pub struct Destination {
    /// The address.
    pub address: SocketAddr,
    watch: Watch<weft_model::Destination>,
    routes: RefCell<Option<(BackendKey, Watch<HttpRoutes>)>>,
    server_first: Cell<bool>,
    used: Cell<Instant>,
}

impl Destination {
    /// The address, and what is known of it.
    pub fn new(address: SocketAddr, watch: Watch<weft_model::Destination>) -> Self {
        Self {
            address,
            watch,
            routes: RefCell::default(),
            server_first: Cell::new(false),
            used: Cell::new(Instant::now()),
        }
    }

    /// What is there; waits a while for the first answer.
    pub async fn ready(&self) -> Known<weft_model::Destination> {
        self.used.set(Instant::now());
        match self.watch.get() {
            Known::Pending => {
                self.watch
                    .ready(tokio::time::Instant::now() + DISCOVERY_PATIENCE)
                    .await
            }
            known => known,
        }
    }

    /// Its route table as it is now.
    pub async fn routes(&self, discovery: &Client) -> Result<Arc<HttpRoutes>, Error> {
        let destination = match self.ready().await {
            Known::Present(destination) => destination,
            Known::Absent => return Err(DestinationError::Unknown.into()),
            Known::Pending => return Err(DestinationError::Pending.into()),
        };
        let now = self.watch_routes(&destination.key, discovery).get();
        let known = match now {
            Known::Pending => {
                let watch = self.watch_routes(&destination.key, discovery).clone();
                watch
                    .ready(tokio::time::Instant::now() + DISCOVERY_PATIENCE)
                    .await
            }
            known => known,
        };
        match known {
            Known::Present(routes) => Ok(routes),
            // Without a route table of its own: everything to the destination itself.
            Known::Absent => Ok(Arc::new(HttpRoutes::direct(
                destination.key.clone(),
                destination.meta.clone(),
            ))),
            Known::Pending => Err(DestinationError::Pending.into()),
        }
    }

    fn watch_routes(&self, key: &BackendKey, discovery: &Client) -> RefMut<'_, Watch<HttpRoutes>> {
        let mut routes = self.routes.borrow_mut();
        if routes.as_ref().is_some_and(|(of, _)| of != key) {
            *routes = None;
        }
        RefMut::map(routes, |routes| {
            &mut routes
                .get_or_insert_with(|| (key.clone(), discovery.routes(key)))
                .1
        })
    }

    /// Does the server speak first here? Then nobody waits for the client.
    pub fn server_first(&self) -> bool {
        self.server_first.get()
    }

    /// The server spoke first.
    pub fn set_server_first(&self) {
        self.server_first.set(true);
    }

    /// When it was last asked for.
    pub fn used(&self) -> Instant {
        self.used.get()
    }
}
