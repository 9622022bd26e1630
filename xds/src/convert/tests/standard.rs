//! What other clients are told, where it is easy to get wrong.

use http::{HeaderName, HeaderValue};
use prost::Message;
use weft_model::route::filter::{HeaderEdit, HeaderText};
use weft_model::route::{
    Action, Forward, HeaderEdits, HttpMatch, HttpRule, PathMatch, PathRewrite, WeightedBackend,
};
use weft_model::{
    Destination, Endpoint, Endpoints, Health, HostnameMatch, HttpRoutes, ListenerName, Locality,
    Meta, Protocol, SniRoute,
};

use crate::convert::proto::{core, endpoint, listener, route};
use crate::convert::{Flavour, Resource};
use route::route::Action as EnvoyAction;
use route::route_action::ClusterSpecifier;

fn routes(change: impl FnOnce(&mut HttpRule, &mut Forward)) -> HttpRoutes {
    let mut routes = HttpRoutes::direct("shop/web/80".parse().unwrap(), Meta::default());
    let rule = &mut routes.hosts[0].rules[0];
    let Action::Forward(mut forward) = rule.action.clone() else {
        panic!("direct routes forward");
    };
    change(rule, &mut forward);
    rule.action = Action::Forward(forward);
    routes
}

fn first_route(routes: &HttpRoutes, flavour: Flavour) -> route::Route {
    let bytes = routes.encode(flavour);
    let config = route::RouteConfiguration::decode(bytes).unwrap();
    config.virtual_hosts[0].routes[0].clone()
}

