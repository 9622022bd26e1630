//! From raw variables to [`Config`]: every parser, every default, every complaint.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use weft_model::{SpiffeId, TrustDomain};

use super::parse::{
    dns_server, drain_time, host_port, list, parsed, positive, quoted, server_name,
};
use super::{Config, HostPort, LogFormat, OutboundPolicy, Pod, Ports, ServerName};

/// Where raw variables come from: the process, or a table in a test.
pub trait Variables {
    /// The value, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct Process;

impl Variables for Process {
    fn get(&self, name: &str) -> Option<String> {
        // Not UTF-8: kept visibly wrong, so that the parser complains about it.
        std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
    }
}

impl Variables for std::collections::BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// One variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {wrong}; expected {right}")]
pub struct Mistake {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong with it.
    pub wrong: String,
    /// What would be right.
    pub right: &'static str,
}

/// All mistakes, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the environment cannot be used:")?;
        self.0.iter().try_for_each(|m| write!(f, "\n  {m}"))
    }
}

/// Asks for variables and collects what is wrong with them.
struct Reader<'v> {
    variables: &'v dyn Variables,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    /// A variable that may be missing or empty.
    fn optional<T>(
        &mut self,
        variable: &'static str,
        right: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let raw = self.variables.get(variable)?;
        let raw = raw.trim();
        if raw.is_empty() {
            return None;
        }
        match parse(raw) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.mistakes.push(Mistake {
                    variable,
                    wrong,
                    right,
                });
                None
            }
        }
    }

    /// A variable without which nothing works.
    fn required<T>(
        &mut self,
        variable: &'static str,
        right: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self
            .variables
            .get(variable)
            .is_none_or(|v| v.trim().is_empty())
        {
            let wrong = "it is not set".into();
            self.mistakes.push(Mistake {
                variable,
                wrong,
                right,
            });
            return None;
        }
        self.optional(variable, right, parse)
    }

    fn path(&mut self, variable: &'static str, default: &str) -> std::path::PathBuf {
        self.optional(variable, "a path", |s| Ok(s.into()))
            .unwrap_or_else(|| default.into())
    }

    fn port(&mut self, variable: &'static str, default: u16) -> u16 {
        self.optional(variable, "a port, 1 to 65535", |s| match s.parse() {
            Ok(0) | Err(_) => Err(quoted(s, "is not a port")),
            Ok(port) => Ok(port),
        })
        .unwrap_or(default)
    }
}

const NAME: &str = "the downward API's value (lower-case letters, digits and '-')";

impl Config {
    /// Checks everything. Nothing is read but the variables.
    pub fn read(variables: &dyn Variables) -> Result<Self, Mistakes> {
        let mut r = Reader {
            variables,
            mistakes: Vec::new(),
        };
        let trust_domain: Option<TrustDomain> = r
            .optional(
                "WEFT_TRUST_DOMAIN",
                "a trust domain such as cluster.local",
                parsed,
            )
            .or_else(|| "cluster.local".parse().ok());
        let control_plane = r
            .optional(
                "WEFT_CONTROL_PLANE",
                "host:port, e.g. weft-control-plane.weft-system.svc:15012",
                host_port,
            )
            .unwrap_or_else(|| HostPort {
                host: "weft-control-plane.weft-system.svc".into(),
                port: 15012,
            });
        let control_plane_identity = r
            .optional(
                "WEFT_CONTROL_PLANE_IDENTITY",
                "spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>, or a DNS name",
                server_name,
            )
            .or_else(|| trust_domain.clone().and_then(default_control_plane));
        let pod = read_pod(&mut r);
        let operation = read_operation(&mut r);
        let ports = read_ports(&mut r);
        let (roots, token) = (
            r.path("WEFT_ROOTS", "/var/run/secrets/weft/roots/root-cert.pem"),
            r.path("WEFT_TOKEN", "/var/run/secrets/weft/token/token"),
        );
        let state_dir = r.path("WEFT_STATE_DIR", "/var/lib/weft");
        let identity_files = r.optional("WEFT_IDENTITY_FILES", "a directory", |s| Ok(s.into()));
        let cert_renew_after = r.optional("WEFT_CERT_RENEW_AFTER", LONG, positive);
        let certificate_ttl = r.optional("WEFT_CERTIFICATE_TTL", LONG, positive);
        let cluster_domain = r
            .optional(
                "WEFT_CLUSTER_DOMAIN",
                "a domain such as cluster.local",
                |s| parsed(s.trim_end_matches('.')),
            )
            .or_else(|| "cluster.local".parse().ok());
        match (trust_domain, control_plane_identity, cluster_domain, pod) {
            (Some(trust_domain), Some(control_plane_identity), Some(cluster_domain), Some(pod))
                if r.mistakes.is_empty() =>
            {
                Ok(Self {
                    control_plane,
                    control_plane_identity,
                    trust_domain,
                    roots,
                    token,
                    state_dir,
                    pod,
                    workers: operation.workers,
                    log: operation.log,
                    log_format: operation.log_format,
                    access_log: operation.access_log,
                    outbound_policy: operation.outbound_policy,
                    drain: operation.drain,
                    dns_upstream: operation.dns_upstream,
                    cluster_domain,
                    cert_renew_after,
                    certificate_ttl: certificate_ttl.unwrap_or(Duration::from_secs(24 * 3600)),
                    identity_files,
                    ports,
                })
            }
            _ => Err(Mistakes(r.mistakes)),
        }
    }
}

