//! Metrics that are read when somebody asks: identity, discovery, DNS, the process. Traffic counts itself in [`crate::metrics`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use weft_xds::TypeUrl;
use weft_xds::client::ClientState;

use super::{Running, State, health, process};

/// Registered beside the data path's metrics.
#[derive(Debug)]
pub struct Collected(pub Arc<State>);

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        let state = &self.0;
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauge("weft_build_info", "The proxy's version", &build, 1.0)?;
        let ready = u8::from(health::ready(state).is_ok());
        out.gauge(
            "weft_ready",
            "Is the proxy ready for traffic",
            NONE,
            ready.into(),
        )?;
        let open = state.drain.open() as f64;
        out.gauge(
            "weft_open_guards",
            "Connections and listeners that a drain waits for",
            NONE,
            open,
        )?;
        out.counters(
            "weft_certificate_renewals",
            "Requests for a certificate",
            &[
                (
                    Some(("result", "success")),
                    state.identity_status.succeeded(),
                ),
                (Some(("result", "failure")), state.identity_status.failed()),
            ],
        )?;
        let dns = &state.dns;
        let count = |result, counter: &std::sync::atomic::AtomicU64| {
            let value = counter.load(Ordering::Relaxed);
            (Some(("result", result)), value)
        };
        out.counters(
            "weft_dns_queries",
            "DNS questions by what became of them",
            &[
                count("mesh", &dns.mesh),
                count("forwarded", &dns.forwarded),
                count("failed", &dns.failed),
                count("refused", &dns.refused),
            ],
        )?;
        let lost = state.access_log.dropped();
        out.counters(
            "weft_access_log_dropped",
            "Lines of the access log that were lost",
            &[(None, lost)],
        )?;
        if let Some(running) = state.running.get() {
            identity(&mut out, running)?;
            discovery(&mut out, &running.client.state())?;
        }
        own(&mut out)
    }
}

fn identity(out: &mut Out<'_>, running: &Running) -> fmt::Result {
    let current = running.identity.current();
    let id = current.id.to_string();
    let labels = [("spiffe_id", id.as_str())];
    out.gauge(
        "weft_identity_info",
        "The workload's identity",
        &labels,
        1.0,
    )?;
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64()
    };
    out.gauge(
        "weft_certificate_expiration_timestamp_seconds",
        "When the certificate in use expires",
        NONE,
        seconds(current.not_after),
    )?;
    let generation = current.generation as f64;
    out.gauge(
        "weft_certificate_generation",
        "Changes of certificate or roots so far",
        NONE,
        generation,
    )
}

fn discovery(out: &mut Out<'_>, client: &ClientState) -> fmt::Result {
    let connected = u8::from(client.connected).into();
    out.gauge(
        "weft_xds_connected",
        "Is there a stream to the control plane",
        NONE,
        connected,
    )?;
    let of = |kind: TypeUrl| client.resources.iter().filter(move |r| r.kind == kind);
    let mut subscribed = Vec::new();
    let mut refused = Vec::new();
    for kind in TypeUrl::ALL {
        let label = Some(("type", kind.short()));
        subscribed.push((label, of(kind).count() as f64));
        refused.push((label, of(kind).filter(|r| r.error.is_some()).count() as f64));
    }
    out.gauges("weft_xds_resources", "Resources subscribed", &subscribed)?;
    out.gauges(
        "weft_xds_resources_refused",
        "Resources whose newest value was refused (NACK)",
        &refused,
    )?;
    let from_disk = client.resources.iter().filter(|r| r.from_disk).count() as f64;
    out.gauge(
        "weft_xds_resources_from_disk",
        "Resources restored and not confirmed yet",
        NONE,
        from_disk,
    )
}

fn own(out: &mut Out<'_>) -> fmt::Result {
    let memory = process::Memory::read().unwrap_or_default();
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Resident memory",
            memory.resident,
        ),
        (
            "process_anonymous_memory_bytes",
            "Resident memory of heap and stacks",
            memory.anonymous,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space",
            memory.virtual_size,
        ),
        ("process_threads", "Threads", memory.threads),
        (
            "process_open_fds",
            "Open descriptors",
            process::open_descriptors(),
        ),
        (
            "process_max_fds",
            "Most open descriptors",
            process::most_descriptors(),
        ),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, NONE, value as f64)?;
    }
    let cpu = ConstCounter::new(process::cpu_seconds());
    let help = "Processor time, user and system";
    let encoder =
        out.0
            .encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
    cpu.encode(encoder)
}

type Label<'l> = (&'l str, &'l str);
const NONE: &[Label<'static>] = &[];

/// Writes one family at a time.
struct Out<'e>(DescriptorEncoder<'e>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) -> fmt::Result {
        self.gauges(name, help, &[(labels.first().copied(), value)])
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: &[(Option<Label<'_>>, f64)],
    ) -> fmt::Result {
        let values = values.iter().map(|(l, v)| (*l, ConstGauge::new(*v)));
        self.family(name, help, MetricType::Gauge, values)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: &[(Option<Label<'_>>, u64)],
    ) -> fmt::Result {
        let values = values.iter().map(|(l, v)| (*l, ConstCounter::new(*v)));
        self.family(name, help, MetricType::Counter, values)
    }

    fn family<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl Iterator<Item = (Option<Label<'l>>, M)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (label, value) in values {
            match label {
                Some(label) => value.encode(family.encode_family(&[label])?)?,
                // Alone in its family.
                None => return value.encode(family),
            }
        }
        Ok(())
    }
}
