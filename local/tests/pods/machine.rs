//! What of this machine a mesh could leave behind.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::mesh::{LINKS, MARKER, prefix};

/// Links of deleted namespaces vanish a moment later.
const PATIENCE: Duration = Duration::from_secs(5);

/// A setting that meshes change while any of them is up.
const IP_FORWARD: &str = "ip_forward: ";

/// Namespaces, links, rules, routes, mounts, files, processes and settings, one line each.
pub(crate) struct Machine(BTreeSet<String>);

impl Machine {
    /// The machine now.
    pub(crate) fn look() -> Self {
        let mut seen = BTreeSet::new();
        let mut add = |what: &str, text: &str| {
            seen.extend(text.lines().map(|line| format!("{what}: {line}")));
        };
        add("netns", &output("ip", &["netns", "list"]));
        add("link", &output("ip", &["-o", "link"]));
        add("route", &output("ip", &["route", "show", "table", "all"]));
        add(
            "route",
            &output("ip", &["-6", "route", "show", "table", "all"]),
        );
        add("nft", &output("nft", &["list", "tables"]));
        add(
            "mount",
            &std::fs::read_to_string("/proc/self/mounts").unwrap(),
        );
        for directory in ["/run/weft", "/dev/shm", "/tmp", "/run/netns"] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                add("file", &entry.path().display().to_string());
            }
        }
        add(
            "ip_forward",
            &std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
        );
        add("process", &processes());
        Self(seen)
    }

    /// What there is now and was not before. Other meshes may come and go on this machine: only what bears a name of
    /// ours counts, and settings only while there is no other.
    pub(crate) fn what_is_new(&self) -> Vec<String> {
        let started = Instant::now();
        loop {
            let now = Self::look().0;
            let others = !weft_local::meshes().is_empty() || self.0.contains("ip_forward: 1");
            let new: Vec<String> = now
                .difference(&self.0)
                .filter(|line| ours(line) || (line.starts_with(IP_FORWARD) && !others))
                .cloned()
                .collect();
            if new.is_empty() || started.elapsed() > PATIENCE {
                return new;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether a line bears a name of ours.
fn ours(line: &str) -> bool {
    line.contains(&format!("weft-{}", prefix()))
        || line.contains(&format!("/run/weft/{}", prefix()))
        || line.starts_with("process: ")
        || LINKS.lock().unwrap().iter().any(|link| line.contains(link))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Processes of this program other than itself, and those whose command line carries the marker of the tests.
fn processes() -> String {
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter(|p| *p != std::process::id());
    pids.filter_map(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace(['\0', '\n'], " ");
        let ours = std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own);
        (ours || command.contains(MARKER)).then(|| format!("{pid} {command}\n"))
    })
    .collect()
}
