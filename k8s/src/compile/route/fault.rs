//! Mistakes inside an object, and the checks that several parts of a route share.
//!
//! Raised by [`super::rule`], [`super::filter`], [`super::stream`] and [`crate::check`]; they become problems with file and line there.

use http::HeaderName;

use super::spec::BackendRef;

/// A mistake inside an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field's path.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) reason: String,
    /// What would be right.
    pub(crate) hint: Option<String>,
    /// It is correct, but Weft cannot do it: the rule answers 500, as the Gateway API demands.
    pub(crate) unsupported: bool,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, reason: impl ToString) -> Self {
        Self {
            field: field.into(),
            reason: reason.to_string(),
            hint: None,
            unsupported: false,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn unsupported(mut self) -> Self {
        self.unsupported = true;
        self
    }
}

/// What is wrong with a reference before anybody looks for what it names.
pub(super) fn check_backend(backend: &BackendRef, field: &str, faults: &mut Vec<Fault>) {
    let service = backend.kind.as_deref().unwrap_or("Service") == "Service";
    match backend.port {
        Some(port) if !(1..=65535).contains(&port) => {
            faults.push(Fault::new(
                format!("{field}.port"),
                format!("{port} is not a port: expected 1 to 65535"),
            ));
        }
        None if service => faults.push(Fault::new(
            format!("{field}.port"),
            "a Service is referred to with its port",
        )),
        _ => {}
    }
    if let Some(weight) = backend.weight.filter(|w| !(0..=1_000_000).contains(w)) {
        faults.push(Fault::new(
            format!("{field}.weight"),
            format!("{weight} is not a weight: expected 0 to 1000000"),
        ));
    }
}

/// A header's name, in any case.
pub(super) fn header_name(name: &str, field: &str) -> Result<HeaderName, Fault> {
    let wrong = |_| {
        Fault::new(
            format!("{field}.name"),
            format!("{name:?} is not a header name (RFC 9110, 5.1)"),
        )
    };
    HeaderName::from_bytes(name.as_bytes()).map_err(wrong)
}
