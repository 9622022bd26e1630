//! What is wrong inside an object, whatever else there is: what the API server would refuse to store.
//!
//! Called by [`crate::parse`] for each object that has the right types; one that fails does not replace its last good version.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::compile::route::{self, Fault};
use crate::crd::{MutualTLSPolicySpec, TrafficPolicySpec};
use crate::object::{AnyObject, ObjectKey};
use crate::problem::did_you_mean;

/// Everything that is wrong inside an object.
pub(crate) fn check(object: &AnyObject) -> Vec<Fault> {
    let mut faults = Vec::new();
    match object {
        AnyObject::Service(o) => service(&o.object, &mut faults),
        AnyObject::EndpointSlice(o) => endpoint_slice(&o.object, &mut faults),
        AnyObject::TrafficPolicy(o) => traffic_policy(&o.object.spec, &mut faults),
        AnyObject::MutualTlsPolicy(o) => mutual_tls_policy(&o.object.spec, &o.key(), &mut faults),
        routes => faults = route::faults(routes),
    }
    faults
}

fn port(number: i64, field: String, faults: &mut Vec<Fault>) {
    if !(1..=65535).contains(&number) {
        faults.push(Fault::new(
            field,
            format!("{number} is not a port: expected 1 to 65535"),
        ));
    }
}

fn service(service: &Service, faults: &mut Vec<Fault>) {
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (i, p) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        port(p.port.into(), format!("{field}.port"), faults);
        if let Some(IntOrString::Int(target)) = &p.target_port {
            port((*target).into(), format!("{field}.targetPort"), faults);
        }
        let protocol = p.protocol.as_deref().unwrap_or("TCP");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            let fault = Fault::new(
                format!("{field}.protocol"),
                format!("{protocol:?} is none of TCP, UDP and SCTP"),
            );
            faults.push(fault.hint("what the port speaks above TCP is said by appProtocol"));
        }
        let named = p.name.as_deref().is_some_and(|n| !n.is_empty());
        if ports.len() > 1 && !named {
            faults.push(Fault::new(
                format!("{field}.name"),
                "every port has to have a name when there are several",
            ));
        }
        if named && ports[..i].iter().any(|other| other.name == p.name) {
            faults.push(Fault::new(
                format!("{field}.name"),
                "two ports have this name",
            ));
        }
        if ports[..i]
            .iter()
            .any(|o| o.port == p.port && o.protocol.as_deref().unwrap_or("TCP") == protocol)
        {
            faults.push(Fault::new(
                format!("{field}.port"),
                "two ports have this number",
            ));
        }
    }
    let addresses = spec
        .cluster_ip
        .iter()
        .map(|a| ("spec.clusterIP".to_owned(), a));
    let more = spec
        .cluster_ips
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, a)| (format!("spec.clusterIPs[{i}]"), a));
    for (field, address) in addresses
        .chain(more)
        .filter(|(_, a)| !a.is_empty() && *a != "None")
    {
        ip(address, field, faults);
    }
    if spec.type_.as_deref() == Some("ExternalName")
        && spec.external_name.as_deref().unwrap_or("").is_empty()
    {
        faults.push(Fault::new(
            "spec.externalName",
            "a Service of the type ExternalName needs it",
        ));
    }
}

fn ip(text: &str, field: String, faults: &mut Vec<Fault>) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        faults.push(Fault::new(field, format!("{text:?} is not an IP address")));
    }
    parsed
}

fn endpoint_slice(slice: &EndpointSlice, faults: &mut Vec<Fault>) {
    let family = slice.address_type.as_str();
    if !["IPv4", "IPv6", "FQDN"].contains(&family) {
        faults.push(Fault::new(
            "addressType",
            format!("{family:?} is none of IPv4, IPv6 and FQDN"),
        ));
    }
    for (i, p) in slice.ports.iter().flatten().enumerate() {
        if let Some(number) = p.port {
            port(number.into(), format!("ports[{i}].port"), faults);
        }
    }
    if family == "FQDN" {
        return;
    }
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let field = format!("endpoints[{i}].addresses[{j}]");
            if let Some(parsed) = ip(address, field.clone(), faults)
                && parsed.is_ipv6() != (family == "IPv6")
            {
                faults.push(Fault::new(
                    field,
                    format!("{address} is not of the addressType {family}"),
                ));
            }
        }
    }
}

