//! Pods and their metrics as rows: one for each caller and destination, all pods of a workload together.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::metrics::{Buckets, Sample, Samples};
use super::objects::{Objects, Pod};

/// One row.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Edge {
    /// Workload, e.g. `web`.
    pub(crate) caller: String,
    /// `namespace/service/port`, as the proxy names it.
    pub(crate) destination: String,
    /// `http/1.1`, `h2`, or `tcp` for what was carried unread.
    pub(crate) protocol: String,
    /// Requests; connections when the protocol is `tcp`.
    pub(crate) requests: u64,
    /// Share of attempts that succeeded: what the caller would have seen without retries. None without attempts.
    pub(crate) success_before_retries: Option<f64>,
    /// Share of requests that succeeded. None for `tcp`.
    pub(crate) success: Option<f64>,
    /// Seconds.
    pub(crate) p50: Option<f64>,
    /// Seconds.
    pub(crate) p99: Option<f64>,
    /// SPIFFE ids of the caller's proxies.
    pub(crate) caller_identity: Vec<String>,
    /// SPIFFE ids the caller saw at the other end.
    pub(crate) peer_identities: Vec<String>,
    /// Versions and key exchange groups of the handshakes with them, e.g. `TLSv1.3 X25519MLKEM768`.
    pub(crate) tls: Vec<String>,
}

/// What is added up for one row.
#[derive(Debug, Default)]
struct Sums {
    requests: f64,
    succeeded: f64,
    attempts: f64,
    attempts_succeeded: f64,
    buckets: Buckets,
    peers: BTreeSet<String>,
}

/// The rows, ordered by caller and destination.
pub(crate) fn of(objects: &Objects, scraped: &[(&Pod, Samples)]) -> Vec<Edge> {
    let mut workloads: BTreeMap<String, Vec<&Samples>> = BTreeMap::new();
    for (pod, samples) in scraped {
        workloads.entry(pod.workload()).or_default().push(samples);
    }
    let mut edges = Vec::new();
    for (caller, samples) in &workloads {
        for ((destination, protocol), sums) in sums(samples) {
            edges.push(edge(
                objects,
                scraped,
                caller,
                samples,
                &destination,
                protocol,
                sums,
            ));
        }
    }
    edges
}

/// By destination and protocol.
fn sums(samples: &[&Samples]) -> BTreeMap<(String, String), Sums> {
    let mut rows: BTreeMap<(String, String), Sums> = BTreeMap::new();
    let each = |name: &'static str| samples.iter().flat_map(move |s| s.named(name));
    for sample in each("weft_outbound_requests_total") {
        let row = rows
            .entry((
                sample.label("destination").into(),
                sample.label("protocol").into(),
            ))
            .or_default();
        row.requests += sample.value;
        if succeeded(sample) {
            row.succeeded += sample.value;
        }
    }
    // Attempts and durations are not told apart by protocol; nearly always a destination has one.
    for ((destination, _), row) in &mut rows {
        for sample in
            each("weft_outbound_attempts_total").filter(|s| s.label("destination") == destination)
        {
            row.attempts += sample.value;
            if sample.label("outcome") == "success" {
                row.attempts_succeeded += sample.value;
            }
        }
        for sample in each("weft_outbound_request_duration_seconds_bucket")
            .filter(|s| s.label("destination") == destination)
        {
            row.buckets.add(sample);
        }
    }
    for sample in each("weft_tcp_connections_total").filter(|s| s.label("direction") == "outbound")
    {
        let destination = sample.label("destination");
        if destination.is_empty() || rows.keys().any(|(d, p)| d == destination && p != "tcp") {
            continue;
        }
        let row = rows.entry((destination.into(), "tcp".into())).or_default();
        row.requests += sample.value;
        if sample.label("peer").starts_with("spiffe://") {
            row.peers.insert(sample.label("peer").into());
        }
    }
    rows.retain(|_, row| row.requests > 0.0);
    rows
}

/// Did the caller get an answer that is not the server's or the mesh's fault?
fn succeeded(sample: &Sample) -> bool {
    let status = sample.label("status");
    match status.parse::<u16>() {
        Ok(code) => code < 500,
        Err(_) => status.eq_ignore_ascii_case("ok"),
    }
}

