//! The table of who may have which identity.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::IpAddr;

use tonic::Code;
use weft_k8s::{AnyObject, Objects, Stored};
use weft_model::{TrustDomain, UnixMillis};

use super::{Refusal, authorize};
use crate::token::Bearer;

const UID: &str = "a12fa123-7ca8-43d7-b923-c8081e2503c3";

fn bearer() -> Bearer {
    Bearer {
        namespace: "shop".parse().unwrap(),
        service_account: "web".parse().unwrap(),
        pod: "web-0".parse().unwrap(),
        pod_uid: UID.into(),
    }
}

fn objects(edit: impl Fn(&mut serde_json::Value)) -> Objects {
    let mut pod = serde_json::json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": UID},
        "spec": {"serviceAccountName": "web", "containers": []},
        "status": {"phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd77::7"}]},
    });
    edit(&mut pod);
    let mut objects = Objects::default();
    objects.insert(AnyObject::Pod(std::sync::Arc::new(Stored {
        object: serde_json::from_value(pod).unwrap(),
        source: weft_k8s::Location::default(),
        changed_at: UnixMillis::default(),
    })));
    objects
}

fn ask(objects: &Objects, bearer: &Bearer, peer: &str) -> Result<String, Refusal> {
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    authorize(bearer, objects, peer.parse::<IpAddr>().unwrap(), &domain).map(|id| id.to_string())
}

#[test]
fn token_pod_and_address_agree() {
    for peer in ["10.244.0.7", "fd77::7", "::ffff:10.244.0.7"] {
        let id = ask(&objects(|_| {}), &bearer(), peer).unwrap();
        assert_eq!(id, "spiffe://cluster.local/ns/shop/sa/web");
    }
    let only_pod_ip = objects(|pod| drop(pod["status"].as_object_mut().unwrap().remove("podIPs")));
    assert!(ask(&only_pod_ip, &bearer(), "10.244.0.7").is_ok());
}

#[test]
fn each_disagreement_has_its_reason() {
    let at_home = "10.244.0.7";
    let refused = |objects: &Objects, bearer: &Bearer, peer: &str| {
        let refusal = ask(objects, bearer, peer).unwrap_err();
        (refusal.class(), refusal.may_pass())
    };
    let mut other_pod = bearer();
    other_pod.pod = "web-1".parse().unwrap();
    assert_eq!(
        refused(&objects(|_| {}), &other_pod, at_home),
        ((Code::Unavailable, "pod_unknown"), true)
    );
    let mut other_namespace = bearer();
    other_namespace.namespace = "bank".parse().unwrap();
    assert_eq!(
        refused(&objects(|_| {}), &other_namespace, at_home),
        ((Code::Unavailable, "pod_unknown"), true)
    );
    let mut earlier = bearer();
    earlier.pod_uid = "00000000-7ca8-43d7-b923-c8081e2503c3".into();
    assert_eq!(
        refused(&objects(|_| {}), &earlier, at_home),
        ((Code::PermissionDenied, "pod_replaced"), true)
    );
    let mut account = bearer();
    account.service_account = "admin".parse().unwrap();
    assert_eq!(
        refused(&objects(|_| {}), &account, at_home),
        ((Code::PermissionDenied, "pod_account"), false)
    );
    for peer in ["10.244.0.8", "127.0.0.1", "::1", "fd77::8"] {
        assert_eq!(
            refused(&objects(|_| {}), &bearer(), peer),
            ((Code::PermissionDenied, "pod_address"), false)
        );
    }
    let ended = objects(|pod| pod["status"]["phase"] = "Failed".into());
    assert_eq!(
        refused(&ended, &bearer(), at_home),
        ((Code::PermissionDenied, "pod_ended"), false)
    );
    let pending = objects(|pod| pod["status"] = serde_json::json!({"phase": "Pending"}));
    assert_eq!(
        refused(&pending, &bearer(), at_home),
        ((Code::Unavailable, "pod_without_address"), true)
    );
}

#[test]
fn a_pod_without_an_account_runs_as_default() {
    let objects = objects(|pod| pod["spec"] = serde_json::json!({"containers": []}));
    let mut default = bearer();
    default.service_account = "default".parse().unwrap();
    assert!(ask(&objects, &default, "10.244.0.7").is_ok());
    assert!(ask(&objects, &bearer(), "10.244.0.7").is_err());
}
