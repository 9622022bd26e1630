//! A container's environment: `env`, `envFrom`, references to fields, resources, config maps and secrets, and the
//! `$(VAR)` expansion of values, command and arguments.
//!
//! Pure. What cannot be resolved yet is a [`NotYet`]: the container waits, as on Kubernetes, until the object is
//! there. Used by [`super::build`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use weft_k8s::{ObjectKey, Objects};

use super::quantity;

/// Why a container cannot be made for now; shown as the message of `CreateContainerConfigError`.
pub(crate) type NotYet = String;

/// What references resolve against.
pub(crate) struct Facts<'a> {
    /// The pod as it will run.
    pub(crate) pod: &'a Pod,
    /// Its addresses, IPv4 first.
    pub(crate) ips: &'a [IpAddr],
    /// The node's addresses, IPv4 first.
    pub(crate) host_ips: &'a [IpAddr],
    /// Config maps and secrets.
    pub(crate) objects: &'a Objects,
}

impl Facts<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// The value of a `fieldRef`, e.g. `metadata.labels['app']`.
    pub(crate) fn field(&self, path: &str) -> Result<String, NotYet> {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let list = |ips: &[IpAddr]| {
            ips.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
        if let Some((map, key)) = subscript(path) {
            let values = match map {
                "metadata.labels" => &meta.labels,
                "metadata.annotations" => &meta.annotations,
                _ => return Err(format!("fieldPath {path:?} is not supported")),
            };
            return Ok(values
                .as_ref()
                .and_then(|values| values.get(key))
                .cloned()
                .unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => meta.name.clone().unwrap_or_default(),
            "metadata.namespace" => self.namespace().to_owned(),
            "metadata.uid" => meta.uid.clone().unwrap_or_default(),
            "metadata.labels" => lines(meta.labels.as_ref()),
            "metadata.annotations" => lines(meta.annotations.as_ref()),
            "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
            "spec.serviceAccountName" => spec
                .and_then(|s| s.service_account_name.clone())
                .unwrap_or_else(|| "default".into()),
            "status.podIP" => first(self.ips),
            "status.podIPs" => list(self.ips),
            "status.hostIP" => first(self.host_ips),
            "status.hostIPs" => list(self.host_ips),
            _ => return Err(format!("fieldPath {path:?} is not supported")),
        })
    }

    /// A key of a config map.
    pub(crate) fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let stored = self
            .objects
            .config_maps
            .get(&ObjectKey::new(self.namespace(), name))?;
        let mut values = BTreeMap::new();
        for (key, value) in stored.object.data.iter().flatten() {
            values.insert(key.clone(), value.clone().into_bytes());
        }
        for (key, value) in stored.object.binary_data.iter().flatten() {
            values.insert(key.clone(), value.0.clone());
        }
        Some(values)
    }

    /// A key of a secret.
    pub(crate) fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let stored = self
            .objects
            .secrets
            .get(&ObjectKey::new(self.namespace(), name))?;
        let mut values = BTreeMap::new();
        for (key, value) in stored.object.data.iter().flatten() {
            values.insert(key.clone(), value.0.clone());
        }
        for (key, value) in stored.object.string_data.iter().flatten() {
            values.insert(key.clone(), value.clone().into_bytes());
        }
        Some(values)
    }
}

/// `metadata.labels['app']` as its map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?.trim_matches(['\'', '"']);
    Some((map, key))
}

/// A map as the downward API writes it: one `key="value"` a line, quoted and escaped.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        let _ = writeln!(text, "{key}={value:?}");
    }
    text
}

/// The variables a container gets, in order of definition; later ones win.
pub(crate) fn environment(
    container: &Container,
    facts: &Facts<'_>,
) -> Result<Vec<(String, String)>, NotYet> {
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let found = if let Some(reference) = &source.config_map_ref {
            optional(
                facts.config_map(&reference.name),
                reference.optional,
                || format!("configmap {:?} not found", reference.name),
            )?
        } else if let Some(reference) = &source.secret_ref {
            optional(facts.secret(&reference.name), reference.optional, || {
                format!("secret {:?} not found", reference.name)
            })?
        } else {
            None
        };
        for (key, value) in found.into_iter().flatten() {
            variables.set(
                &format!("{prefix}{key}"),
                String::from_utf8_lossy(&value).into_owned(),
            );
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, container, facts, &variables)? {
            variables.set(&variable.name, value);
        }
    }
    Ok(variables.0)
}

fn value_of(
    variable: &EnvVar,
    container: &Container,
    facts: &Facts<'_>,
    variables: &Variables,
) -> Result<Option<String>, NotYet> {
    match &variable.value_from {
        Some(source) => {
            referenced(source, container, facts).map_err(|e| format!("env {}: {e}", variable.name))
        }
        None => Ok(Some(expand(
            variable.value.as_deref().unwrap_or_default(),
            &variables.0,
        ))),
    }
}

