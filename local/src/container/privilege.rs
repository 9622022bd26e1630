//! The last step before a container's command: user, groups, capabilities, limits.
//!
//! The parameters travel as flags, not in a file: at this point the host's files are out of sight. For a process of
//! uid 0 the bounding set is what counts, because executing a program grants root all of it; for any other user
//! nothing is left, as in container runtimes without ambient capabilities.

use std::ffi::CString;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::spec::ContainerSpec;

/// Names of the capabilities by number, without `CAP_` (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd and Docker grant by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Open files a container may have: what container runtimes set.
const OPEN_FILES: u64 = 1_048_576;

/// The numbers of the capabilities a container keeps. `ALL` is understood on both sides, as is a `CAP_` in front;
/// an unknown name is an error.
pub(crate) fn capabilities(
    privileged: bool,
    add: &[String],
    drop: &[String],
) -> Result<Vec<u8>, String> {
    let number = |name: &str| {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        CAPABILITIES
            .iter()
            .position(|known| *known == bare)
            .ok_or_else(|| format!("unknown capability {name:?}"))
    };
    let is_all = |name: &String| name == "ALL" || name == "CAP_ALL";
    let mut kept = [privileged || add.iter().any(is_all); CAPABILITIES.len()];
    if !drop.iter().any(is_all) {
        for name in DEFAULT {
            kept[number(name)?] = true;
        }
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        kept[number(name)?] = privileged;
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        kept[number(name)?] = true;
    }
    Ok((0_u8..)
        .zip(kept)
        .filter(|(_, kept)| *kept)
        .map(|(number, _)| number)
        .collect())
}

/// The `run` stage's flags for a container.
pub(crate) fn flags(spec: &ContainerSpec) -> Vec<String> {
    let list = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(",");
    vec![
        spec.uid.to_string(),
        spec.gid.to_string(),
        list(&mut spec.groups.iter().map(u32::to_string)),
        list(&mut spec.capabilities.iter().map(u8::to_string)),
        u8::from(spec.no_new_privileges).to_string(),
        spec.cwd.display().to_string(),
    ]
}

/// The `run` stage: takes the flags' privileges and becomes the command. Returns only on failure, with the shell's
/// codes: 127 for a program that is not there, 126 for one that cannot be executed.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let [
        uid,
        gid,
        groups,
        capabilities,
        no_new_privileges,
        cwd,
        separator,
        command @ ..,
    ] = words
    else {
        return super::refuse("flags are missing");
    };
    if separator != "--" || command.is_empty() {
        return super::refuse("flags are missing");
    }
    let taken = numbers(groups)
        .zip(numbers(capabilities))
        .zip(uid.parse().ok())
        .zip(gid.parse().ok());
    let Some((((groups, capabilities), uid), gid)) = taken else {
        return super::refuse("flags cannot be read");
    };
    // The stages before this one block signals to wait for them; a new program would inherit that.
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        return super::refuse(&format!("signals: {errno}"));
    }
    if let Err(reason) = take(uid, gid, &groups, &capabilities, no_new_privileges == "1") {
        return super::refuse(&reason);
    }
    if let Err(error) = std::env::set_current_dir(cwd) {
        return super::refuse(&format!("working directory {cwd}: {error}"));
    }
    let error = execute(command);
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    super::refuse(&format!("{}: {error}", command[0]));
    ExitCode::from(code)
}

fn numbers(list: &str) -> Option<Vec<u32>> {
    list.split(',')
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().ok())
        .collect()
}

fn take(
    uid: u32,
    gid: u32,
    groups: &[u32],
    capabilities: &[u32],
    no_new_privileges: bool,
) -> Result<(), String> {
    let failed = |what: &'static str| move |errno: nix::Error| format!("{what}: {errno}");
    // Programs reopen /dev/stdout and /dev/stderr by name, which asks the pipe's owner.
    for stream in [
        nix::unistd::fchown(std::io::stdout(), Some(uid.into()), None),
        nix::unistd::fchown(std::io::stderr(), Some(uid.into()), None),
    ] {
        // A terminal or file of `exec` stays its owner's.
        let _ = stream;
    }
    let hard = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(failed("limits"))?
        .1;
    let open_files = OPEN_FILES.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, open_files, open_files)
        .map_err(failed("limit of open files"))?;
    for number in 0..CAPABILITIES.len() as u32 {
        if !capabilities.contains(&number) {
            // A kernel older than the table does not know the last ones.
            let capability = CapabilitySet::from_bits_retain(1 << number);
            match remove_capability_from_bounding_set(capability) {
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => {
                    return Err(format!(
                        "capability {}: {errno}",
                        CAPABILITIES[number as usize]
                    ));
                }
            }
        }
    }
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).map_err(failed("supplementary groups"))?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::setresgid(gid, gid, gid).map_err(failed("runAsGroup"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(failed("runAsUser"))?;
    if no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(failed("no_new_privs"))?;
    }
    Ok(())
}

/// `execvp` with this process's environment; returns why it failed.
fn execute(command: &[String]) -> std::io::Error {
    let words: Result<Vec<CString>, _> = command
        .iter()
        .map(|word| CString::new(word.as_bytes()))
        .collect();
    match words {
        Ok(words) => match nix::unistd::execvp(&words[0], &words) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        },
        Err(error) => error.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn names(privileged: bool, add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let numbers = capabilities(privileged, &owned(add), &owned(drop)).unwrap();
        numbers
            .into_iter()
            .map(|n| CAPABILITIES[usize::from(n)])
            .collect()
    }

    #[test]
    fn defaults_additions_and_drops() {
        assert_eq!(names(false, &[], &[]).len(), DEFAULT.len());
        assert_eq!(
            names(false, &["NET_ADMIN", "CAP_NET_RAW"], &["ALL"]),
            ["NET_ADMIN", "NET_RAW"]
        );
        assert!(!names(false, &[], &["CHOWN"]).contains(&"CHOWN"));
        assert_eq!(names(false, &["ALL"], &[]).len(), CAPABILITIES.len());
        assert_eq!(names(true, &[], &[]).len(), CAPABILITIES.len());
        assert_eq!(names(false, &[], &["ALL"]), [""; 0]);
        assert!(capabilities(false, &["NET_ADMN".into()], &[]).is_err());
    }

    #[test]
    fn numbers_match_the_kernel() {
        for (name, number) in [
            ("NET_ADMIN", 12),
            ("SYS_ADMIN", 21),
            ("AUDIT_WRITE", 29),
            ("BPF", 39),
        ] {
            assert_eq!(CAPABILITIES[number], name);
        }
    }
}
