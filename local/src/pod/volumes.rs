//! A pod's volumes: first a plan, then directories and files.
//!
//! [`plan`] is pure and says for each volume where it is and what is in it; [`write()`] makes it so, replacing each file
//! by a rename, so that containers see the old content or the new. It is called again when an object changes or a token
//! nears its end. [`mounts`] turns a container's `volumeMounts` into binds. Used by [`super::run`] and [`super::build`].

mod write;

use std::fs;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, KeyToPath, SecretProjection, Volume,
    VolumeProjection,
};

use super::env::{Facts, NotYet};
use super::quantity;

pub(crate) use write::{mounts, shortest_token, write};

/// Where a pod's volumes live on the host.
pub(crate) struct Places {
    /// Volumes on disk (or on the tmpfs that `/run` usually is).
    pub(crate) volumes: PathBuf,
    /// `emptyDir` with `medium: Memory`.
    pub(crate) memory: PathBuf,
    /// Claims, which outlive the pod; `claims/<namespace>_<claim>`.
    pub(crate) claims: PathBuf,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its name in the pod.
    pub(crate) name: String,
    /// Its directory (or file, for a `hostPath`) on the host.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) content: Content,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A directory the pod writes to.
    Writable,
    /// Files the pod reads.
    Files(Vec<Item>),
    /// A path of the host, which must be there.
    Host,
    /// A path of the host, made as a directory if missing.
    HostDirectory,
}

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Relative path.
    pub(crate) path: String,
    /// Mode bits.
    pub(crate) mode: u32,
    /// What is in it.
    pub(crate) data: Data,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A service-account token, made when it is written.
    Token {
        /// Its audience; the issuer itself when not given.
        audience: Option<String>,
        /// Its lifetime in seconds.
        seconds: i64,
    },
}

/// Where each volume is and what is in it. An object that is missing is named.
pub(crate) fn plan(facts: &Facts<'_>, places: &Places) -> Result<Vec<Plan>, NotYet> {
    let spec = facts.pod.spec.as_ref();
    let volumes = spec.and_then(|s| s.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .map(|volume| one(volume, facts, places))
        .collect()
}

fn one(volume: &Volume, facts: &Facts<'_>, places: &Places) -> Result<Plan, NotYet> {
    let named = |path: PathBuf, content| Plan {
        name: volume.name.clone(),
        path,
        content,
    };
    let own = places.volumes.join(&volume.name);
    let failed = |e: NotYet| format!("volume {}: {e}", volume.name);
    if let Some(empty) = &volume.empty_dir {
        let memory = empty.medium.as_deref() == Some("Memory");
        return Ok(named(
            if memory {
                places.memory.join(&volume.name)
            } else {
                own
            },
            Content::Writable,
        ));
    }
    if let Some(host) = &volume.host_path {
        // Resolved here: inside the container a link would lead elsewhere.
        let path = fs::canonicalize(&host.path).unwrap_or_else(|_| PathBuf::from(&host.path));
        let make = host.type_.as_deref() == Some("DirectoryOrCreate");
        return Ok(named(
            path,
            if make {
                Content::HostDirectory
            } else {
                Content::Host
            },
        ));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or("default");
        let path = places
            .claims
            .join(format!("{namespace}_{}", claim.claim_name));
        return Ok(named(path, Content::Writable));
    }
    if volume.ephemeral.is_some() {
        return Ok(named(own, Content::Writable));
    }
    let files = files_of(volume, facts);
    let files = files.map_err(failed)?;
    for file in &files {
        let plain = Path::new(&file.path)
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        if !plain || file.path.is_empty() {
            return Err(failed(format!(
                "path {:?} must be relative, without `..`",
                file.path
            )));
        }
    }
    Ok(named(own, Content::Files(files)))
}

/// The files of a volume that is made of files.
fn files_of(volume: &Volume, facts: &Facts<'_>) -> Result<Vec<Item>, NotYet> {
    if let Some(config) = &volume.config_map {
        let projection = ConfigMapProjection {
            name: config.name.clone(),
            items: config.items.clone(),
            optional: config.optional,
        };
        from_config_map(&projection, config.default_mode, facts)
    } else if let Some(secret) = &volume.secret {
        let projection = SecretProjection {
            name: secret.secret_name.clone().unwrap_or_default(),
            items: secret.items.clone(),
            optional: secret.optional,
        };
        from_secret(&projection, secret.default_mode, facts)
    } else if let Some(downward) = &volume.downward_api {
        from_fields(downward.items.as_deref(), downward.default_mode, facts)
    } else if let Some(projected) = &volume.projected {
        let sources = projected.sources.iter().flatten();
        sources
            .map(|source| projection(source, projected.default_mode, facts))
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.concat())
    } else {
        Err("this kind of volume is not supported in local mode".into())
    }
}

