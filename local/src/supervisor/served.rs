//! A service between [`super::publish`], which makes it, and those who derive from it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use weft_k8s::ObjectKey;

/// A service with addresses, and the slices that belong to it.
pub(super) struct Served {
    /// Its namespace and name.
    pub(super) key: ObjectKey,
    /// The service.
    pub(super) service: Service,
    /// Made by us, from its selector.
    pub(super) own: Vec<EndpointSlice>,
    /// Written by the user, for a service without one.
    pub(super) given: Vec<Arc<weft_k8s::Stored<EndpointSlice>>>,
}

impl Served {
    /// All of them.
    pub(super) fn slices(&self) -> Vec<&EndpointSlice> {
        self.own
            .iter()
            .chain(self.given.iter().map(|stored| &stored.object))
            .collect()
    }
}
