//! One resource of a snapshot: encoded on first use, once for each kind of client, its bytes shared by all streams.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use weft_model::{Cluster, Destination, DnsRecord, Endpoints, HttpRoutes, InboundPort, UnixMillis};

use crate::convert::{Flavour, Resource, TrustBundle};
use crate::{TypeUrl, wire};

/// Changes when the same value is encoded in other bytes, so that clients with the old ones are sent the new.
const ENCODING: u64 = 1;

/// What is encoded.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Destination(Arc<Destination>),
    Routes(Arc<HttpRoutes>),
    Cluster(Arc<Cluster>),
    Endpoints(Arc<Endpoints>),
    Name(Arc<DnsRecord>),
    Inbound(Box<InboundPort>),
    Roots(TrustBundle),
    /// Not from the model: always the same.
    Fixed(TypeUrl, Bytes),
}

/// A value and what has been made of it so far.
pub(super) struct Entry {
    value: Value,
    version: OnceLock<Arc<str>>,
    encoded: [OnceLock<wire::Any>; Flavour::ALL.len()],
}

impl Entry {
    pub(super) fn new(value: Value) -> Arc<Self> {
        Arc::new(Self {
            value,
            version: OnceLock::new(),
            encoded: Default::default(),
        })
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// A hash of the value, so that it outlives a restart of the server: a client that reconnects with it is not sent
    /// the resource again.
    pub(super) fn version(&self) -> &Arc<str> {
        self.version.get_or_init(|| {
            let mut hasher = foldhash::quality::FixedState::with_seed(ENCODING).build_hasher();
            match &self.value {
                Value::Destination(v) => hash(v, &mut hasher),
                Value::Routes(v) => hash(v, &mut hasher),
                Value::Cluster(v) => hash(v, &mut hasher),
                Value::Endpoints(v) => hash(v, &mut hasher),
                Value::Name(v) => hash(v, &mut hasher),
                Value::Inbound(v) => hash(v, &mut hasher),
                Value::Roots(v) => hash(v, &mut hasher),
                Value::Fixed(_, bytes) => hasher.write(bytes),
            }
            format!("{:016x}", hasher.finish()).into()
        })
    }

    /// The bytes for that kind of client.
    pub(super) fn encoded(&self, flavour: Flavour) -> &wire::Any {
        self.encoded[flavour as usize].get_or_init(|| match &self.value {
            Value::Destination(v) => message(v.as_ref(), flavour),
            Value::Routes(v) => message(v.as_ref(), flavour),
            Value::Cluster(v) => message(v.as_ref(), flavour),
            Value::Endpoints(v) => message(v.as_ref(), flavour),
            Value::Name(v) => message(v.as_ref(), flavour),
            Value::Inbound(v) => message(v.as_ref(), flavour),
            Value::Roots(v) => message(v, flavour),
            Value::Fixed(kind, bytes) => any(*kind, bytes.clone()),
        })
    }

    /// When the source of the value changed.
    pub(super) fn changed_at(&self) -> UnixMillis {
        match &self.value {
            Value::Destination(v) => v.meta.changed_at,
            Value::Routes(v) => v.meta.changed_at,
            Value::Cluster(v) => v.meta.changed_at,
            Value::Endpoints(v) => v.meta.changed_at,
            Value::Name(v) => v.meta.changed_at,
            Value::Inbound(v) => v.meta.changed_at,
            Value::Roots(_) | Value::Fixed(..) => UnixMillis::default(),
        }
    }
}

fn message<T: Resource>(value: &T, flavour: Flavour) -> wire::Any {
    any(T::TYPE, value.encode(flavour))
}

fn any(kind: TypeUrl, value: Bytes) -> wire::Any {
    wire::Any {
        type_url: kind.as_str().to_owned(),
        value,
    }
}

/// Over the value's JSON, which is the same whenever the value is: the model has no unordered collections.
fn hash(value: &impl Serialize, hasher: &mut impl Hasher) {
    struct Write<'h, H>(&'h mut H);
    impl<H: Hasher> std::io::Write for Write<'_, H> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    if let Err(error) = serde_json::to_writer(Write(hasher), value) {
        tracing::error!(%error, "a model value cannot be hashed");
    }
}
