#![allow(clippy::unwrap_used)]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::inbound::Peer;
use super::outbound::{HttpStep, RequestView, draw};
use super::{NoTrace, Reason, Recorder, Verdict, inbound, outbound, transform};
use crate::route::filter::{HeaderEdit, HeaderText, Scheme};
use crate::route::*;
use crate::*;

fn key(s: &str) -> BackendKey {
    s.parse().unwrap()
}

fn rule(path: PathMatch, to: &str) -> HttpRule {
    let mut routes = HttpRoutes::direct(key(to), Meta::default());
    let mut rule = routes.hosts.remove(0).rules.remove(0);
    rule.matches.path = path;
    rule.meta.origin = Origin::object("HTTPRoute", "ns", to);
    rule
}

fn table(rules: Vec<HttpRule>) -> HttpRoutes {
    let host = VirtualHost {
        hostnames: vec![HostnameMatch::Any],
        rules,
    };
    HttpRoutes {
        key: key("ns/web/80"),
        hosts: vec![host],
        meta: Meta::default(),
    }
}

fn target(
    routes: &HttpRoutes,
    method: &Method,
    uri: &str,
    headers: &HeaderMap,
) -> Result<String, Reason> {
    let uri: Uri = uri.parse().unwrap();
    let view = RequestView {
        method,
        authority: uri.authority().map_or("", |a| a.as_str()),
        path: uri.path(),
        query: uri.query(),
        headers,
    };
    let plan = outbound::http(routes, &view, &mut NoTrace).map_err(|r| r.reason)?;
    match plan.step() {
        HttpStep::Forward(f) => plan
            .backend(f, 0)
            .map(|(_, k)| k.to_string())
            .map_err(|r| r.reason),
        HttpStep::Redirect(r) => Ok(r.status.to_string()),
    }
}

#[test]
fn the_first_rule_that_matches_wins() {
    let routes = table(vec![
        rule(PathMatch::Exact("/a".into()), "ns/exact/80"),
        rule(PathMatch::Regex("/r[0-9]".parse().unwrap()), "ns/regex/80"),
        rule(PathMatch::prefix("/a"), "ns/prefix/80"),
    ]);
    let get = |uri: &str| target(&routes, &Method::GET, uri, &HeaderMap::new());
    assert_eq!(get("http://web/a").unwrap(), "ns/exact/80");
    assert_eq!(get("http://web/a?x=1").unwrap(), "ns/exact/80");
    assert_eq!(get("http://web/a/b").unwrap(), "ns/prefix/80");
    assert_eq!(get("http://web/r1").unwrap(), "ns/regex/80");
    assert_eq!(get("http://web/ab"), Err(Reason::NoRoute));
}

#[test]
fn methods_headers_and_queries_all_have_to_match() {
    let mut one = rule(PathMatch::default(), "ns/one/80");
    one.matches.method = Some(Method::POST);
    one.matches.headers = vec![HeaderMatch {
        name: HeaderName::from_static("x-v"),
        value: ValueMatch::Exact("1,2".into()),
    }];
    one.matches.query = vec![QueryMatch {
        name: "q".into(),
        value: ValueMatch::Regex("a b|c+".parse().unwrap()),
    }];
    let routes = table(vec![one]);
    let mut headers = HeaderMap::new();
    headers.append("x-v", HeaderValue::from_static("1"));
    assert!(target(&routes, &Method::POST, "http://w/?q=c", &headers).is_err());
    headers.append("x-v", HeaderValue::from_static("2"));
    assert!(target(&routes, &Method::POST, "http://w/?q=ccc", &headers).is_ok());
    assert!(target(&routes, &Method::POST, "http://w/?p&q=a%20b&q=no", &headers).is_ok());
    assert!(target(&routes, &Method::POST, "http://w/?q=no&q=c", &headers).is_err());
    assert!(target(&routes, &Method::POST, "http://w/", &headers).is_err());
    assert!(target(&routes, &Method::GET, "http://w/?q=c", &headers).is_err());
}

