//! Runs Kubernetes manifests on this machine: pods as network and mount namespaces, as a small kubelet would.
//!
//! - [`up`], [`detach`] bring a mesh up; [`down`] removes it and leaves nothing behind.
//! - [`ps`], [`state`], [`logs`], [`exec`] look at one; [`hold_control_plane`] is for fault tests.
//! - A program that uses this crate must call [`helper_main`] when its first argument is [`HELPER_COMMAND`], before any
//!   thread is started, and [`supervise`] when started with [`SUPERVISE_ARGUMENTS`] and a mesh's name.
//!
//! From the inside: the supervisor reads manifests with [`weft_k8s`], expands workloads to pods, runs each as a task,
//! and derives services, DNS and the control plane's objects from what runs. Needs root.

mod client;
mod container;
mod control_plane;
mod dns;
mod error;
mod exec;
mod issuer;
mod logs;
mod names;
mod network;
mod options;
mod pod;
mod preflight;
mod progress;
mod service;
mod state;
mod supervisor;
mod sys;
mod teardown;
mod tool;
mod up;
mod workload;
mod write_back;

pub use client::{down, hold_control_plane, meshes, ps, state};
pub use container::{HELPER_COMMAND, helper_main};
pub use control_plane::find_control_plane;
pub use error::Error;
pub use exec::exec;
pub use issuer::ISSUER;
pub use logs::{LogOptions, logs};
pub use names::{Layout, MESH_NAME_MAX, NODE_NAME};
pub use options::{DEFAULT_NAME, DOWN_GRACE, UpOptions};
pub use pod::build::ROOT_ANNOTATION;
pub use preflight::preflight;
pub use state::{
    ContainerState, ControlPlaneState, Phase, PodRow, PodState, ServiceState, State, Subnet,
    WorkloadState,
};
pub use up::{SUPERVISE_ARGUMENTS, detach, supervise, up};
pub use workload::instance::ZONE_ANNOTATION;
