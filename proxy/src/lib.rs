//! The sidecar: what a pod's connections go through on their way out and in.
//!
//! `main` reads [`config`], starts [`identity`], [`discovery`], [`dns`] and [`admin`] on its own thread, and one worker
//! thread for each core it may use. A connection's way through a worker begins in [`worker`].

pub mod access_log;
pub mod admin;
pub mod backend;
pub mod balance;
pub mod config;
pub mod connect;
pub mod destination;
pub mod detect;
pub mod discovery;
pub mod dns;
pub mod drain;
pub mod error;
pub mod fetch;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod listen;
pub mod metrics;
pub mod outbound;
pub mod port;
pub mod prefixed;
pub mod readiness;
pub mod retry;
pub mod serve;
pub mod sniff;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod worker;
