//! What the end-to-end tests share: real meshes on this machine, and programs run in them.
//!
//! Each file in `tests/tests` is a suite with one mesh of its own: [`suite::run`] brings it up, runs the cases in
//! turn, prints what the test runner prints, and takes the mesh down, also after a failure. A case gets the
//! [`mesh::Mesh`] and returns an error text or panics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_docs_in_private_items
)]

pub mod mesh;
pub mod programs;
pub mod suite;
pub mod wait;
