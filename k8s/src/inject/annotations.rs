//! What a user can say about one pod's proxy: one table, from which the parser and `docs/annotations.md` are made.
//!
//! An annotation on a pod template counts before one on its namespace, which counts before the default. Called by
//! [`super::inject`]; [`mod@crate::compile`] reads the ones that concern ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_model::duration;

use crate::ports::PortSet;
use crate::problem::{Location, Problem, Severity, did_you_mean};

/// The prefix of all of them.
pub const PREFIX: &str = "weft.dev/";
/// `enabled` or `disabled`; also a label, of pods and namespaces.
pub const INJECT: &str = "weft.dev/inject";
/// Written by the injection: what was injected.
pub const STATUS: &str = "weft.dev/status";
pub(crate) const SKIP_INBOUND_PORTS: &str = "weft.dev/skip-inbound-ports";
pub(crate) const OPAQUE_PORTS: &str = "weft.dev/opaque-ports";
pub(super) const SKIP_OUTBOUND_PORTS: &str = "weft.dev/skip-outbound-ports";
pub(super) const SKIP_OUTBOUND_CIDRS: &str = "weft.dev/skip-outbound-cidrs";
pub(super) const DNS_CAPTURE: &str = "weft.dev/dns-capture";
pub(super) const INIT_BACKEND: &str = "weft.dev/init-backend";
pub(super) const OUTBOUND_POLICY: &str = "weft.dev/outbound-policy";
pub(super) const WORKERS: &str = "weft.dev/workers";
pub(super) const LOG_LEVEL: &str = "weft.dev/log-level";
pub(super) const ACCESS_LOG: &str = "weft.dev/access-log";
pub(super) const DRAIN_TIMEOUT: &str = "weft.dev/drain-timeout";
pub(super) const CERTIFICATE_RENEWAL: &str = "weft.dev/certificate-renewal";
pub(super) const PROXY_IMAGE: &str = "weft.dev/proxy-image";
pub(super) const CPU_REQUEST: &str = "weft.dev/proxy-cpu-request";
pub(super) const CPU_LIMIT: &str = "weft.dev/proxy-cpu-limit";
pub(super) const MEMORY_REQUEST: &str = "weft.dev/proxy-memory-request";
pub(super) const MEMORY_LIMIT: &str = "weft.dev/proxy-memory-limit";

/// One annotation.
#[derive(Debug, Clone, Copy)]
pub struct Annotation {
    /// Its full name.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// What an annotation may be.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// Ports and ranges of ports.
    Ports,
    /// Addresses with prefix lengths.
    Cidrs,
    /// A number in this range, both ends included.
    Number(u32, u32),
    /// A duration (GEP-2257) in this range, in seconds.
    Seconds(u64, u64),
    /// An amount as Kubernetes writes it.
    Quantity,
    /// An image reference.
    Image,
    /// A filter of `tracing`, e.g. `info` or `warn,weft_proxy=debug`.
    LogFilter,
}

/// All of them.
pub const ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: INJECT,
        values: Values::Words(&["enabled", "disabled"]),
        default: "the namespace's label of the same name",
        doc: "Whether the pod gets a sidecar. May be a label too.",
    },
    Annotation {
        name: SKIP_INBOUND_PORTS,
        values: Values::Ports,
        default: "none",
        doc: "Ports of the pod that the proxy does not capture. Clients reach them without mutual TLS.",
    },
    Annotation {
        name: SKIP_OUTBOUND_PORTS,
        values: Values::Ports,
        default: "none",
        doc: "Destination ports that the proxy does not capture.",
    },
    Annotation {
        name: SKIP_OUTBOUND_CIDRS,
        values: Values::Cidrs,
        default: "none",
        doc: "Destination addresses that the proxy does not capture.",
    },
    Annotation {
        name: OPAQUE_PORTS,
        values: Values::Ports,
        default: "none",
        doc: "Ports of the pod whose bytes nobody looks at: mutual TLS and balancing by connection, no HTTP.",
    },
    Annotation {
        name: OUTBOUND_POLICY,
        values: Values::Words(&["allow", "deny"]),
        default: "allow",
        doc: "What happens to connections that leave the mesh: they pass, or are refused.",
    },
    Annotation {
        name: DNS_CAPTURE,
        values: Values::Words(&["enabled", "disabled"]),
        default: "enabled",
        doc: "Whether the proxy answers the pod's DNS queries for names of the mesh.",
    },
    Annotation {
        name: WORKERS,
        values: Values::Number(1, 64),
        default: "the CPUs, 2 at most",
        doc: "Worker threads of the proxy.",
    },
    Annotation {
        name: LOG_LEVEL,
        values: Values::LogFilter,
        default: "warn,weft_proxy=info",
        doc: "What the proxy logs: off, error, warn, info, debug, trace, or a filter by module.",
    },
    Annotation {
        name: ACCESS_LOG,
        values: Values::Words(&["off", "json"]),
        default: "off",
        doc: "Whether the proxy logs each request and connection.",
    },
    Annotation {
        name: DRAIN_TIMEOUT,
        values: Values::Seconds(1, 3600),
        default: "30s",
        doc: "How long the proxy lets requests finish after it was told to stop.",
    },
    Annotation {
        name: CERTIFICATE_RENEWAL,
        values: Values::Seconds(5, 86_400),
        default: "two thirds of the lifetime",
        doc: "How long after a certificate was issued the proxy asks for the next one.",
    },
    Annotation {
        name: PROXY_IMAGE,
        values: Values::Image,
        default: "as installed",
        doc: "The image of the proxy and of the init container.",
    },
    Annotation {
        name: CPU_REQUEST,
        values: Values::Quantity,
        default: "50m",
        doc: "CPU that the proxy asks for.",
    },
    Annotation {
        name: CPU_LIMIT,
        values: Values::Quantity,
        default: "none",
        doc: "CPU that the proxy is held to.",
    },
    Annotation {
        name: MEMORY_REQUEST,
        values: Values::Quantity,
        default: "32Mi",
        doc: "Memory that the proxy asks for.",
    },
    Annotation {
        name: MEMORY_LIMIT,
        values: Values::Quantity,
        default: "256Mi",
        doc: "Memory that the proxy is held to.",
    },
    Annotation {
        name: INIT_BACKEND,
        values: Values::Words(&["auto", "iptables", "iptables-legacy", "nftables"]),
        default: "auto",
        doc: "What the init container sets its redirect rules with.",
    },
];

