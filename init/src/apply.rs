//! Puts the rules in force, and takes them away.
//!
//! Called by `main` (`apply`, `clean`); decides which back end and whether IPv6, then hands over to
//! [`crate::backend`]. Connections that exist already are not touched: NAT is decided by a connection's first packet.

use crate::capability::Capability;
use crate::config::backend::Backend;
use crate::config::{BackendChoice, Config, Ipv6Choice};
use crate::error::Error;
use crate::lock::Lock;
use crate::loopback;
use crate::namespace::Ipv6;
use crate::rules::Ruleset;

/// What is in force.
#[derive(Debug)]
pub struct Applied {
    /// The back end used.
    pub backend: Backend,
    /// The rules.
    pub ruleset: Ruleset,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// Installs the rules of `config`, replacing any of ours, in whichever back end they are. Doing it again changes
/// nothing but counters. Needs `CAP_NET_ADMIN`, with iptables-legacy `CAP_NET_RAW` too.
pub fn apply(config: &Config) -> Result<Applied, Error> {
    Capability::NetAdmin.require()?;
    let _lock = Lock::take()?;
    // 1. The sidecar's source address first: once rules are in force, its absence would loop connections.
    let mut ipv6 = wants_ipv6(config.ipv6, Ipv6::detect());
    let mut warnings = Vec::new();
    match if ipv6 { loopback::add() } else { Ok(()) } {
        Err(error) if may_do_without(config) => {
            warnings.push(without_ipv6(&error));
            ipv6 = false;
        }
        other => other?,
    }
    // 2. The rules, by the first back end that takes them.
    let applied = match install(config, Ruleset::new(config, ipv6)) {
        // IPv6 that reaches nobody may stay uncaptured; IPv6 that does would be a hole, so it is an error.
        Err(error) if ipv6 && only_ipv6_failed(&error) && may_do_without(config) => {
            warnings.push(without_ipv6(&error));
            loopback::remove()?;
            install(config, Ruleset::new(config, false))
        }
        other => other,
    };
    let (backend, ruleset) = applied?;
    if !ruleset.ipv6 && Ipv6::detect() == Ipv6::Routable {
        warnings.push("IPv6 is not captured, as configured; the pod has IPv6 addresses".to_owned());
    }
    // 3. Nothing of ours in the other back ends: a connection would be redirected by either.
    for other in Backend::ALL.into_iter().filter(|other| *other != backend) {
        match remove_if_possible(other) {
            Ok(true) => warnings.push(format!("removed older rules of back end {other}")),
            Ok(false) => {}
            Err(error) => warnings.push(format!(
                "cannot tell whether back end {other} holds older rules: {error}"
            )),
        }
    }
    Ok(Applied {
        backend,
        ruleset,
        warnings,
    })
}

/// The rules `apply` would try first, without touching the kernel.
pub fn plan(config: &Config) -> (Backend, Ruleset) {
    let candidates = candidates(config.backend);
    let backend = candidates
        .iter()
        .copied()
        .find(|backend| backend.is_installed());
    let backend = backend
        .or(candidates.first().copied())
        .unwrap_or(Backend::Nftables);
    (
        backend,
        Ruleset::new(config, wants_ipv6(config.ipv6, Ipv6::detect())),
    )
}

/// Removes all that is ours from every back end; returns where something was. Needs `CAP_NET_ADMIN`.
pub fn clean() -> Result<Vec<Backend>, Error> {
    Capability::NetAdmin.require()?;
    let _lock = Lock::take()?;
    let mut cleaned = Vec::new();
    for backend in Backend::ALL {
        if remove_if_possible(backend)? {
            cleaned.push(backend);
        }
    }
    if !Backend::ALL.into_iter().any(Backend::is_installed) {
        let missing = |backend| Error::ProgramMissing {
            backend,
            program: backend.package().to_owned(),
        };
        return Err(Error::NoBackend(Backend::ALL.map(missing).into()));
    }
    if Ipv6::detect() > Ipv6::Disabled {
        loopback::remove()?;
    }
    Ok(cleaned)
}

/// Back ends that may be used, in order.
pub fn candidates(choice: BackendChoice) -> Vec<Backend> {
    match choice {
        BackendChoice::Auto => Backend::ALL.to_vec(),
        BackendChoice::Only(backend) => vec![backend],
    }
}

/// Answers "auto": capture IPv6 when any interface, if only `lo`, has an address.
pub fn wants_ipv6(choice: Ipv6Choice, found: Ipv6) -> bool {
    match choice {
        Ipv6Choice::On => true,
        Ipv6Choice::Off => false,
        Ipv6Choice::Auto => found > Ipv6::Disabled,
    }
}

fn without_ipv6(error: &Error) -> String {
    format!("IPv6 is not captured, and the pod has no IPv6 address beyond its link: {error}")
}

fn may_do_without(config: &Config) -> bool {
    config.ipv6 == Ipv6Choice::Auto && Ipv6::detect() < Ipv6::Routable
}

fn only_ipv6_failed(error: &Error) -> bool {
    match error {
        Error::NoBackend(errors) => errors.iter().any(Error::is_ipv6),
        other => other.is_ipv6(),
    }
}

fn install(config: &Config, ruleset: Ruleset) -> Result<(Backend, Ruleset), Error> {
    let mut errors = Vec::new();
    for backend in candidates(config.backend) {
        match backend.install(&ruleset) {
            Ok(()) => return Ok((backend, ruleset)),
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        1 => Err(errors.remove(0)),
        _ => Err(Error::NoBackend(errors)),
    }
}

/// A back end that is not installed or not in the kernel cannot hold rules that anyone here could have made.
fn remove_if_possible(backend: Backend) -> Result<bool, Error> {
    match backend.remove() {
        Err(Error::ProgramMissing { .. } | Error::KernelLacks { .. }) => Ok(false),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_auto_follows_the_namespace() {
        for (choice, found, wanted) in [
            (Ipv6Choice::Auto, Ipv6::NoKernel, false),
            (Ipv6Choice::Auto, Ipv6::Disabled, false),
            (Ipv6Choice::Auto, Ipv6::Local, true),
            (Ipv6Choice::Auto, Ipv6::Routable, true),
            (Ipv6Choice::On, Ipv6::Disabled, true),
            (Ipv6Choice::Off, Ipv6::Routable, false),
        ] {
            assert_eq!(wants_ipv6(choice, found), wanted, "{choice:?} {found:?}");
        }
    }
}
