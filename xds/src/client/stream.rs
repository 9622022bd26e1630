//! The client's task: one delta stream after the other, for as long as somebody holds the client.
//!
//! What is asked for comes from the shared [`super::table`], what is answered goes there. Between streams it waits with
//! jittered exponential backoff; what is in the table stays in force meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::table::Table;
use crate::convert::{TRUST_BUNDLE, USER_AGENT};
use crate::{TypeUrl, wire};

/// First wait after a stream failed.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait, before jitter.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one: the next wait is the shortest again.
const GOOD_STREAM: Duration = Duration::from_secs(5);
/// The largest response, in bytes: one backend may have ten thousand endpoints.
const MAX_RESPONSE: usize = 64 << 20;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of the reasons a refusal tells, in bytes.
const MAX_REASON: usize = 4096;
/// Idle resources are looked for no more often.
const MIN_SWEEP: Duration = Duration::from_millis(10);
/// Requests on their way.
const QUEUE: usize = 16;

/// Runs until the last handle is gone.
pub(super) async fn run<F>(table: Arc<Table>, connect: F, mut alive: watch::Receiver<()>)
where
    F: Fn() -> Channel + Send + Sync + 'static,
{
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let end = tokio::select! {
            end = stream(&table, connect()) => end,
            () = gone(&mut alive) => return,
        };
        failures = if begun.elapsed() >= GOOD_STREAM {
            0
        } else {
            failures
        };
        let wait = backoff(failures);
        failures = failures.saturating_add(1);
        // `message` is empty where a transport failed without one.
        tracing::warn!(code = ?end.code(), reason = end.message(), ?wait, "the stream to the control plane ended");
        table.disconnected(format!("{:?}: {}", end.code(), end.message()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = gone(&mut alive) => return,
        }
    }
}

/// Nothing is ever sent on the channel: it ends when the last sender is dropped.
pub(super) async fn gone(alive: &mut watch::Receiver<()>) {
    while alive.changed().await.is_ok() {}
}

/// Exponential, of which a random half is waited: many proxies shall not come back at once.
fn backoff(failures: u32) -> Duration {
    let full = MIN_BACKOFF
        .saturating_mul(1 << failures.min(16))
        .min(MAX_BACKOFF);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// One stream, to its end.
async fn stream(table: &Table, channel: Channel) -> Status {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let opened = tokio::time::timeout(OPEN_TIMEOUT, open(channel, receiver, table, &sender)).await;
    match opened.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(
            "the control plane does not answer",
        ))
    }) {
        Ok(mut responses) => {
            table.connected();
            tracing::info!("connected to the control plane");
            match follow(table, &sender, &mut responses).await {
                Ok(()) => Status::new(Code::Unavailable, "the control plane closed the stream"),
                Err(status) => status,
            }
        }
        Err(status) => status,
    }
}

/// The first requests are queued before the stream is open: a server may answer only when it has read one.
async fn open(
    channel: Channel,
    requests: mpsc::Receiver<wire::DeltaRequest>,
    table: &Table,
    sender: &mpsc::Sender<wire::DeltaRequest>,
) -> Result<Streaming<wire::DeltaResponse>, Status> {
    let mut node = Some(wire::Node {
        id: table.options.node_id.clone(),
        user_agent_name: USER_AGENT.to_owned(),
    });
    for (kind, names) in table.take_all() {
        let versions = names.iter().filter_map(|(name, version)| {
            let version = version.clone()?;
            Some((name.to_string(), version))
        });
        let request = wire::DeltaRequest {
            node: node.take(),
            type_url: kind.as_str().to_owned(),
            initial_resource_versions: versions.collect(),
            resource_names_subscribe: names.iter().map(|(name, _)| name.to_string()).collect(),
            ..Default::default()
        };
        send(sender, request).await?;
    }
    if node.is_some() {
        // Nothing is wanted yet; the trust bundle always will be, and a stream has to begin with something.
        let request = wire::DeltaRequest {
            node,
            type_url: TypeUrl::Secret.as_str().to_owned(),
            resource_names_subscribe: vec![TRUST_BUNDLE.to_owned()],
            initial_resource_versions: HashMap::new(),
            ..Default::default()
        };
        send(sender, request).await?;
    }
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE);
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(format!("the control plane is not reachable: {e}")))?;
    let path = PathAndQuery::from_static(wire::DELTA_PATH);
    let request = Request::new(ReceiverStream::new(requests));
    let response = grpc.streaming(request, path, ProstCodec::default()).await?;
    Ok(response.into_inner())
}

async fn send(
    sender: &mpsc::Sender<wire::DeltaRequest>,
    request: wire::DeltaRequest,
) -> Result<(), Status> {
    let closed = |_| Status::unavailable("the stream was closed");
    sender.send(request).await.map_err(closed)
}

async fn follow(
    table: &Table,
    sender: &mpsc::Sender<wire::DeltaRequest>,
    responses: &mut Streaming<wire::DeltaResponse>,
) -> Result<(), Status> {
    let mut sweep = tokio::time::interval((table.options.idle / 4).max(MIN_SWEEP));
    loop {
        tokio::select! {
            response = responses.message() => match response? {
                Some(response) => send(sender, apply(table, response)).await?,
                None => return Ok(()),
            },
            () = table.wishes_changed.notified() => {
                for (kind, wishes) in table.take_wishes() {
                    let request = wire::DeltaRequest {
                        type_url: kind.as_str().to_owned(),
                        resource_names_subscribe: wishes.subscribe.iter().map(ToString::to_string).collect(),
                        resource_names_unsubscribe: wishes.unsubscribe.iter().map(ToString::to_string).collect(),
                        ..Default::default()
                    };
                    send(sender, request).await?;
                }
            }
            _ = sweep.tick() => table.evict_idle(),
        }
    }
}

/// Takes over what is usable and makes the acknowledgement, or the refusal that names every field that is not.
fn apply(table: &Table, response: wire::DeltaResponse) -> wire::DeltaRequest {
    let mut reply = wire::DeltaRequest {
        type_url: response.type_url,
        response_nonce: response.nonce,
        ..Default::default()
    };
    let Some(kind) = TypeUrl::from_url(&reply.type_url) else {
        reply.error_detail = Some(refusal(format!("{:?} was not asked for", reply.type_url)));
        return reply;
    };
    table.confirm(kind);
    let mut errors = String::new();
    for resource in response.resources {
        let bytes = resource.resource.unwrap_or_default().value;
        if let Err(error) = table.apply(kind, &resource.name, resource.version, bytes) {
            tracing::warn!(%kind, name = resource.name, %error, "a resource is refused, the last good one stays");
            if errors.len() < MAX_REASON {
                let separator = if errors.is_empty() { "" } else { "; " };
                errors.extend([separator, &resource.name, ": ", &error.to_string()]);
            }
        }
    }
    for name in &response.removed_resources {
        table.remove(kind, name);
    }
    if !errors.is_empty() {
        reply.error_detail = Some(refusal(errors));
    }
    reply
}

fn refusal(message: String) -> wire::Status {
    wire::Status {
        code: Code::InvalidArgument.into(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_differ() {
        for (failures, full) in [
            (0, 100),
            (1, 200),
            (6, 6400),
            (7, 10_000),
            (u32::MAX, 10_000),
        ] {
            let wait = backoff(failures).as_millis();
            assert!((full / 2..=full).contains(&wait), "{failures}: {wait}");
        }
    }
}
