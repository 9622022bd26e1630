//! `weft routes POD|deploy/NAME`: what a workload can call, by which rules, and whether its proxy has the newest version.

use std::time::SystemTime;

use serde::Serialize;
use weft_model::route::{Action, Forward, HttpMatch, PathMatch, ValueMatch};
use weft_model::{
    BackendKey, Destination, HttpRule, ListenerName, Meta, Namespace, Origin, Protocol, Target,
    View,
};

use crate::access::Mesh;
use crate::clients::{self, Client};
use crate::failure::Failure;
use crate::output::{self, Format, Table, Tone};

/// One rule of one destination.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `SERVICE[.NAMESPACE]:PORT`, or the address of a pod.
    destination: String,
    address: String,
    protocol: Protocol,
    /// What it matches; empty: everything.
    rule: String,
    backends: Vec<Backend>,
    /// Retries in words; empty: none.
    retry: String,
    /// The request's timeout, or `-`.
    timeout: String,
    origin: Origin,
    /// The version that the proxy has, where it uses the destination.
    version: Option<String>,
    /// Since the source changed, in seconds.
    age_seconds: u64,
    /// Has the proxy acknowledged the newest version? `None`: it does not use the destination now.
    acknowledged: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Backend {
    /// `None`: the reference is invalid.
    backend: Option<BackendKey>,
    weight: u32,
}

impl Table for Row {
    const HEADER: &'static [&'static str] = &[
        "DESTINATION",
        "PROTOCOL",
        "RULE",
        "BACKENDS",
        "RETRY",
        "TIMEOUT",
        "ORIGIN",
        "VERSION",
        "AGE",
        "ACK",
    ];

    fn cells(&self) -> Vec<String> {
        let total: u32 = self.backends.iter().map(|b| b.weight).sum();
        let share = |weight: u32| {
            (u64::from(weight) * 100)
                .checked_div(u64::from(total))
                .unwrap_or(0)
        };
        let backend = |b: &Backend| {
            let name = b
                .backend
                .as_ref()
                .map_or_else(|| "invalid".to_owned(), ToString::to_string);
            if self.backends.len() == 1 && b.weight > 0 {
                name
            } else {
                format!("{name} {}%", share(b.weight))
            }
        };
        vec![
            self.destination.clone(),
            self.protocol.to_string(),
            or_dash(&self.rule),
            or_dash(
                &self
                    .backends
                    .iter()
                    .map(backend)
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            or_dash(&self.retry),
            or_dash(&self.timeout),
            self.origin.to_string(),
            or_dash(self.version.as_deref().unwrap_or_default()),
            output::age(self.age_seconds),
            match self.acknowledged {
                Some(true) => "yes".into(),
                Some(false) => "no".into(),
                None => "-".into(),
            },
        ]
    }

    fn tone(&self, column: usize) -> Tone {
        match (column, self.acknowledged) {
            (9, Some(true)) => Tone::Good,
            (9, Some(false)) => Tone::Warning,
            (3, _) if self.backends.iter().any(|b| b.backend.is_none()) => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".into()
    } else {
        text.into()
    }
}

/// The command.
pub(crate) async fn run(
    mesh: &Mesh,
    namespace: &Namespace,
    workload: &str,
    all: bool,
    format: Format,
) -> Result<(), Failure> {
    let pod = mesh.one_pod(namespace, workload)?;
    let view = mesh.view(namespace).await?;
    if view.workload(&pod).is_none() {
        return Err(Failure::NotMeshed(pod.to_string()));
    }
    let clients = mesh.clients().await?;
    let rows = rows(&view, namespace, clients::of(&clients, &pod), all);
    output::print(
        format,
        &rows,
        &format!("{pod} can call nothing: no service of the mesh has an address"),
    )?;
    Ok(())
}

fn rows(view: &View, namespace: &Namespace, client: Option<&Client>, all: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for destination in &view.destinations {
        let ListenerName::Outbound(address) = &destination.name else {
            continue;
        };
        let name = match &destination.key.target {
            Target::Service(name) if destination.key.namespace == *namespace => {
                format!("{name}:{}", address.port())
            }
            Target::Service(name) => {
                format!("{name}.{}:{}", destination.key.namespace, address.port())
            }
            Target::Pod(_) if all => address.to_string(),
            Target::Pod(_) => continue,
        };
        let base = Base {
            destination,
            name,
            address: address.to_string(),
            client,
        };
        match view.routes(&destination.key) {
            Some(routes) if !matches!(destination.protocol, Protocol::Tcp | Protocol::Tls) => {
                rows.extend(
                    routes
                        .hosts
                        .iter()
                        .flat_map(|h| &h.rules)
                        .map(|rule| base.http(rule)),
                );
            }
            _ => rows.extend(destination.sni.iter().map(|route| base.connection(route))),
        }
    }
    rows.sort_by(|a, b| a.destination.cmp(&b.destination));
    rows
}

/// What the rows of a destination share.
struct Base<'a> {
    destination: &'a Destination,
    name: String,
    address: String,
    client: Option<&'a Client>,
}