impl Values {
    /// Is the text such a value? Otherwise: what would be.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let (good, expected) = match self {
            Self::Words(words) => (
                words.contains(&text),
                did_you_mean(text, words.iter().copied()).unwrap_or_else(|| self.describe()),
            ),
            Self::Ports => (text.parse::<PortSet>().is_ok(), self.describe()),
            Self::Cidrs => (text.split(',').all(|c| is_cidr(c.trim())), self.describe()),
            Self::Number(least, most) => (
                text.parse()
                    .is_ok_and(|n: u32| (*least..=*most).contains(&n)),
                self.describe(),
            ),
            Self::Seconds(least, most) => (
                duration::parse(text).is_ok_and(|d| (*least..=*most).contains(&d.as_secs())),
                self.describe(),
            ),
            Self::Quantity => (is_quantity(text), self.describe()),
            Self::Image => (
                !text.is_empty() && !text.contains(char::is_whitespace),
                self.describe(),
            ),
            Self::LogFilter => (
                !text.is_empty() && text.split(',').all(is_directive),
                self.describe(),
            ),
        };
        if good { Ok(()) } else { Err(expected) }
    }

    /// What it may be, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Ports => "ports and ranges of ports, e.g. 80,9000-9100".into(),
            Self::Cidrs => "addresses with prefix lengths, e.g. 10.0.0.0/8,fd00::/8".into(),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
            Self::Seconds(least, most) => {
                let text = |s: u64| duration::format(std::time::Duration::from_secs(s));
                format!(
                    "a duration from {} to {}, e.g. 1m30s",
                    text(*least),
                    text(*most)
                )
            }
            Self::Quantity => "an amount, e.g. 100m or 64Mi".into(),
            Self::Image => "an image reference".into(),
            Self::LogFilter => "a level or a filter by module, e.g. warn,weft_proxy=debug".into(),
        }
    }
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|l| l <= most)
    })
}

/// `<number><suffix>`, as Kubernetes' resource.Quantity has it, without exponents and signs.
fn is_quantity(text: &str) -> bool {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffixes = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    number.parse::<f64>().is_ok_and(f64::is_finite) && suffixes.contains(&suffix)
}

fn is_directive(text: &str) -> bool {
    let level = text
        .rsplit_once('=')
        .map_or(text, |(_, level)| level)
        .trim();
    ["off", "error", "warn", "info", "debug", "trace"]
        .contains(&level.to_ascii_lowercase().as_str())
}

/// The annotations of one pod, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What is set, or else the default.
    pub(super) fn or<'s>(&'s self, name: &str, default: &'s str) -> &'s str {
        self.get(name).unwrap_or(default)
    }
}

