//! The cluster's DNS: a small resolver on the node's addresses, port 53.
//!
//! [`table`] holds the names, [`server`] answers from it and forwards the rest to the host's own name servers. Pods
//! without a mesh ask it directly, the sidecar's DNS proxy uses it as its upstream.

pub(crate) mod server;
pub(crate) mod table;
