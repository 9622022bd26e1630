//! What each mistake is told as: the exact text.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::format_collect, clippy::format_push_string)] // tests may be simple

use super::*;

fn read(text: &str) -> Parsed {
    parse(&Arc::new("shop.yaml".into()), text, UnixMillis(7))
}

fn problems(text: &str) -> Vec<String> {
    read(text)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn objects(text: &str) -> Vec<String> {
    read(text)
        .objects
        .iter()
        .map(|o| format!("{}:{}", o.source().line, o.describe()))
        .collect()
}

#[test]
fn documents_lists_and_json() {
    let text = "# the shop\n---\n\n# a comment\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n--- # nothing\n---\n\
                apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n";
    assert_eq!(
        objects(text),
        ["5:Namespace shop", "11:ServiceAccount default/web"]
    );
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "shop"}}]}"#;
    assert_eq!(objects(list), ["1:Pod shop/a"]);
    let typed = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a, namespace: shop}\n";
    assert_eq!(objects(typed), ["1:Pod shop/a"]);
    assert_eq!(objects(""), [""; 0]);
}

#[test]
fn somebody_elses_kinds_are_no_mistake() {
    for (version, kind) in [
        ("networking.k8s.io/v1", "Ingress"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("cert-manager.io/v1", "Certificate"),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
    ] {
        assert_eq!(
            problems(&format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"
            )),
            [""; 0],
            "{kind}"
        );
    }
}

