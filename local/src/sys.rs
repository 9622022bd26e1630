//! The kernel calls behind pods: working inside another network namespace, and starting a process there.
//!
//! `setns(2)` changes one thread only, so each entry below runs on a thread of its own that ends with it. A socket
//! stays in the namespace it was made in, whoever uses it later. Used by [`crate::network`], [`crate::dns`],
//! [`crate::pod`] and [`crate::control_plane`]; the other half, inside the new process, is [`crate::container`].

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps its named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// The file that stands for a named network namespace.
pub(crate) fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Runs `work` on a thread inside the named network namespace and waits for it. For short calls that block only in
/// the kernel (making and binding sockets, writing to `/proc/sys/net`).
pub(crate) fn in_netns<T: Send>(
    netns: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let path = netns_path(netns);
    std::thread::scope(|scope| {
        let handle = scope.spawn(move || {
            enter_netns(&path)?;
            work()
        });
        handle
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

fn enter_netns(path: &Path) -> io::Result<()> {
    let file = File::open(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    setns(file, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Which namespaces a started process gets besides its parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessTree {
    /// A PID namespace of its own: when its first process ends, so does everything it ever started.
    Isolated,
    /// The parent's PID namespace.
    Shared,
}

/// Starts a program in the named network namespace. Must be called on a Tokio runtime, which will reap it. Its
/// standard input is `/dev/null`; output goes where the command says.
pub(crate) fn spawn_in_netns(
    netns: &str,
    tree: ProcessTree,
    mut command: tokio::process::Command,
) -> io::Result<tokio::process::Child> {
    let path = netns_path(netns);
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let handle = scope.spawn(move || {
            let _on_runtime = runtime.enter();
            enter_netns(&path)?;
            if tree == ProcessTree::Isolated {
                unshare(CloneFlags::CLONE_NEWPID)?;
            }
            command.stdin(Stdio::null()).spawn()
        });
        handle
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

/// The processes whose network namespace is one of `netns` (names), as (pid, command line) pairs.
pub(crate) fn processes_in(netns: &[String]) -> Vec<(i32, String)> {
    let inodes: Vec<(u64, u64)> = netns
        .iter()
        .filter_map(|name| std::fs::metadata(netns_path(name)).ok())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect();
    let Ok(proc_entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    proc_entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|meta| inodes.contains(&(meta.dev(), meta.ino())))
        })
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// The first child of a process, as the caller's PID namespace numbers it.
pub(crate) fn first_child(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
