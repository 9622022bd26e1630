//! What the user means by a destination: a service, an address or a URL.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use weft_model::{Hostname, ListenerName, Namespace, View};

use crate::suggest;

/// A destination, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct To {
    /// The host as the user named it.
    pub(crate) host: String,
    /// The address that the pod's resolver would give, and the port.
    pub(crate) address: SocketAddr,
    /// The user gave an `http://` URL, so the connection is HTTP even where nothing is declared.
    pub(crate) speaks_http: bool,
}

impl To {
    /// The name of its listener.
    pub(crate) fn listener(&self) -> ListenerName {
        ListenerName::Outbound(self.address)
    }

    /// The `Host` that a client would send.
    pub(crate) fn authority(&self) -> String {
        match (self.host.parse::<IpAddr>(), self.address.port()) {
            (Ok(_), _) => self.address.to_string(),
            (Err(_), 80) => self.host.clone(),
            (Err(_), port) => format!("{}:{port}", self.host),
        }
    }

    /// The server name that a TLS client would send.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.host
            .parse::<IpAddr>()
            .is_err()
            .then_some(self.host.as_str())
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host == self.address.ip().to_string() {
            write!(f, "{}", self.address)
        } else {
            write!(
                f,
                "{}:{} ({})",
                self.host,
                self.address.port(),
                self.address.ip()
            )
        }
    }
}

/// Why a destination is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// Not of any form.
    #[error(
        "{0:?} is not a destination: expected SERVICE[.NAMESPACE][:PORT], IP:PORT or http://HOST[:PORT][/PATH]"
    )]
    Form(String),
    /// No such name.
    #[error("no service of the mesh is called {name:?}{hint}")]
    Unknown {
        /// As given.
        name: String,
        /// The nearest name, or nothing.
        hint: String,
    },
    /// The service has no address.
    #[error("{0} has no address: it has no ready pods, or it is an ExternalName")]
    NoAddress(Hostname),
    /// The service has more than one port.
    #[error("{host} has several ports, say which: {ports}")]
    WhichPort {
        /// The service's name.
        host: String,
        /// Joined by commas.
        ports: String,
    },
}

/// Takes a destination apart: `(host, port, path, is a URL)`.
pub(crate) fn parse(
    text: &str,
) -> Result<(String, Option<u16>, Option<String>, bool), TargetError> {
    let form = || TargetError::Form(text.to_owned());
    let (rest, url) = match text.strip_prefix("http://") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
        None => (rest, None),
    };
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), Some(address.port()), path, url));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| form())?)),
        None => (authority, url.then_some(80)),
    };
    if host.is_empty() || host.contains([':', ' ', '/']) {
        return Err(form());
    }
    Ok((host.to_owned(), port, path, url))
}

/// Resolves as the resolver of a pod in `namespace` would, search list included.
pub(crate) fn resolve(view: &View, namespace: &Namespace, text: &str) -> Result<To, TargetError> {
    let (host, port, _, speaks_http) = parse(text)?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        let port = port.ok_or_else(|| TargetError::Form(text.to_owned()))?;
        return Ok(To {
            host,
            address: SocketAddr::new(ip, port),
            speaks_http,
        });
    }
    let suffixes = [
        String::new(),
        format!(".{namespace}.svc.cluster.local"),
        ".svc.cluster.local".into(),
        ".cluster.local".into(),
    ];
    let record = suffixes.iter().find_map(|suffix| {
        let name = format!("{}{suffix}", host.to_ascii_lowercase());
        view.names.iter().find(|r| r.name.as_str() == name)
    });
    let Some(record) = record else {
        let short = |n: &str| {
            n.trim_end_matches(".svc.cluster.local")
                .trim_end_matches(&format!(".{namespace}"))
                .to_owned()
        };
        let known: Vec<String> = view.names.iter().map(|r| short(r.name.as_str())).collect();
        let hint = suggest::hint(&host, known.iter().map(String::as_str));
        return Err(TargetError::Unknown { name: host, hint });
    };
    let ip = *record
        .addresses
        .first()
        .ok_or_else(|| TargetError::NoAddress(record.name.clone()))?;
    let port = match port {
        Some(port) => port,
        None => only_port(view, ip, &host)?,
    };
    Ok(To {
        host,
        address: SocketAddr::new(ip, port),
        speaks_http,
    })
}

fn only_port(view: &View, ip: IpAddr, host: &str) -> Result<u16, TargetError> {
    let ports: Vec<u16> = view
        .destinations
        .iter()
        .filter_map(|d| match &d.name {
            ListenerName::Outbound(address) if address.ip() == ip => Some(address.port()),
            _ => None,
        })
        .collect();
    match ports.as_slice() {
        [only] => Ok(*only),
        _ => {
            let ports = ports
                .iter()
                .map(u16::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            Err(TargetError::WhichPort {
                host: host.to_owned(),
                ports,
            })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, host, port, path, url) in [
            ("web", "web", None, None, false),
            ("web.shop:8080", "web.shop", Some(8080), None, false),
            ("10.0.0.1:80", "10.0.0.1", Some(80), None, false),
            ("[fd00::1]:80", "fd00::1", Some(80), None, false),
            ("http://web/a?b", "web", Some(80), Some("/a?b"), true),
            ("http://web:81", "web", Some(81), None, true),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                (host.into(), port, path.map(str::to_owned), url),
                "{text}"
            );
        }
        for bad in ["", "web:x", ":80", "a b", "web:99999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