fn action(routes: &HttpRoutes, flavour: Flavour) -> route::RouteAction {
    match first_route(routes, flavour).action {
        Some(EnvoyAction::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn edit(name: &'static str, value: &'static str) -> HeaderEdit {
    HeaderEdit {
        name: HeaderText(HeaderName::from_static(name)),
        value: HeaderValue::from_static(value),
    }
}

#[test]
fn a_plain_route_needs_no_notes_but_its_origin() {
    let plain = routes(|_, _| ());
    assert_eq!(first_route(&plain, Flavour::Weft).metadata, None);
}

#[test]
fn no_timeout_is_said_aloud() {
    let timeout = action(&routes(|_, _| ()), Flavour::Envoy).timeout.unwrap();
    assert_eq!((timeout.seconds, timeout.nanos), (0, 0));
}

#[test]
fn all_weights_zero_is_a_500() {
    let zero = routes(|_, forward| forward.backends[0].weight = 0);
    for flavour in Flavour::ALL {
        assert!(matches!(
            first_route(&zero, flavour).action,
            Some(EnvoyAction::DirectResponse(r)) if r.status == 500
        ));
    }
}

#[test]
fn an_invalid_backend_keeps_its_share() {
    let half = routes(|_, forward| {
        forward.backends.push(WeightedBackend {
            backend: None,
            ..forward.backends[0].clone()
        });
    });
    let action = action(&half, Flavour::Envoy);
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = action.cluster_specifier else {
        panic!("weighted");
    };
    let names: Vec<_> = weighted.clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["shop/web/80", "weft/invalid-backend"]);
    assert_eq!(action.cluster_not_found_response_code, 2);
}

/// Envoy's own algorithm for the three forms, against the model's.
#[test]
fn prefix_rewrites_give_the_models_paths() {
    for (prefix, replacement) in [
        ("/foo", "/xyz"),
        ("/foo", "/xyz/"),
        ("/foo", ""),
        ("/foo", "/"),
        ("/f.o", "/"),
        ("/", "/xyz"),
        ("/", "/xyz/"),
        ("/", "/"),
        ("/foo/bar", "/a/b"),
    ] {
        let rewritten = routes(|rule, forward| {
            rule.matches.path = PathMatch::prefix(prefix);
            forward.rewrite.path = Some(PathRewrite::Prefix(replacement.into()));
        });
        let action = action(&rewritten, Flavour::Envoy);
        for rest in ["", "/", "/bar", "//bar", "/bar/"] {
            let path = format!("{}{rest}", if prefix == "/" { "" } else { prefix });
            if path.is_empty() || !PathMatch::prefix(prefix).matches(&path) {
                continue;
            }
            let envoys = match &action.regex_rewrite {
                Some(rule) => {
                    let pattern = rule.pattern.as_ref().unwrap().regex.as_str();
                    assert!(
                        pattern.starts_with('^') && pattern.ends_with("/?"),
                        "{pattern}"
                    );
                    let rest = path.strip_prefix(prefix).unwrap();
                    format!(
                        "{}{}",
                        rule.substitution,
                        rest.strip_prefix('/').unwrap_or(rest)
                    )
                }
                None => path.replacen(prefix, &action.prefix_rewrite, 1),
            };
            let ours = weft_model::path::replace_prefix(&path, prefix, replacement);
            assert_eq!(envoys, ours, "{path}: {prefix} -> {replacement}");
        }
    }
}

#[test]
fn header_edits_do_not_depend_on_envoys_order() {
    let edited = routes(|rule, _| {
        rule.request_headers = HeaderEdits {
            set: vec![edit("x-a", "50%"), edit("x-b", "1"), edit("host", "other")],
            add: vec![edit("x-a", "2"), edit("x-c", "3")],
            remove: vec![HeaderText(HeaderName::from_static("x-b"))],
        };
    });
    let encoded = first_route(&edited, Flavour::Envoy);
    let adds: Vec<_> = encoded
        .request_headers_to_add
        .iter()
        .map(|o| {
            let header = o.header.as_ref().unwrap();
            (header.key.as_str(), header.value.as_str(), o.append_action)
        })
        .collect();
    assert_eq!(adds, [("x-a", "50%%", 2), ("x-a", "2", 0), ("x-c", "3", 0)]);
    assert_eq!(encoded.request_headers_to_remove, ["x-b"]);
    assert!(format!("{:?}", encoded.action).contains("HostRewriteLiteral(\"other\")"));
}

#[test]
fn a_backends_edits_come_after_the_rules() {
    let edited = routes(|rule, forward| {
        rule.request_headers.set = vec![edit("x-a", "rule")];
        forward.backends[0].request_headers.set = vec![edit("x-a", "backend")];
    });
    let encoded = first_route(&edited, Flavour::Envoy);
    assert!(encoded.request_headers_to_add.is_empty());
    let Some(ClusterSpecifier::WeightedClusters(weighted)) =
        action(&edited, Flavour::Envoy).cluster_specifier
    else {
        panic!("weighted");
    };
    let option = &weighted.clusters[0].request_headers_to_add[0];
    assert_eq!(option.header.as_ref().unwrap().value, "backend");
    assert_eq!(weighted.clusters[0].request_headers_to_add.len(), 1);
}

#[test]
fn grpc_gets_its_own_prefixes_and_authorities() {
    let mut service = routes(|rule, _| {
        rule.matches = HttpMatch {
            path: PathMatch::prefix("/shop.Cart"),
            ..HttpMatch::default()
        };
    });
    service.hosts[0].hostnames = vec![HostnameMatch::Exact("web.shop".parse().unwrap())];
    let config = route::RouteConfiguration::decode(service.encode(Flavour::Grpc)).unwrap();
    assert_eq!(config.virtual_hosts[0].domains, ["web.shop", "web.shop:80"]);
    let path = first_route(&service, Flavour::Grpc)
        .r#match
        .unwrap()
        .path_specifier;
    assert_eq!(
        path,
        Some(route::route_match::PathSpecifier::Prefix(
            "/shop.Cart/".into()
        ))
    );
}

fn three(health: [Health; 3]) -> Endpoints {
    let endpoints = health.into_iter().enumerate().map(|(i, health)| Endpoint {
        address: format!("10.0.0.{i}:80").parse().unwrap(),
        health,
        weight: 1,
        locality: Locality::default(),
        identity: None,
        workload: None,
    });
    Endpoints {
        key: "shop/web/80".parse().unwrap(),
        endpoints: endpoints.collect(),
        meta: Meta::default(),
    }
}

#[test]
fn others_are_not_told_of_unready_endpoints_and_drain_last() {
    let groups = |health| {
        let bytes = three(health).encode(Flavour::Envoy);
        let assignment = endpoint::ClusterLoadAssignment::decode(bytes).unwrap();
        let groups = assignment
            .endpoints
            .iter()
            .map(|g| (g.priority, g.lb_endpoints.len()));
        groups.collect::<Vec<_>>()
    };
    assert_eq!(
        groups([Health::Ready, Health::Draining, Health::NotReady]),
        [(0, 1), (1, 1)]
    );
    // gRPC refuses a gap in the priorities.
    assert_eq!(
        groups([Health::NotReady, Health::Draining, Health::NotReady]),
        [(0, 1)]
    );
    assert_eq!(groups([Health::NotReady; 3]), []);
}

#[test]
fn an_undeclared_port_has_chains_for_http_tls_and_the_rest() {
    let key: weft_model::BackendKey = "shop/db/3306".parse().unwrap();
    let destination = Destination {
        name: ListenerName::Outbound("10.96.0.1:3306".parse().unwrap()),
        protocol: Protocol::Detect,
        sni: vec![SniRoute {
            names: Vec::new(),
            backends: vec![WeightedBackend::only(key.clone())],
            meta: Meta::default(),
        }],
        key,
        meta: Meta::default(),
    };
    let encoded = listener::Listener::decode(destination.encode(Flavour::Envoy)).unwrap();
    let chains: Vec<_> = encoded
        .filter_chains
        .iter()
        .map(|c| {
            (
                c.name.as_str(),
                c.filter_chain_match.clone().unwrap().transport_protocol,
            )
        })
        .collect();
    let expected = [
        ("http", "raw_buffer"),
        ("sni/0/any", "raw_buffer"),
        ("sni/0/copy", "tls"),
    ];
    assert_eq!(
        chains,
        expected.map(|(name, transport)| (name, transport.to_owned()))
    );
    assert!(encoded.continue_on_listener_filters_timeout);
    assert_eq!(
        encoded.traffic_direction,
        i32::from(core::TrafficDirection::Outbound)
    );
}

#[test]
fn a_refusal_names_the_field() {
    let mut config =
        route::RouteConfiguration::decode(routes(|_, _| ()).encode(Flavour::Weft)).unwrap();
    config.virtual_hosts[0].routes[0].r#match = Some(route::RouteMatch::default());
    let error = HttpRoutes::decode("shop/web/80", &config.encode_to_vec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "virtual_hosts[0].routes[0].match: no path"
    );
}
