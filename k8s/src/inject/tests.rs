//! Golden files of injected pods, and what holds for all of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::format_collect, clippy::format_push_string)] // tests may be simple

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn enabled(name: &str) -> NamespaceInfo {
    NamespaceInfo {
        name: name.into(),
        labels: BTreeMap::from([(INJECT.to_owned(), "enabled".to_owned())]),
        annotations: BTreeMap::new(),
    }
}

fn shapes() -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/inject");
    let all = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path());
    let mut shapes: Vec<PathBuf> = all
        .filter(|p| p.to_str().unwrap().ends_with(".in.yaml"))
        .collect();
    shapes.sort();
    shapes
}

/// Every document of a shape, injected; outcomes and errors as comments before it.
fn render(text: &str) -> String {
    let mut rendered = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut document: serde_yaml::Value = serde::Deserialize::deserialize(document).unwrap();
        let mut out = String::new();
        match inject_document(&mut document, &enabled, &InjectConfig::default()) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    out.push_str(&format!("# {}: {:?}\n", outcome.object, outcome.decision));
                    outcome
                        .warnings
                        .iter()
                        .for_each(|w| out.push_str(&format!("# {w}\n")));
                }
                out.push_str(&serde_yaml::to_string(&document).unwrap());
            }
            Err(errors) => errors
                .iter()
                .for_each(|e| out.push_str(&format!("# {e}\n"))),
        }
        rendered.push(out);
    }
    rendered.join("---\n")
}

#[test]
fn golden_files() {
    let shapes = shapes();
    assert!(shapes.len() >= 10, "{shapes:?}");
    for shape in shapes {
        let golden = PathBuf::from(shape.to_str().unwrap().replace(".in.yaml", ".out.yaml"));
        let rendered = render(&std::fs::read_to_string(&shape).unwrap());
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&golden, &rendered).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(
            rendered,
            expected,
            "{} (UPDATE_GOLDENS=1 writes it anew)",
            shape.display()
        );
    }
}

#[test]
fn twice_is_once() {
    for shape in shapes() {
        let once = render(&std::fs::read_to_string(&shape).unwrap());
        let documents = |text: &str| -> Vec<serde_yaml::Value> {
            serde_yaml::Deserializer::from_str(text)
                .map(|d| serde::Deserialize::deserialize(d).unwrap())
                .collect()
        };
        assert_eq!(
            documents(&once),
            documents(&render(&once)),
            "{}",
            shape.display()
        );
    }
}

#[test]
fn tree_and_type_agree() {
    for shape in shapes() {
        for document in
            serde_yaml::Deserializer::from_str(&std::fs::read_to_string(&shape).unwrap())
        {
            let mut tree: serde_yaml::Value = serde::Deserialize::deserialize(document).unwrap();
            if tree["kind"] != "Pod" {
                continue;
            }
            let typed: PodTemplateSpec = serde_yaml::from_value(tree.clone()).unwrap();
            let namespace = enabled(tree["metadata"]["namespace"].as_str().unwrap_or("default"));
            let Ok(injected) = inject(&typed, &namespace, &InjectConfig::default()) else {
                continue;
            };
            inject_document(&mut tree, &enabled, &InjectConfig::default()).unwrap();
            assert_eq!(
                injected.template,
                serde_yaml::from_value(tree).unwrap(),
                "{}",
                shape.display()
            );
        }
    }
}

#[test]
fn who_decides() {
    let pod = |labels: &str, annotations: &str| -> PodTemplateSpec {
        let metadata = format!("{{labels: {{{labels}}}, annotations: {{{annotations}}}}}");
        serde_yaml::from_str(&format!(
            "metadata: {metadata}\nspec: {{containers: [{{name: app}}]}}"
        ))
        .unwrap()
    };
    let (on, off) = ("weft.dev/inject: enabled", "weft.dev/inject: disabled");
    let plain = |name: &str| NamespaceInfo {
        name: name.into(),
        ..NamespaceInfo::default()
    };
    for (namespace, labels, annotations, injected) in [
        (enabled("shop"), "", "", true),
        (plain("shop"), "", "", false),
        (plain("shop"), on, "", true),
        (plain("shop"), "", on, true),
        (enabled("shop"), off, "", false),
        (enabled("shop"), "", off, false),
        (enabled("shop"), on, off, false),
        (enabled("kube-system"), on, "", false),
        (enabled("weft-system"), on, "", false),
        (enabled("shop"), "weft.dev/inject: \"true\"", "", true),
    ] {
        let result = inject(
            &pod(labels, annotations),
            &namespace,
            &InjectConfig::default(),
        )
        .unwrap();
        assert_eq!(
            result.decision == Decision::Injected,
            injected,
            "{namespace:?} {labels} {annotations}"
        );
    }
    let warned = inject(
        &pod("weft.dev/inject: enable", ""),
        &enabled("shop"),
        &InjectConfig::default(),
    )
    .unwrap();
    let warnings: Vec<String> = warned.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "warning: Pod shop/*: metadata.labels[weft.dev/inject]: \"enable\" cannot be used; it is ignored (did you mean \"enabled\"?)"
        ]
    );
}

proptest! {
    #[test]
    fn any_pod_injected_twice_is_injected_once(
        containers in prop::collection::vec("[a-z]{1,8}", 1..4),
        inits in prop::collection::vec("[a-z]{1,8}|weft-init|weft-proxy", 0..4),
        volumes in prop::collection::vec("[a-z]{1,8}|weft-state", 0..4),
        annotations in prop::collection::btree_map("weft.dev/(workers|skip-inbound-ports|access-log|nonsense)", "[0-9a-z,-]{0,6}", 0..4),
    ) {
        let named = |names: &[String]| names.iter().map(|n| serde_json::json!({"name": n})).collect::<Vec<_>>();
        let template: PodTemplateSpec = serde_json::from_value(serde_json::json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": named(&containers), "initContainers": named(&inits), "volumes": named(&volumes)},
        })).unwrap();
        let once = inject(&template, &enabled("shop"), &InjectConfig::default()).unwrap();
        let twice = inject(&once.template, &enabled("shop"), &InjectConfig::default()).unwrap();
        prop_assert_eq!(&once, &twice);
        let spec = once.template.spec.unwrap();
        let names: Vec<String> = spec.init_containers.unwrap().into_iter().map(|c| c.name).collect();
        prop_assert_eq!(&names[..2], &["weft-init", "weft-proxy"]);
        prop_assert_eq!(spec.containers.len(), containers.len());
    }
}
