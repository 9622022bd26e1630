//! What can go wrong in the kernel or with the programs, and what would fix it.
//!
//! Raised by every module that touches the namespace. [`Error::from_program`] is where a program's own words become
//! one of ours.

use crate::Family;
use crate::config::backend::Backend;
use std::fmt;
use std::io;

/// Something the running kernel does not offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The nf_tables subsystem.
    NfTables,
    /// Network address translation for this IP version.
    NatTable,
    /// The table before connection tracking, needed by DNS capture.
    RawTable,
    /// The REDIRECT target.
    Redirect,
    /// Matching the sending process' user.
    Owner,
    /// Conntrack zones, needed by DNS capture.
    Zones,
}

impl Feature {
    /// What to load or use instead.
    fn fix(self) -> &'static str {
        match self {
            Self::NfTables => {
                "load it on the node (modprobe nf_tables; CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET), or use --backend iptables-legacy"
            }
            Self::NatTable => {
                "load it on the node (modprobe nft_chain_nat; for iptables-legacy iptable_nat and ip6table_nat), or use another --backend; \
                 nftables needs Linux 5.2, and --ipv6 off does without ip6table_nat"
            }
            Self::RawTable => {
                "load it on the node (modprobe iptable_raw ip6table_raw), use another --backend, or leave out --capture-dns"
            }
            Self::Redirect => {
                "load it on the node (modprobe nft_redir; for iptables xt_REDIRECT), or use another --backend"
            }
            Self::Owner => {
                "load it on the node (modprobe nft_meta; for iptables xt_owner), or use another --backend"
            }
            Self::Zones => {
                "load it on the node (modprobe nft_ct; for iptables xt_CT; CONFIG_NF_CONNTRACK_ZONES), or leave out --capture-dns"
            }
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NfTables => "nf_tables",
            Self::NatTable => "the nat table",
            Self::RawTable => "the raw table",
            Self::Redirect => "REDIRECT",
            Self::Owner => "the owner match",
            Self::Zones => "conntrack zones",
        })
    }
}

/// Why the rules could not be read, installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A capability is missing.
    #[error(
        "{capability} is missing (running as uid {uid}); run weft-init as root with it: in Kubernetes \
         securityContext {{ runAsUser: 0, runAsNonRoot: false, capabilities: {{ add: [NET_ADMIN, NET_RAW] }} }}"
    )]
    NotPermitted {
        /// Its name in the kernel's headers.
        capability: &'static str,
        /// Effective user of this process.
        uid: u32,
    },
    /// A back end's program is not there.
    #[error("back end {backend}: {program} not found in PATH; install the package \"{}\", or use another --backend", backend.package())]
    ProgramMissing {
        /// The back end that needs it.
        backend: Backend,
        /// What was looked for.
        program: String,
    },
    /// The kernel lacks something.
    #[error("back end {backend}{}: this kernel does not offer {feature} ({detail}); {}", for_family(*family), feature.fix())]
    KernelLacks {
        /// The back end that needs it.
        backend: Backend,
        /// For which IP version, when it matters.
        family: Option<Family>,
        /// What is missing.
        feature: Feature,
        /// The program's own words.
        detail: String,
    },
    /// The lock file of iptables cannot be made.
    #[error(
        "the lock of iptables cannot be taken ({detail}); mount an emptyDir on /run, or use --backend nftables"
    )]
    LockFile {
        /// The program's own words.
        detail: String,
    },
    /// Someone else changes rules.
    #[error(
        "another process has been changing the rules of this namespace for {seconds} s; try again, or look for a hanging weft-init or iptables"
    )]
    Busy {
        /// How long was waited.
        seconds: u64,
    },
    /// A program failed in a way not known here.
    #[error("{program} failed ({status}): {detail}")]
    Program {
        /// Its path.
        program: String,
        /// The IP version it worked on, when it matters.
        family: Option<Family>,
        /// Exit status.
        status: String,
        /// Its own words.
        detail: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// No back end worked; one line for each.
    #[error("no back end works here:{}", listed(.0))]
    NoBackend(Vec<Error>),
}

fn for_family(family: Option<Family>) -> String {
    family
        .map(|family| format!(" ({family})"))
        .unwrap_or_default()
}

fn listed(errors: &[Error]) -> String {
    errors.iter().fold(String::new(), |text, error| {
        text + "
  - " + &error.to_string()
    })
}

