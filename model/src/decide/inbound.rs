//! Inbound: may this peer talk to this port?

use super::{Reason, Refusal, Trace, Verdict};
use crate::{IdentityPattern, InboundPort, MtlsMode, SpiffeId};

/// What is known of a connection that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    /// It finished a mutual TLS handshake of the mesh with this identity.
    Authenticated(&'a SpiffeId),
    /// It sent plaintext, or TLS that is meant for the application.
    Plaintext,
}

/// Judges a connection. Called when it arrives, and again when policy or trust changes.
pub fn connection(
    policy: &InboundPort,
    peer: Peer<'_>,
    trace: &mut impl Trace,
) -> Result<(), Refusal> {
    let refuse = |reason: Reason, trace: &mut _| {
        Trace::step(trace, &policy.meta.origin, Verdict::Refused, || {
            reason.to_string()
        });
        Err(Refusal::new(reason, &policy.meta))
    };
    match peer {
        Peer::Plaintext if policy.mtls == MtlsMode::Strict => {
            refuse(Reason::PlaintextRefused, trace)
        }
        Peer::Plaintext if !policy.allow.is_empty() => refuse(Reason::IdentityRefused, trace),
        Peer::Authenticated(id)
            if !policy.allow.is_empty() && !policy.allow.iter().any(|p| p.matches(id)) =>
        {
            refuse(Reason::IdentityRefused, trace)
        }
        _ => {
            trace.step(&policy.meta.origin, Verdict::Matched, || {
                admitted(policy, peer)
            });
            Ok(())
        }
    }
}

fn admitted(policy: &InboundPort, peer: Peer<'_>) -> String {
    match peer {
        Peer::Plaintext => format!("plaintext is admitted, mode {}", policy.mtls),
        Peer::Authenticated(id) => match policy.allow.iter().find(|p| p.matches(id)) {
            Some(pattern) => format!("{id} is admitted by {pattern}"),
            None => format!("{id} is admitted, as every identity of the mesh is"),
        },
    }
}

/// May the port's TLS connections be meant for the application itself? If not, every TLS hello is the mesh's.
pub fn may_be_app_tls(policy: &InboundPort) -> bool {
    policy.mtls == MtlsMode::Permissive && !policy.protocol.is_http()
}

/// The patterns as text, for certificates' checks in other proxies.
pub fn allowed(policy: &InboundPort) -> impl Iterator<Item = String> + '_ {
    policy.allow.iter().map(IdentityPattern::to_string)
}
