//! One answer from the decision, the running proxy, `weft explain` and Envoy.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use weft_model::View;
use weft_model::decide::outbound::{HttpStep, RequestView};
use weft_model::decide::{NoTrace, Reason, outbound, transform};
use weft_tests::mesh::Mesh;

use super::cases::{CASES, Case, Expect};

/// What one judge says, in the words of the table.
type Answer = String;

fn expected(case: &Case) -> Answer {
    match case.expect {
        Expect::Version(v) => v.to_owned(),
        Expect::Status(s) => s.to_string(),
        Expect::Redirect(status, location) => format!("{status} {location}"),
        Expect::Path(path) => format!("v1 {path}"),
    }
}

pub(crate) fn one_answer(mesh: &Mesh) {
    assert!(CASES.len() >= 40, "{}", CASES.len());
    let view: View = serde_json::from_value(mesh.control_plane("/view?namespace=app"))
        .expect("the view is the model");
    for service in CASES
        .iter()
        .map(|c| c.service)
        .collect::<std::collections::BTreeSet<_>>()
    {
        for pod in ["app/client", "app/envoy"] {
            weft_tests::wait::holds(
                &format!("{service} from {pod}"),
                std::time::Duration::from_secs(20),
                || mesh.curl(pod, &[&format!("http://{service}/only")]).0 != 0,
            );
        }
    }
    let mut wrong = Vec::new();
    for case in CASES {
        let answers = [
            ("expected", expected(case)),
            ("decide", decided(&view, case)),
            ("weft explain", explained(mesh, case)),
            ("weft-proxy", sent(mesh, "app/client", case)),
            ("Envoy", sent(mesh, "app/envoy", case)),
        ];
        if answers.iter().any(|(_, a)| *a != answers[0].1) {
            wrong.push(format!(
                "{} {}{} {:?}: {answers:?}",
                case.method, case.service, case.path, case.headers
            ));
        }
    }
    println!(
        "{} routing cases, {} with more than one answer",
        CASES.len(),
        wrong.len()
    );
    assert!(
        wrong.is_empty(),
        "{} of {} cases differ:\n{}",
        wrong.len(),
        CASES.len(),
        wrong.join("\n")
    );
}

/// The pure decision over the model that the control plane compiled.
fn decided(view: &View, case: &Case) -> Answer {
    let key = format!("app/{}/80", case.service).parse().unwrap();
    let routes = view.routes(&key).expect("a route table");
    let uri: Uri = case.path.parse().unwrap();
    let method: Method = case.method.parse().unwrap();
    let headers: HeaderMap = case
        .headers
        .iter()
        .map(|(n, v)| {
            (
                n.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(v).unwrap(),
            )
        })
        .collect();
    let request = RequestView {
        method: &method,
        authority: case.service,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
    };
    let plan = match outbound::http(routes, &request, &mut NoTrace) {
        Ok(plan) => plan,
        Err(refusal) => return status_of(refusal.reason),
    };
    match plan.step() {
        HttpStep::Redirect(redirect) => {
            let location = transform::location(
                plan.rule,
                redirect,
                case.service,
                80,
                uri.path(),
                uri.query(),
            );
            format!("{} {location}", redirect.status)
        }
        HttpStep::Forward(forward) => match plan.backend(forward, 0) {
            Err(refusal) => status_of(refusal.reason),
            Ok((backend, key)) => {
                let version = version_of(&key.to_string(), case);
                let (mut uri, mut headers) = (uri.clone(), headers.clone());
                transform::request(plan.rule, &forward.rewrite, backend, &mut uri, &mut headers);
                with_path(case, version, &uri.to_string())
            }
        },
    }
}

fn status_of(reason: Reason) -> Answer {
    match reason {
        Reason::NoRoute => "404".into(),
        Reason::NoBackend => "500".into(),
        other => format!("{other:?}"),
    }
}

/// `app/echo-v2/80` is `v2`. Cases whose service has no route name the service itself.
fn version_of(backend: &str, case: &Case) -> String {
    match backend {
        "app/echo-v1/80" => "v1".into(),
        "app/echo-v2/80" => "v2".into(),
        other => format!("{other} for {}", case.service),
    }
}

fn with_path(case: &Case, version: String, path: &str) -> Answer {
    match case.expect {
        Expect::Path(_) => format!("{version} {path}"),
        _ => version,
    }
}

/// `weft explain -o json`; the path that a rewrite makes is the running proxies' to show.
fn explained(mesh: &Mesh, case: &Case) -> Answer {
    let url = format!("http://{}:80", case.service);
    let headers: Vec<String> = case
        .headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}"))
        .collect();
    let mut args = vec![
        "explain",
        "-n",
        "app",
        "client",
        &url,
        "--method",
        case.method,
        "--path",
        case.path,
    ];
    for header in &headers {
        args.extend(["--header", header]);
    }
    let result = &mesh.json(&args)["result"];
    match result["outcome"].as_str() {
        Some("redirect" | "Redirect") => format!(
            "{} {}",
            result["status"],
            result["location"].as_str().unwrap_or_default()
        ),
        Some("refused" | "Refused") => match result["reason"].as_str() {
            Some("noRoute") => "404".into(),
            Some("noBackend") => "500".into(),
            other => format!("{other:?}"),
        },
        _ => {
            let chosen = result["backends"]
                .as_array()
                .and_then(|b| b.iter().find(|b| b["weight"] != 0))
                .cloned()
                .unwrap_or_default();
            match (chosen["backend"].as_str(), case.expect) {
                (Some(backend), Expect::Path(path)) => {
                    format!("{} {path}", version_of(backend, case))
                }
                (Some(backend), _) => version_of(backend, case),
                (None, _) => "500".into(),
            }
        }
    }
}

/// The request, really sent from a pod.
fn sent(mesh: &Mesh, pod: &str, case: &Case) -> Answer {
    let url = format!("http://{}{}", case.service, case.path);
    let headers: Vec<String> = case
        .headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}"))
        .collect();
    let mut args = vec!["--path-as-is", "-i", "-X", case.method];
    for header in &headers {
        args.extend(["-H", header]);
    }
    args.push(&url);
    let (status, text) = mesh.curl(pod, &args);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let location = head.lines().find_map(|l| {
        l.split_once(": ")
            .filter(|(n, _)| n.eq_ignore_ascii_case("location"))
            .map(|(_, v)| v.trim())
    });
    match (status, location) {
        (300..400, Some(location)) => format!("{status} {location}"),
        (200, _) => {
            let seen: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            let version = seen["version"].as_str().unwrap_or("no version").to_owned();
            with_path(case, version, seen["path"].as_str().unwrap_or_default())
        }
        _ => status.to_string(),
    }
}
