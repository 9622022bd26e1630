//! What a resource carries under `weft` in its metadata: origin and age, and what the standard fields lose.
//!
//! An encoder puts a value in standard fields, reads them back with the decoder, and [`Notes::keep`]s the part only if
//! it came back different. So nothing is said twice that xDS can say, and decoding is exact by construction.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};
use weft_model::{Meta, Origin, UnixMillis};

use super::Flavour;
use super::error::{At as _, DecodeError};
use super::proto::{core, google};

/// The key in `filter_metadata`.
pub(super) const KEY: &str = "weft";
/// How deep kept values may nest; deeper ones can only be an attack.
const MAX_DEPTH: usize = 32;
/// Integers up to this are exact as the doubles of `google.protobuf.Value`.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Metadata that is being written.
pub(super) struct Notes {
    lossless: bool,
    fields: Map<String, Json>,
}

impl Notes {
    /// Empty.
    pub(super) fn new(flavour: Flavour) -> Self {
        Self {
            lossless: flavour == Flavour::Weft,
            fields: Map::new(),
        }
    }

    /// With origin and age.
    pub(super) fn of(meta: &Meta, flavour: Flavour) -> Self {
        let mut notes = Self::new(flavour);
        if meta.origin != Origin::default() {
            notes.set("origin", &meta.origin);
        }
        if meta.changed_at != UnixMillis::default() {
            notes.set("changedAt", &meta.changed_at);
        }
        notes
    }

    /// Says something that has no standard field.
    pub(super) fn set(&mut self, key: &str, value: &impl Serialize) {
        match serde_json::to_value(value) {
            Ok(json) => {
                self.fields.insert(key.to_owned(), json);
            }
            Err(error) => tracing::error!(key, %error, "a model value is not representable"),
        }
    }

    /// Keeps a part for our own proxy if the standard fields do not say the same.
    pub(super) fn keep<T: Serialize + PartialEq>(
        &mut self,
        key: &str,
        value: &T,
        standard: Result<T, DecodeError>,
    ) {
        if self.lossless && standard.as_ref() != Ok(value) {
            self.set(key, value);
        }
    }

    pub(super) fn into_struct(self) -> Option<google::Struct> {
        (!self.fields.is_empty()).then(|| to_struct(self.fields))
    }

    pub(super) fn into_metadata(self) -> Option<core::Metadata> {
        let fields = self.into_struct()?;
        Some(core::Metadata {
            filter_metadata: [(KEY.to_owned(), fields)].into(),
            ..Default::default()
        })
    }
}

/// Metadata that is being read.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a>(Option<&'a google::Struct>);

impl<'a> Kept<'a> {
    pub(super) fn of(metadata: Option<&'a core::Metadata>) -> Self {
        Self(metadata.and_then(|m| m.filter_metadata.get(KEY)))
    }

    /// Origin and age; unknown where nothing is said.
    pub(super) fn meta(self) -> Result<Meta, DecodeError> {
        Ok(Meta {
            origin: self.get("origin")?.unwrap_or_default(),
            changed_at: self.get("changedAt")?.unwrap_or_default(),
        })
    }

    /// A part, if it was kept or set.
    pub(super) fn get<T: DeserializeOwned>(self, key: &str) -> Result<Option<T>, DecodeError> {
        let Some(value) = self.0.and_then(|s| s.fields.get(key)) else {
            return Ok(None);
        };
        let parsed = to_json(value, MAX_DEPTH)
            .and_then(|json| serde_json::from_value(json).map_err(DecodeError::new));
        parsed.map(Some).at(format_args!("metadata.weft.{key}"))
    }

    /// A part that our own server always sets.
    pub(super) fn required<T: DeserializeOwned>(self, key: &str) -> Result<T, DecodeError> {
        self.get(key)?
            .ok_or_else(|| DecodeError::new("it is missing"))
            .at(format_args!("metadata.weft.{key}"))
    }

    /// A part as it was kept, else what the standard fields say.
    pub(super) fn or<T: DeserializeOwned>(
        self,
        key: &str,
        standard: impl FnOnce() -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        match self.get(key)? {
            Some(value) => Ok(value),
            None => standard(),
        }
    }
}

fn to_struct(fields: Map<String, Json>) -> google::Struct {
    google::Struct {
        fields: fields.into_iter().map(|(k, v)| (k, to_value(v))).collect(),
    }
}

fn to_value(json: Json) -> google::Value {
    use google::value::Kind;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Json::String(s) => Kind::StringValue(s),
        Json::Array(values) => Kind::ListValue(google::ListValue {
            values: values.into_iter().map(to_value).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    google::Value { kind: Some(kind) }
}

fn to_json(value: &google::Value, depth: usize) -> Result<Json, DecodeError> {
    use google::value::Kind;
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(DecodeError::new("it is nested too deeply"));
    };
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(b)) => Json::Bool(*b),
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && (0.0..=MAX_EXACT).contains(n) => {
            Json::from(*n as u64)
        }
        Some(Kind::NumberValue(n)) => Number::from_f64(*n).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(s)) => Json::String(s.clone()),
        Some(Kind::ListValue(list)) => {
            let values = list.values.iter().map(|v| to_json(v, deeper));
            Json::Array(values.collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(s)) => {
            let fields = s
                .fields
                .iter()
                .map(|(k, v)| Ok((k.clone(), to_json(v, deeper)?)));
            Json::Object(fields.collect::<Result<_, DecodeError>>()?)
        }
    })
}