fn edge(
    objects: &Objects,
    scraped: &[(&Pod, Samples)],
    caller: &str,
    samples: &[&Samples],
    destination: &str,
    protocol: String,
    sums: Sums,
) -> Edge {
    let mut peers = sums.peers;
    if peers.is_empty() {
        peers = identities_behind(objects, scraped, destination);
    }
    let handshakes: Vec<_> = samples
        .iter()
        .flat_map(|s| s.named("weft_tls_handshakes_total"))
        .filter(|s| {
            s.label("direction") == "outbound" && ["full", "resumed"].contains(&s.label("result"))
        })
        .filter(|s| peers.contains(s.label("peer")))
        .collect();
    // What was seen, not what was expected: an identity without a handshake was not met.
    let met: BTreeSet<_> = handshakes
        .iter()
        .map(|s| s.label("peer").to_owned())
        .collect();
    let tls: BTreeSet<_> = handshakes
        .iter()
        .map(|s| {
            format!(
                "{} {}",
                s.label("version").replace('_', "."),
                s.label("group")
            )
        })
        .collect();
    let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    let http = protocol != "tcp";
    Edge {
        caller: caller.into(),
        destination: destination.into(),
        requests: sums.requests as u64,
        success_before_retries: share(sums.attempts_succeeded, sums.attempts),
        success: http.then(|| sums.succeeded / sums.requests),
        p50: sums.buckets.percentile(0.5),
        p99: sums.buckets.percentile(0.99),
        caller_identity: own_identities(samples),
        peer_identities: met.into_iter().collect(),
        tls: tls.into_iter().collect(),
        protocol,
    }
}

fn own_identities(samples: &[&Samples]) -> Vec<String> {
    let ids: BTreeSet<_> = samples
        .iter()
        .flat_map(|s| s.named("weft_identity_info"))
        .map(|s| s.label("spiffe_id").to_owned())
        .collect();
    ids.into_iter().collect()
}

/// The identities of the pods behind `namespace/service/port`, as their own proxies state them. Where a route
/// sends a service's requests elsewhere, the parent service's own selector must cover those pods.
fn identities_behind(
    objects: &Objects,
    scraped: &[(&Pod, Samples)],
    destination: &str,
) -> BTreeSet<String> {
    let mut parts = destination.split('/');
    let (Some(namespace), Some(service)) = (parts.next(), parts.next()) else {
        return BTreeSet::new();
    };
    let behind: BTreeSet<&str> = objects
        .behind(namespace, service)
        .map(|p| p.name.as_str())
        .collect();
    scraped
        .iter()
        .filter(|(pod, _)| pod.namespace == namespace && behind.contains(pod.name.as_str()))
        .flat_map(|(_, samples)| own_identities(&[samples]))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::objects::tests::two_pods;
    use super::*;

    #[test]
    fn a_row_joins_both_ends() {
        let objects = two_pods();
        let web = Samples::parse(
            "weft_identity_info{spiffe_id=\"spiffe://td/ns/shop/sa/default\"} 1
weft_outbound_requests_total{destination=\"shop/cart/9000\",protocol=\"h2\",status=\"200\",reason=\"\"} 9
weft_outbound_requests_total{destination=\"shop/cart/9000\",protocol=\"h2\",status=\"503\",reason=\"connect\"} 1
weft_outbound_attempts_total{destination=\"shop/cart/9000\",outcome=\"success\"} 9
weft_outbound_attempts_total{destination=\"shop/cart/9000\",outcome=\"failure\"} 3
weft_outbound_request_duration_seconds_bucket{destination=\"shop/cart/9000\",le=\"0.01\"} 10
weft_outbound_request_duration_seconds_bucket{destination=\"shop/cart/9000\",le=\"+Inf\"} 10
weft_tcp_connections_total{direction=\"outbound\",destination=\"shop/cart/9000\",peer=\"\"} 4
weft_tcp_connections_total{direction=\"outbound\",destination=\"db/pg/5432\",peer=\"spiffe://td/ns/db/sa/pg\"} 2
weft_tls_handshakes_total{direction=\"outbound\",peer=\"spiffe://td/ns/shop/sa/cart\",version=\"TLSv1_3\",group=\"X25519MLKEM768\",result=\"resumed\"} 2
weft_tls_handshakes_total{direction=\"outbound\",peer=\"spiffe://td/ns/shop/sa/cart\",version=\"\",group=\"\",result=\"tls_expired\"} 2
weft_tls_handshakes_total{direction=\"outbound\",peer=\"spiffe://td/ns/other/sa/x\",version=\"TLSv1_3\",group=\"X25519\",result=\"full\"} 2
",
        );
        let cart =
            Samples::parse("weft_identity_info{spiffe_id=\"spiffe://td/ns/shop/sa/cart\"} 1\n");
        let edges = of(
            &objects,
            &[(&objects.pods[0], cart), (&objects.pods[1], web)],
        );
        let [database, grpc] = edges.as_slice() else {
            panic!("{edges:?}")
        };
        assert_eq!(
            (grpc.caller.as_str(), grpc.protocol.as_str(), grpc.requests),
            ("web-v1", "h2", 10)
        );
        assert_eq!(
            (grpc.success_before_retries, grpc.success),
            (Some(0.75), Some(0.9))
        );
        assert_eq!(grpc.peer_identities, ["spiffe://td/ns/shop/sa/cart"]);
        assert_eq!(grpc.tls, ["TLSv1.3 X25519MLKEM768"]);
        assert!(grpc.p99.unwrap() <= 0.01);
        assert_eq!(
            (
                database.protocol.as_str(),
                database.requests,
                database.success
            ),
            ("tcp", 2, None)
        );
        assert!(database.tls.is_empty(), "no handshake with it was counted");
    }
}
