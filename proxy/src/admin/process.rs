//! What the kernel says of this process: memory, processor time, descriptors (proc(5)).

use std::io;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// In use now.
    pub resident: u64,
    /// The most there ever was.
    pub peak: u64,
    /// Heap and stacks.
    pub anonymous: u64,
    /// Pages of the program itself, shared with every other sidecar of the node.
    pub file: u64,
    /// Address space.
    pub virtual_size: u64,
    /// Threads.
    pub threads: u64,
}

impl Memory {
    /// From `/proc/self/status`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/status")?))
    }

    fn parse(status: &str) -> Self {
        let mut memory = Self::default();
        for line in status.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let number = value
                .split_ascii_whitespace()
                .next()
                .and_then(|n| n.parse().ok());
            let number: u64 = number.unwrap_or_default();
            match key {
                "VmRSS" => memory.resident = number * 1024,
                "VmHWM" => memory.peak = number * 1024,
                "RssAnon" => memory.anonymous = number * 1024,
                "RssFile" => memory.file = number * 1024,
                "VmSize" => memory.virtual_size = number * 1024,
                "Threads" => memory.threads = number,
                _ => {}
            }
        }
        memory
    }
}

/// Processor time of all threads so far, user and system, in seconds.
pub fn cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    })
}

/// Descriptors that are open.
pub fn open_descriptors() -> u64 {
    // Reading the directory opens one itself.
    std::fs::read_dir("/proc/self/fd")
        .map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}

/// Descriptors that may be open.
pub fn most_descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let text = "Name:\tweft-proxy\nVmHWM:\t   2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        let memory = Memory::parse(text);
        assert_eq!(
            (memory.resident, memory.peak, memory.threads),
            (1 << 20, 2 << 20, 3)
        );
        assert!(Memory::read().is_ok_and(|m| m.resident > 0 && m.threads > 0 && m.anonymous > 0));
        assert!(cpu_seconds() >= 0.0 && open_descriptors() > 0 && most_descriptors() > 0);
    }
}
