//! YAML or JSON text to a tree, within limits, so that no text can exhaust memory.
//!
//! YAML's aliases let a few lines stand for millions of values ("billion laughs"); what counts here is what they expand to.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most values in one file, after expansion.
const MAX_VALUES: usize = 2_000_000;
/// Most bytes of text in one file, after expansion.
const MAX_TEXT: usize = 16 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// What is left for the rest of a file.
pub(super) struct Budget {
    values: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            values: MAX_VALUES,
            text: MAX_TEXT,
        }
    }
}

/// Why text is no tree. Lines and columns count from 1.
pub(super) struct Unreadable {
    pub(super) line: Option<usize>,
    pub(super) column: Option<usize>,
    pub(super) reason: String,
}

/// Reads one document. An empty one is null.
pub(super) fn read(text: &str, budget: &mut Budget) -> Result<Value, Unreadable> {
    let node = Node { budget, depth: 0 };
    node.deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| {
            let at = error.location();
            let message = error.to_string();
            Unreadable {
                line: at.as_ref().map(serde_yaml::Location::line),
                column: at.as_ref().map(serde_yaml::Location::column),
                reason: without_position(&message).to_owned(),
            }
        })
}

/// serde_yaml writes the place into its message too, counted from the document's start; it is wrong for the file.
fn without_position(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

struct Node<'b> {
    budget: &'b mut Budget,
    depth: usize,
}

impl Node<'_> {
    fn text<E: serde::de::Error>(&mut self, length: usize) -> Result<(), E> {
        self.budget.text = self.budget.text.checked_sub(length).ok_or_else(|| {
            E::custom(format!(
                "the file holds more than {} MiB of text after its aliases are expanded",
                MAX_TEXT >> 20
            ))
        })?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom(format!(
                "it is nested more than {MAX_DEPTH} levels deep"
            )));
        }
        self.budget.values = self.budget.values.checked_sub(1).ok_or_else(|| {
            D::Error::custom(format!(
                "the file holds more than {MAX_VALUES} values after its aliases are expanded"
            ))
        })?;
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a number that JSON knows"))
    }

    fn visit_str<E: serde::de::Error>(mut self, v: &str) -> Result<Value, E> {
        self.text(v.len())?;
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Node {
            budget: self.budget,
            depth: self.depth + 1,
        })? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key_seed(Node {
            budget: self.budget,
            depth: self.depth + 1,
        })? {
            // As kubectl does: keys that look like other scalars are their text.
            let key = match key {
                Value::String(key) => key,
                Value::Number(key) => key.to_string(),
                Value::Bool(key) => key.to_string(),
                _ => return Err(A::Error::custom("a key has to be a text")),
            };
            let value = map.next_value_seed(Node {
                budget: self.budget,
                depth: self.depth + 1,
            })?;
            self.text(key.len())?;
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "the key {key:?} stands there twice"
                )));
            }
            fields.insert(key, value);
        }
        Ok(fields.into())
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("YAML tags are not supported"))
    }
}
