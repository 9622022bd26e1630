//! The two variants of the protocol on the wire: delta, and state of the world.

use super::peer::Peer;
use super::session::{Change, Protocol, Request, Response};
use crate::wire;

/// Incremental: every resource with its own version, removals by name.
pub(super) struct Delta;

impl Protocol for Delta {
    type Request = wire::DeltaRequest;
    type Response = wire::DeltaResponse;
    const DELTA: bool = true;

    fn read(request: wire::DeltaRequest) -> Request {
        Request {
            node: request.node,
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail,
            change: Change::Delta {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                initial: request.initial_resource_versions,
            },
        }
    }

    fn write(response: Response, peer: &Peer) -> wire::DeltaResponse {
        let resources = response
            .resources
            .into_iter()
            .map(|(name, entry)| wire::Resource {
                version: entry.version().to_string(),
                resource: Some(entry.encoded(peer.flavour).clone()),
                name: name.to_string(),
            });
        wire::DeltaResponse {
            system_version_info: response.version.to_string(),
            resources: resources.collect(),
            type_url: response.kind.as_str().to_owned(),
            nonce: response.nonce,
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Every response says all there is of a type (listeners, clusters), or some of it (the others).
pub(super) struct Sotw;

impl Protocol for Sotw {
    type Request = wire::SotwRequest;
    type Response = wire::SotwResponse;
    const DELTA: bool = false;

    fn read(request: wire::SotwRequest) -> Request {
        Request {
            node: request.node,
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail,
            change: Change::Sotw(request.resource_names),
        }
    }

    fn write(response: Response, peer: &Peer) -> wire::SotwResponse {
        let resources = response.resources.iter();
        wire::SotwResponse {
            version_info: response.version.to_string(),
            resources: resources
                .map(|(_, e)| e.encoded(peer.flavour).clone())
                .collect(),
            type_url: response.kind.as_str().to_owned(),
            nonce: response.nonce,
        }
    }
}
