//! DNS for the application: the mesh's services answered here, everything else by the resolvers the pod had before.
//!
//! Redirect rules send the pod's questions (port 53, UDP and TCP) to this proxy. [`server`] holds the sockets, [`query`] reads
//! questions and makes answers, [`upstream`] forwards, [`wire`] looks at raw messages. The application's resolver expands short
//! names by its search list, as always on Kubernetes; here only full names are known.

pub mod query;
pub mod server;
pub mod upstream;
pub mod wire;

pub use server::{Counts, Lookup, Names, Server, Sockets};
pub use upstream::Upstream;
