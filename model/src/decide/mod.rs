//! The only code that decides: which rule, which backend, admit or refuse.
//!
//! Pure and synchronous. The proxy calls [`outbound`] and [`inbound`] with [`NoTrace`] and carries the plan out;
//! `weft explain` calls the same functions with a [`Recorder`]. What is random or depends on load (the weighted draw, the pick
//! of an endpoint) is decided by the executor; [`outbound::HttpPlan::backend`] takes the random number as an argument.

pub mod inbound;
pub mod outbound;
pub mod transform;

mod trace;

#[cfg(test)]
mod tests;

pub use trace::{NoTrace, Recorder, Step, Trace, Verdict};

use serde::{Deserialize, Serialize};

use crate::{Meta, Origin};

/// Why a connection or request goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[error("{reason} ({origin})")]
pub struct Refusal {
    /// The reason, for the error table of the proxy.
    pub reason: Reason,
    /// The object that says so.
    pub origin: Origin,
}

/// The reasons that decisions know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// No virtual host or rule matches the request.
    #[error("no route matches the request")]
    NoRoute,
    /// The rule that matches has no valid backend, or only backends with weight zero.
    #[error("the route that matches has no usable backend")]
    NoBackend,
    /// No SNI route matches the connection.
    #[error("no route matches the server name of the connection")]
    NoSniRoute,
    /// The destination is HTTP only, and the connection is not.
    #[error("the port is declared as HTTP, and the connection speaks something else")]
    NotHttp,
    /// Plaintext, or TLS without the mesh's certificate, where mutual TLS is required.
    #[error("mutual TLS is required, and the client sent plaintext")]
    PlaintextRefused,
    /// The peer is authenticated, but not allowed.
    #[error("the client's identity is not allowed")]
    IdentityRefused,
}

impl Refusal {
    fn new(reason: Reason, meta: &Meta) -> Self {
        Self {
            reason,
            origin: meta.origin.clone(),
        }
    }
}