impl Base<'_> {
    fn http(&self, rule: &HttpRule) -> Row {
        let resource = self
            .client
            .and_then(|c| c.resource("routes", &self.destination.key.to_string()));
        let mut row = self.row(&rule.meta, resource);
        row.rule = describe(&rule.matches);
        match &rule.action {
            Action::Redirect(redirect) => {
                if !row.rule.is_empty() {
                    row.rule.push(' ');
                }
                row.rule
                    .extend(["redirect ", redirect.status.to_string().as_str()]);
            }
            Action::Forward(forward) => {
                row.backends = shares(&forward.backends);
                row.retry = retry(forward);
                row.timeout = forward
                    .request_timeout
                    .filter(|t| !t.is_zero())
                    .map(weft_model::duration::format)
                    .unwrap_or_default();
            }
        }
        row
    }

    fn connection(&self, route: &weft_model::SniRoute) -> Row {
        let resource = self
            .client
            .and_then(|c| c.resource("listener", &self.destination.name.to_string()));
        let names: Vec<String> = route.names.iter().map(ToString::to_string).collect();
        let rule = if names.is_empty() {
            String::new()
        } else {
            format!("SNI {}", names.join(", "))
        };
        Row {
            rule,
            backends: shares(&route.backends),
            ..self.row(&route.meta, resource)
        }
    }

    fn row(&self, meta: &Meta, resource: Option<&clients::ResourceStatus>) -> Row {
        Row {
            destination: self.name.clone(),
            address: self.address.clone(),
            protocol: self.destination.protocol,
            rule: String::new(),
            backends: Vec::new(),
            retry: String::new(),
            timeout: String::new(),
            origin: meta.origin.clone(),
            version: resource.and_then(|r| r.version_acked.clone()),
            age_seconds: meta.changed_at.age(SystemTime::now()).as_secs(),
            acknowledged: resource.map(clients::ResourceStatus::acknowledged),
        }
    }
}

fn shares(backends: &[weft_model::route::WeightedBackend]) -> Vec<Backend> {
    backends
        .iter()
        .map(|b| Backend {
            backend: b.backend.clone(),
            weight: b.weight,
        })
        .collect()
}

/// `2x connect` or `3x connect,reset,503 per try 300ms`.
fn retry(forward: &Forward) -> String {
    let policy = &forward.retry;
    if policy.attempts == 0 {
        return String::new();
    }
    let mut on: Vec<String> = Vec::new();
    if policy.connect_failure {
        on.push("connect".into());
    }
    match policy.reset {
        weft_model::route::ResetRetry::Never => {}
        weft_model::route::ResetRetry::Idempotent => on.push("reset(idempotent)".into()),
        weft_model::route::ResetRetry::Always => on.push("reset".into()),
    }
    on.extend(policy.codes.iter().map(u16::to_string));
    let per_try = policy
        .per_try_timeout
        .map(|t| format!(" per try {}", weft_model::duration::format(t)));
    format!(
        "{}x {}{}",
        policy.attempts,
        on.join(","),
        per_try.unwrap_or_default()
    )
}

/// A match in the words of its manifest; empty for one that matches everything.
fn describe(m: &HttpMatch) -> String {
    let mut parts = Vec::new();
    match &m.path {
        PathMatch::Prefix(p) if p == "/" => {}
        PathMatch::Prefix(p) => parts.push(format!("{p}/*")),
        PathMatch::Exact(p) => parts.push(p.clone()),
        PathMatch::Regex(p) => parts.push(format!("~{p}")),
    }
    parts.extend(m.method.as_ref().map(ToString::to_string));
    let value = |v: &ValueMatch| match v {
        ValueMatch::Exact(v) => format!("={v}"),
        ValueMatch::Regex(v) => format!("~{v}"),
    };
    parts.extend(
        m.headers
            .iter()
            .map(|h| format!("{}{}", h.name, value(&h.value))),
    );
    parts.extend(
        m.query
            .iter()
            .map(|q| format!("?{}{}", q.name, value(&q.value))),
    );
    parts.join(" ")
}
