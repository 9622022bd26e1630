//! Does the bearer of a token have the identity that it claims? A pure function over the objects as they are now.

use std::net::IpAddr;

use weft_k8s::{ObjectKey, Objects};
use weft_model::{SpiffeId, TrustDomain, WorkloadKey};

use super::Refusal;
use crate::token::Bearer;

/// The pod of the token must exist, be the very same one, run under the token's account and own the address that the
/// call comes from. There is no exception for loopback: a pod that calls from there has it in its status.
pub fn authorize(
    bearer: &Bearer,
    objects: &Objects,
    peer: IpAddr,
    trust_domain: &TrustDomain,
) -> Result<SpiffeId, Refusal> {
    let pod = WorkloadKey {
        namespace: bearer.namespace.clone(),
        name: bearer.pod.clone(),
    };
    let key = ObjectKey::new(bearer.namespace.as_str(), bearer.pod.as_str());
    let Some(stored) = objects.pods.get(&key) else {
        return Err(Refusal::PodUnknown(pod));
    };
    let object = &stored.object;
    // Pods of the API server and of the local runner have a UID; one from a hand-written file has none to compare.
    if let Some(uid) = object
        .metadata
        .uid
        .as_ref()
        .filter(|uid| **uid != bearer.pod_uid)
    {
        return Err(Refusal::PodReplaced {
            pod,
            token: bearer.pod_uid.clone(),
            actual: uid.clone(),
        });
    }
    let status = object.status.as_ref();
    if matches!(
        status.and_then(|s| s.phase.as_deref()),
        Some("Succeeded" | "Failed")
    ) {
        return Err(Refusal::PodEnded(pod));
    }
    let account = object
        .spec
        .as_ref()
        .and_then(|s| s.service_account_name.as_deref());
    let account = account.filter(|a| !a.is_empty()).unwrap_or("default");
    if account != bearer.service_account.as_str() {
        return Err(Refusal::OtherAccount {
            pod,
            token: bearer.service_account.to_string(),
            actual: account.to_owned(),
        });
    }
    let addresses: Vec<IpAddr> = status
        .into_iter()
        .flat_map(|s| {
            let all = s.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
            all.chain(s.pod_ip.as_deref())
        })
        .filter_map(|ip| ip.parse().ok())
        .collect();
    if addresses.is_empty() {
        return Err(Refusal::NoAddress(pod));
    }
    let peer = peer.to_canonical(); // a dual-stack listener shows IPv4 callers as ::ffff:a.b.c.d
    if !addresses.contains(&peer) {
        let addresses = addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(Refusal::OtherAddress {
            pod,
            peer,
            addresses,
        });
    }
    Ok(SpiffeId {
        trust_domain: trust_domain.clone(),
        namespace: bearer.namespace.clone(),
        service_account: bearer.service_account.clone(),
    })
}
