//! Proves that the rules do what they should, by dialling through them.
//!
//! Called by `main` (`verify`). Throwaway listeners on the sidecar's ports catch what the rules redirect; a child
//! process stands in for the sidecar. When the sidecar runs already, its ports are taken, and the rules and their
//! counters are all there is to check. [`probe`] says what the dials must show, [`dial`] holds the sockets.
//!
//! Nothing from outside can be sent from inside, so the inbound direction is dialled over loopback as the sidecar,
//! through the very chain that PREROUTING enters; that PREROUTING enters it is checked by reading the rules.

pub mod dial;
mod probe;

use crate::Family;
use crate::apply::{candidates, wants_ipv6};
use crate::config::backend::Backend;
use crate::config::{Config, Ipv6Choice};
use crate::error::Error;
use crate::namespace::{Ipv6, loopback_is_up};
use crate::present::Present;
use crate::rules::Ruleset;
use probe::{Probe, Traps};
use std::fmt;

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Seen to work.
    Proved(String),
    /// Seen not to work.
    Failed(String),
    /// Could not be tried, and why.
    Unproved(String),
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// IP version, when it concerns one.
    pub family: Option<Family>,
    /// What was checked: `rules`, `outbound`, `inbound`, ...
    pub subject: &'static str,
    /// How it went.
    pub proof: Proof,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.proof {
            Proof::Proved(text) => ("ok      ", text),
            Proof::Failed(text) => ("FAILED  ", text),
            Proof::Unproved(text) => ("untried ", text),
        };
        let family = self
            .family
            .map(|family| family.to_string())
            .unwrap_or_default();
        write!(f, "{word} {family:4} {:9} {text}", self.subject)
    }
}

/// All checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// Nothing failed, and something was proved.
    pub fn passed(&self) -> bool {
        let failed = |check: &Check| matches!(check.proof, Proof::Failed(_));
        let proved = |check: &Check| matches!(check.proof, Proof::Proved(_));
        !self.checks.iter().any(failed) && self.checks.iter().any(proved)
    }

    fn add(&mut self, family: impl Into<Option<Family>>, subject: &'static str, proof: Proof) {
        self.checks.push(Check {
            family: family.into(),
            subject,
            proof,
        });
    }
}

/// Checks the namespace of this process against `config`. Errors are those of setting up; what the rules do wrong is
/// in the report. Must not run as the sidecar's user. Reading the rules needs `CAP_NET_ADMIN`, standing in for the
/// sidecar `CAP_SETUID` and `CAP_SETGID`; without them those checks are reported as untried.
pub fn verify(config: &Config) -> Result<Report, Error> {
    let mut report = Report::default();
    // 1. What is in the kernel?
    let Some((backend, ruleset, present)) = rules_in_force(config, &mut report) else {
        return Ok(report);
    };
    if !loopback_is_up() {
        report.add(
            None,
            "loopback",
            Proof::Failed("lo is down; bring it up (ip link set lo up)".to_owned()),
        );
        return Ok(report);
    }
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    if own.0 == config.proxy_uid || own.1 == config.proxy_gid {
        let problem =
            "verify runs as the sidecar's user or group, which is exempt; run it as another"
                .to_owned();
        report.add(None, "user", Proof::Failed(problem));
        return Ok(report);
    }
    // 2. All listeners before any dial: a sidecar that runs is found out before it is bothered.
    let mut traps = Vec::new();
    for family in ruleset.families() {
        match Traps::set(config, *family) {
            Ok(set) => traps.push(set),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => {
                report.add(None, "dialling", running(config, backend, &present));
                return Ok(report);
            }
            Err(error) => return Err(error),
        }
    }
    // 3. Dial.
    for traps in &traps {
        let probe = Probe {
            config,
            ruleset: &ruleset,
            traps,
            own,
        };
        probe.run(&mut report)?;
    }
    Ok(report)
}