fn read_pod(r: &mut Reader<'_>) -> Option<Pod> {
    let name = r.required("POD_NAME", NAME, parsed);
    let namespace = r.required("POD_NAMESPACE", NAME, parsed);
    let service_account = r.required("POD_SERVICE_ACCOUNT", NAME, parsed);
    let ips = r.optional("POD_IPS", "addresses separated by commas", |s| {
        list(s, parsed::<IpAddr>)
    });
    let node = r.optional("NODE_NAME", "a node's name", |s| Ok(s.to_owned()));
    let host_ip = r.optional("HOST_IP", "an address", parsed);
    Some(Pod {
        name: name?,
        namespace: namespace?,
        service_account: service_account?,
        ips: ips.unwrap_or_default(),
        node,
        host_ip,
    })
}

fn read_ports(r: &mut Reader<'_>) -> Ports {
    let default = Ports::default();
    let ports = Ports {
        outbound: r.port("WEFT_OUTBOUND_PORT", default.outbound),
        inbound: r.port("WEFT_INBOUND_PORT", default.inbound),
        dns: r.port("WEFT_DNS_PORT", default.dns),
        health: r.port("WEFT_HEALTH_PORT", default.health),
        admin: r.port("WEFT_ADMIN_PORT", default.admin),
    };
    let named = [
        ("WEFT_OUTBOUND_PORT", ports.outbound),
        ("WEFT_INBOUND_PORT", ports.inbound),
        ("WEFT_DNS_PORT", ports.dns),
        ("WEFT_HEALTH_PORT", ports.health),
        ("WEFT_ADMIN_PORT", ports.admin),
    ];
    for (i, (variable, port)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..i].iter().find(|(_, p)| p == port) {
            r.mistakes.push(Mistake {
                variable,
                wrong: format!("{port} is {other} too"),
                right: "five different ports",
            });
        }
    }
    ports
}

/// How it runs, apart from whom it talks to.
struct Operation {
    workers: NonZeroUsize,
    log: String,
    log_format: LogFormat,
    access_log: bool,
    outbound_policy: OutboundPolicy,
    drain: Duration,
    dns_upstream: Vec<SocketAddr>,
}

const LONG: &str = "a duration of 1s or more such as 10s, 1m30s or 24h";

fn read_operation(r: &mut Reader<'_>) -> Operation {
    Operation {
        workers: r
            .optional("WEFT_WORKERS", "a number of threads, 1 to 256", |s| match s.parse() {
                Ok(n @ 1..=256) => NonZeroUsize::new(n).ok_or_else(String::new),
                _ => Err(quoted(s, "is not such a number")),
            })
            .unwrap_or_else(default_workers),
        log: r
            .optional("WEFT_LOG", "filter directives such as warn,weft_proxy=debug", |s| {
                match s.parse::<tracing_subscriber::filter::EnvFilter>() {
                    Ok(_) => Ok(s.to_owned()),
                    Err(e) => Err(quoted(s, &format!("is not a filter: {e}"))),
                }
            })
            .unwrap_or_else(|| "warn,weft_proxy=info".into()),
        log_format: r
            .optional("WEFT_LOG_FORMAT", "text or json", |s| match s {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err(quoted(s, "is not a format")),
            })
            .unwrap_or(LogFormat::Text),
        access_log: r
            .optional("WEFT_ACCESS_LOG", "off or json", |s| match s {
                "off" => Ok(false),
                "json" => Ok(true),
                _ => Err(quoted(s, "is not a format")),
            })
            .unwrap_or(false),
        outbound_policy: r
            .optional("WEFT_OUTBOUND_POLICY", "allow or deny", |s| match s {
                "allow" => Ok(OutboundPolicy::Allow),
                "deny" => Ok(OutboundPolicy::Deny),
                _ => Err(quoted(s, "is not a policy")),
            })
            .unwrap_or(OutboundPolicy::Allow),
        drain: r
            .optional(
                "WEFT_DRAIN_SECONDS",
                "seconds, 0 to 86400, or a duration such as 1m30s",
                drain_time,
            )
            .unwrap_or(Duration::from_secs(30)),
        dns_upstream: r
            .optional(
                "WEFT_DNS_UPSTREAM",
                "addresses with or without a port, separated by commas, e.g. 10.96.0.10,[fd00::a]:53",
                |s| list(s, dns_server),
            )
            .unwrap_or_default(),
    }
}

fn default_workers() -> NonZeroUsize {
    let two = NonZeroUsize::MIN.saturating_add(1);
    std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |n| n.min(two))
}

fn default_control_plane(trust_domain: TrustDomain) -> Option<ServerName> {
    Some(ServerName::Spiffe(SpiffeId {
        trust_domain,
        namespace: "weft-system".parse().ok()?,
        service_account: "weft-control-plane".parse().ok()?,
    }))
}

#[cfg(test)]
mod tests;
