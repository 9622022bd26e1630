//! The log: where it goes, how it looks, and changing its level while running.
//!
//! `main` calls [`start`] once; the admin port changes the level through [`LogLevel`]. Lines go to standard error, so that
//! the access log has standard output for itself.

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogFormat;

/// Reads filter directives: levels and `target=level`, separated by commas. Not tracing's `EnvFilter`, whose regular
/// expressions cost a sidecar memory that nobody uses.
pub fn filter(directives: &str) -> Result<Targets, ParseError> {
    directives.parse()
}

/// Changes what is logged.
#[derive(Debug, Clone)]
pub struct LogLevel {
    handle: reload::Handle<Targets, Registry>,
}

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The directives cannot be read.
    #[error("{0}; expected directives such as warn,weft_proxy=debug")]
    Parse(#[from] ParseError),
    /// The log has stopped.
    #[error(transparent)]
    Gone(#[from] reload::Error),
}

impl LogLevel {
    /// Puts other directives in force, for every thread.
    pub fn set(&self, directives: &str) -> Result<(), LevelError> {
        self.handle.reload(filter(directives)?)?;
        Ok(())
    }

    /// The directives in force.
    pub fn get(&self) -> String {
        self.handle
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }

    /// A level that changes nothing, for tests.
    #[cfg(test)]
    pub(crate) fn detached() -> (Self, reload::Layer<Targets, Registry>) {
        let (layer, handle) = reload::Layer::new(Targets::new());
        (Self { handle }, layer)
    }
}

/// Starts logging for the process. Once only.
pub fn start(filter: Targets, format: LogFormat) -> Result<LogLevel, TryInitError> {
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    Ok(LogLevel { handle })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_level_can_be_changed() {
        let (level, _layer) = LogLevel::detached();
        level.set("warn,weft_proxy=debug").unwrap();
        assert_eq!(level.get(), "weft_proxy=debug,warn");
        let error = level.set("weft_proxy=chatty").unwrap_err().to_string();
        assert!(error.contains("expected directives"), "{error}");
        assert_eq!(level.get(), "weft_proxy=debug,warn");
    }
}