/// Finds the back end that holds our rules and compares them. `None` when there are none; without the right to read
/// them, the rules are taken to be those configured.
fn rules_in_force(
    config: &Config,
    report: &mut Report,
) -> Option<(Option<Backend>, Ruleset, Vec<Present>)> {
    let wanted = Ruleset::new(config, wants_ipv6(config.ipv6, Ipv6::detect()));
    let mut unreadable = Vec::new();
    for backend in candidates(config.backend) {
        match backend.read(Family::V4) {
            Ok(present) if present.is_empty() => {}
            Ok(_) => return compare(config, backend, wanted, report),
            Err(Error::ProgramMissing { .. } | Error::KernelLacks { .. }) => {}
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    if unreadable.is_empty() {
        let problem =
            "there are no rules of Weft in this network namespace; run weft-init apply".to_owned();
        report.add(None, "rules", Proof::Failed(problem));
        return None;
    }
    report.add(None, "rules", Proof::Unproved(unreadable.join("; ")));
    Some((None, wanted, vec![]))
}

fn compare(
    config: &Config,
    backend: Backend,
    wanted: Ruleset,
    report: &mut Report,
) -> Option<(Option<Backend>, Ruleset, Vec<Present>)> {
    let mut ruleset = wanted;
    let mut compared = read_all(backend, &ruleset);
    let complete = |compared: &Result<(_, Vec<String>), Error>| {
        compared
            .as_ref()
            .is_ok_and(|(_, differences)| differences.is_empty())
    };
    let may_do_without = config.ipv6 == Ipv6Choice::Auto && Ipv6::detect() < Ipv6::Routable;
    if !complete(&compared) && may_do_without {
        // `apply` does without IPv6 that reaches nobody when the kernel cannot redirect it.
        let without = Ruleset::new(config, false);
        let fallback = read_all(backend, &without);
        if complete(&fallback) {
            (ruleset, compared) = (without, fallback);
        }
    }
    match compared {
        Ok((present, differences)) if differences.is_empty() => {
            let families: Vec<_> = ruleset.families().iter().map(ToString::to_string).collect();
            report.add(
                None,
                "rules",
                Proof::Proved(format!(
                    "complete in back end {backend}, {}",
                    families.join(" and ")
                )),
            );
            Some((Some(backend), ruleset, present))
        }
        Ok((present, differences)) => {
            let problem = format!(
                "{}; run weft-init apply with the same flags",
                differences.join("; ")
            );
            report.add(None, "rules", Proof::Failed(problem));
            Some((Some(backend), ruleset, present))
        }
        Err(error) => {
            report.add(None, "rules", Proof::Failed(error.to_string()));
            None
        }
    }
}

fn read_all(backend: Backend, ruleset: &Ruleset) -> Result<(Vec<Present>, Vec<String>), Error> {
    // With nftables one listing answers for both; with iptables, IPv6 that is not to be captured has no rules.
    let families = match backend {
        Backend::Nftables => &[Family::V4][..],
        _ => &[Family::V4, Family::V6],
    };
    let mut all = Vec::new();
    let mut differences = Vec::new();
    for family in families {
        let present = backend.read(*family)?;
        let expected = if ruleset.families().contains(family) {
            backend.expected(ruleset, *family)
        } else {
            Present::default()
        };
        let found = present.differences(&expected);
        differences.extend(found.into_iter().map(|difference| match backend {
            Backend::Nftables => difference,
            _ => format!("{family} {difference}"),
        }));
        all.push(present);
    }
    Ok((all, differences))
}

/// What can be said when the sidecar's ports are taken.
fn running(config: &Config, backend: Option<Backend>, present: &[Present]) -> Proof {
    let packets = |port| {
        present
            .iter()
            .filter_map(|one| one.redirected.get(&port))
            .sum::<u64>()
    };
    let counters = match backend {
        Some(_) => format!(
            "connections redirected so far: {} outbound, {} inbound, {} DNS",
            packets(config.outbound_port),
            packets(config.inbound_port),
            packets(config.dns_port)
        ),
        None => "the counters cannot be read".to_owned(),
    };
    Proof::Unproved(format!(
        "the sidecar's ports are taken, so it is running; {counters}"
    ))
}