fn projection(
    source: &VolumeProjection,
    mode: Option<i32>,
    facts: &Facts<'_>,
) -> Result<Vec<Item>, NotYet> {
    if let Some(config) = &source.config_map {
        return from_config_map(config, mode, facts);
    }
    if let Some(secret) = &source.secret {
        return from_secret(secret, mode, facts);
    }
    if let Some(downward) = &source.downward_api {
        return from_fields(downward.items.as_deref(), mode, facts);
    }
    if let Some(token) = &source.service_account_token {
        let data = Data::Token {
            audience: token.audience.clone(),
            seconds: token.expiration_seconds.unwrap_or(3600),
        };
        // As the kubelet does: readable by all in the pod unless fsGroup narrows it.
        return Ok(vec![Item {
            path: token.path.clone(),
            mode: 0o644,
            data,
        }]);
    }
    Err("this projection is not supported in local mode".into())
}

fn from_config_map(
    source: &ConfigMapProjection,
    mode: Option<i32>,
    facts: &Facts<'_>,
) -> Result<Vec<Item>, NotYet> {
    let missing = || format!("configmap {:?} not found", source.name);
    select(
        facts.config_map(&source.name),
        source.items.as_deref(),
        source.optional,
        mode,
        missing,
    )
}

fn from_secret(
    source: &SecretProjection,
    mode: Option<i32>,
    facts: &Facts<'_>,
) -> Result<Vec<Item>, NotYet> {
    let missing = || format!("secret {:?} not found", source.name);
    select(
        facts.secret(&source.name),
        source.items.as_deref(),
        source.optional,
        mode,
        missing,
    )
}

fn select(
    values: Option<std::collections::BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
    missing: impl Fn() -> String,
) -> Result<Vec<Item>, NotYet> {
    let Some(mut values) = values else {
        return if optional == Some(true) {
            Ok(Vec::new())
        } else {
            Err(missing())
        };
    };
    let file = |path: String, mode: u32, bytes: Vec<u8>| Item {
        path,
        mode,
        data: Data::Bytes(bytes),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(values
            .into_iter()
            .map(|(key, bytes)| file(key, mode_bits(mode), bytes))
            .collect());
    };
    let mut files = Vec::with_capacity(items.len());
    for item in items {
        match values.remove(&item.key) {
            Some(bytes) => files.push(file(
                item.path.clone(),
                mode_bits(item.mode.or(mode)),
                bytes,
            )),
            None if optional == Some(true) => {}
            None => {
                return Err(format!(
                    "{}: no key {:?}",
                    missing().replace(" not found", ""),
                    item.key
                ));
            }
        }
    }
    Ok(files)
}

fn from_fields(
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
    facts: &Facts<'_>,
) -> Result<Vec<Item>, NotYet> {
    let value = |item: &DownwardAPIVolumeFile| -> Result<String, NotYet> {
        if let Some(field) = &item.field_ref {
            return facts.field(&field.field_path);
        }
        let reference = item
            .resource_field_ref
            .as_ref()
            .ok_or("neither fieldRef nor resourceFieldRef is given")?;
        let containers = facts
            .pod
            .spec
            .as_ref()
            .map(|s| s.containers.as_slice())
            .unwrap_or_default();
        let wanted = reference.container_name.as_deref();
        let container = containers
            .iter()
            .find(|c| Some(c.name.as_str()) == wanted)
            .ok_or("no such container")?;
        quantity::resource(
            container,
            &reference.resource,
            reference.divisor.as_ref().map(|q| q.0.as_str()),
        )
    };
    items
        .into_iter()
        .flatten()
        .map(|item| {
            let data = Data::Bytes(value(item)?.into_bytes());
            Ok(Item {
                path: item.path.clone(),
                mode: mode_bits(item.mode.or(mode)),
                data,
            })
        })
        .collect()
}

fn mode_bits(mode: Option<i32>) -> u32 {
    mode.map_or(0o644, |mode| mode.cast_unsigned() & 0o777)
}

#[cfg(test)]
mod tests;
