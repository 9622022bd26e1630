//! Runs the programs of a [`Backend`].
//!
//! [`crate::apply`] and [`crate::verify`] call [`Backend::install`], [`Backend::remove`] and [`Backend::read`]; the
//! text comes from [`crate::iptables`] and [`crate::nftables`].

use crate::Family;
use crate::capability::Capability;
use crate::config::PATIENCE;
use crate::config::backend::Backend;
use crate::error::Error;
use crate::namespace::{Ipv6, legacy_tables};
use crate::present::Present;
use crate::rules::{Ruleset, Table};
use crate::{iptables, nftables};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

impl Backend {
    /// The rules as they would be handed over in a namespace without any, one text for each program run.
    pub fn render(self, ruleset: &Ruleset) -> Vec<(String, String)> {
        let restore = |family| format!("{} --noflush", self.program(family, "restore"));
        match self {
            Self::Nftables => vec![("nft -f -".to_owned(), nftables::install(ruleset))],
            Self::Iptables | Self::IptablesLegacy => (ruleset.families().iter())
                .map(|family| {
                    (
                        restore(*family),
                        iptables::install(ruleset, *family, &Present::default()),
                    )
                })
                .collect(),
        }
    }

    /// Are its programs there? The answer to a dry run of "auto", which must not touch the kernel.
    pub fn is_installed(self) -> bool {
        match self {
            Self::Nftables => self.find("nft").is_ok(),
            Self::Iptables | Self::IptablesLegacy => self.locate(Family::V4, "restore").is_ok(),
        }
    }

    /// Replaces our rules by these. Atomic with nftables; with iptables table by table, IPv4 before IPv6. After an
    /// error what had been committed stays: rules that capture too much fail closed, none at all would not.
    pub fn install(self, ruleset: &Ruleset) -> Result<(), Error> {
        match self {
            Self::Nftables => self.nft(&nftables::install(ruleset)),
            Self::Iptables | Self::IptablesLegacy => {
                for family in [Family::V4, Family::V6] {
                    if ruleset.families().contains(&family) {
                        let present = self.read(family)?;
                        self.restore(family, &iptables::install(ruleset, family, &present))?;
                    } else {
                        self.remove_family(family)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Removes all that is ours; true when there was something.
    pub fn remove(self) -> Result<bool, Error> {
        match self {
            Self::Nftables => {
                let found = self.nft_table()?.is_some();
                if found {
                    self.nft(&nftables::remove())?;
                }
                Ok(found)
            }
            Self::Iptables | Self::IptablesLegacy => {
                let v4 = self.remove_family(Family::V4)?;
                let v6 = self.remove_family(Family::V6)?;
                Ok(v4 || v6)
            }
        }
    }

    /// What is ours in the kernel. With nftables it is the same for both families.
    pub fn read(self, family: Family) -> Result<Present, Error> {
        match self {
            Self::Nftables => Ok(self
                .nft_table()?
                .map(|text| nftables::parse_list(&text))
                .unwrap_or_default()),
            Self::Iptables | Self::IptablesLegacy => self.save(family),
        }
    }

    /// What [`Backend::read`] returns when `ruleset` is in force.
    pub fn expected(self, ruleset: &Ruleset, family: Family) -> Present {
        match self {
            Self::Nftables => nftables::expected(ruleset),
            Self::Iptables | Self::IptablesLegacy => iptables::expected(ruleset, family),
        }
    }

    fn remove_family(self, family: Family) -> Result<bool, Error> {
        let present = self.read(family)?;
        if present.is_empty() {
            return Ok(false);
        }
        self.restore(family, &iptables::remove(family, &present))?;
        Ok(true)
    }

    fn nft(self, script: &str) -> Result<(), Error> {
        let program = self.find("nft")?;
        let done = run(&program, &["-f", "-"], script)?;
        self.succeeded(&program, None, &done)
    }

    /// The listing of our table, `None` when there is none.
    fn nft_table(self) -> Result<Option<String>, Error> {
        let program = self.find("nft")?;
        let mut arguments = vec!["list", "table"];
        arguments.extend(nftables::TABLE.split(' '));
        let done = run(&program, &arguments, "")?;
        if !done.success && done.stderr.contains("No such file or directory") {
            return Ok(None);
        }
        self.succeeded(&program, None, &done)?;
        Ok(Some(done.stdout))
    }

    fn restore(self, family: Family, text: &str) -> Result<(), Error> {
        let program = self.locate(family, "restore")?;
        let seconds = PATIENCE.as_secs().to_string();
        let done = run(&program, &["--noflush", "-w", &seconds], text)?;
        self.succeeded(&program, Some(family), &done)
    }

    fn save(self, family: Family) -> Result<Present, Error> {
        let mut tables = Table::ALL.map(Table::name).to_vec();
        if self == Self::IptablesLegacy {
            let in_use = legacy_tables(family);
            tables.retain(|table| in_use.iter().any(|name| name == table));
        }
        let no_kernel = family == Family::V6 && Ipv6::detect() == Ipv6::NoKernel;
        if tables.is_empty() || no_kernel {
            return Ok(Present::default());
        }
        let program = self.locate(family, "save")?;
        let mut text = String::new();
        for table in tables {
            let done = run(&program, &["-c", "-t", table], "")?;
            self.succeeded(&program, Some(family), &done)?;
            text.push_str(&done.stdout);
        }
        Ok(iptables::parse_save(&text))
    }

    fn program(self, family: Family, action: &str) -> String {
        let name = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self {
            Self::IptablesLegacy => format!("{name}-legacy-{action}"),
            Self::Iptables => format!("{name}-nft-{action}"),
            Self::Nftables => "nft".to_owned(),
        }
    }

    /// The program by its exact name, or the plain name when its version says it is of this kind.
    fn locate(self, family: Family, action: &str) -> Result<PathBuf, Error> {
        if self == Self::IptablesLegacy {
            Capability::NetRaw.require()?;
        }
        let exact = self.program(family, action);
        let missing = match self.find(&exact) {
            Ok(path) => return Ok(path),
            Err(missing) => missing,
        };
        let plain = exact.replace("-nft-", "-").replace("-legacy-", "-");
        let Ok(path) = self.find(&plain) else {
            return Err(missing);
        };
        let version = run(&path, &["--version"], "")?.stdout;
        if version.contains("(nf_tables)") == (self == Self::Iptables) {
            Ok(path)
        } else {
            Err(missing)
        }
    }

    fn find(self, program: &str) -> Result<PathBuf, Error> {
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| Error::ProgramMissing {
                backend: self,
                program: program.to_owned(),
            })
    }

    fn succeeded(self, program: &Path, family: Option<Family>, done: &Done) -> Result<(), Error> {
        if done.success {
            return Ok(());
        }
        let program = program.display().to_string();
        Err(Error::from_program(
            self,
            family,
            &program,
            done.status.clone(),
            &done.stderr,
        ))
    }
}

/// A finished program.
struct Done {
    success: bool,
    status: String,
    stdout: String,
    stderr: String,
}

fn run(program: &Path, arguments: &[&str], stdin: &str) -> Result<Done, Error> {
    let running = || format!("running {}", program.display());
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C") // its messages are read
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(running()))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that fails early closes its end; its status and message say more than the broken pipe.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(running()))?;
    Ok(Done {
        success: output.status.success(),
        status: output.status.to_string(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
