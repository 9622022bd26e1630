//! The containers and volumes that a pod gets.
//!
//! `weft-init` is the first init container, so that nothing of the pod runs before the redirect; `weft-proxy` the second, a native
//! sidecar: it starts before the pod's own init containers and containers, and stops after them.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, ObjectFieldSelector, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_model::duration;

use super::annotations::{self as a, Settings};
use super::{INIT_CONTAINER, InjectConfig, PROXY_CONTAINER};

/// The user and group of the proxy; its own traffic is told from the application's by it.
pub(super) const PROXY_UID: i64 = 1337;
/// Ports that the sidecar listens on: outbound, inbound, DNS, health and metrics, admin.
pub(super) const PROXY_PORTS: [u16; 5] = [15001, 15006, 15053, HEALTH_PORT, 15000];
const HEALTH_PORT: u16 = 15020;
/// Names of the volumes.
pub(super) const VOLUMES: [&str; 3] = ["weft-token", "weft-roots", "weft-state"];
/// How long a projected token is good for; the kubelet renews it at four fifths.
const TOKEN_SECONDS: i64 = 3600;

/// The container that sets the redirect rules and ends.
pub(super) fn init(settings: &Settings, config: &InjectConfig) -> Container {
    let mut command = vec!["weft-init".to_owned(), "apply".to_owned()];
    for (flag, annotation) in [
        ("--backend", a::INIT_BACKEND),
        ("--skip-inbound-ports", a::SKIP_INBOUND_PORTS),
        ("--skip-outbound-ports", a::SKIP_OUTBOUND_PORTS),
        ("--skip-outbound-cidrs", a::SKIP_OUTBOUND_CIDRS),
    ] {
        if let Some(value) = settings.get(annotation).filter(|v| !v.is_empty()) {
            command.extend([flag.to_owned(), value.replace(' ', "")]);
        }
    }
    if settings.or(a::DNS_CAPTURE, "enabled") == "enabled" {
        command.push("--capture-dns".to_owned());
    }
    Container {
        name: INIT_CONTAINER.into(),
        image: Some(image(settings, config)),
        command: Some(command),
        // The pod's network is its own; there is no other iptables to keep out, and no place for a lock on a read-only root.
        env: Some(vec![plain("XTABLES_LOCKFILE", "/dev/null")]),
        resources: Some(resources(
            [("cpu", Some("10m")), ("memory", Some("16Mi"))],
            [("cpu", None), ("memory", Some("64Mi"))],
        )),
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".into(), "NET_RAW".into()]),
                drop: Some(vec!["ALL".into()]),
            }),
            ..locked_down()
        }),
        ..Container::default()
    }
}

/// The sidecar.
pub(super) fn proxy(settings: &Settings, config: &InjectConfig) -> Container {
    let probe = |period, failures| Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/ready".into()),
            port: IntOrString::Int(HEALTH_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    };
    Container {
        name: PROXY_CONTAINER.into(),
        image: Some(image(settings, config)),
        command: Some(vec!["weft-proxy".into()]),
        restart_policy: Some("Always".into()),
        env: Some(environment(settings, config)),
        ports: Some(vec![ContainerPort {
            name: Some("weft-metrics".into()),
            container_port: HEALTH_PORT.into(),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(resources(
            [
                ("cpu", Some(settings.or(a::CPU_REQUEST, "50m"))),
                ("memory", Some(settings.or(a::MEMORY_REQUEST, "32Mi"))),
            ],
            [
                ("cpu", settings.get(a::CPU_LIMIT)),
                ("memory", Some(settings.or(a::MEMORY_LIMIT, "256Mi"))),
            ],
        )),
        startup_probe: Some(probe(1, 120)),
        readiness_probe: Some(probe(5, 3)),
        security_context: Some(SecurityContext {
            run_as_user: Some(PROXY_UID),
            run_as_group: Some(PROXY_UID),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".into()]),
            }),
            ..locked_down()
        }),
        volume_mounts: Some(vec![
            mount("weft-token", "/var/run/secrets/weft/token", true),
            mount("weft-roots", "/var/run/secrets/weft/roots", true),
            mount("weft-state", "/var/lib/weft", false),
        ]),
        ..Container::default()
    }
}

/// Token, roots, and a place for what the proxy last knew.
pub(super) fn volumes() -> Vec<Volume> {
    let [token, roots, state] = VOLUMES.map(str::to_owned);
    let projection = ServiceAccountTokenProjection {
        audience: Some("weft-ca".into()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".into(),
    };
    vec![
        Volume {
            name: token,
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(projection),
                    ..VolumeProjection::default()
                }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: roots,
            config_map: Some(ConfigMapVolumeSource {
                name: "weft-ca-root".into(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: state,
            // The key is in it: memory, never a disk of the node.
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: Some(Quantity("64Mi".into())),
            }),
            ..Volume::default()
        },
    ]
}

fn image(settings: &Settings, config: &InjectConfig) -> String {
    settings.or(a::PROXY_IMAGE, &config.image).to_owned()
}

fn environment(settings: &Settings, config: &InjectConfig) -> Vec<EnvVar> {
    let mut all = vec![
        plain("WEFT_CONTROL_PLANE", &config.control_plane),
        plain("WEFT_TRUST_DOMAIN", &config.trust_domain),
    ];
    for (name, path) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ("POD_IPS", "status.podIPs"),
        ("NODE_NAME", "spec.nodeName"),
        ("HOST_IP", "status.hostIP"),
    ] {
        all.push(EnvVar {
            name: name.into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: path.into(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        });
    }
    for (name, annotation) in [
        ("WEFT_WORKERS", a::WORKERS),
        ("WEFT_LOG", a::LOG_LEVEL),
        ("WEFT_ACCESS_LOG", a::ACCESS_LOG),
        ("WEFT_OUTBOUND_POLICY", a::OUTBOUND_POLICY),
        ("WEFT_CERT_RENEW_AFTER", a::CERTIFICATE_RENEWAL),
    ] {
        all.extend(settings.get(annotation).map(|value| plain(name, value)));
    }
    let drain = settings
        .get(a::DRAIN_TIMEOUT)
        .and_then(|d| duration::parse(d).ok());
    all.extend(drain.map(|d| plain("WEFT_DRAIN_SECONDS", &d.as_secs().to_string())));
    all
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn locked_down() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn resources(
    requests: [(&str, Option<&str>); 2],
    limits: [(&str, Option<&str>); 2],
) -> ResourceRequirements {
    let amounts = |all: [(&str, Option<&str>); 2]| {
        Some(
            all.into_iter()
                .filter_map(|(k, v)| Some((k.to_owned(), Quantity(v?.to_owned()))))
                .collect(),
        )
    };
    ResourceRequirements {
        requests: amounts(requests),
        limits: amounts(limits),
        claims: None,
    }
}
