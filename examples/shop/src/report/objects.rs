//! Pods and services, as much of them as the report needs, from YAML or JSON files.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why a directory of objects could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectsError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// Not YAML, or a pod or service that is none.
    #[error("{path}: {source}")]
    Yaml {
        path: PathBuf,
        source: serde_yaml::Error,
    },
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Running pods with an address.
    pub(crate) pods: Vec<Pod>,
    services: Vec<Service>,
}

/// A pod with an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
    pub(crate) address: IpAddr,
}

impl Pod {
    /// What the pod belongs to, for people: its label `app`, with `version` if it has one, or its name.
    pub(crate) fn workload(&self) -> String {
        match (self.labels.get("app"), self.labels.get("version")) {
            (Some(app), Some(version)) => format!("{app}-{version}"),
            (Some(app), None) => app.clone(),
            (None, _) => self.name.clone(),
        }
    }

    /// `address:port`, brackets around an IPv6 address.
    pub(crate) fn authority(&self, port: u16) -> String {
        std::net::SocketAddr::new(self.address, port).to_string()
    }
}

#[derive(Debug)]
struct Service {
    namespace: String,
    name: String,
    selector: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    /// Of a Service it is a map of strings, of a Deployment a selector that is not looked at.
    #[serde(default)]
    selector: serde_yaml::Value,
    #[serde(default)]
    service_account_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "podIP")]
    pod_ip: Option<IpAddr>,
    #[serde(default)]
    phase: Option<String>,
}

impl Objects {
    /// Reads a file, or every `*.yaml`, `*.yml` and `*.json` below a directory.
    pub(crate) fn read(path: &Path) -> Result<Self, ObjectsError> {
        let mut objects = Self::default();
        objects.read_path(path)?;
        objects.pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    fn read_path(&mut self, path: &Path) -> Result<(), ObjectsError> {
        let failed = |source| ObjectsError::Io {
            path: path.to_owned(),
            source,
        };
        if path.is_dir() {
            for entry in std::fs::read_dir(path).map_err(failed)? {
                let entry = entry.map_err(failed)?.path();
                let known = entry
                    .extension()
                    .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
                if entry.is_dir() || known {
                    self.read_path(&entry)?;
                }
            }
            return Ok(());
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        self.read_text(&text).map_err(|source| ObjectsError::Yaml {
            path: path.to_owned(),
            source,
        })
    }

    fn read_text(&mut self, text: &str) -> Result<(), serde_yaml::Error> {
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = serde_yaml::Value::deserialize(document)?;
            let kind = value
                .get("kind")
                .and_then(serde_yaml::Value::as_str)
                .unwrap_or_default();
            // Other kinds may have other shapes below `spec` and `status`.
            if ["Pod", "Service", "List"].contains(&kind) {
                self.add(serde_yaml::from_value(value)?);
            }
        }
        Ok(())
    }

    fn add(&mut self, object: Object) {
        let namespace = object
            .metadata
            .namespace
            .unwrap_or_else(|| "default".into());
        let name = object.metadata.name;
        match object.kind.as_str() {
            "List" => object.items.into_iter().for_each(|item| self.add(item)),
            "Service" => self.services.push(Service {
                namespace,
                name,
                selector: serde_yaml::from_value(object.spec.selector).unwrap_or_default(),
            }),
            "Pod" if object.status.phase.as_deref() == Some("Running") => {
                if let Some(address) = object.status.pod_ip {
                    self.pods.push(Pod {
                        namespace,
                        name,
                        labels: object.metadata.labels,
                        service_account: object
                            .spec
                            .service_account_name
                            .unwrap_or_else(|| "default".into()),
                        address,
                    });
                }
            }
            _ => {}
        }
    }

    /// The pods that a service's selector selects; none for an unknown service or one without a selector.
    pub(crate) fn behind(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Pod> {
        let selector = self
            .services
            .iter()
            .find(|s| s.namespace == namespace && s.name == service && !s.selector.is_empty())
            .map(|s| &s.selector);
        self.pods.iter().filter(move |pod| {
            selector.is_some_and(|selector| {
                pod.namespace == namespace
                    && selector
                        .iter()
                        .all(|(key, value)| pod.labels.get(key) == Some(value))
            })
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TWO_PODS: &str = "
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}}
---
kind: Deployment
metadata: {name: cart, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}}
---
kind: List
items:
- kind: Pod
  metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
  spec: {serviceAccountName: cart}
  status: {phase: Running, podIP: 10.244.0.2}
- kind: Pod
  metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
  spec: {}
  status: {phase: Running, podIP: 'fd77::3'}
- kind: Pod
  metadata: {name: job-1, namespace: shop, labels: {app: cart}}
  status: {phase: Succeeded, podIP: 10.244.0.4}
";

    pub(crate) fn two_pods() -> Objects {
        let mut objects = Objects::default();
        objects.read_text(TWO_PODS).unwrap();
        objects
    }

    #[test]
    fn finds_running_pods_and_those_behind_a_service() {
        let objects = two_pods();
        let names: Vec<_> = objects.pods.iter().map(Pod::workload).collect();
        assert_eq!(names, ["cart", "web-v1"]);
        assert_eq!(objects.pods[1].authority(80), "[fd77::3]:80");
        let behind: Vec<_> = objects
            .behind("shop", "cart")
            .map(|p| p.name.as_str())
            .collect();
        assert_eq!(behind, ["cart-1"]);
        assert_eq!(objects.behind("shop", "nobody").count(), 0);
    }
}
