//! A container's view of the file system: the host's, with every change going to memory.
//!
//! In a mount namespace of its own, an overlay covers the lower directory (the host's `/` unless the pod names
//! another); its upper layer is a tmpfs that goes away with the last process. So mount points such as
//! `/var/run/secrets/...` and anything a program writes leave nothing on the host. Other file systems of the host get
//! an overlay each, or are shown read-only where the kernel cannot. `/run` and `/dev` are new, `/proc` is the container's.
//! Volumes are bound after `pivot_root`, so that links in their paths mean what they mean inside.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chown, pivot_root, sethostname};

use super::spec::{BIN, ContainerSpec, Mount};

/// Where the old root is while the new one is completed.
const OLD: &str = "/.weft-old-root";

/// Devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds the container's mounts and enters them.
pub(crate) fn enter(spec: &ContainerSpec) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .map_err(|e| format!("cannot make namespaces: {e}"))?;
    sethostname(&spec.hostname).map_err(|e| format!("cannot set the host name: {e}"))?;
    attach(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None,
    )?;

    let layers = Layers {
        scratch: spec.scratch.clone(),
    };
    let root = layers.start()?;
    layers.cover(&spec.root, &root, 0)?;
    for (n, point) in other_mounts(&spec.root).into_iter().enumerate() {
        let inside = point.strip_prefix(&spec.root).unwrap_or(&point);
        layers.cover_or_show(&point, &root.join(inside), n + 1);
    }
    system(&root)?;
    for (path, content) in &spec.files {
        write_file(&root, path, content)?;
    }

    let old = root.join(OLD.trim_start_matches('/'));
    fs::create_dir_all(&old).map_err(|e| format!("{}: {e}", old.display()))?;
    pivot_root(&root, &old).map_err(|e| format!("cannot enter {}: {e}", root.display()))?;
    std::env::set_current_dir("/").map_err(|e| format!("/: {e}"))?;

    let programs = Mount {
        source: spec.programs.clone(),
        target: BIN.into(),
        read_only: true,
        recursive: false,
    };
    for mount in spec.mounts.iter().chain([&programs]) {
        bind(mount)?;
    }
    fs::create_dir_all(&spec.cwd)
        .map_err(|e| format!("working directory {}: {e}", spec.cwd.display()))?;
    umount2(OLD, MntFlags::MNT_DETACH).map_err(|e| format!("cannot leave the host's root: {e}"))?;
    fs::remove_dir(OLD).map_err(|e| format!("{OLD}: {e}"))?;
    if spec.read_only_root {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        attach(None, Path::new("/"), None, flags, None)?;
    }
    Ok(())
}

fn attach(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<(), String> {
    mount(source, target, kind, flags, data).map_err(|errno| {
        let what = kind
            .or_else(|| source.and_then(Path::to_str))
            .unwrap_or("flags");
        format!("cannot mount {what} on {}: {errno}", target.display())
    })
}

/// The tmpfs that holds the upper layers.
struct Layers {
    scratch: PathBuf,
}

impl Layers {
    fn start(&self) -> Result<PathBuf, String> {
        fs::create_dir_all(&self.scratch)
            .map_err(|e| format!("{}: {e}", self.scratch.display()))?;
        attach(
            None,
            &self.scratch,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=0755"),
        )?;
        let root = self.scratch.join("root");
        fs::create_dir(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        Ok(root)
    }

    fn cover(&self, lower: &Path, target: &Path, n: usize) -> Result<(), String> {
        let (upper, work) = (
            self.scratch.join(format!("upper{n}")),
            self.scratch.join(format!("work{n}")),
        );
        let like = fs::metadata(lower).map_err(|e| format!("{}: {e}", lower.display()))?;
        for directory in [&upper, &work] {
            fs::create_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        }
        // The overlay's own root looks like the upper directory.
        let _ = fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777));
        let _ = chown(
            &upper,
            Some(Uid::from_raw(like.uid())),
            Some(Gid::from_raw(like.gid())),
        );
        let escape = |path: &Path| {
            path.display()
                .to_string()
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace(':', "\\:")
        };
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            escape(lower),
            escape(&upper),
            escape(&work)
        );
        attach(
            Some(Path::new("overlay")),
            target,
            Some("overlay"),
            MsFlags::empty(),
            Some(&options),
        )
    }

    /// An overlay where possible, else the directory itself, read-only, else what is below it stays hidden.
    fn cover_or_show(&self, lower: &Path, target: &Path, n: usize) {
        if !target.is_dir() || self.cover(lower, target, n).is_ok() {
            return;
        }
        if attach(Some(lower), target, None, MsFlags::MS_BIND, None).is_ok() {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            let _ = attach(None, target, None, flags, None);
        }
    }
}

/// Mount points of ordinary file systems below `root`, parents first.
fn other_mounts(root: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse_mounts(&table, root)
}

fn parse_mounts(table: &str, root: &Path) -> Vec<PathBuf> {
    const NEW: [&str; 4] = ["proc", "sys", "dev", "run"];
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let point = PathBuf::from(unescape(line.split(' ').nth(4)?));
            let inside = point.strip_prefix(root).ok()?.to_owned();
            let first = inside.components().next()?.as_os_str().to_str()?.to_owned();
            (!NEW.contains(&first.as_str()) && point.is_dir()).then_some(point)
        })
        .collect();
    points.sort();
    points.dedup();
    points
}

