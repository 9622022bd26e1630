//! Which kinds there are: those that are read, those that are somebody else's, and those that nobody knows.

use crate::object::Kind;
use crate::problem::nearest;

/// What becomes of a document of a kind.
pub(super) enum Found {
    /// It is read.
    Read(Kind),
    /// Kubernetes or the Gateway API knows it, Weft does not need it.
    Ignored,
    /// A mistake in `field` (`kind` or `apiVersion`).
    Unknown {
        field: &'static str,
        reason: String,
        hint: Option<String>,
    },
}

/// Kinds that are fine to have, by group.
const OTHERS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "Binding",
            "Endpoints",
            "Event",
            "LimitRange",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
        ],
    ),
    ("apps", &["ControllerRevision"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    (
        "networking.k8s.io",
        &[
            "Ingress",
            "IngressClass",
            "NetworkPolicy",
            "IPAddress",
            "ServiceCIDR",
        ],
    ),
    ("policy", &["PodDisruptionBudget"]),
    (
        "rbac.authorization.k8s.io",
        &["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
    ),
    (
        "storage.k8s.io",
        &["StorageClass", "CSIDriver", "CSINode", "VolumeAttachment"],
    ),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("coordination.k8s.io", &["Lease"]),
    ("events.k8s.io", &["Event"]),
    (
        "certificates.k8s.io",
        &["CertificateSigningRequest", "ClusterTrustBundle"],
    ),
    ("apiregistration.k8s.io", &["APIService"]),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
        ],
    ),
    (
        "gateway.networking.k8s.io",
        &[
            "Gateway",
            "GatewayClass",
            "BackendTLSPolicy",
            "UDPRoute",
            "ListenerSet",
        ],
    ),
];

/// Looks a kind up.
pub(super) fn find(api_version: &str, kind: &str) -> Found {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(read) = Kind::ALL
        .iter()
        .find(|k| k.as_str() == kind && k.group() == group)
    {
        if read.versions().contains(&version) {
            return Found::Read(*read);
        }
        let best = full(read.group(), read.versions()[0]);
        let reason = format!("{api_version:?} is not a version of {kind} that Weft reads");
        return Found::Unknown {
            field: "apiVersion",
            reason,
            hint: Some(format!("use {best}")),
        };
    }
    if OTHERS
        .iter()
        .any(|(g, kinds)| *g == group && kinds.contains(&kind))
    {
        return Found::Ignored;
    }
    // The right kind in the wrong group, the wrong kind in a known group, or something of somebody else's.
    if let Some(read) = Kind::ALL.iter().find(|k| k.as_str() == kind) {
        let hint = format!("use {}", full(read.group(), read.versions()[0]));
        let reason = format!("there is no kind {kind} in {api_version:?}");
        return Found::Unknown {
            field: "apiVersion",
            reason,
            hint: Some(hint),
        };
    }
    let known = Kind::ALL.iter().map(|k| (k.as_str(), k.group()));
    let known = known.chain(
        OTHERS
            .iter()
            .flat_map(|(g, kinds)| kinds.iter().map(move |k| (*k, *g))),
    );
    let candidates: Vec<&str> = known.filter(|(_, g)| *g == group).map(|(k, _)| k).collect();
    if candidates.is_empty() && group.contains('.') && nearest_group(group).is_none() {
        return Found::Ignored; // another project's custom resource
    }
    let hint = match nearest(kind, candidates.iter().copied()) {
        Some(near) => Some(format!("did you mean {near:?}?")),
        None => nearest_group(group)
            .filter(|near| *near != group)
            .map(|near| format!("did you mean the group {near:?}?")),
    };
    Found::Unknown {
        field: "kind",
        reason: format!("nobody knows the kind {kind:?} in {api_version:?}"),
        hint,
    }
}

fn nearest_group(group: &str) -> Option<&'static str> {
    nearest(
        group,
        Kind::ALL
            .iter()
            .map(|k| k.group())
            .chain(OTHERS.iter().map(|(g, _)| *g))
            .filter(|g| !g.is_empty()),
    )
}

fn full(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
