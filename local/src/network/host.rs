//! What a mesh changes in the host's own network namespace, and how it is put back.
//!
//! Changed: one veth link with routes to the pods, one nft table (masquerading for pods that reach outside), and
//! `net.ipv4.ip_forward` if it was off. The old value is kept in `/run/weft/host.json` while any mesh is up;
//! the last one to leave restores it. IPv6 forwarding stays as it is: turning it on makes the kernel ignore router
//! advertisements, which can take the machine off the network. Used by [`super::Node`] and [`crate::teardown`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use serde::{Deserialize, Serialize};

use super::Subnet;
use crate::names::Layout;
use crate::sys::NETNS_DIR;
use crate::{Error, tool};

const RUN: &str = "/run/weft";
const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The host as it was before the first mesh.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// Files of `/proc/sys` and their content.
    sysctls: BTreeMap<PathBuf, String>,
    /// `ip netns` turns its directory into a mount of its own when it is used first.
    netns_mounted: bool,
}

impl Saved {
    fn path() -> PathBuf {
        Path::new(RUN).join("host.json")
    }

    fn read() -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path()).ok()?).ok()
    }

    fn write(&self) -> Result<(), Error> {
        fs::write(Self::path(), serde_json::to_vec_pretty(self)?).map_err(Error::at(Self::path()))
    }
}

/// Notes what [`leave`] will put back. Call with [`lock`] held, before anything is changed.
pub(crate) fn remember() -> Result<(), Error> {
    if Saved::read().is_some() {
        return Ok(());
    }
    Saved {
        sysctls: BTreeMap::new(),
        netns_mounted: netns_is_mount(),
    }
    .write()
}

fn netns_is_mount() -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(NETNS_DIR))
}

/// Held while the host's network or `/run/weft` itself is read and changed, so that meshes do so one after the other.
pub(crate) fn lock() -> Result<Flock<File>, Error> {
    let path = Path::new(RUN).join(".lock");
    loop {
        fs::create_dir_all(RUN).map_err(Error::at(RUN))?;
        let file = match File::create(&path) {
            Ok(file) => file,
            // The last mesh left between the two calls.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::at(path)(error)),
        };
        let locked = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::at(&path)(errno.into()))?;
        // Whoever held it before may have removed the file: then others lock another one.
        let own = locked.metadata().map_err(Error::at(&path))?;
        if fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (own.dev(), own.ino())) {
            return Ok(locked);
        }
    }
}

/// Lets pods reach what the host reaches. Call with [`lock`] held.
pub(crate) fn forward(layout: &Layout, subnet: Subnet) -> Result<(), Error> {
    let (table, link) = (layout.host_table(), layout.host_link());
    let masquerade = |family: &str, prefix: String| {
        format!(
            "table {family} {table} {{\n chain postrouting {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
             {family} saddr {prefix} oifname != \"{link}\" masquerade\n }}\n}}\n"
        )
    };
    let mut script = masquerade("ip", format!("{}/24", subnet.v4(0)));
    if subnet.ipv6 {
        script += &masquerade("ip6", format!("{}/64", subnet.v6(0)));
    }
    tool::nft(None, &script)?;
    let old = fs::read_to_string(FORWARD_V4).map_err(Error::at(FORWARD_V4))?;
    if old.trim() == "0" {
        let mut saved = Saved::read().unwrap_or_default();
        saved.sysctls.insert(FORWARD_V4.into(), "0".into());
        saved.write()?;
        fs::write(FORWARD_V4, "1").map_err(Error::at(FORWARD_V4))?;
    }
    Ok(())
}

/// Whether pods can reach IPv6 addresses outside this machine; they always reach the machine itself.
pub(crate) fn forwards_ipv6() -> bool {
    fs::read_to_string(FORWARD_V6).is_ok_and(|value| value.trim() == "1")
}

/// Undoes [`forward`] and the link of a mesh; what is gone already is fine. Call with [`lock`] held.
pub(crate) fn restore(layout: &Layout) {
    tool::ip_force(&format!("link delete {}\n", layout.host_link()));
    for family in ["ip", "ip6"] {
        // Adding before deleting makes the deletion succeed whether or not the table was there.
        let table = layout.host_table();
        if let Err(error) = tool::nft(
            None,
            &format!("add table {family} {table}\ndelete table {family} {table}\n"),
        ) {
            tracing::warn!(%error, "the nft table could not be removed");
        }
    }
}

/// Puts back the sysctls if no mesh is left, then removes `/run/weft` itself. Call with [`lock`] held, after the mesh's
/// own directory is gone.
pub(crate) fn leave() {
    let others =
        fs::read_dir(RUN).is_ok_and(|entries| entries.flatten().any(|e| e.path().is_dir()));
    if others {
        return;
    }
    if let Some(saved) = Saved::read() {
        for (path, value) in saved.sysctls {
            if let Err(error) = fs::write(&path, &value) {
                tracing::warn!(path = %path.display(), %error, "could not be set back to {value}");
            }
        }
        let empty = fs::read_dir(NETNS_DIR).is_ok_and(|mut entries| entries.next().is_none());
        if !saved.netns_mounted && empty {
            // Made by `ip netns add`; harmless if someone else holds it.
            let _ = nix::mount::umount2(NETNS_DIR, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    for file in [Saved::path(), Path::new(RUN).join(".lock")] {
        let _ = fs::remove_file(file);
    }
    let _ = fs::remove_dir(RUN);
}
