//! The last good resources on disk, so that a proxy can serve again while the control plane is away.
//!
//! One file, replaced as a whole by a rename: [`read`] at the start, [`write`] some time after changes. What is on it
//! is public configuration, never a key.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::TypeUrl;

/// The file below the state directory.
pub(super) const FILE: &str = "resources.bin";
/// Format and its version. Another version is not read: the server sends everything again.
const MAGIC: &[u8; 8] = b"weftxds1";
/// Magic and checksum.
const HEADER: usize = MAGIC.len() + 8;
/// The largest file, in bytes; what does not fit is left out.
const MAX_BYTES: usize = 32 << 20;

/// A resource as it is saved. No bytes: known not to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) kind: TypeUrl,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) bytes: Option<Bytes>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "bytes", optional, tag = "4")]
    bytes: Option<Bytes>,
}

/// Reads the file. None there: nothing. Unreadable or corrupt: a warning, and nothing.
pub(super) fn read(dir: &Path) -> Vec<Saved> {
    let path = dir.join(FILE);
    match read_file(&path) {
        Ok(saved) => saved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved resources are not usable; starting without them");
            Vec::new()
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<Saved>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut content)?;
    let corrupt = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    if content.len() > MAX_BYTES {
        return Err(corrupt("the file is too large"));
    }
    if content.len() < HEADER || &content[..MAGIC.len()] != MAGIC {
        return Err(corrupt("the file has another format"));
    }
    let body = Bytes::from(content).split_off(MAGIC.len());
    let (sum, mut body) = (body.slice(..8), body.slice(8..));
    if sum != checksum(&body)[..] {
        return Err(corrupt("the checksum is wrong"));
    }
    let mut saved = Vec::new();
    while !body.is_empty() {
        let record = Record::decode_length_delimited(&mut body)
            .map_err(|_| corrupt("a record is broken"))?;
        let Some(kind) = TypeUrl::from_url(&record.type_url) else {
            continue;
        };
        saved.push(Saved {
            kind,
            name: record.name,
            version: record.version,
            bytes: record.bytes,
        });
    }
    Ok(saved)
}

/// Replaces the file: written beside it, synced, renamed.
pub(super) fn write(dir: &Path, content: &[Saved]) -> io::Result<()> {
    let mut body = Vec::new();
    for saved in content {
        let record = Record {
            type_url: saved.kind.as_str().to_owned(),
            name: saved.name.clone(),
            version: saved.version.clone(),
            bytes: saved.bytes.clone(),
        };
        if HEADER + body.len() + record.encoded_len() + 10 > MAX_BYTES {
            tracing::warn!(
                name = saved.name,
                limit = MAX_BYTES,
                "the saved resources are full; leaving one out"
            );
            continue;
        }
        record
            .encode_length_delimited(&mut body)
            .map_err(io::Error::other)?;
    }
    fs::create_dir_all(dir)?;
    let beside: PathBuf = dir.join(format!("{FILE}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(MAGIC)?;
    file.write_all(&checksum(&body))?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(FILE))
}

/// Against torn writes and bit rot, not against an attacker.
fn checksum(body: &[u8]) -> [u8; 8] {
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    hasher.write(body);
    hasher.finish().to_be_bytes()
}
