//! Every manifest below `examples/` is YAML of known kinds, and what it refers to is there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::Value;

const KINDS: [(&str, &str); 12] = [
    ("v1", "Namespace"),
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"),
    ("weft.dev/v1alpha1", "TrafficPolicy"),
    ("weft.dev/v1alpha1", "MutualTLSPolicy"),
];

/// All objects of one example, and what is wrong with them.
struct Example {
    objects: Vec<(PathBuf, Value)>,
    wrong: String,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').try_fold(value, |value, key| value.get(key))
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    at(value, path)
        .and_then(Value::as_sequence)
        .into_iter()
        .flatten()
}

fn yaml_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            found.push(path);
        }
    }
}

impl Example {
    fn read(directory: &Path) -> Self {
        let mut files = Vec::new();
        yaml_files(directory, &mut files);
        assert!(
            !files.is_empty(),
            "no manifests below {}",
            directory.display()
        );
        let mut example = Self {
            objects: Vec::new(),
            wrong: String::new(),
        };
        for file in files {
            let source = std::fs::read_to_string(&file).unwrap();
            for document in serde_yaml::Deserializer::from_str(&source) {
                match Value::deserialize(document) {
                    Ok(object) => example.objects.push((file.clone(), object)),
                    Err(error) => writeln!(example.wrong, "{}: {error}", file.display()).unwrap(),
                }
            }
        }
        example
    }

    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects
            .iter()
            .map(|(_, object)| object)
            .find(|object| {
                text(object, "kind") == kind
                    && text(object, "metadata/namespace") == namespace
                    && text(object, "metadata/name") == name
            })
    }

    fn templates(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.objects
            .iter()
            .filter_map(|(_, object)| Some((object, at(object, "spec/template")?)))
    }

    fn check(mut self) -> String {
        let mut wrong = String::new();
        let mut seen = BTreeSet::new();
        for (file, object) in &self.objects {
            let (kind, name) = (text(object, "kind"), text(object, "metadata/name"));
            let namespace = text(object, "metadata/namespace");
            let mut complain = |what: String| {
                writeln!(
                    wrong,
                    "{}: {kind} {namespace}/{name}: {what}",
                    file.display()
                )
                .unwrap();
            };
            if !KINDS.contains(&(text(object, "apiVersion"), kind)) {
                complain("an unknown apiVersion and kind".into());
            }
            if !seen.insert((kind, namespace, name)) {
                complain("is there twice".into());
            }
            if kind != "Namespace" && self.find("Namespace", "", namespace).is_none() {
                complain("its namespace is not among the manifests".into());
            }
            match kind {
                "Deployment" | "StatefulSet" | "Job" => self.check_workload(object, &mut complain),
                "Service" => self.check_service(object, &mut complain),
                "HTTPRoute" | "GRPCRoute" => self.check_route(object, &mut complain),
                "TrafficPolicy" | "MutualTLSPolicy" => {
                    for target in list(object, "spec/targetRefs") {
                        let (kind, name) = (text(target, "kind"), text(target, "name"));
                        if self.find(kind, namespace, name).is_none() {
                            complain(format!("its target {kind} {name} is not there"));
                        }
                    }
                }
                _ => {}
            }
        }
        self.wrong += &wrong;
        self.wrong
    }

    fn check_workload(&self, object: &Value, complain: &mut impl FnMut(String)) {
        let namespace = text(object, "metadata/namespace");
        let labels = at(object, "spec/template/metadata/labels");
        if !selects(at(object, "spec/selector/matchLabels"), labels) {
            complain("its selector does not select its own template".into());
        }
        let account = text(object, "spec/template/spec/serviceAccountName");
        if self.find("ServiceAccount", namespace, account).is_none() {
            complain(format!("its service account {account:?} is not there"));
        }
        let mut volumes = BTreeSet::new();
        for volume in list(object, "spec/template/spec/volumes") {
            volumes.insert(text(volume, "name"));
            let map = text(volume, "configMap/name");
            if !map.is_empty() && self.find("ConfigMap", namespace, map).is_none() {
                complain(format!("its ConfigMap {map} is not there"));
            }
        }
        let containers = list(object, "spec/template/spec/containers");
        for container in list(object, "spec/template/spec/initContainers").chain(containers) {
            let name = text(container, "name");
            // Local mode runs the command and keeps the image as a label.
            if list(container, "command").next().is_none() {
                complain(format!("container {name} has no command"));
            }
            for mount in list(container, "volumeMounts") {
                if !volumes.contains(text(mount, "name")) {
                    complain(format!(
                        "container {name} mounts a volume that is not there"
                    ));
                }
            }
        }
    }

    fn check_service(&self, object: &Value, complain: &mut impl FnMut(String)) {
        let namespace = text(object, "metadata/namespace");
        let selected: Vec<_> = self
            .templates()
            .filter(|(owner, _)| text(owner, "metadata/namespace") == namespace)
            .filter(|(_, t)| selects(at(object, "spec/selector"), at(t, "metadata/labels")))
            .collect();
        if selected.is_empty() {
            complain("selects nothing".into());
        }
        for port in list(object, "spec/ports") {
            let target = text(port, "targetPort");
            let named = |template: &Value| {
                list(template, "spec/containers")
                    .flat_map(|c| list(c, "ports"))
                    .any(|p| text(p, "name") == target)
            };
            if !target.is_empty() && !selected.iter().all(|(_, template)| named(template)) {
                complain(format!(
                    "not every pod it selects has a port named {target}"
                ));
            }
        }
    }

    fn check_route(&self, object: &Value, complain: &mut impl FnMut(String)) {
        let namespace = text(object, "metadata/namespace");
        let backends = list(object, "spec/rules").flat_map(|rule| list(rule, "backendRefs"));
        for reference in list(object, "spec/parentRefs").chain(backends) {
            let (name, port) = (text(reference, "name"), reference.get("port"));
            let has_port = |service| {
                port.is_none() || list(service, "spec/ports").any(|p| p.get("port") == port)
            };
            if !self.find("Service", namespace, name).is_some_and(has_port) {
                complain(format!(
                    "refers to Service {name}, port {port:?}, which is not there"
                ));
            }
        }
    }
}

fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let Some(Value::Mapping(selector)) = selector else {
        return false;
    };
    selector
        .iter()
        .all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
}

#[test]
fn every_example_is_whole() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let wrong = Example::read(&path).check();
            assert!(wrong.is_empty(), "{wrong}");
            checked += 1;
        }
    }
    assert!(checked > 0);
}
