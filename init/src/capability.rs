//! Capabilities of this process, asked before anything is tried, so that the message names the missing one.
//!
//! Used by [`crate::apply`] and [`crate::verify`].

use crate::error::Error;

/// A capability and its bit (linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Change rules and addresses.
    NetAdmin,
    /// Open raw sockets, as iptables-legacy does to talk to the kernel.
    NetRaw,
}

impl Capability {
    fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::NetRaw => 13,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
        }
    }

    /// Fails with [`Error::NotPermitted`] when this thread does not have it. Where /proc does not tell, the kernel will.
    pub fn require(self) -> Result<(), Error> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        match effective(&status) {
            Some(held) if held & (1 << self.bit()) == 0 => Err(Error::NotPermitted {
                capability: self.name(),
                uid: nix::unistd::geteuid().as_raw(),
            }),
            _ => Ok(()),
        }
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\tffff\nCapEff:\t0000000000001000\nCapBnd:\t00\n";
        assert_eq!(effective(status), Some(1 << Capability::NetAdmin.bit()));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