impl Error {
    /// For `map_err` on system calls.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io {
            what: what.into(),
            source,
        }
    }

    /// Did it concern IPv6 alone?
    pub fn is_ipv6(&self) -> bool {
        let (Self::KernelLacks { family, .. } | Self::Program { family, .. }) = self else {
            return false;
        };
        *family == Some(Family::V6)
    }

    /// Makes sense of what a back end's program printed when it failed.
    pub fn from_program(
        backend: Backend,
        family: Option<Family>,
        program: &str,
        status: String,
        stderr: &str,
    ) -> Self {
        // Warnings about revisions of extensions precede many successes too.
        let said: Vec<&str> = stderr
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("Warning:"))
            .collect();
        let detail = said.join(" ");
        let said = detail.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if has(&["can't open lock file", "cannot open lock file"]) {
            return Self::LockFile { detail };
        }
        if has(&["holding the xtables lock"]) {
            return Self::Busy {
                seconds: crate::config::PATIENCE.as_secs(),
            };
        }
        if has(&[
            "permission denied",
            "operation not permitted",
            "must be root",
        ]) {
            return Self::NotPermitted {
                capability: "CAP_NET_ADMIN",
                uid: nix::unistd::geteuid().as_raw(),
            };
        }
        let feature = if has(&["failed to initialize nft", "initialize netlink socket"]) {
            Some(Feature::NfTables)
        } else if !has(&[
            "not supported",
            "no such file",
            "does not exist",
            "can't initialize",
            "couldn't load",
            "no chain/target/match",
        ]) {
            None
        } else if has(&["redirect"]) {
            Some(Feature::Redirect)
        } else if has(&["skuid", "skgid", "owner"]) {
            Some(Feature::Owner)
        } else if has(&["ct zone", "`ct'", "target \"ct\"", "--zone"]) {
            Some(Feature::Zones)
        } else if has(&["`raw'", "table raw"]) {
            Some(Feature::RawTable)
        } else if has(&["`nat'", "type nat", "table nat"]) {
            Some(Feature::NatTable)
        } else {
            None
        };
        match feature {
            Some(feature) => Self::KernelLacks {
                backend,
                family,
                feature,
                detail,
            },
            None => Self::Program {
                program: program.to_owned(),
                family,
                status,
                detail,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(stderr: &str) -> Error {
        Error::from_program(
            Backend::Iptables,
            Some(Family::V6),
            "p",
            "exit status: 1".to_owned(),
            stderr,
        )
    }

    #[test]
    fn kernel_features_are_recognised() {
        for (stderr, feature) in [
            (
                "iptables-restore v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
                Feature::NatTable,
            ),
            (
                "ip6tables-restore: can't initialize ip6tables table `raw': Table does not exist",
                Feature::RawTable,
            ),
            (
                "iptables/1.8.9 Failed to initialize nft: Protocol not supported",
                Feature::NfTables,
            ),
            (
                "Unable to initialize Netlink socket: Protocol not supported",
                Feature::NfTables,
            ),
            (
                "/dev/stdin:4:3-30: Error: Could not process rule: No such file or directory\n\t\tmeta l4proto tcp redirect to :15001\n",
                Feature::Redirect,
            ),
            (
                "iptables-restore v1.8.9 (nf_tables): Couldn't load target `REDIRECT':No such file or directory",
                Feature::Redirect,
            ),
            (
                "Error: Could not process rule: Operation not supported\n chain WEFT_OUTPUT { type nat hook output priority -100; }",
                Feature::NatTable,
            ),
            (
                "Error: Could not process rule: No such file or directory\n meta skuid 1337 return",
                Feature::Owner,
            ),
            (
                "Error: Could not process rule: Operation not supported\n udp dport 53 ct zone set 1",
                Feature::Zones,
            ),
        ] {
            match classified(stderr) {
                Error::KernelLacks { feature: found, .. } => assert_eq!(found, feature, "{stderr}"),
                other => panic!("{stderr}: {other}"),
            }
        }
    }

    #[test]
    fn other_failures_are_recognised() {
        assert!(matches!(
            classified("Fatal: can't open lock file /run/xtables.lock: Read-only file system"),
            Error::LockFile { .. }
        ));
        assert!(matches!(
            classified(
                "Another app is currently holding the xtables lock; still 9s 0us time ahead"
            ),
            Error::Busy { .. }
        ));
        assert!(matches!(
            classified(
                "Could not fetch rule set generation id: Permission denied (you must be root)"
            ),
            Error::NotPermitted { .. }
        ));
        assert!(matches!(
            classified("netlink: Error: Operation not permitted"),
            Error::NotPermitted { .. }
        ));
        let unknown = classified(
            "Warning: Extension REDIRECT is not supported, missing kernel module?\nsomething else",
        );
        assert!(unknown.is_ipv6());
        assert_eq!(
            unknown.to_string(),
            "p failed (exit status: 1): something else"
        );
    }
}
