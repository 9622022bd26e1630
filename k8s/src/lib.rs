//! Kubernetes objects to Weft's model.
//!
//! A [`source`] reads objects ([`parse`]) into an [`Objects`] store; [`compile`] turns the store into the mesh as the model has
//! it, and says what is wrong with each object. [`inject`] adds the sidecar to pod templates. Everything but the sources is pure.
//! The control plane, the local runner and the command line all use this crate, so they never disagree about a manifest.

mod check;
pub mod compile;
pub mod crd;
pub mod inject;
pub mod object;
pub mod parse;
pub mod ports;
pub mod problem;
pub mod source;

pub use compile::{CompileOptions, Compiled, compile};
pub use object::{AnyObject, Kind, ObjectKey, Objects, Store, Stored};
pub use problem::{Location, Problem, Severity};
