//! What backend references lead to.

use std::collections::HashSet;

use weft_model::BackendKey;

use super::spec::BackendRef;
use crate::compile::index::{Frontend, Index};
use crate::compile::status::Reason;
use crate::object::{Kind, ObjectKey};
use crate::problem::did_you_mean;

/// Looks references up.
pub(super) struct Resolver<'a> {
    index: &'a Index<'a>,
    grants: HashSet<Grant<'a>>,
}

/// A ReferenceGrant, one line each: these routes of that namespace may name this Service (or all) of this namespace.
#[derive(PartialEq, Eq, Hash)]
struct Grant<'a> {
    kind: &'a str,
    from: &'a str,
    to: &'a str,
    service: Option<&'a str>,
}

/// Why a reference leads nowhere.
pub(super) struct Unresolved {
    pub(super) reason: Reason,
    /// Below the reference's own path; empty for the reference as a whole.
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(index: &'a Index<'a>) -> Self {
        let mut grants = HashSet::new();
        for (key, stored) in &index.objects.reference_grants {
            let spec = &stored.object.spec;
            for from in spec
                .from
                .iter()
                .filter(|f| f.group == "gateway.networking.k8s.io")
            {
                for to in spec
                    .to
                    .iter()
                    .filter(|t| is_core(&t.group) && t.kind == "Service")
                {
                    let service = to.name.as_deref().filter(|n| !n.is_empty());
                    grants.insert(Grant {
                        kind: &from.kind,
                        from: &from.namespace,
                        to: &key.namespace,
                        service,
                    });
                }
            }
        }
        Self { index, grants }
    }

    /// The backend that a reference in that route means.
    pub(super) fn backend(
        &self,
        kind: Kind,
        route: &ObjectKey,
        reference: &BackendRef,
    ) -> Result<BackendKey, Unresolved> {
        let refuse = |reason, field, message: String, hint| {
            Err(Unresolved {
                reason,
                field,
                message,
                hint,
            })
        };
        let (group, referent) = (
            reference.group.as_deref().unwrap_or(""),
            reference.kind.as_deref().unwrap_or("Service"),
        );
        if !is_core(group) || referent != "Service" {
            let message = format!(
                "{referent} in the group {group:?} cannot be a backend, only Service in the core group can"
            );
            return refuse(Reason::InvalidKind, ".kind", message, None);
        }
        let namespace = reference.namespace.as_deref().unwrap_or(&route.namespace);
        let key = ObjectKey::new(namespace, &*reference.name);
        if namespace != route.namespace && !self.granted(kind, &route.namespace, &key) {
            let message = format!(
                "Service {key} is in another namespace, and no ReferenceGrant there allows it"
            );
            let hint = format!(
                "add a ReferenceGrant from {kind} in {} to Service in {namespace}",
                route.namespace
            );
            return refuse(Reason::RefNotPermitted, "", message, Some(hint));
        }
        let Some(service) = self.index.services.get(&key) else {
            let near = self
                .index
                .services
                .keys()
                .filter(|k| k.namespace == namespace)
                .map(|k| k.name.as_str());
            let hint = did_you_mean(&reference.name, near);
            return refuse(
                Reason::BackendNotFound,
                ".name",
                format!("there is no Service {key}"),
                hint,
            );
        };
        if matches!(service.frontend, Frontend::ExternalName(_)) {
            let message =
                format!("Service {key} is of the type ExternalName, which has no endpoints");
            return refuse(Reason::BackendNotFound, ".name", message, None);
        }
        let port = reference.port.and_then(|p| u16::try_from(p).ok());
        match service.ports.iter().find(|p| Some(p.port) == port) {
            Some(port) => Ok(BackendKey::service(
                service.namespace.clone(),
                service.name.clone(),
                port.port,
            )),
            None => {
                let ports: Vec<String> = service.ports.iter().map(|p| p.port.to_string()).collect();
                let hint = (!ports.is_empty()).then(|| format!("it has {}", ports.join(", ")));
                let port = reference.port.map_or_else(
                    || "no port given".to_owned(),
                    |p| format!("no TCP port {p}"),
                );
                refuse(
                    Reason::BackendNotFound,
                    ".port",
                    format!("Service {key} has {port}"),
                    hint,
                )
            }
        }
    }

    fn granted(&self, kind: Kind, from: &str, to: &ObjectKey) -> bool {
        [None, Some(to.name.as_str())].into_iter().any(|service| {
            self.grants.contains(&Grant {
                kind: kind.as_str(),
                from,
                to: &to.namespace,
                service,
            })
        })
    }
}

/// The core group is `""`; GAMMA's examples, and Linkerd, also write `core`.
pub(super) fn is_core(group: &str) -> bool {
    group.is_empty() || group == "core"
}
