//! Weft's control plane: objects become a compiled mesh, the mesh is served as xDS, and workloads get certificates.
pub mod ca;
pub mod clock;
pub mod files;
pub mod issue;
pub mod metrics;
pub mod problems;
pub mod token;
