//! Weft's control plane: objects become a compiled mesh, the mesh is served as xDS, and workloads get certificates.
//!
//! - [`config`], [`run`]: what it is told; start and stop.
//! - [`compile`]: objects (weft-k8s) to snapshots (weft-xds), and [`convergence`], how long that takes to arrive.
//! - [`ca`], [`token`], [`issue`]: who vouches, who asks, and who gets a certificate.
//! - [`serve`]: the TLS port 15012. [`admin`]: the plain port 15014.
//!
//! The binary is a thin shell; tests and fuzz targets use the library.

pub mod admin;
pub mod ca;
pub mod clock;
pub mod compile;
pub mod config;
pub mod convergence;
pub mod files;
pub mod issue;
pub mod metrics;
pub mod problems;
pub mod run;
pub mod serve;
pub mod token;