#[test]
fn the_most_specific_host_name_wins() {
    let host = |names: &[&str], to: &str| VirtualHost {
        hostnames: names.iter().map(|n| n.parse().unwrap()).collect(),
        rules: vec![rule(PathMatch::default(), to)],
    };
    let routes = HttpRoutes {
        hosts: vec![
            host(&["*.b.c"], "ns/long/80"),
            host(&["*.c"], "ns/short/80"),
            host(&["a.b.c", "z"], "ns/exact/80"),
        ],
        ..table(vec![])
    };
    let get = |uri: &str| target(&routes, &Method::GET, uri, &HeaderMap::new());
    assert_eq!(get("http://A.b.c:8080/").unwrap(), "ns/exact/80");
    assert_eq!(get("http://x.b.c/").unwrap(), "ns/long/80");
    assert_eq!(get("http://x.c/").unwrap(), "ns/short/80");
    assert_eq!(get("http://other/"), Err(Reason::NoRoute));
}

#[test]
fn the_draw_follows_the_weights_exactly() {
    let backends: Vec<_> = [("ns/a/80", 3), ("ns/b/80", 0), ("ns/c/80", 1)]
        .map(|(k, weight)| WeightedBackend {
            weight,
            ..WeightedBackend::only(key(k))
        })
        .into();
    let drawn: Vec<String> = (0..8)
        .map(|i| draw(&backends, i).unwrap().1.to_string())
        .collect();
    assert_eq!(
        drawn,
        ["ns/a/80", "ns/a/80", "ns/a/80", "ns/c/80"].repeat(2)
    );
    assert!(draw(&backends[1..2], 0).is_none());
    assert!(draw(&[], 0).is_none());
    assert!(
        draw(
            &[WeightedBackend {
                backend: None,
                ..backends[0].clone()
            }],
            0
        )
        .is_none()
    );
}

#[test]
fn rewrites_change_host_and_path_and_keep_the_query() {
    let rule = rule(PathMatch::prefix("/old"), "ns/a/80");
    let rewrite = Rewrite {
        hostname: Some("new.example".parse().unwrap()),
        path: Some(PathRewrite::Prefix("/".into())),
    };
    for (from, to) in [
        ("/old/x?a=1", "/x?a=1"),
        ("http://web/old", "http://new.example/"),
    ] {
        let (mut uri, mut headers) = (from.parse::<Uri>().unwrap(), HeaderMap::new());
        headers.insert("host", HeaderValue::from_static("web"));
        transform::request(
            &rule,
            &rewrite,
            &WeightedBackend::only(key("ns/a/80")),
            &mut uri,
            &mut headers,
        );
        assert_eq!(uri.to_string(), to);
        assert_eq!(headers["host"], "new.example");
    }
}

#[test]
fn header_edits_set_then_add_then_remove() {
    let edit = |name: &'static str, value: &'static str| HeaderEdit {
        name: HeaderText(HeaderName::from_static(name)),
        value: HeaderValue::from_static(value),
    };
    let edits = HeaderEdits {
        set: vec![edit("a", "1")],
        add: vec![edit("a", "2"), edit("b", "3")],
        remove: vec![HeaderText(HeaderName::from_static("c"))],
    };
    let mut headers = HeaderMap::new();
    headers.insert("a", HeaderValue::from_static("0"));
    headers.insert("c", HeaderValue::from_static("x"));
    edits.apply(&mut headers);
    assert_eq!(headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(headers["b"], "3");
    assert!(!headers.contains_key("c"));
}

#[test]
fn redirects_derive_the_port() {
    let rule = rule(PathMatch::prefix("/a"), "ns/a/80");
    let plain = Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
    };
    let at = |r: &Redirect, authority: &str, port| {
        transform::location(&rule, r, authority, port, "/a/b", Some("q"))
    };
    assert_eq!(at(&plain, "web", 80), "http://web/a/b?q");
    assert_eq!(at(&plain, "web:8080", 8080), "http://web:8080/a/b?q");
    let https = Redirect {
        scheme: Some(Scheme::Https),
        ..plain.clone()
    };
    assert_eq!(at(&https, "web:8080", 8080), "https://web/a/b?q");
    let port = Redirect {
        port: Some(8443),
        path: Some(PathRewrite::Prefix("/z".into())),
        ..https
    };
    assert_eq!(at(&port, "web", 80), "https://web:8443/z/b?q");
    let host = Redirect {
        hostname: Some("h".parse().unwrap()),
        path: Some(PathRewrite::Full("/f".into())),
        ..plain
    };
    assert_eq!(at(&host, "web", 80), "http://h/f?q");
}

