//! Every name and path a mesh uses on this machine, derived from the mesh's name.
//!
//! A pod's directory is made before its namespace and removed after it, so [`crate::teardown`] can derive from
//! `/run/weft/<mesh>` alone what a crashed supervisor left. [`Layout`] is handed to everything else in this crate.

use std::path::{Path, PathBuf};

use crate::Error;

/// The most characters a mesh name may have: links and hashes must still fit beside it.
pub const MESH_NAME_MAX: usize = 20;

/// The node's name, in every mesh.
pub const NODE_NAME: &str = "weft-local";

/// The longest namespace name we make. `ip netns` allows 255; short ones stay readable.
const NETNS_MAX: usize = 60;

/// Names and paths of one mesh.
#[derive(Debug, Clone)]
pub struct Layout {
    mesh: String,
    run: PathBuf,
}

impl Layout {
    /// Names for the mesh `mesh`; refuses what would not fit into link or file names.
    pub fn new(mesh: &str) -> Result<Self, Error> {
        let valid = !mesh.is_empty()
            && mesh.len() <= MESH_NAME_MAX
            && mesh.starts_with(|c: char| c.is_ascii_lowercase())
            && !mesh.ends_with('-')
            && mesh
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !valid {
            return Err(Error::BadName(mesh.to_owned()));
        }
        Ok(Self {
            mesh: mesh.to_owned(),
            run: Path::new("/run/weft").join(mesh),
        })
    }

    /// The mesh's name.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// `/run/weft/<mesh>`, which holds all its files.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Objects written for the control plane.
    pub fn objects(&self) -> PathBuf {
        self.run.join("objects")
    }

    /// The control plane's own state.
    pub fn control_plane(&self) -> PathBuf {
        self.run.join("control-plane")
    }

    /// Logs of the supervisor and the control plane.
    pub fn logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// What runs, for other programs: see [`crate::State`].
    pub fn state_file(&self) -> PathBuf {
        self.run.join("state.json")
    }

    /// The supervisor's control socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Locked (`flock`) by a running supervisor for as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The options a detached supervisor starts with.
    pub fn options_file(&self) -> PathBuf {
        self.run.join("up.json")
    }

    /// Keys of the local token issuer.
    pub fn issuer(&self) -> PathBuf {
        self.run.join("issuer")
    }

    /// One pod's directory: volumes, container specs, logs.
    pub fn pod(&self, namespace: &str, pod: &str) -> PathBuf {
        self.run.join("pods").join(format!("{namespace}_{pod}"))
    }

    /// The (namespace, name) of every pod that has a directory.
    pub fn pods(&self) -> Vec<(String, String)> {
        let Ok(entries) = std::fs::read_dir(self.run.join("pods")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (namespace, pod) = name.split_once('_')?;
                Some((namespace.to_owned(), pod.to_owned()))
            })
            .collect()
    }

    /// The directory behind a PersistentVolumeClaim; outlives pods, not the mesh.
    pub fn claim(&self, namespace: &str, claim: &str) -> PathBuf {
        self.run.join("claims").join(format!("{namespace}_{claim}"))
    }

    /// In-memory emptyDirs: `/dev/shm` is a tmpfs on every Linux, and needs no mount of our own to be cleaned up.
    pub fn memory(&self) -> PathBuf {
        Path::new("/dev/shm").join(format!("weft-{}", self.mesh))
    }

    /// A pod's in-memory emptyDirs.
    pub fn pod_memory(&self, namespace: &str, pod: &str) -> PathBuf {
        self.memory().join(format!("{namespace}_{pod}"))
    }

    /// The node's network namespace: bridge, service rules, cluster DNS, control plane.
    pub fn node_netns(&self) -> String {
        format!("weft-{}-node", self.mesh)
    }

    /// A pod's network namespace. The namespace part is left out for `default`.
    pub fn pod_netns(&self, namespace: &str, pod: &str) -> String {
        let whole = match namespace {
            "default" => format!("weft-{}-{pod}", self.mesh),
            _ => format!("weft-{}-{namespace}.{pod}", self.mesh),
        };
        // `weft-<mesh>-node` is taken; a pod named `node` is told apart by a hash, as are names that are too long.
        if whole.len() <= NETNS_MAX && whole != self.node_netns() {
            return whole;
        }
        let keep: String = whole.chars().take(NETNS_MAX - 11).collect();
        format!("{keep}-{}", hash_suffix(&[namespace, pod], 10))
    }

    /// The host's end of the link to the node. Link names have at most 15 characters.
    pub fn host_link(&self) -> String {
        format!("weft{}", hash_suffix(&[&self.mesh], 8))
    }

    /// The bridge port of a pod, inside the node's namespace.
    pub fn pod_link(namespace: &str, pod: &str) -> String {
        format!("pod{}", hash_suffix(&[namespace, pod], 10))
    }

    /// Our nft table in the host's namespace.
    pub fn host_table(&self) -> String {
        format!("weft-{}", self.mesh)
    }
}

/// The letters Kubernetes uses for generated names: no vowels, so no words (apimachinery `rand.SafeEncodeString`).
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A suffix that depends only on its inputs, in the letters of Kubernetes' generated names.
pub(crate) fn hash_suffix(parts: &[&str], length: usize) -> String {
    let mut hash = fnv(parts);
    let mut text = String::with_capacity(length);
    for _ in 0..length {
        let index = usize::try_from(hash % SAFE.len() as u64).unwrap_or_default();
        text.push(char::from(SAFE[index]));
        hash = mix((hash / SAFE.len() as u64) ^ (hash << 13));
    }
    text
}

/// FNV-1a with a separator between the parts. Names must be the same in every run, so the standard library's seeded
/// hasher will not do.
pub(crate) fn fnv(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    mix(hash)
}

/// The finaliser of MurmurHash3: spreads a difference in any bit over all.
const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn mesh_names_fit() {
        for good in ["weft", "a", "shop-2", "abcdefghijklmnopqrst"] {
            Layout::new(good).unwrap();
        }
        for bad in [
            "",
            "Shop",
            "2shop",
            "a_b",
            "a-",
            "abcdefghijklmnopqrstu",
            "a/b",
        ] {
            assert!(Layout::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_names_are_stable_short_and_distinct() {
        let layout = Layout::new("shop").unwrap();
        assert_eq!(layout.pod_netns("default", "web-0"), "weft-shop-web-0");
        assert_eq!(layout.pod_netns("other", "web-0"), "weft-shop-other.web-0");
        assert_ne!(layout.pod_netns("default", "node"), layout.node_netns());
        let long = layout.pod_netns("default", &"x".repeat(80));
        assert!(
            long.len() <= NETNS_MAX && long.starts_with("weft-shop-xxx"),
            "{long}"
        );
        assert_ne!(long, layout.pod_netns("default", &"x".repeat(81)));
        assert!(Layout::pod_link("default", "web-0").len() <= 15 && layout.host_link().len() <= 15);
        assert_ne!(Layout::pod_link("a", "b"), Layout::pod_link("ab", ""));
        assert_eq!(hash_suffix(&["a", "b"], 5), hash_suffix(&["a", "b"], 5));
        let suffixes: std::collections::HashSet<_> = (0..200)
            .map(|n| hash_suffix(&[&n.to_string()], 5))
            .collect();
        assert_eq!(suffixes.len(), 200);
    }
}
