//! The DNS names that the mesh answers for.
//!
//! Only fully qualified names, as the cluster's own DNS has them (DNS-Based Service Discovery 1.1.0): a pod's resolver makes
//! `web` and `web.shop` to them with its search list, and `web.shop.svc` is no name in a cluster either. Names of services that lead
//! outside (ExternalName) are left to the cluster's DNS, unless they lead back to a service of the mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_model::{DnsRecord, Hostname, Mesh, Meta};

use super::index::{Frontend, Index, ServiceInfo};
use super::service::fqdn;
use crate::object::ObjectKey;

/// Fills in the names of all services.
pub(super) fn compile(index: &Index<'_>, mesh: &mut Mesh) {
    for (key, service) in &index.services {
        let Some(name) = fqdn(index, service) else {
            continue;
        };
        match &service.frontend {
            // Before it has an address nobody can say what it will be.
            Frontend::ClusterIp(addresses) if addresses.is_empty() => {}
            Frontend::ClusterIp(addresses) => {
                insert(mesh, name, addresses.clone(), service.meta.clone());
            }
            Frontend::Headless => headless(index, service, key, &name, mesh),
            Frontend::ExternalName(_) => {}
        }
    }
    for service in index.services.values() {
        let Frontend::ExternalName(target) = &service.frontend else {
            continue;
        };
        let target = target
            .trim_end_matches('.')
            .to_ascii_lowercase()
            .parse::<Hostname>()
            .ok();
        let record = target.and_then(|t| mesh.names.get(&t)).cloned();
        if let (Some(record), Some(name)) = (record, fqdn(index, service)) {
            insert(mesh, name, record.addresses.clone(), service.meta.clone());
        }
    }
}

/// All ready pods at the service's name, each with a host name also at its own.
fn headless(
    index: &Index<'_>,
    service: &ServiceInfo<'_>,
    key: &ObjectKey,
    name: &Hostname,
    mesh: &mut Mesh,
) {
    let mut by_name: BTreeMap<Hostname, Vec<IpAddr>> = BTreeMap::from([(name.clone(), Vec::new())]);
    let mut meta = service.meta.clone();
    for slice in index.slices(key) {
        meta.changed_at = meta.changed_at.max(slice.changed_at);
        for endpoint in slice.object.endpoints.iter().flatten() {
            if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                continue;
            }
            let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else {
                continue;
            };
            by_name.entry(name.clone()).or_default().push(address);
            if let Some(own) = endpoint
                .hostname
                .as_ref()
                .and_then(|h| format!("{h}.{name}").parse().ok())
            {
                by_name.entry(own).or_default().push(address);
            }
        }
    }
    for (name, addresses) in by_name {
        insert(mesh, name, addresses, meta.clone());
    }
}

fn insert(mesh: &mut Mesh, name: Hostname, mut addresses: Vec<IpAddr>, meta: Meta) {
    addresses.sort_unstable();
    addresses.dedup();
    mesh.names.insert(
        name.clone(),
        Arc::new(DnsRecord {
            name,
            addresses,
            meta,
        }),
    );
}
