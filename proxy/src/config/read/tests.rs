//! Tables of variables, and what is made of them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;

const POD: [(&str, &str); 3] = [
    ("POD_NAME", "web-0"),
    ("POD_NAMESPACE", "shop"),
    ("POD_SERVICE_ACCOUNT", "web"),
];

fn read(variables: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let all = POD.iter().chain(variables);
    let table: BTreeMap<String, String> = all.map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Config::read(&table)
}

#[test]
fn the_defaults_are_those_of_a_cluster() {
    let config = read(&[]).unwrap();
    assert_eq!(
        config.control_plane.to_string(),
        "weft-control-plane.weft-system.svc:15012"
    );
    assert_eq!(
        config.control_plane_identity.to_string(),
        "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane"
    );
    assert_eq!(
        config.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    assert_eq!(config.node_id(), "web-0.shop");
    assert_eq!(config.drain, Duration::from_secs(30));
    assert_eq!(config.certificate_ttl, Duration::from_secs(86400));
    assert_eq!(config.ports, Ports::default());
    assert!(
        !config.access_log && config.dns_upstream.is_empty() && config.cert_renew_after.is_none()
    );
    assert!((1..=2).contains(&config.workers.get()));
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let all = [
        "WEFT_WORKERS",
        "WEFT_TRUST_DOMAIN",
        "WEFT_CERT_RENEW_AFTER",
        "HOST_IP",
    ];
    assert_eq!(read(&all.map(|v| (v, " "))), read(&[]));
}

#[test]
fn the_control_planes_identity_follows_the_trust_domain() {
    let config = read(&[("WEFT_TRUST_DOMAIN", "example.org")]).unwrap();
    let expected = "spiffe://example.org/ns/weft-system/sa/weft-control-plane";
    assert_eq!(config.control_plane_identity.to_string(), expected);
    let config = read(&[("WEFT_CONTROL_PLANE_IDENTITY", "istio-csr.cert-manager.svc")]).unwrap();
    assert_eq!(
        config.control_plane_identity,
        ServerName::Dns("istio-csr.cert-manager.svc".into())
    );
}

#[test]
fn values_are_understood() {
    let config = read(&[
        ("WEFT_CONTROL_PLANE", "[fd77::1]:15012"),
        (
            "WEFT_DNS_UPSTREAM",
            "10.0.0.1, 10.0.0.2:5353,fd00::a,[fd00::b]:54",
        ),
        ("POD_IPS", "10.244.0.5,fd77::5"),
        ("WEFT_DRAIN_SECONDS", "1m30s"),
        ("WEFT_CERT_RENEW_AFTER", "10s"),
        ("WEFT_ACCESS_LOG", "json"),
        ("WEFT_OUTBOUND_POLICY", "deny"),
        ("WEFT_WORKERS", "4"),
    ])
    .unwrap();
    assert_eq!(config.control_plane.host, "fd77::1");
    assert_eq!(config.control_plane.to_string(), "[fd77::1]:15012");
    let upstream: Vec<String> = config
        .dns_upstream
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        upstream,
        [
            "10.0.0.1:53",
            "10.0.0.2:5353",
            "[fd00::a]:53",
            "[fd00::b]:54"
        ]
    );
    assert_eq!(config.pod.ips.len(), 2);
    assert_eq!(config.drain, Duration::from_secs(90));
    assert_eq!(config.cert_renew_after, Some(Duration::from_secs(10)));
    assert!(
        config.access_log
            && config.outbound_policy == OutboundPolicy::Deny
            && config.workers.get() == 4
    );
}

#[test]
fn each_wrong_value_is_named() {
    for (variable, value) in [
        ("WEFT_CONTROL_PLANE", "control-plane"),
        ("WEFT_CONTROL_PLANE", "control_plane:1"),
        ("WEFT_CONTROL_PLANE", "host:0"),
        ("WEFT_CONTROL_PLANE_IDENTITY", "spiffe://x"),
        ("WEFT_CONTROL_PLANE_IDENTITY", "Not A Name"),
        ("WEFT_TRUST_DOMAIN", "Cluster.Local"),
        ("WEFT_CLUSTER_DOMAIN", "a..b"),
        ("WEFT_WORKERS", "0"),
        ("WEFT_WORKERS", "257"),
        ("WEFT_WORKERS", "many"),
        ("WEFT_LOG", "weft_proxy=chatty"),
        ("WEFT_LOG_FORMAT", "xml"),
        ("WEFT_ACCESS_LOG", "on"),
        ("WEFT_OUTBOUND_POLICY", "maybe"),
        ("WEFT_DRAIN_SECONDS", "-1"),
        ("WEFT_DRAIN_SECONDS", "86401"),
        ("WEFT_DNS_UPSTREAM", "10.0.0.1,dns.example"),
        ("WEFT_CERT_RENEW_AFTER", "10"),
        ("WEFT_CERT_RENEW_AFTER", "999ms"),
        ("WEFT_CERTIFICATE_TTL", "0s"),
        ("WEFT_OUTBOUND_PORT", "65536"),
        ("WEFT_ADMIN_PORT", "15020"),
        ("POD_NAME", "Web"),
        ("POD_IPS", "10.0.0"),
        ("HOST_IP", "host"),
    ] {
        let Mistakes(mistakes) = read(&[(variable, value)]).unwrap_err();
        let variables: Vec<_> = mistakes.iter().map(|m| m.variable).collect();
        assert_eq!(variables, [variable], "{value}");
        assert!(
            !mistakes[0].wrong.is_empty() && !mistakes[0].right.is_empty(),
            "{mistakes:?}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let table: BTreeMap<String, String> = [("WEFT_WORKERS".into(), "0".into())].into();
    let text = Config::read(&table).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("\n  POD_NAME: it is not set; expected the downward API's value"));
    assert!(text.contains(
        "\n  WEFT_WORKERS: \"0\" is not such a number; expected a number of threads, 1 to 256"
    ));
}
