//! Configuration, in two steps: raw variables behind [`Variables`], then checked values in [`Config`].
//!
//! Read once, by `main`. Every mistake is reported at once, each with the variable's name, what is wrong with its value, and
//! what would be right. The injector sets these variables; a person sets them through annotations on the pod.

mod parse;
mod read;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use weft_model::{Name, Namespace, SpiffeId, TrustDomain, WorkloadKey};

pub use read::{Mistake, Mistakes, Process, Variables};

/// Everything the proxy is told from outside, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where ADS and CSR are served (`WEFT_CONTROL_PLANE`).
    pub control_plane: HostPort,
    /// Whom to expect there (`WEFT_CONTROL_PLANE_IDENTITY`).
    pub control_plane_identity: ServerName,
    /// Of this workload and its peers (`WEFT_TRUST_DOMAIN`).
    pub trust_domain: TrustDomain,
    /// PEM bundle to begin with (`WEFT_ROOTS`).
    pub roots: PathBuf,
    /// The projected service-account token (`WEFT_TOKEN`); it is rotated, so it is read anew each time.
    pub token: PathBuf,
    /// Last good resources and certificate (`WEFT_STATE_DIR`).
    pub state_dir: PathBuf,
    /// The pod it runs in.
    pub pod: Pod,
    /// Worker threads, 1 to 256 (`WEFT_WORKERS`).
    pub workers: NonZeroUsize,
    /// Filter directives (`WEFT_LOG`).
    pub log: String,
    /// How log lines look (`WEFT_LOG_FORMAT`).
    pub log_format: LogFormat,
    /// One JSON line a request (`WEFT_ACCESS_LOG`).
    pub access_log: bool,
    /// Destinations that the mesh does not know (`WEFT_OUTBOUND_POLICY`).
    pub outbound_policy: OutboundPolicy,
    /// From SIGTERM to the end, at most (`WEFT_DRAIN_SECONDS`).
    pub drain: Duration,
    /// Resolvers for other names (`WEFT_DNS_UPSTREAM`). Empty: those of `/etc/resolv.conf`.
    pub dns_upstream: Vec<SocketAddr>,
    /// Names below it belong to Kubernetes (`WEFT_CLUSTER_DOMAIN`).
    pub cluster_domain: weft_model::Hostname,
    /// Renew a certificate when it is this old (`WEFT_CERT_RENEW_AFTER`). `None`: two thirds of its lifetime, with jitter.
    pub cert_renew_after: Option<Duration>,
    /// Lifetime to ask for (`WEFT_CERTIFICATE_TTL`), 1 s or more; the CA may give less.
    pub certificate_ttl: Duration,
    /// A directory with `cert-chain.pem`, `key.pem`, `root-cert.pem` instead of the CA (`WEFT_IDENTITY_FILES`).
    pub identity_files: Option<PathBuf>,
    /// Where it listens.
    pub ports: Ports,
}

/// The pod, from the downward API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// `POD_NAME`.
    pub name: Name,
    /// `POD_NAMESPACE`.
    pub namespace: Namespace,
    /// `POD_SERVICE_ACCOUNT`.
    pub service_account: Name,
    /// `POD_IPS`, comma separated; may be empty.
    pub ips: Vec<IpAddr>,
    /// `NODE_NAME`.
    pub node: Option<String>,
    /// `HOST_IP`: probes of the kubelet come from it.
    pub host_ip: Option<IpAddr>,
}

/// The proxy's ports (`WEFT_OUTBOUND_PORT` and so on). They have to agree with the redirect rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Captured outbound connections.
    pub outbound: u16,
    /// Captured inbound connections.
    pub inbound: u16,
    /// DNS, UDP and TCP.
    pub dns: u16,
    /// Health, readiness and metrics, on every address.
    pub health: u16,
    /// Administration, on loopback only.
    pub admin: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            outbound: 15001,
            inbound: 15006,
            dns: 15053,
            health: 15020,
            admin: 15000,
        }
    }
}

/// A host name or address, with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// How the control plane proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// By the SPIFFE ID in its certificate.
    Spiffe(SpiffeId),
    /// By a DNS name in its certificate, as cert-manager's istio-csr has it.
    Dns(String),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// What happens to traffic that the mesh has no destination for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// It passes as it is.
    Allow,
    /// It is refused.
    Deny,
}

impl Config {
    /// The identity that this proxy asks for.
    pub fn identity(&self) -> SpiffeId {
        SpiffeId {
            trust_domain: self.trust_domain.clone(),
            namespace: self.pod.namespace.clone(),
            service_account: self.pod.service_account.clone(),
        }
    }

    /// The pod as the model names it.
    pub fn workload(&self) -> WorkloadKey {
        WorkloadKey {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
        }
    }

    /// The xDS node id, `<pod>.<namespace>`.
    pub fn node_id(&self) -> String {
        format!("{}.{}", self.pod.name, self.pod.namespace)
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spiffe(id) => id.fmt(f),
            Self::Dns(name) => f.write_str(name),
        }
    }
}
