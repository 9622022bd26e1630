//! How the command line reaches a running mesh: its control plane's admin port, and the sidecars' admin ports.
//!
//! A local mesh is found by its name in the state that `weft local` keeps. A sidecar's admin port listens on the pod's
//! loopback only, so the connection is made from inside the pod's network namespace.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use weft_local::{PodState, State};
use weft_model::{Namespace, View, WorkloadKey};

use crate::clients::Client;
use crate::failure::Failure;
use crate::suggest;

/// The sidecar's admin port (loopback).
pub(crate) const ADMIN: u16 = 15000;
/// An answer may be this long; a view of 10,000 pods has some 20 MB.
const LONGEST: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// A running local mesh.
pub(crate) struct Mesh {
    state: State,
}

impl Mesh {
    /// The mesh of that name; without a name the only one that runs.
    pub(crate) fn find(name: Option<&str>) -> Result<Self, Failure> {
        Ok(Self {
            state: weft_local::state(&mesh_name(name)?)?,
        })
    }

    /// A document of the control plane's admin port.
    pub(crate) async fn control_plane<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, Failure> {
        let what = "the control plane";
        let address = self
            .state
            .control_plane
            .as_ref()
            .and_then(|c| c.admin.parse::<SocketAddr>().ok());
        let address = address.ok_or_else(|| Failure::NoControlPlane(self.state.name.clone()))?;
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream =
            connected.map_err(|_| Failure::unreachable(what, address, "it does not answer"))?;
        let stream = stream.map_err(|e| Failure::unreachable(what, address, e))?;
        document(what, address, get(what, address, stream, path).await?)
    }

    /// The mesh as the sidecars of a namespace are served it.
    pub(crate) async fn view(&self, namespace: &Namespace) -> Result<View, Failure> {
        self.control_plane(&format!("/view?namespace={namespace}"))
            .await
    }

    /// Every xDS client of the control plane.
    pub(crate) async fn clients(&self) -> Result<Vec<Client>, Failure> {
        self.control_plane("/clients").await
    }

    /// A document of a sidecar's admin port.
    pub(crate) async fn sidecar<T: DeserializeOwned>(
        &self,
        pod: &WorkloadKey,
        path: &str,
    ) -> Result<T, Failure> {
        let what = format!("the sidecar of {pod}");
        let address = SocketAddr::from(([127, 0, 0, 1], ADMIN));
        let row = self.row(pod).ok_or_else(|| Failure::NoPod {
            name: pod.to_string(),
            hint: String::new(),
        })?;
        let stream =
            connect_in(&row.netns, address).map_err(|e| Failure::unreachable(&what, address, e))?;
        let stream =
            TcpStream::from_std(stream).map_err(|e| Failure::unreachable(&what, address, e))?;
        document(&what, address, get(&what, address, stream, path).await?)
    }

    /// Is the pod in the mesh?
    pub(crate) fn has_sidecar(&self, pod: &WorkloadKey) -> bool {
        self.row(pod).is_some_and(|p| p.meshed)
    }

    fn row(&self, pod: &WorkloadKey) -> Option<&PodState> {
        self.state
            .pods
            .iter()
            .find(|p| p.namespace == pod.namespace.as_str() && p.name == pod.name.as_str())
    }

    /// The pods that `text` means in a namespace: a pod's name, `pod/NAME`, or the pods of `deploy/NAME` and its like.
    pub(crate) fn pods(
        &self,
        namespace: &Namespace,
        text: &str,
    ) -> Result<Vec<WorkloadKey>, Failure> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        let kind = owner_kind(kind).ok_or_else(|| Failure::Kind(kind.to_owned()))?;
        let in_namespace = || {
            self.state
                .pods
                .iter()
                .filter(|p| p.namespace == namespace.as_str())
        };
        let owner = format!("{kind}/{name}");
        let wanted = |p: &&PodState| {
            if kind == "Pod" {
                p.name == name
            } else {
                p.owner == owner
            }
        };
        let found: Vec<WorkloadKey> = in_namespace()
            .filter(wanted)
            .filter_map(|p| {
                Some(WorkloadKey {
                    namespace: namespace.clone(),
                    name: p.name.parse().ok()?,
                })
            })
            .collect();
        if found.is_empty() {
            let own = |p: &'_ PodState| match kind {
                "Pod" => Some(p.name.clone()),
                kind => p
                    .owner
                    .strip_prefix(kind)?
                    .strip_prefix('/')
                    .map(str::to_owned),
            };
            let mut known: Vec<String> = in_namespace().filter_map(own).collect();
            known.dedup();
            let hint = suggest::hint(name, known.iter().map(String::as_str));
            return Err(Failure::NoPod {
                name: format!("{namespace}/{name}"),
                hint,
            });
        }
        Ok(found)
    }

    /// The first of [`Self::pods`].
    pub(crate) fn one_pod(
        &self,
        namespace: &Namespace,
        text: &str,
    ) -> Result<WorkloadKey, Failure> {
        let mut pods = self.pods(namespace, text)?;
        Ok(pods.swap_remove(0))
    }
}

/// The mesh of that name, or the only one on this machine.
pub(crate) fn mesh_name(name: Option<&str>) -> Result<String, Failure> {
    let mut meshes = weft_local::meshes();
    match (name, meshes.len()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, 1) => Ok(meshes.swap_remove(0)),
        (None, 0) => Ok(weft_local::DEFAULT_NAME.to_owned()),
        (None, _) => Err(Failure::WhichMesh(meshes.join(", "))),
    }
}

/// Connects from inside a network namespace, on a thread of its own that stays there.
fn connect_in(netns: &str, address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let namespace = File::open(Path::new("/run/netns").join(netns))?;
    let dial = move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        std::net::TcpStream::connect_timeout(&address, PATIENCE)
    };
    let stream = std::thread::spawn(dial)
        .join()
        .map_err(|_| io::Error::other("the dialling thread died"))??;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Kubernetes' kind for kubectl's words.
fn owner_kind(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => "Pod",
        "deploy" | "deployment" | "deployments" => "Deployment",
        "sts" | "statefulset" | "statefulsets" => "StatefulSet",
        "ds" | "daemonset" | "daemonsets" => "DaemonSet",
        "job" | "jobs" => "Job",
        _ => return None,
    })
}

async fn get(
    what: &str,
    address: SocketAddr,
    stream: TcpStream,
    path: &str,
) -> Result<Vec<u8>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::unreachable(what, address, e);
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(http::header::HOST, address.to_string())
            .body(Empty::<&[u8]>::new())
            .map_err(|e| failed(&e))?;
        let driven = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST)
            .collect()
            .await
            .map_err(|e| failed(&e))?
            .to_bytes();
        driven.abort();
        match status {
            StatusCode::OK => Ok(body.to_vec()),
            status => Err(failed(&format!(
                "{path} was answered {status}: {}",
                String::from_utf8_lossy(&body).trim()
            ))),
        }
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| failed(&"it does not answer"))?
}

fn document<T: DeserializeOwned>(
    what: &str,
    address: SocketAddr,
    bytes: Vec<u8>,
) -> Result<T, Failure> {
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::unreachable(
            what,
            address,
            format_args!("it does not speak this version: {e}"),
        )
    })
}
