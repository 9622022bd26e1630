//! The user's objects and those a cluster adds by itself: namespaces, default service accounts, nodes, the trust bundle,
//! and the control plane's own Service.
//!
//! Pure. [`super::reconcile`] hands the result to pods and controllers; [`super::publish`] writes what is ours for the control
//! plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, NodeAddress, NodeStatus, Service, ServiceAccount, ServicePort,
    ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_k8s::{Location, ObjectKey, Objects, Stored};
use weft_model::UnixMillis;

use crate::control_plane::{ADMIN_PORT, PORT};
use crate::issuer::stable_uuid;
use crate::names::NODE_NAME;
use crate::service::SERVICE_NAME;
use crate::workload::Desired;
use crate::workload::instance::{ZONE_LABEL, node_of};

/// The namespace of the control plane.
pub(crate) const SYSTEM: &str = "weft-system";

/// The name of its Service.
pub(crate) const CONTROL_PLANE: &str = "weft-control-plane";

/// The ConfigMap with the trust bundle, in every namespace, and its key.
pub(crate) const ROOTS: (&str, &str) = ("weft-ca-root", "root-cert.pem");

/// What the objects are made from.
pub(crate) struct Facts<'a> {
    /// The user's.
    pub(crate) user: &'a Objects,
    /// The node's addresses, IPv4 first.
    pub(crate) node: &'a [IpAddr],
    /// The mesh has a control plane.
    pub(crate) control_plane: bool,
    /// Its trust bundle, once known.
    pub(crate) roots: Option<&'a str>,
}

/// The user's objects and the cluster's own; one the user wrote is left as it is, except the trust bundle.
pub(crate) fn world(facts: &Facts<'_>) -> Objects {
    let mut all = facts.user.clone();
    let mut namespaces: BTreeSet<String> = ["default", SYSTEM].map(str::to_owned).into();
    namespaces.extend(all.namespaces.keys().map(|key| key.name.clone()));
    namespaces.extend(all.services.keys().map(|key| key.namespace.clone()));
    let mut zones: BTreeMap<String, Option<String>> =
        BTreeMap::from([(NODE_NAME.to_owned(), None)]);
    let mut accounts: BTreeSet<ObjectKey> = BTreeSet::new();
    for desired in Desired::all(&all) {
        let namespace = desired.owner.key.namespace.clone();
        let annotations = desired
            .template
            .metadata
            .as_ref()
            .and_then(|m| m.annotations.as_ref());
        let spec = desired.template.spec.as_ref();
        let (node, zone) = node_of(annotations, spec.and_then(|s| s.node_selector.as_ref()));
        zones.insert(node, zone);
        if let Some(account) = spec.and_then(|s| s.service_account_name.clone()) {
            accounts.insert(ObjectKey::new(namespace.clone(), account));
        }
        namespaces.insert(namespace);
    }
    for namespace in &namespaces {
        let key = ObjectKey::new("", namespace);
        all.namespaces
            .entry(key)
            .or_insert_with(|| stored(namespace_object(namespace)));
        accounts.insert(ObjectKey::new(namespace, "default"));
        if let Some(pem) = facts.roots {
            all.config_maps.insert(
                ObjectKey::new(namespace, ROOTS.0),
                stored(roots_object(namespace, pem)),
            );
        }
    }
    for key in accounts {
        all.service_accounts
            .entry(key.clone())
            .or_insert_with(|| stored(account_object(&key)));
    }
    for (name, zone) in zones {
        let key = ObjectKey::new("", &name);
        all.nodes
            .entry(key)
            .or_insert_with(|| stored(node_object(&name, zone.as_deref(), facts.node)));
    }
    if facts.control_plane {
        let key = ObjectKey::new(SYSTEM, CONTROL_PLANE);
        all.services.insert(key, stored(control_plane_service()));
        let slice = ObjectKey::new(SYSTEM, format!("{CONTROL_PLANE}-node"));
        all.endpoint_slices.insert(
            slice.clone(),
            stored(control_plane_slice(&slice, facts.node)),
        );
    }
    all
}

fn stored<T>(object: T) -> Arc<Stored<T>> {
    Arc::new(Stored {
        object,
        source: Location::default(),
        changed_at: UnixMillis(0),
    })
}

fn meta(namespace: &str, name: &str, kind: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()).filter(|n| !n.is_empty()),
        uid: Some(stable_uuid(&[kind, namespace, name])),
        ..ObjectMeta::default()
    }
}