/// The octal escapes of `mountinfo` (proc(5)): space, tab, newline and backslash.
fn unescape(word: &str) -> String {
    word.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// `/proc`, `/sys`, `/dev`, `/run`: new in each container.
fn system(root: &Path) -> Result<(), String> {
    let at = |name: &str| root.join(name);
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        make(&at(name), 0o755)?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    attach(
        Some(Path::new("proc")),
        &at("proc"),
        Some("proc"),
        quiet,
        None,
    )?;
    attach(
        Some(Path::new("sysfs")),
        &at("sys"),
        Some("sysfs"),
        quiet | MsFlags::MS_RDONLY,
        None,
    )?;
    attach(
        Some(Path::new("tmpfs")),
        &at("run"),
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755"),
    )?;
    run_skeleton(&at("run"));

    devices(&at("dev"))
}

fn make(path: &Path, mode: u32) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|e| format!("{}: {e}", path.display()))
}

/// A `/dev` with the usual devices, its own terminals and its own shared memory.
fn devices(dev: &Path) -> Result<(), String> {
    attach(
        Some(Path::new("tmpfs")),
        dev,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=0755"),
    )?;
    for name in DEVICES.into_iter().chain(["net/tun", "fuse"]) {
        let host = Path::new("/dev").join(name);
        if host.exists() {
            let target = dev.join(name);
            if let Some(parent) = target.parent() {
                make(parent, 0o755)?;
            }
            File::create(&target).map_err(|e| format!("{}: {e}", target.display()))?;
            attach(Some(&host), &target, None, MsFlags::MS_BIND, None)?;
        }
    }
    make(&dev.join("pts"), 0o755)?;
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    attach(
        Some(Path::new("devpts")),
        &dev.join("pts"),
        Some("devpts"),
        terminals,
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    )?;
    make(&dev.join("shm"), 0o755)?;
    attach(
        Some(Path::new("tmpfs")),
        &dev.join("shm"),
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV,
        Some("mode=1777,size=64m"),
    )?;
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(link)).map_err(|e| format!("/dev/{link}: {e}"))?;
    }
    Ok(())
}

/// The host's top-level directories of `/run`, empty: Debian's daemons expect theirs with the right owner.
fn run_skeleton(run: &Path) {
    let Ok(entries) = fs::read_dir("/run") else {
        return;
    };
    for entry in entries.flatten() {
        let (Ok(meta), name) = (entry.metadata(), entry.file_name()) else {
            continue;
        };
        if !meta.is_dir() || ["weft", "netns"].iter().any(|hidden| name == *hidden) {
            continue;
        }
        let path = run.join(&name);
        if fs::create_dir(&path).is_ok() {
            let _ = chown(
                &path,
                Some(Uid::from_raw(meta.uid())),
                Some(Gid::from_raw(meta.gid())),
            );
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(meta.mode() & 0o7777));
        }
    }
}

/// Replaces a file of the overlay. A link (Debian's `/etc/resolv.conf` may be one) is replaced, not followed.
fn write_file(root: &Path, path: &Path, content: &str) -> Result<(), String> {
    let inside = root.join(path.strip_prefix("/").unwrap_or(path));
    if let Some(parent) = inside.parent() {
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    }
    let _ = fs::remove_file(&inside);
    fs::write(&inside, content).map_err(|e| format!("{}: {e}", path.display()))
}

/// Binds a volume, making its mount point if need be.
fn bind(mount: &Mount) -> Result<(), String> {
    let source = Path::new(OLD).join(mount.source.strip_prefix("/").unwrap_or(&mount.source));
    let failed = |e: std::io::Error| format!("volume mount {}: {e}", mount.target.display());
    let meta = fs::metadata(&source)
        .map_err(|e| format!("volume source {}: {e}", mount.source.display()))?;
    if meta.is_dir() {
        fs::create_dir_all(&mount.target).map_err(failed)?;
    } else if !mount.target.exists() {
        if let Some(parent) = mount.target.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        File::create(&mount.target).map_err(failed)?;
    }
    let recursive = if mount.recursive {
        MsFlags::MS_REC
    } else {
        MsFlags::empty()
    };
    attach(
        Some(&source),
        &mount.target,
        None,
        MsFlags::MS_BIND | recursive,
        None,
    )?;
    if mount.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        attach(None, &mount.target, None, flags, None)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn system_mounts_and_foreign_ones_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["srv data", "proc", "run/lock", "srv data/deep"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let at = root.display();
        let table = format!(
            "1 0 8:1 / {at} rw - ext4 /dev/a rw\n\
             2 1 8:2 / {at}/srv\\040data/deep rw - ext4 /dev/b rw\n\
             3 1 8:2 / {at}/srv\\040data rw - ext4 /dev/b rw\n\
             4 1 0:5 / {at}/proc rw - proc proc rw\n\
             5 1 0:6 / {at}/run/lock rw - tmpfs tmpfs rw\n\
             6 1 0:7 / {at}/gone rw - tmpfs tmpfs rw\n\
             7 1 0:8 / /elsewhere rw - tmpfs tmpfs rw\n"
        );
        assert_eq!(
            parse_mounts(&table, root),
            [root.join("srv data"), root.join("srv data/deep")]
        );
    }
}
