//! The sidecar: what a pod's connections go through on their way out and in.
//!
//! `main` reads [`config`], starts [`identity`], [`discovery`], [`dns`] and [`admin`] on its own thread, and one worker
//! thread for each core it may use. A connection's way through a worker begins in [`worker`].

pub mod access_log;
pub mod config;
pub mod drain;
pub mod identity;