fn kind_of_target(
    field: &str,
    (group, kind): (&str, &str),
    known: &[(&str, &str)],
    faults: &mut Vec<Fault>,
) {
    let Some((right, _)) = known.iter().find(|(_, k)| *k == kind) else {
        let names: Vec<&str> = known.iter().map(|(_, k)| *k).collect();
        let mut fault = Fault::new(
            format!("{field}.kind"),
            format!("{kind:?} is none of {}", names.join(", ")),
        );
        fault.hint = did_you_mean(kind, names);
        return faults.push(fault);
    };
    if group != *right && !group.is_empty() {
        let fault = Fault::new(
            format!("{field}.group"),
            format!("{kind} is not in the group {group:?}"),
        );
        faults.push(fault.hint(format!("use {right:?}")));
    }
}

fn targets(count: usize, faults: &mut Vec<Fault>) {
    if !(1..=16).contains(&count) {
        faults.push(Fault::new(
            "spec.targetRefs",
            format!("{count} targets: expected 1 to 16"),
        ));
    }
}

fn traffic_policy(spec: &TrafficPolicySpec, faults: &mut Vec<Fault>) {
    targets(spec.target_refs.len(), faults);
    for (i, target) in spec.target_refs.iter().enumerate() {
        kind_of_target(
            &format!("spec.targetRefs[{i}]"),
            (&target.group, &target.kind),
            &[("", "Service")],
            faults,
        );
    }
    traffic_numbers(spec, faults);
}

/// Numbers and durations outside of their ranges.
fn traffic_numbers(spec: &TrafficPolicySpec, faults: &mut Vec<Fault>) {
    let outlier = spec.outlier_detection.as_ref();
    let breaker = spec.circuit_breaker.as_ref();
    let at_least_one = [
        (
            "outlierDetection.consecutiveFailures",
            outlier.and_then(|o| o.consecutive_failures),
        ),
        (
            "circuitBreaker.maxConnections",
            breaker.and_then(|b| b.max_connections),
        ),
        (
            "circuitBreaker.maxPendingRequests",
            breaker.and_then(|b| b.max_pending_requests),
        ),
        (
            "circuitBreaker.maxRequests",
            breaker.and_then(|b| b.max_requests),
        ),
    ];
    for (field, _) in at_least_one.iter().filter(|(_, value)| *value == Some(0)) {
        faults.push(Fault::new(
            format!("spec.{field}"),
            "0 would let nothing through: expected 1 or more",
        ));
    }
    let percents = [
        (
            "outlierDetection.maxEjectionPercent",
            outlier.and_then(|o| o.max_ejection_percent),
        ),
        (
            "retryBudget.percent",
            spec.retry_budget.as_ref().and_then(|b| b.percent),
        ),
    ];
    for (field, value) in percents {
        if let Some(value) = value.filter(|v| *v > 100) {
            faults.push(Fault::new(
                format!("spec.{field}"),
                format!("{value} percent: expected 0 to 100"),
            ));
        }
    }
    let durations = [
        ("connectTimeout", spec.connect_timeout),
        ("idleTimeout", spec.idle_timeout),
        (
            "outlierDetection.baseEjectionTime",
            outlier.and_then(|o| o.base_ejection_time),
        ),
    ];
    for (field, _) in durations
        .iter()
        .filter(|(_, d)| d.is_some_and(|d| d.0.is_zero()))
    {
        faults.push(Fault::new(
            format!("spec.{field}"),
            "expected more than zero",
        ));
    }
    if let Some(o) = outlier
        && let (Some(base), Some(max)) = (o.base_ejection_time, o.max_ejection_time)
        && max.0 < base.0
    {
        faults.push(Fault::new(
            "spec.outlierDetection.maxEjectionTime",
            "it is shorter than baseEjectionTime",
        ));
    }
}

fn mutual_tls_policy(spec: &MutualTLSPolicySpec, key: &ObjectKey, faults: &mut Vec<Fault>) {
    const KINDS: &[(&str, &str)] = &[
        ("", "Namespace"),
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("", "Pod"),
        ("", "Service"),
    ];
    targets(spec.target_refs.len(), faults);
    for (i, target) in spec.target_refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{i}]");
        kind_of_target(&field, (&target.group, &target.kind), KINDS, faults);
        if target.kind == "Namespace" && target.name != key.namespace {
            let reason = format!(
                "a policy is about its own namespace {}, not {}",
                key.namespace, target.name
            );
            faults.push(Fault::new(format!("{field}.name"), reason));
        }
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (i, p) in ports.iter().enumerate() {
        port(p.port.into(), format!("spec.ports[{i}].port"), faults);
        if ports[..i].iter().any(|other| other.port == p.port) {
            faults.push(Fault::new(
                format!("spec.ports[{i}].port"),
                "this port stands there twice",
            ));
        }
    }
}
