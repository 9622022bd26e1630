//! A tree to a type, with the path of what is wrong and the fields that the type does not know.
//!
//! Types tell their fields to the deserializer (`deserialize_struct`), so unknown ones are found without a schema: a wrapper around
//! the tree compares each object's keys with the fields its type asks for. The API server does the same for `fieldValidation=Warn`.

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};
use std::cell::RefCell;

use crate::problem::did_you_mean;

/// A field that its type does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Its path, e.g. `spec.template.spec.contianers`.
    pub(super) path: String,
    /// Its own name.
    pub(super) name: String,
    /// What there is instead.
    pub(super) known: &'static [&'static str],
}

/// Why a tree is not of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The field's path.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) reason: String,
    /// What would be right.
    pub(super) hint: Option<String>,
}

/// Most unknown fields that are told of one object.
const MAX_UNKNOWN: usize = 20;

/// Reads the tree; unknown fields are added to `unknown` even when it fails.
pub(super) fn read<'t, T: Deserialize<'t>>(
    tree: &'t Value,
    unknown: &mut Vec<Unknown>,
) -> Result<T, Mistake> {
    let found = RefCell::new(Vec::new());
    let result = serde_path_to_error::deserialize(Node {
        value: tree,
        path: Path::Root,
        unknown: &found,
    });
    unknown.extend(found.into_inner());
    result.map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        // "unknown variant `Rnadom`, expected one of `PeakEwma`, `Random`": the words are between backquotes.
        let words: Vec<&str> = reason.split('`').skip(1).step_by(2).collect();
        let hint = match words.as_slice() {
            [given, known @ ..] if reason.starts_with("unknown variant") => {
                did_you_mean(given, known.iter().copied())
            }
            _ if reason.ends_with("expected a string")
                && !reason.contains("map")
                && !reason.contains("sequence") =>
            {
                Some("put it in quotes".to_owned())
            }
            _ => None,
        };
        Mistake {
            field: if path == "." { String::new() } else { path },
            reason,
            hint,
        }
    })
}

/// The way from the root to a value; spelt out only when something is wrong.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn write(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, name) => {
                parent.write(text);
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Self::Index(parent, index) => {
                parent.write(text);
                text.extend(["[", &index.to_string(), "]"]);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'t, 'p> {
    value: &'t Value,
    path: Path<'p>,
    unknown: &'p RefCell<Vec<Unknown>>,
}

impl Node<'_, '_> {
    fn note_unknown(&self, known: &'static [&'static str]) {
        let Value::Object(fields) = self.value else {
            return;
        };
        let mut unknown = self.unknown.borrow_mut();
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let implied =
                matches!(self.path, Path::Root) && (name == "apiVersion" || name == "kind");
            if !implied && unknown.len() < MAX_UNKNOWN {
                let mut path = String::new();
                Path::Field(&self.path, name).write(&mut path);
                unknown.push(Unknown {
                    path,
                    name: name.clone(),
                    known,
                });
            }
        }
    }
}

impl<'t> IntoDeserializer<'t, Error> for Node<'t, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(i, value)| Node {
                    value,
                    path: Path::Index(&self.path, i),
                    unknown: self.unknown,
                });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| {
                    (
                        name.as_str(),
                        Node {
                            value,
                            path: Path::Field(&self.path, name),
                            unknown: self.unknown,
                        },
                    )
                });
                visitor.visit_map(MapDeserializer::new(fields))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note_unknown(known);
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}
