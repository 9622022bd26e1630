//! Every valid value of the model, with all fields in play.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use weft_model::policy::{CircuitBreaker, OutlierDetection, RetryBudget};
use weft_model::route::filter::{HeaderEdit, HeaderText, Scheme};
use weft_model::route::{
    Action, Forward, HeaderEdits, HeaderMatch, HttpMatch, HttpRule, Mirror, PathMatch, PathRewrite,
    QueryMatch, Redirect, ResetRetry, RetryPolicy, Rewrite, ValueMatch, WeightedBackend,
};
use weft_model::{
    BackendKey, Balancer, Cluster, Destination, DnsRecord, Endpoint, Endpoints, Health, Hostname,
    HostnameMatch, HttpRoutes, IdentityPattern, InboundPort, ListenerName, Locality, Meta,
    MtlsMode, Name, Namespace, Origin, Pattern, Protocol, SniRoute, SpiffeId, TrafficPolicy,
    TrustDomain, UnixMillis, VirtualHost, WorkloadKey,
};

use crate::convert::TrustBundle;

fn namespace() -> impl Strategy<Value = Namespace> {
    "[a-z][a-z0-9-]{0,8}[a-z0-9]".prop_map(|s| s.parse().unwrap())
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]{1,4})?".prop_map(|s| s.parse().unwrap())
}

fn hostname() -> impl Strategy<Value = Hostname> {
    "[a-z]([a-z0-9-]{0,6}[a-z0-9])?(\\.[a-z0-9]{1,6}){0,3}".prop_map(|s| s.parse().unwrap())
}

fn hostname_match() -> impl Strategy<Value = HostnameMatch> {
    prop_oneof![
        hostname().prop_map(HostnameMatch::Exact),
        hostname().prop_map(HostnameMatch::Suffix),
        Just(HostnameMatch::Any),
    ]
}

fn trust_domain() -> impl Strategy<Value = TrustDomain> {
    "[a-z]{1,5}(\\.[a-z]{1,5})?".prop_map(|s| s.parse().unwrap())
}

fn spiffe_id() -> impl Strategy<Value = SpiffeId> {
    (trust_domain(), namespace(), name()).prop_map(|(trust_domain, namespace, service_account)| {
        SpiffeId {
            trust_domain,
            namespace,
            service_account,
        }
    })
}

fn identity_pattern() -> impl Strategy<Value = IdentityPattern> {
    (trust_domain(), of(namespace()), of(name())).prop_map(
        |(trust_domain, namespace, service_account)| IdentityPattern {
            trust_domain,
            namespace,
            service_account,
        },
    )
}

fn workload() -> impl Strategy<Value = WorkloadKey> {
    (namespace(), name()).prop_map(|(namespace, name)| WorkloadKey { namespace, name })
}

fn backend_key() -> impl Strategy<Value = BackendKey> {
    (namespace(), name(), 1..=u16::MAX, any::<bool>()).prop_map(|(namespace, name, port, pod)| {
        if pod {
            BackendKey::pod(WorkloadKey { namespace, name }, port)
        } else {
            BackendKey::service(namespace, name, port)
        }
    })
}

fn origin() -> impl Strategy<Value = Origin> {
    ("[A-Za-z]{0,9}", "[a-z]{0,5}", "[a-z.-]{0,9}", of(".{0,6}")).prop_map(
        |(kind, namespace, name, rule)| Origin {
            kind,
            namespace,
            name,
            rule,
        },
    )
}

/// Times up to 2^53 ms, the year 287396.
fn meta() -> impl Strategy<Value = Meta> {
    (origin(), 0..=1_u64 << 53).prop_map(|(origin, ms)| Meta {
        origin,
        changed_at: UnixMillis(ms),
    })
}

/// As GEP-2257 can say it.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(0), 0..10_000_u64, 0..99_999_000_u64].prop_map(Duration::from_millis)
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,5}".prop_map(|s| s.parse().unwrap()),
        Just(http::header::HOST),
        Just(HeaderName::from_static("x-a")),
    ]
}

fn header_edit() -> impl Strategy<Value = HeaderEdit> {
    (header_name(), "[ -~\t]{0,8}").prop_map(|(name, value)| HeaderEdit {
        name: HeaderText(name),
        value: HeaderValue::from_str(&value).unwrap(),
    })
}

