//! What the admin port shows as JSON: the certificates, and every resource in use.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_model::{Meta, Origin, UnixMillis, duration};
use weft_xds::TypeUrl;
use weft_xds::client::{Client, Known, KnownState, ResourceState, Watch};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Running, State};
use crate::identity::crypto::sha256;

/// The answer of `/certs`. `weft identity` reads it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    spiffe_id: String,
    not_before: String,
    not_after: String,
    generation: u64,
    renewal: Renewal,
    /// Leaf first.
    chain: Vec<Certificate>,
    /// Whom we trust.
    roots: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Renewal {
    due: Option<String>,
    succeeded: u64,
    failed: u64,
    last_error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    /// SHA-256 of the DER, hexadecimal.
    fingerprint: String,
}

/// The certificate in use, and the roots.
pub fn certificates(running: &Running, state: &State) -> Certificates {
    let current = running.identity.current();
    let latest = state.identity_status.latest();
    Certificates {
        spiffe_id: current.id.to_string(),
        not_before: rfc3339(current.not_before),
        not_after: rfc3339(current.not_after),
        generation: current.generation,
        renewal: Renewal {
            due: latest.due.map(rfc3339),
            succeeded: state.identity_status.succeeded(),
            failed: state.identity_status.failed(),
            last_error: latest.error,
        },
        chain: current.key.cert.iter().map(certificate).collect(),
        roots: current.root_certificates.iter().map(certificate).collect(),
    }
}

fn certificate(der: &CertificateDer<'_>) -> Certificate {
    let fingerprint = hex(&sha256(der));
    let Ok((_, parsed)) = X509Certificate::from_der(der) else {
        return Certificate {
            fingerprint,
            ..Certificate::default()
        };
    };
    let time = |t: x509_parser::time::ASN1Time| {
        let since = Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or_default());
        rfc3339(SystemTime::UNIX_EPOCH + since)
    };
    Certificate {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: parsed.raw_serial_as_string(),
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
        fingerprint,
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// The answer of `/config`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InUse {
    node_id: String,
    control_plane: String,
    connected: bool,
    since: UnixMillis,
    last_error: Option<String>,
    resources: Vec<Resource>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(flatten)]
    state: ResourceState,
    /// The object it was compiled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// Since that object changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

/// Every resource with its version, origin, age and the reason if its newest value was refused; `full`: with the value in force.
pub fn config(running: &Running, state: &State, full: bool) -> InUse {
    let client = running.client.state();
    let resources = client.resources.into_iter().map(|resource| {
        let found = (resource.known == KnownState::Present)
            .then(|| lookup(&running.client, &resource, full))
            .flatten();
        let (meta, value) = found.unzip();
        Resource {
            age: meta.as_ref().map(age),
            origin: meta.map(|m| m.origin),
            value: value.flatten(),
            state: resource,
        }
    });
    InUse {
        node_id: client.node_id,
        control_plane: state.config.control_plane.to_string(),
        connected: client.connected,
        since: client.since,
        last_error: client.last_error,
        resources: resources.collect(),
    }
}

fn age(meta: &Meta) -> String {
    let age = meta.changed_at.age(SystemTime::now());
    duration::format(Duration::from_secs(age.as_secs()))
}

/// The value of a resource that the client already has; asking for it changes nothing but its idle time.
fn lookup(client: &Client, resource: &ResourceState, full: bool) -> Option<(Meta, Option<Value>)> {
    fn of<T: Serialize>(
        watch: &Watch<T>,
        full: bool,
        meta: impl Fn(&T) -> &Meta,
    ) -> Option<(Meta, Option<Value>)> {
        match watch.get() {
            Known::Present(value) => {
                let json = full.then(|| serde_json::to_value(&*value).ok()).flatten();
                Some((meta(&value).clone(), json))
            }
            Known::Absent | Known::Pending => None,
        }
    }
    let name = resource.name.as_str();
    match resource.kind {
        TypeUrl::Secret => None,
        TypeUrl::Cluster => of(&client.cluster(&name.parse().ok()?), full, |c| &c.meta),
        TypeUrl::Routes => of(&client.routes(&name.parse().ok()?), full, |r| &r.meta),
        TypeUrl::Endpoints => match name.strip_prefix("weft/dns/") {
            Some(host) => of(&client.name(&host.parse().ok()?), full, |d| &d.meta),
            None => of(&client.endpoints(&name.parse().ok()?), full, |e| &e.meta),
        },
        TypeUrl::Listener => match name.strip_prefix("weft/inbound/") {
            Some(port) => of(&client.inbound(port.parse().ok()?), full, |i| &i.meta),
            None => {
                let address = name.strip_prefix("weft/outbound/")?.parse().ok()?;
                of(&client.destination(address), full, |d| &d.meta)
            }
        },
    }
}