#[test]
fn mistakes() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec:\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec:\n";
    let traffic = "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: t, namespace: shop}\nspec:\n  targetRefs: [{kind: Service, name: web}]\n";
    let mtls = "apiVersion: weft.dev/v1alpha1\nkind: MutualTLSPolicy\nmetadata: {name: m, namespace: shop}\nspec:\n";
    let table: Vec<(String, &str)> = vec![
        // not YAML
        (
            "a: [1\nb: 2\n".into(),
            "error: shop.yaml:2:2: did not find expected ',' or ']' (the last good version of this file stays in force)",
        ),
        (
            "a: 1\n---\nb: 1\nb: 2\n".into(),
            "error: shop.yaml:3:1: the key \"b\" stands there twice (the last good version of this file stays in force)",
        ),
        // not an object
        (
            "kind: Pod\n".into(),
            "error: shop.yaml:1: Pod: apiVersion: this is not a Kubernetes object: it has no such field",
        ),
        (
            "- a\n".into(),
            "error: shop.yaml:1: kind: this is not a Kubernetes object: it has no such field",
        ),
        // kinds
        (
            "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: web}\n".into(),
            "error: shop.yaml:1: Deploymnet web: kind: nobody knows the kind \"Deploymnet\" in \"apps/v1\" (did you mean \"Deployment\"?)",
        ),
        (
            "apiVersion: v1\nkind: Deployment\nmetadata: {name: web}\n".into(),
            "error: shop.yaml:1: Deployment web: apiVersion: there is no kind Deployment in \"v1\" (use apps/v1)",
        ),
        (
            "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: web}\n".into(),
            "error: shop.yaml:1: Deployment web: apiVersion: \"apps/v1beta1\" is not a version of Deployment that Weft reads (use apps/v1)",
        ),
        (
            "apiVersion: weft.dev/v1alpha1\nkind: TraficPolicy\nmetadata: {name: t}\n".into(),
            "error: shop.yaml:1: TraficPolicy t: kind: nobody knows the kind \"TraficPolicy\" in \"weft.dev/v1alpha1\" (did you mean \"TrafficPolicy\"?)",
        ),
        // names
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: Web}\n".into(),
            "error: shop.yaml:1: Pod default/Web: metadata.name: \"Web\" is not a valid name: only lower-case letters, digits and '-' are allowed",
        ),
        // types
        (
            format!("{service}  ports: [{{port: http}}]\n"),
            "error: shop.yaml:1: Service shop/web: spec.ports[0].port: invalid type: string \"http\", expected i32",
        ),
        (
            format!("{service}  selector: {{app: 1}}\n"),
            "error: shop.yaml:1: Service shop/web: spec.selector.app: invalid type: integer `1`, expected a string (put it in quotes)",
        ),
        // unknown fields
        (
            format!("{service}  prots: []\n"),
            "warning: shop.yaml:1: Service shop/web: spec.prots: there is no such field; it is ignored (did you mean \"ports\"?)",
        ),
        // what the API server would refuse
        (
            format!("{service}  ports: [{{port: 80}}, {{port: 81, name: b}}]\n"),
            "error: shop.yaml:1: Service shop/web: spec.ports[0].name: every port has to have a name when there are several",
        ),
        (
            format!("{service}  ports: [{{port: 80, protocol: HTTP}}]\n"),
            "error: shop.yaml:1: Service shop/web: spec.ports[0].protocol: \"HTTP\" is none of TCP, UDP and SCTP (what the port speaks above TCP is said by appProtocol)",
        ),
        (
            format!("{route}  parentRefs: [{{kind: Service, name: web}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.parentRefs[0].group: Service is in the core group, but the group of a parent is gateway.networking.k8s.io where nothing is said (add group: \"\")",
        ),
        (
            format!("{route}  rules: [{{matches: [{{path: {{value: api}}}}]}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].matches[0].path.value: \"api\" does not begin with '/' (use \"/api\")",
        ),
        (
            format!(
                "{route}  rules: [{{matches: [{{headers: [{{name: a, value: '(', type: RegularExpression}}]}}]}}]\n"
            ),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].matches[0].headers[0].value: \"(\" is not a usable regular expression: unclosed group",
        ),
        (
            format!("{route}  rules: [{{timeouts: {{request: 10}}}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].timeouts.request: invalid type: integer `10`, expected a string (put it in quotes)",
        ),
        (
            format!("{route}  rules: [{{timeouts: {{request: 1s, backendRequest: 2s}}}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].timeouts.backendRequest: one attempt may not take longer than the whole request (at most 1s)",
        ),
        (
            format!("{route}  rules: [{{retry: {{codes: [200]}}}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].retry.codes[0]: 200 is not between 400 and 599",
        ),
        (
            format!("{route}  rules: [{{backendRefs: [{{name: web}}]}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].backendRefs[0].port: a Service is referred to with its port",
        ),
        (
            format!("{route}  rules: [{{matches: [{{path: {{type: Prefix}}}}]}}]\n"),
            "error: shop.yaml:1: HTTPRoute shop/r: spec.rules[0].matches[0].path.type: unknown variant `Prefix`, expected one of `Exact`, `PathPrefix`, `RegularExpression`",
        ),
        (
            format!("{traffic}  loadBalancer: {{algorithm: RoundRobbin}}\n"),
            "error: shop.yaml:1: TrafficPolicy shop/t: spec.loadBalancer.algorithm: unknown variant `RoundRobbin`, expected one of `PeakEwma`, `LeastRequest`, `RoundRobin`, `Random` (did you mean \"RoundRobin\"?)",
        ),
        (
            format!("{traffic}  connectTimeout: 5\n"),
            "error: shop.yaml:1: TrafficPolicy shop/t: spec.connectTimeout: invalid type: integer `5`, expected a string (put it in quotes)",
        ),
        (
            format!("{traffic}  retryBudget: {{percent: 200}}\n"),
            "error: shop.yaml:1: TrafficPolicy shop/t: spec.retryBudget.percent: 200 percent: expected 0 to 100",
        ),
        (
            format!("{mtls}  targetRefs: [{{kind: Deploymnet, name: web}}]\n"),
            "error: shop.yaml:1: MutualTLSPolicy shop/m: spec.targetRefs[0].kind: \"Deploymnet\" is none of Namespace, Deployment, StatefulSet, DaemonSet, Pod, Service (did you mean \"Deployment\"?)",
        ),
        (
            format!("{mtls}  targetRefs: [{{kind: Namespace, name: other}}]\n"),
            "error: shop.yaml:1: MutualTLSPolicy shop/m: spec.targetRefs[0].name: a policy is about its own namespace shop, not other",
        ),
        (
            format!("{mtls}  targetRefs: [{{kind: Pod, name: web}}]\n  allowedIdentities: ['*']\n"),
            "error: shop.yaml:1: MutualTLSPolicy shop/m: spec.allowedIdentities[0]: \"*\" is not a valid identity pattern: expected spiffe://<trust-domain>/ns/<namespace|*>/sa/<service-account|*>",
        ),
    ];
    let wrong: Vec<_> = table
        .iter()
        .map(|(text, problem)| (problems(text), vec![(*problem).to_owned()]))
        .filter(|(a, b)| a != b)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_field_deep_down() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {}\n  template:\n    spec:\n      \
                containers:\n      - name: web\n        enviroment: []\n";
    assert_eq!(
        problems(text),
        [
            "warning: shop.yaml:1: Deployment default/web: spec.template.spec.containers[0].enviroment: there is no such field; it is ignored"
        ]
    );
    assert_eq!(objects(text), ["1:Deployment default/web"]);
}

#[test]
fn one_bad_object_leaves_the_others() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: 1\n";
    let parsed = read(text);
    assert_eq!(objects(text), ["1:Pod default/a"]);
    assert_eq!(parsed.broken, [(Kind::Pod, ObjectKey::new("default", "b"))]);
    assert!(!parsed.unreadable);
}

#[test]
fn bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = format!("*a{},", i - 1).repeat(10);
        bomb.push_str(&format!("a{i}: &a{i} [{before}]\n"));
    }
    let deep = "[".repeat(1000);
    let long = format!("a: {}", "x".repeat(MAX_FILE_BYTES));
    for (text, reason) in [
        (bomb, "repetition limit exceeded"),
        (deep, "nested"),
        (long, "larger than 4 MiB"),
    ] {
        let parsed = read(&text);
        assert!(parsed.unreadable && parsed.objects.is_empty());
        let problem = parsed.problems[0].to_string();
        assert!(
            problem.contains(reason) || problem.contains("limit exceeded"),
            "{problem}"
        );
    }
    let repeated = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(40));
    assert!(
        read(&repeated).problems[0]
            .reason
            .contains("16 MiB of text"),
        "{:?}",
        read(&repeated).problems
    );
}
