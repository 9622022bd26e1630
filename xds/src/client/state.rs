//! What the client says of itself on the admin port.

use serde::Serialize;
use weft_model::UnixMillis;

use crate::TypeUrl;

/// The client as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientState {
    /// `<pod>.<namespace>`.
    pub node_id: String,
    /// Is there a stream that the server has answered on?
    pub connected: bool,
    /// Since when it is as `connected` says.
    pub since: UnixMillis,
    /// Why the last stream or attempt ended.
    pub last_error: Option<String>,
    /// Everything subscribed, sorted by type and name.
    pub resources: Vec<ResourceState>,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceState {
    /// The type.
    pub kind: TypeUrl,
    /// The name.
    pub name: String,
    /// Where it stands.
    pub known: Known,
    /// The version of the value in force.
    pub version: Option<String>,
    /// When it was received; from disk: when the file was read.
    pub received_at: UnixMillis,
    /// Has the server not confirmed it since it was read from disk?
    pub from_disk: bool,
    /// How many watches there are; 0: idle.
    pub watches: usize,
    /// Why the newest value was refused.
    pub error: Option<String>,
}

/// Where a resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Known {
    /// Not answered yet.
    Pending,
    /// Does not exist.
    Absent,
    /// Has a value.
    Present,
}
