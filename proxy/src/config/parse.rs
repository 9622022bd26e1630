//! Parsers of single values. Each says what is wrong; [`super::read`] says which variable, and what would be right.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use weft_model::duration;

use super::{HostPort, ServerName};

pub(super) fn quoted(value: &str, what: &str) -> String {
    format!("{:?} {what}", value.chars().take(256).collect::<String>())
}

pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(s: &str) -> Result<T, String> {
    s.parse().map_err(|e: T::Err| e.to_string())
}

pub(super) fn list<T>(
    s: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    s.split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(parse)
        .collect()
}

/// `1.2.3.4`, `1.2.3.4:5353`, `fd00::a`, `[fd00::a]:53`.
pub(super) fn dns_server(s: &str) -> Result<SocketAddr, String> {
    s.parse::<SocketAddr>()
        .or_else(|_| s.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| quoted(s, "is not an address"))
}

pub(super) fn host_port(s: &str) -> Result<HostPort, String> {
    let wrong = || quoted(s, "is not a host and a port");
    if let Ok(address) = s.parse::<SocketAddr>() {
        let (host, port) = (address.ip().to_string(), address.port());
        return (port != 0)
            .then_some(HostPort { host, port })
            .ok_or_else(wrong);
    }
    let (host, port) = s.rsplit_once(':').ok_or_else(wrong)?;
    let host: weft_model::Hostname = host.trim_end_matches('.').parse().map_err(|_| wrong())?;
    match port.parse() {
        Ok(0) | Err(_) => Err(wrong()),
        Ok(port) => Ok(HostPort {
            host: host.to_string(),
            port,
        }),
    }
}

pub(super) fn server_name(s: &str) -> Result<ServerName, String> {
    if s.contains("://") {
        return parsed(s).map(ServerName::Spiffe);
    }
    parsed::<weft_model::Hostname>(s).map(|name| ServerName::Dns(name.to_string()))
}

pub(super) fn positive(s: &str) -> Result<Duration, String> {
    match duration::parse(s) {
        Ok(d) if d >= Duration::from_secs(1) => Ok(d),
        Ok(_) => Err(quoted(s, "is too short")),
        Err(_) => Err(quoted(s, "is not a duration")),
    }
}

pub(super) fn drain_time(s: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 3600);
    let time = match s.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => duration::parse(s).map_err(|_| quoted(s, "is neither"))?,
    };
    (time <= day)
        .then_some(time)
        .ok_or_else(|| quoted(s, "is too long"))
}
