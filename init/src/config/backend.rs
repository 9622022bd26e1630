//! The three ways to the kernel.
//!
//! Chosen in [`crate::config`], gone in [`crate::backend`], named in [`crate::error`].

use std::fmt;

/// How rules get into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// `nft`, with a table of our own.
    Nftables,
    /// `iptables` on nf_tables.
    Iptables,
    /// `iptables` on x_tables.
    IptablesLegacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

impl Backend {
    /// In the order "auto" tries them: nftables is atomic over both IP versions, legacy is on its way out of kernels.
    pub const ALL: [Self; 3] = [Self::Nftables, Self::Iptables, Self::IptablesLegacy];

    /// The package that holds its programs, by the name most distributions use.
    pub fn package(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables | Self::IptablesLegacy => "iptables",
        }
    }
}
