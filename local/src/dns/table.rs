//! The names of the cluster, from its services and their endpoints.
//!
//! As the "DNS-based service discovery" specification of Kubernetes has it (kubernetes/dns, specification.md 1.1.0):
//! A and AAAA of services and of pods of headless ones, SRV of named ports, CNAME of ExternalName. Pure; served by
//! [`super::server`].

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::service::{is_external_name, is_headless};

/// The cluster's domain.
pub(crate) const DOMAIN: &str = "cluster.local";

/// What is known of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// A and AAAA records.
    pub(crate) ips: Vec<IpAddr>,
    /// SRV records: port and target.
    pub(crate) services: Vec<(u16, String)>,
    /// The canonical name, of an ExternalName.
    pub(crate) alias: Option<String>,
}

/// All names, in lower case, without a dot at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table(HashMap<String, Names>);

/// What the table says about a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// It exists.
    Known(&'a Names),
    /// It lies in the cluster's domain, or in the reverse zone of its addresses, and does not exist.
    Unknown,
    /// It is not ours.
    Elsewhere,
}

impl Table {
    /// Adds a service (with addresses filled in) and its slices.
    pub(crate) fn add(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let (Some(spec), Some(name)) = (&service.spec, &service.metadata.name) else {
            return;
        };
        let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
        let fqdn = format!("{name}.{namespace}.svc.{DOMAIN}");
        if is_external_name(service) {
            let target = spec
                .external_name
                .clone()
                .unwrap_or_default()
                .trim_end_matches('.')
                .to_lowercase();
            self.0.entry(fqdn).or_default().alias = Some(target);
            return;
        }
        if is_headless(service) {
            self.0.entry(fqdn.clone()).or_default();
            for slice in slices {
                self.add_pods(&fqdn, slice);
            }
            return;
        }
        let ips = spec
            .cluster_ips
            .iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        self.0.insert(
            fqdn.clone(),
            Names {
                ips,
                ..Names::default()
            },
        );
        for port in spec.ports.iter().flatten() {
            if let (Some(port_name), Ok(number)) = (&port.name, u16::try_from(port.port)) {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                let entry = self
                    .0
                    .entry(format!("_{port_name}._{protocol}.{fqdn}"))
                    .or_default();
                entry.services.push((number, fqdn.clone()));
            }
        }
    }

    /// The pods of a headless service: the ready ones under its name, each under its own, with ports.
    fn add_pods(&mut self, fqdn: &str, slice: &EndpointSlice) {
        for endpoint in slice.endpoints.iter().flatten() {
            if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                continue;
            }
            let Some(ip) = endpoint
                .addresses
                .first()
                .and_then(|ip| ip.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let dashed = || ip.to_string().replace(['.', ':'], "-");
            let own = format!(
                "{}.{fqdn}",
                endpoint.hostname.clone().unwrap_or_else(dashed)
            );
            self.0.entry(fqdn.to_owned()).or_default().ips.push(ip);
            self.0.entry(own.clone()).or_default().ips.push(ip);
            for port in slice.ports.iter().flatten() {
                let number = port.port.and_then(|number| u16::try_from(number).ok());
                let port_name = port.name.as_deref().filter(|name| !name.is_empty());
                if let (Some(port_name), Some(number)) = (port_name, number) {
                    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                    let entry = self
                        .0
                        .entry(format!("_{port_name}._{protocol}.{fqdn}"))
                        .or_default();
                    if !entry.services.contains(&(number, own.clone())) {
                        entry.services.push((number, own.clone()));
                    }
                }
            }
        }
    }

    /// Looks a name up; case and a dot at the end do not matter.
    pub(crate) fn find(&self, name: &str) -> Answer<'_> {
        let name = name.trim_end_matches('.').to_lowercase();
        if let Some(names) = self.0.get(&name) {
            return Answer::Known(names);
        }
        let within = |zone: &str| {
            name == zone
                || name
                    .strip_suffix(zone)
                    .is_some_and(|rest| rest.ends_with('.'))
        };
        // Reverse look-ups of our own addresses would only time out at the host's name servers.
        let ours = [
            DOMAIN,
            "244.10.in-addr.arpa",
            "96.10.in-addr.arpa",
            "7.7.d.f.ip6.arpa",
        ];
        if ours.into_iter().any(within) {
            Answer::Unknown
        } else {
            Answer::Elsewhere
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Table {
        let mut table = Table::default();
        let service = |name: &str, spec: serde_json::Value| -> Service {
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
            )
            .unwrap()
        };
        let web = json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1", "fd77:96::1"],
            "ports": [{"name": "http", "port": 80}]});
        table.add(&service("web", web), &[]);
        table.add(
            &service(
                "ext",
                json!({"type": "ExternalName", "externalName": "Example.org."}),
            ),
            &[],
        );
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432}],
            "endpoints": [
                {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.1.3"], "conditions": {"ready": true}},
                {"addresses": ["10.244.1.4"], "hostname": "db-2", "conditions": {"ready": false}},
            ],
        }))
        .unwrap();
        table.add(&service("db", json!({"clusterIP": "None"})), &[&slice]);
        table
    }

    #[test]
    fn services_pods_and_ports_have_names() {
        let table = table();
        let ips = |name: &str| match table.find(name) {
            Answer::Known(names) => names
                .ips
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(
            ips("web.shop.svc.cluster.local"),
            ["10.96.1.1", "fd77:96::1"]
        );
        assert_eq!(
            ips("WEB.shop.svc.Cluster.local."),
            ["10.96.1.1", "fd77:96::1"]
        );
        assert_eq!(
            ips("db.shop.svc.cluster.local"),
            ["10.244.1.2", "10.244.1.3"]
        );
        assert_eq!(ips("db-0.db.shop.svc.cluster.local"), ["10.244.1.2"]);
        assert_eq!(ips("10-244-1-3.db.shop.svc.cluster.local"), ["10.244.1.3"]);
        let Answer::Known(srv) = table.find("_sql._tcp.db.shop.svc.cluster.local") else {
            panic!("no SRV")
        };
        assert_eq!(
            srv.services[0],
            (5432, "db-0.db.shop.svc.cluster.local".to_owned())
        );
        let Answer::Known(ext) = table.find("ext.shop.svc.cluster.local") else {
            panic!("no CNAME")
        };
        assert_eq!(ext.alias.as_deref(), Some("example.org"));
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_not_ours() {
        let table = table();
        for name in [
            "nope.shop.svc.cluster.local",
            "db-2.db.shop.svc.cluster.local",
            "2.1.244.10.in-addr.arpa",
        ] {
            assert_eq!(table.find(name), Answer::Unknown, "{name}");
        }
        for name in ["example.org", "notcluster.local", "1.2.0.192.in-addr.arpa"] {
            assert_eq!(table.find(name), Answer::Elsewhere, "{name}");
        }
    }
}