fn header_edits() -> impl Strategy<Value = HeaderEdits> {
    let remove = vec(header_name().prop_map(HeaderText), 0..3);
    (vec(header_edit(), 0..3), vec(header_edit(), 0..3), remove)
        .prop_map(|(set, add, remove)| HeaderEdits { set, add, remove })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z/]{0,5}(\\.\\*|\\[0-9\\]\\+)?".prop_map(|s| s.parse().unwrap())
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-zA-Z0-9._~%-]{0,5}){1,4}"
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(|p| PathMatch::prefix(&p)),
        Just(PathMatch::default()),
        pattern().prop_map(PathMatch::Regex),
    ]
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        ".{0,8}".prop_map(ValueMatch::Exact),
        pattern().prop_map(ValueMatch::Regex),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::GET),
        Just(Method::CONNECT),
        "[A-Z]{1,8}".prop_map(|m| m.parse().unwrap()),
    ]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let header =
        (header_name(), value_match()).prop_map(|(name, value)| HeaderMatch { name, value });
    let query = (".{0,6}", value_match()).prop_map(|(name, value)| QueryMatch { name, value });
    (
        path_match(),
        of(method()),
        vec(header, 0..3),
        vec(query, 0..3),
    )
        .prop_map(|(path, method, headers, query)| HttpMatch {
            path,
            method,
            headers,
            query,
        })
}

fn path_rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![
        path().prop_map(PathRewrite::Full),
        path().prop_map(PathRewrite::Prefix),
        Just(PathRewrite::Prefix(String::new())),
        Just(PathRewrite::Prefix("/".into())),
    ]
}

fn weighted_backend() -> impl Strategy<Value = WeightedBackend> {
    prop_oneof![
        backend_key().prop_map(WeightedBackend::only),
        (
            of(backend_key()),
            0..=1_000_000_u32,
            header_edits(),
            header_edits()
        )
            .prop_map(|(backend, weight, request_headers, response_headers)| {
                WeightedBackend {
                    backend,
                    weight,
                    request_headers,
                    response_headers,
                }
            }),
    ]
}

fn mirror() -> impl Strategy<Value = Mirror> {
    let denominator = prop_oneof![Just(100), Just(10_000), Just(1_000_000), 1..u32::MAX];
    (backend_key(), any::<u32>(), denominator, meta()).prop_map(
        |(backend, numerator, denominator, meta)| Mirror {
            backend,
            numerator,
            denominator,
            meta,
        },
    )
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let reset = prop_oneof![
        Just(ResetRetry::Never),
        Just(ResetRetry::Idempotent),
        Just(ResetRetry::Always)
    ];
    let codes = vec(400..600_u16, 0..4);
    (
        0..=100_u32,
        any::<bool>(),
        reset,
        codes,
        of(duration()),
        duration(),
    )
        .prop_map(
            |(attempts, connect_failure, reset, codes, per_try_timeout, backoff)| RetryPolicy {
                attempts,
                connect_failure,
                reset,
                codes,
                per_try_timeout,
                backoff,
            },
        )
}

fn forward() -> impl Strategy<Value = Forward> {
    let rewrite = (of(hostname()), of(path_rewrite()))
        .prop_map(|(hostname, path)| Rewrite { hostname, path });
    (
        vec(weighted_backend(), 0..3),
        rewrite,
        vec(mirror(), 0..2),
        of(duration()),
        retry(),
    )
        .prop_map(
            |(backends, rewrite, mirrors, request_timeout, retry)| Forward {
                backends,
                rewrite,
                mirrors,
                request_timeout,
                retry,
            },
        )
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
    let status = prop_oneof![Just(301), Just(302), Just(303), Just(307), Just(308)];
    (
        of(scheme),
        of(hostname()),
        of(path_rewrite()),
        of(1..=u16::MAX),
        status,
    )
        .prop_map(|(scheme, hostname, path, port, status)| Redirect {
            scheme,
            hostname,
            path,
            port,
            status,
        })
}

fn rule() -> impl Strategy<Value = HttpRule> {
    let action = prop_oneof![
        4 => forward().prop_map(Action::Forward),
        1 => redirect().prop_map(Action::Redirect),
    ];
    (http_match(), action, header_edits(), header_edits(), meta()).prop_map(
        |(matches, action, request_headers, response_headers, meta)| HttpRule {
            matches,
            action,
            request_headers,
            response_headers,
            meta,
        },
    )
}

pub(super) fn http_routes() -> impl Strategy<Value = HttpRoutes> {
    let host = (vec(hostname_match(), 1..3), vec(rule(), 0..3))
        .prop_map(|(hostnames, rules)| VirtualHost { hostnames, rules });
    (backend_key(), vec(host, 0..3), meta()).prop_map(|(key, hosts, meta)| HttpRoutes {
        key,
        hosts,
        meta,
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::Detect),
        Just(Protocol::Http),
        Just(Protocol::Http2),
        Just(Protocol::Grpc),
        Just(Protocol::Tls),
        Just(Protocol::Tcp),
    ]
}

