//! Why a resource is refused, with the path of the field.

use std::fmt;

/// A resource that cannot be used: `virtual_hosts[0].routes[2].match: no path`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// The field, in protobuf's spelling; empty: the resource as a whole.
    pub path: String,
    /// What is wrong with it, cut to 512 characters.
    pub reason: String,
}

impl DecodeError {
    /// About the value at hand; [`At`] adds the path.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self {
            path: String::new(),
            reason: reason.to_string().chars().take(512).collect(),
        }
    }

    /// The same, inside that field.
    pub fn inside(mut self, field: impl fmt::Display) -> Self {
        let field = field.to_string();
        self.path = match self.path.as_str() {
            "" => field,
            inner if inner.starts_with('[') => format!("{field}{inner}"),
            inner => format!("{field}.{inner}"),
        };
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

/// Says where an error happened.
pub(super) trait At<T> {
    /// In that field.
    fn at(self, field: impl fmt::Display) -> Result<T, DecodeError>;
    /// In that element of a list.
    fn at_index(self, index: usize) -> Result<T, DecodeError>;
}

impl<T, E: Into<DecodeError>> At<T> for Result<T, E> {
    fn at(self, field: impl fmt::Display) -> Result<T, DecodeError> {
        self.map_err(|e| e.into().inside(field))
    }

    fn at_index(self, index: usize) -> Result<T, DecodeError> {
        self.map_err(|e| e.into().inside(format_args!("[{index}]")))
    }
}

impl From<weft_model::NameError> for DecodeError {
    fn from(e: weft_model::NameError) -> Self {
        Self::new(e)
    }
}

impl From<prost::DecodeError> for DecodeError {
    fn from(e: prost::DecodeError) -> Self {
        Self::new(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_outwards() {
        let error: Result<(), _> = Err(DecodeError::new("no path"));
        let error = error
            .at("match")
            .at_index(2)
            .at("routes")
            .at_index(0)
            .at("virtual_hosts");
        assert_eq!(
            error.map_err(|e| e.to_string()),
            Err("virtual_hosts[0].routes[2].match: no path".into())
        );
    }
}
