//! What a workload admits on its own ports.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{IdentityPattern, Meta, Protocol};

/// The policy of one port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundPort {
    /// The port that the application listens on.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Is mutual TLS required?
    pub mtls: MtlsMode,
    /// Who may connect with mutual TLS. Empty: every identity of the mesh's trust domain.
    #[serde(default)]
    pub allow: Vec<IdentityPattern>,
    /// Origin (a MutualTLSPolicy, or the default) and age.
    pub meta: Meta,
}

/// Is plaintext admitted?
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum MtlsMode {
    /// Only mutual TLS.
    #[default]
    Strict,
    /// Mutual TLS where the client offers it, else plaintext or the application's own TLS. With `allow` set, plaintext
    /// is refused all the same: it has no identity.
    Permissive,
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "Strict",
            Self::Permissive => "Permissive",
        })
    }
}