pub(super) fn destination() -> impl Strategy<Value = Destination> {
    let name = prop_oneof![
        3 => any::<(IpAddr, u16)>().prop_map(|(ip, port)| ListenerName::Outbound(SocketAddr::new(ip, port))),
        1 => (hostname(), 1..=u16::MAX).prop_map(|(host, port)| ListenerName::Authority(host, port)),
    ];
    let route = (
        vec(hostname_match(), 0..3),
        vec(weighted_backend(), 0..3),
        meta(),
    )
        .prop_map(|(names, backends, meta)| SniRoute {
            names,
            backends,
            meta,
        });
    let destination = (name, backend_key(), protocol(), vec(route, 1..4), meta()).prop_map(
        |(name, key, protocol, sni, meta)| Destination {
            name,
            key,
            protocol,
            sni,
            meta,
        },
    );
    (destination, any::<bool>()).prop_map(|(mut d, plain)| {
        if plain {
            d.sni = vec![SniRoute {
                names: Vec::new(),
                backends: vec![WeightedBackend::only(d.key.clone())],
                meta: d.meta.clone(),
            }];
        }
        d
    })
}

pub(super) fn inbound_port() -> impl Strategy<Value = InboundPort> {
    let mtls = prop_oneof![Just(MtlsMode::Strict), Just(MtlsMode::Permissive)];
    (
        any::<u16>(),
        protocol(),
        mtls,
        vec(identity_pattern(), 0..3),
        meta(),
    )
        .prop_map(|(port, protocol, mtls, allow, meta)| InboundPort {
            port,
            protocol,
            mtls,
            allow,
            meta,
        })
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    let balancer = prop_oneof![
        Just(Balancer::PeakEwma),
        Just(Balancer::LeastRequest),
        Just(Balancer::RoundRobin),
        Just(Balancer::Random),
    ];
    let outlier = (any::<u32>(), duration(), duration(), 0..=100_u32).prop_map(
        |(failures, base, max, percent)| OutlierDetection {
            consecutive_failures: failures,
            base_ejection_time: base,
            max_ejection_time: max,
            max_ejection_percent: percent,
        },
    );
    let breaker =
        any::<(u32, u32, u32)>().prop_map(|(connections, pending, requests)| CircuitBreaker {
            max_connections: connections,
            max_pending_requests: pending,
            max_requests: requests,
        });
    let budget = (0..=100_u32, any::<u32>()).prop_map(|(percent, min_concurrency)| RetryBudget {
        percent,
        min_concurrency,
    });
    (
        balancer,
        of(outlier),
        breaker,
        budget,
        duration(),
        duration(),
        meta(),
    )
        .prop_map(
            |(
                balancer,
                outlier_detection,
                circuit_breaker,
                retry_budget,
                connect_timeout,
                idle_timeout,
                meta,
            )| {
                TrafficPolicy {
                    balancer,
                    outlier_detection,
                    circuit_breaker,
                    retry_budget,
                    connect_timeout,
                    idle_timeout,
                    meta,
                }
            },
        )
}

pub(super) fn cluster() -> impl Strategy<Value = Cluster> {
    (
        backend_key(),
        protocol(),
        vec(spiffe_id(), 0..3),
        policy(),
        meta(),
    )
        .prop_map(|(key, protocol, identities, policy, meta)| Cluster {
            key,
            protocol,
            identities,
            policy,
            meta,
        })
}

pub(super) fn endpoints() -> impl Strategy<Value = Endpoints> {
    let locality =
        ("[a-z]{0,2}", "[a-z]{0,2}").prop_map(|(region, zone)| Locality { region, zone });
    let health = prop_oneof![
        Just(Health::Ready),
        Just(Health::Draining),
        Just(Health::NotReady)
    ];
    let endpoint = (
        any::<(IpAddr, u16)>(),
        health,
        1..=u32::MAX,
        locality,
        of(spiffe_id()),
        of(workload()),
    )
        .prop_map(
            |((ip, port), health, weight, locality, identity, workload)| Endpoint {
                address: SocketAddr::new(ip, port),
                health,
                weight,
                locality,
                identity,
                workload,
            },
        );
    (backend_key(), vec(endpoint, 0..6), meta()).prop_map(|(key, mut endpoints, meta)| {
        endpoints.sort_by_key(|e| e.address);
        endpoints.dedup_by_key(|e| e.address);
        Endpoints {
            key,
            endpoints,
            meta,
        }
    })
}

pub(super) fn dns_record() -> impl Strategy<Value = DnsRecord> {
    (hostname(), vec(any::<IpAddr>(), 0..4), meta()).prop_map(|(name, mut addresses, meta)| {
        addresses.sort_unstable();
        addresses.dedup();
        DnsRecord {
            name,
            addresses,
            meta,
        }
    })
}

pub(super) fn trust_bundle() -> impl Strategy<Value = TrustBundle> {
    "[a-zA-Z0-9\n]{0,40}".prop_map(|body| TrustBundle {
        pem: format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"),
    })
}