/// Reads the annotations of a namespace and then of a pod. What is unknown or cannot be used is a warning, and counts as not said.
pub(super) fn settings(
    object: &str,
    namespace: &BTreeMap<String, String>,
    pod: &BTreeMap<String, String>,
    warnings: &mut Vec<Problem>,
) -> Settings {
    let mut settings = Settings::default();
    for (annotations, of) in [(namespace, "namespace "), (pod, "")] {
        for (name, value) in annotations
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && *name != STATUS)
        {
            let field = format!("{of}metadata.annotations[{name}]");
            let warning = |reason: String, hint: Option<String>| {
                Problem::error(Location::default(), object, &*field, reason)
                    .maybe_hint(hint)
                    .severity(Severity::Warning)
            };
            match ANNOTATIONS.iter().find(|a| a.name == name) {
                Some(known) => match known.values.check(value.trim()) {
                    Ok(()) => {
                        settings.0.insert(known.name, value.trim().to_owned());
                    }
                    Err(expected) => {
                        let hint = if expected.starts_with("did") {
                            expected
                        } else {
                            format!("expected {expected}")
                        };
                        warnings.push(warning(
                            format!("{value:?} cannot be used; it is ignored"),
                            Some(hint),
                        ));
                    }
                },
                None => {
                    let names = ANNOTATIONS
                        .iter()
                        .filter_map(|a| a.name.strip_prefix(PREFIX));
                    let near = crate::problem::nearest(name.trim_start_matches(PREFIX), names);
                    let hint = near.map(|near| format!("did you mean \"{PREFIX}{near}\"?"));
                    warnings.push(warning(
                        "there is no such annotation; it is ignored".into(),
                        hint,
                    ));
                }
            }
        }
    }
    settings
}

/// The ports that an annotation of a pod, or else of its namespace, names. What cannot be read counts as none; the injection warns of it.
pub(crate) fn ports_of(
    name: &str,
    pod: Option<&BTreeMap<String, String>>,
    namespace: Option<&BTreeMap<String, String>>,
) -> PortSet {
    let of = |annotations: Option<&BTreeMap<String, String>>| annotations?.get(name)?.parse().ok();
    of(pod).or_else(|| of(namespace)).unwrap_or_default()
}

/// `docs/annotations.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Annotations\n\n\
         What concerns the proxy of one pod is said by annotations on the pod template; on a namespace they are the defaults of its pods.\n\
         An unknown annotation or a value that cannot be used is a warning, and counts as not said.\n\n\
         <!-- Generated from k8s/src/inject/annotations.rs; a test checks it. UPDATE_GOLDENS=1 cargo test -p weft-k8s writes it anew. -->\n\n\
         | annotation | value | default | what it does |\n|---|---|---|---|\n",
    );
    for a in ANNOTATIONS {
        let row = [
            &format!("`{}`", a.name),
            &a.values.describe(),
            a.default,
            a.doc,
        ];
        text.extend(["| ", &row.join(" | "), " |\n"]);
    }
    text.push_str(
        "\nThe injection itself writes the annotation `weft.dev/status` (what was injected) and the label `weft.dev/meshed: \"true\"`.\n\
         A pod that speaks the mesh's mutual TLS without the sidecar (gRPC with xDS credentials, an Envoy of its own) carries that label itself.\n",
    );
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/annotations.md");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            markdown(),
            "run with UPDATE_GOLDENS=1"
        );
    }

    #[test]
    fn values() {
        let check = |name: &str, value: &str| {
            ANNOTATIONS
                .iter()
                .find(|a| a.name == name)
                .unwrap()
                .values
                .check(value)
                .is_ok()
        };
        for (name, good, bad) in [
            (INJECT, "enabled", "true"),
            (SKIP_INBOUND_PORTS, "80,90-95", "80;90"),
            (SKIP_OUTBOUND_CIDRS, "10.0.0.0/8, fd00::/8", "10.0.0.0"),
            (WORKERS, "4", "0"),
            (LOG_LEVEL, "warn,weft_proxy=debug", "loud"),
            (DRAIN_TIMEOUT, "1m", "60"),
            (MEMORY_LIMIT, "64Mi", "64MB"),
            (CPU_REQUEST, "0.5", "half"),
            (PROXY_IMAGE, "weft/weft:1", ""),
        ] {
            assert!(check(name, good), "{name} {good}");
            assert!(!check(name, bad), "{name} {bad}");
        }
    }

    #[test]
    fn the_pod_counts_before_its_namespace() {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let mut warnings = Vec::new();
        let namespace = map(&[(WORKERS, "2"), (ACCESS_LOG, "json")]);
        let pod = map(&[
            (WORKERS, "3"),
            (ACCESS_LOG, "yes"),
            ("weft.dev/skip-inbound-port", "80"),
            ("other/x", "1"),
        ]);
        let settings = settings("Pod shop/web", &namespace, &pod, &mut warnings);
        assert_eq!(
            (settings.get(WORKERS), settings.get(ACCESS_LOG)),
            (Some("3"), Some("json"))
        );
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "warning: Pod shop/web: metadata.annotations[weft.dev/access-log]: \"yes\" cannot be used; it is ignored \
                 (expected one of off, json)",
                "warning: Pod shop/web: metadata.annotations[weft.dev/skip-inbound-port]: there is no such annotation; it is ignored \
                 (did you mean \"weft.dev/skip-inbound-ports\"?)",
            ]
        );
    }
}