fn namespace_object(name: &str) -> Namespace {
    let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
    Namespace {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..meta("", name, "namespace")
        },
        ..Namespace::default()
    }
}

fn account_object(key: &ObjectKey) -> ServiceAccount {
    ServiceAccount {
        metadata: meta(&key.namespace, &key.name, "serviceaccount"),
        ..ServiceAccount::default()
    }
}

fn roots_object(namespace: &str, pem: &str) -> ConfigMap {
    let data = BTreeMap::from([(ROOTS.1.to_owned(), pem.to_owned())]);
    ConfigMap {
        metadata: meta(namespace, ROOTS.0, "configmap"),
        data: Some(data),
        ..ConfigMap::default()
    }
}

fn node_object(name: &str, zone: Option<&str>, ips: &[IpAddr]) -> Node {
    let mut labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.to_owned())]);
    labels.insert(
        "topology.kubernetes.io/region".to_owned(),
        "local".to_owned(),
    );
    labels.insert(ZONE_LABEL.to_owned(), zone.unwrap_or("local").to_owned());
    let address = |ip: &IpAddr| NodeAddress {
        address: ip.to_string(),
        type_: "InternalIP".to_owned(),
    };
    let status = NodeStatus {
        addresses: Some(ips.iter().map(address).collect()),
        ..NodeStatus::default()
    };
    Node {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..meta("", name, "node")
        },
        status: Some(status),
        ..Node::default()
    }
}

fn control_plane_service() -> Service {
    let port = |name: &str, port: u16, protocol: Option<&str>| ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        app_protocol: protocol.map(str::to_owned),
        ..ServicePort::default()
    };
    Service {
        metadata: meta(SYSTEM, CONTROL_PLANE, "service"),
        spec: Some(ServiceSpec {
            ports: Some(vec![
                port("tls-xds", PORT, Some("tls")),
                port("http-admin", ADMIN_PORT, Some("http")),
            ]),
            type_: Some("ClusterIP".into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn control_plane_slice(key: &ObjectKey, node: &[IpAddr]) -> EndpointSlice {
    let port = |name: &str, port: u16| EndpointPort {
        name: Some(name.to_owned()),
        port: Some(i32::from(port)),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    };
    let ready = EndpointConditions {
        ready: Some(true),
        serving: Some(true),
        terminating: Some(false),
    };
    let addresses: Vec<String> = node
        .iter()
        .filter(|ip| ip.is_ipv4())
        .map(ToString::to_string)
        .collect();
    let endpoint = Endpoint {
        addresses,
        conditions: Some(ready),
        ..Endpoint::default()
    };
    let labels = BTreeMap::from([(SERVICE_NAME.to_owned(), CONTROL_PLANE.to_owned())]);
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: vec![endpoint].into(),
        metadata: ObjectMeta {
            labels: Some(labels),
            ..meta(&key.namespace, &key.name, "endpointslice")
        },
        ports: Some(vec![port("tls-xds", PORT), port("http-admin", ADMIN_PORT)]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_has_more_than_the_user_wrote() {
        let mut user = Objects::default();
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"containers": [], "serviceAccountName": "web", "nodeSelector": {ZONE_LABEL: "a"}},
        }))
        .unwrap();
        user.pods.insert(ObjectKey::new("shop", "web"), stored(pod));
        let node = ["10.244.1.1".parse().unwrap()];
        let facts = Facts {
            user: &user,
            node: &node,
            control_plane: true,
            roots: Some("PEM"),
        };
        let all = world(&facts);
        let names: Vec<_> = all.namespaces.keys().map(|k| k.name.as_str()).collect();
        assert_eq!(names, ["default", "shop", SYSTEM]);
        assert!(
            all.service_accounts
                .contains_key(&ObjectKey::new("shop", "web"))
        );
        assert!(
            all.service_accounts
                .contains_key(&ObjectKey::new("shop", "default"))
        );
        assert!(
            all.config_maps
                .contains_key(&ObjectKey::new("shop", ROOTS.0))
        );
        assert_eq!(all.nodes.len(), 2);
        assert_eq!(all.services.len(), 1);
        let without = world(&Facts {
            control_plane: false,
            roots: None,
            ..facts
        });
        assert!(without.services.is_empty() && without.config_maps.is_empty());
    }
}