#[test]
fn connections_go_by_server_name() {
    let route = |names: &[&str], to: &str| SniRoute {
        names: names.iter().map(|n| n.parse().unwrap()).collect(),
        backends: vec![WeightedBackend::only(key(to))],
        meta: Meta::default(),
    };
    let destination = Destination {
        name: "weft/outbound/10.0.0.1:443".parse().unwrap(),
        key: key("ns/web/443"),
        protocol: Protocol::Tls,
        sni: vec![
            route(&[], "ns/rest/443"),
            route(&["*.c"], "ns/wild/443"),
            route(&["b.c"], "ns/exact/443"),
        ],
        meta: Meta::default(),
    };
    let to = |sni| {
        outbound::connection(&destination, sni, &mut NoTrace)
            .map(|r| r.backends[0].backend.clone().unwrap().to_string())
    };
    assert_eq!(to(Some("b.c")).unwrap(), "ns/exact/443");
    assert_eq!(to(Some("x.c")).unwrap(), "ns/wild/443");
    assert_eq!(to(Some("x")).unwrap(), "ns/rest/443");
    assert_eq!(to(None).unwrap(), "ns/rest/443");
    let only = Destination {
        sni: vec![route(&["b.c"], "ns/exact/443")],
        ..destination.clone()
    };
    assert_eq!(
        outbound::connection(&only, None, &mut NoTrace)
            .unwrap_err()
            .reason,
        Reason::NoSniRoute
    );
    let http = Destination {
        protocol: Protocol::Grpc,
        ..destination
    };
    assert_eq!(
        outbound::connection(&http, None, &mut NoTrace)
            .unwrap_err()
            .reason,
        Reason::NotHttp
    );
}

#[test]
fn inbound_judges_by_mode_and_identity() {
    let web: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let pattern: IdentityPattern = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let policy = |mtls, allow: &[&IdentityPattern]| InboundPort {
        port: 80,
        protocol: Protocol::Http,
        mtls,
        allow: allow.iter().map(|p| (*p).clone()).collect(),
        meta: Meta::default(),
    };
    let judge =
        |p: &InboundPort, peer| inbound::connection(p, peer, &mut NoTrace).map_err(|r| r.reason);
    let (strict, permissive) = (
        policy(MtlsMode::Strict, &[]),
        policy(MtlsMode::Permissive, &[]),
    );
    assert_eq!(
        judge(&strict, Peer::Plaintext),
        Err(Reason::PlaintextRefused)
    );
    assert_eq!(judge(&strict, Peer::Authenticated(&web)), Ok(()));
    assert_eq!(judge(&permissive, Peer::Plaintext), Ok(()));
    let listed = policy(MtlsMode::Permissive, &[&pattern]);
    assert_eq!(
        judge(&listed, Peer::Authenticated(&web)),
        Err(Reason::IdentityRefused)
    );
    assert_eq!(
        judge(&listed, Peer::Plaintext),
        Err(Reason::IdentityRefused)
    );
    assert_eq!(
        judge(
            &policy(MtlsMode::Strict, &[&pattern, &web.clone().into()]),
            Peer::Authenticated(&web)
        ),
        Ok(())
    );
}

#[test]
fn the_recorder_hears_every_step() {
    let routes = table(vec![
        rule(PathMatch::Exact("/a".into()), "ns/a/80"),
        rule(PathMatch::default(), "ns/b/80"),
    ]);
    let mut recorder = Recorder::default();
    let headers = HeaderMap::new();
    let view = RequestView {
        method: &Method::GET,
        authority: "web",
        path: "/x",
        query: None,
        headers: &headers,
    };
    outbound::http(&routes, &view, &mut recorder).unwrap();
    let verdicts: Vec<_> = recorder.steps.iter().map(|s| s.verdict).collect();
    assert_eq!(verdicts, [Verdict::Passed, Verdict::Matched]);
    assert!(
        recorder.steps[0].detail.contains("/x"),
        "{:?}",
        recorder.steps[0]
    );
    assert_eq!(recorder.steps[1].detail, "forward to ns/b/80 weight 1");
}