fn referenced(
    source: &EnvVarSource,
    container: &Container,
    facts: &Facts<'_>,
) -> Result<Option<String>, NotYet> {
    let key_of = |found: Option<BTreeMap<String, Vec<u8>>>,
                  key: &str,
                  is_optional: Option<bool>,
                  what: String| {
        let value = found.and_then(|mut values| values.remove(key));
        optional(value, is_optional, || {
            format!("{what} has no key {key:?}, or is missing")
        })
        .map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    if let Some(field) = &source.field_ref {
        return facts.field(&field.field_path).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let found = facts.config_map(&reference.name);
        return key_of(
            found,
            &reference.key,
            reference.optional,
            format!("configmap {:?}", reference.name),
        );
    }
    if let Some(reference) = &source.secret_key_ref {
        let found = facts.secret(&reference.name);
        return key_of(
            found,
            &reference.key,
            reference.optional,
            format!("secret {:?}", reference.name),
        );
    }
    if let Some(reference) = &source.resource_field_ref {
        let owner = reference.container_name.as_deref();
        let spec = facts.pod.spec.as_ref();
        let other = owner.and_then(|name| spec?.containers.iter().find(|c| c.name == name));
        let divisor = reference.divisor.as_ref().map(|q| q.0.as_str());
        return quantity::resource(other.unwrap_or(container), &reference.resource, divisor)
            .map(Some);
    }
    Err("valueFrom of this kind is not supported".into())
}

fn optional<T>(
    value: Option<T>,
    is_optional: Option<bool>,
    missing: impl FnOnce() -> String,
) -> Result<Option<T>, NotYet> {
    match value {
        None if is_optional != Some(true) => Err(missing()),
        value => Ok(value),
    }
}

/// An environment under construction.
#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }
}

/// Replaces `$(NAME)` where the name is known; `$$` stands for `$`, and anything else stays (Kubernetes'
/// third_party/forked/golang/expansion).
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expansion_follows_kubernetes() {
        let variables = vec![
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ];
        for (text, expected) in [
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C) $A $ $(A", "$(C) $A $ $(A"),
            ("", ""),
            ("tail$", "tail$"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let config: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(
            json!({"metadata": {"name": "settings", "namespace": "shop"}, "data": {"COLOUR": "red", "SIZE": "$(X)"}}),
        )
        .unwrap();
        objects.config_maps.insert(
            ObjectKey::new("shop", "settings"),
            std::sync::Arc::new(stored(config)),
        );
        objects
    }

    fn stored<T>(object: T) -> weft_k8s::Stored<T> {
        weft_k8s::Stored {
            object,
            source: weft_k8s::Location::default(),
            changed_at: weft_model::UnixMillis(0),
        }
    }

    fn environment_of(
        env: &serde_json::Value,
        env_from: &serde_json::Value,
    ) -> Result<Vec<(String, String)>, NotYet> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "env": env, "envFrom": env_from,
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]},
        }))
        .unwrap();
        let ips = [
            "10.244.1.2".parse().unwrap(),
            "fd77:77:1::2".parse().unwrap(),
        ];
        let objects = objects();
        let facts = Facts {
            pod: &pod,
            ips: &ips,
            host_ips: &["10.244.1.1".parse().unwrap()],
            objects: &objects,
        };
        environment(&pod.spec.as_ref().unwrap().containers[0], &facts)
    }

    #[test]
    fn references_resolve() {
        let env = json!([
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOUR"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "x", "optional": true}}},
            {"name": "ALL", "value": "$(NAME).$(APP) $(NONE)"},
        ]);
        let found = environment_of(
            &env,
            &json!([{"prefix": "P_", "configMapRef": {"name": "settings"}}]),
        )
        .unwrap();
        let expected = [
            ("P_COLOUR", "red"),
            ("P_SIZE", "$(X)"),
            ("NAME", "web-0"),
            ("IPS", "10.244.1.2,fd77:77:1::2"),
            ("APP", "web"),
            ("CPU", "2"),
            ("MEM", "64"),
            ("C", "red"),
            ("ALL", "web-0.web $(NONE)"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing =
            environment_of(&json!([]), &json!([{"secretRef": {"name": "db"}}])).unwrap_err();
        assert_eq!(missing, "secret \"db\" not found");
        let env = json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "nope"}}}]);
        assert!(
            environment_of(&env, &json!([]))
                .unwrap_err()
                .contains("env X: configmap \"settings\" has no key \"nope\"")
        );
        let env = json!([{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]);
        assert!(
            environment_of(&env, &json!([]))
                .unwrap_err()
                .contains("not supported")
        );
    }
}
