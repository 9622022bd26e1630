//! Which protocol a port speaks, as declared by `appProtocol` or the port's name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a port is declared to speak.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Nothing was declared: look at the first bytes.
    #[default]
    Detect,
    /// HTTP of either version; the client's preface tells which.
    Http,
    /// HTTP/2 without TLS from the application (h2c).
    Http2,
    /// gRPC: HTTP/2, and errors as `grpc-status`.
    Grpc,
    /// The application's own TLS, forwarded by SNI and never opened.
    Tls,
    /// Opaque bytes.
    Tcp,
}

impl Protocol {
    /// Reads `appProtocol` if there is one, else the prefix of the port's name up to the first `-`.
    ///
    /// `appProtocol` wins even when it is a value nobody knows: then the protocol is detected (KEP-1422 and KEP-3726
    /// define the `kubernetes.io/` values, IANA service names the others).
    pub fn declared(app_protocol: Option<&str>, port_name: Option<&str>) -> Self {
        match app_protocol {
            Some(value) => Self::from_word(&value.to_ascii_lowercase()),
            None => port_name
                .and_then(|name| Self::from_word(name.split('-').next().unwrap_or_default())),
        }
        .unwrap_or_default()
    }

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "http" | "http1" | "http/1.1" | "ws" | "kubernetes.io/ws" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "https" | "tls" | "wss" | "kubernetes.io/wss" => Self::Tls,
            "tcp" | "mysql" | "mariadb" | "postgres" | "postgresql" | "redis" | "mongo"
            | "mongodb" | "smtp" | "kafka" | "amqp" => Self::Tcp,
            _ => return None,
        })
    }

    /// Is every connection of this port HTTP?
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// The word for it in output and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_wins_over_the_name() {
        for (app, name, protocol) in [
            (Some("kubernetes.io/h2c"), Some("http"), Protocol::Http2),
            (Some("HTTP"), None, Protocol::Http),
            (Some("example.com/own"), Some("http"), Protocol::Detect),
            (None, Some("grpc-api"), Protocol::Grpc),
            (None, Some("httpd"), Protocol::Detect),
            (None, Some("mysql"), Protocol::Tcp),
            (None, None, Protocol::Detect),
        ] {
            assert_eq!(Protocol::declared(app, name), protocol, "{app:?} {name:?}");
        }
    }
}
