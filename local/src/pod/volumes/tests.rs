//! Tables on the plan, and its execution in a temporary directory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};
use weft_k8s::{Location, ObjectKey, Objects, Stored};

use super::*;

fn objects() -> Objects {
    let mut objects = Objects::default();
    let stored = |value: Value| Stored {
        object: serde_json::from_value(value).unwrap(),
        source: Location::default(),
        changed_at: weft_model::UnixMillis(0),
    };
    let config = stored(json!({"metadata": {"name": "conf"}, "data": {"a": "1", "b": "2"}}));
    objects
        .config_maps
        .insert(ObjectKey::new("default", "conf"), Arc::new(config));
    objects
}

fn places(root: &Path) -> Places {
    Places {
        volumes: root.join("v"),
        memory: root.join("m"),
        claims: root.join("c"),
    }
}

fn planned(root: &Path, volumes: &Value) -> Result<Vec<Plan>, NotYet> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "x"}},
        "spec": {"containers": [], "volumes": volumes},
    }))
    .unwrap();
    let objects = objects();
    plan(
        &Facts {
            pod: &pod,
            ips: &[],
            host_ips: &[],
            objects: &objects,
        },
        &places(root),
    )
}

fn no_token(_: Option<&str>, _: i64) -> io::Result<String> {
    Err(io::Error::other("no token expected"))
}

#[test]
fn each_kind_has_its_place() {
    let plans = planned(
        Path::new("/r"),
        &json!([
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "h", "hostPath": {"path": "/etc"}},
            {"name": "p", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "c", "configMap": {"name": "conf", "items": [{"key": "b", "path": "sub/b.txt", "mode": 256}]}},
        ]),
    )
    .unwrap();
    let paths: Vec<_> = plans.iter().map(|p| p.path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["/r/v/e", "/r/m/m", "/etc", "/r/c/default_data", "/r/v/c"]
    );
    let item = Item {
        path: "sub/b.txt".into(),
        mode: 0o400,
        data: Data::Bytes(b"2".to_vec()),
    };
    assert_eq!(plans[4].content, Content::Files(vec![item]));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    for (volume, expected) in [
        (
            json!({"name": "x", "secret": {"secretName": "s"}}),
            "volume x: secret \"s\" not found",
        ),
        (
            json!({"name": "x", "configMap": {"name": "conf", "items": [{"key": "z", "path": "z"}]}}),
            "no key \"z\"",
        ),
        (
            json!({"name": "x", "configMap": {"name": "conf", "items": [{"key": "a", "path": "../a"}]}}),
            "relative",
        ),
        (
            json!({"name": "x", "nfs": {"server": "a", "path": "/"}}),
            "not supported",
        ),
    ] {
        let error = planned(Path::new("/r"), &json!([volume])).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let optional = json!([{"name": "x", "secret": {"secretName": "s", "optional": true}}]);
    assert_eq!(
        planned(Path::new("/r"), &optional).unwrap()[0].content,
        Content::Files(vec![])
    );
}

#[test]
fn projected_sources_are_merged_and_tokens_made_when_written() {
    let directory = tempfile::tempdir().unwrap();
    let plans = planned(
        directory.path(),
        &json!([{"name": "all", "projected": {"sources": [
            {"configMap": {"name": "conf"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "weft-ca", "expirationSeconds": 600}},
        ]}}]),
    )
    .unwrap();
    assert_eq!(shortest_token(&plans), Some(600));
    write(&plans[0], None, &|audience, seconds| {
        Ok(format!("{audience:?} {seconds}"))
    })
    .unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join("v/all").join(name)).unwrap();
    assert_eq!(
        (read("a"), read("labels")),
        ("1".into(), "app=\"x\"\n".into())
    );
    assert_eq!(read("token"), "Some(\"weft-ca\") 600");
    assert!(write(&plans[0], None, &no_token).is_err());
}

#[test]
fn mounts_are_ordered_and_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let plans = planned(
        directory.path(),
        &json!([{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "conf"}}]),
    )
    .unwrap();
    for plan in &plans {
        write(plan, None, &no_token).unwrap();
    }
    let container = |mounts: Value| -> Container {
        serde_json::from_value(json!({"name": "c", "volumeMounts": mounts})).unwrap()
    };
    let both = container(json!([
        {"name": "c", "mountPath": "/data/conf"},
        {"name": "e", "mountPath": "/data", "subPathExpr": "of/$(POD)"},
    ]));
    let binds = mounts(&both, &plans, &[("POD".into(), "p".into())]).unwrap();
    assert_eq!(binds[0].target, Path::new("/data"));
    assert!(
        binds[0].source.ends_with("v/e/of/p") && binds[0].source.is_dir() && !binds[0].read_only
    );
    assert!(binds[1].read_only);
    for bad in [
        json!([{"name": "nope", "mountPath": "/x"}]),
        json!([{"name": "e", "mountPath": "/x", "subPath": "../y"}]),
    ] {
        assert!(mounts(&container(bad), &plans, &[]).is_err());
    }
}
