//! A pod's volumes: first a plan, then directories and files.
//!
//! [`plan`] is pure and says for each volume where it is and what is in it; [`write`] makes it so, replacing each file
//! by a rename, so that containers see the old content or the new. It is called again when an object changes or a token
//! nears its end. [`mounts`] turns a container's `volumeMounts` into binds. Used by [`super::run`] and [`super::build`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIVolumeFile, KeyToPath, SecretProjection, Volume, VolumeProjection,
};

use super::env::{Facts, NotYet, expand};
use super::quantity;
use crate::container::spec::Mount;

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
    volumes.into_iter().flatten().map(|volume| one(volume, facts, places)).collect()
}

fn one(volume: &Volume, facts: &Facts<'_>, places: &Places) -> Result<Plan, NotYet> {
    let named = |path: PathBuf, content| Plan { name: volume.name.clone(), path, content };
    let own = places.volumes.join(&volume.name);
    let failed = |e: NotYet| format!("volume {}: {e}", volume.name);
    if let Some(empty) = &volume.empty_dir {
        let memory = empty.medium.as_deref() == Some("Memory");
        return Ok(named(if memory { places.memory.join(&volume.name) } else { own }, Content::Writable));
    }
    if let Some(host) = &volume.host_path {
        // Resolved here: inside the container a link would lead elsewhere.
        let path = fs::canonicalize(&host.path).unwrap_or_else(|_| PathBuf::from(&host.path));
        let make = host.type_.as_deref() == Some("DirectoryOrCreate");
        return Ok(named(path, if make { Content::HostDirectory } else { Content::Host }));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or("default");
        let path = places.claims.join(format!("{namespace}_{}", claim.claim_name));
        return Ok(named(path, Content::Writable));
    }
    let files = if let Some(config) = &volume.config_map {
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
        sources.map(|source| projection(source, projected.default_mode, facts)).collect::<Result<Vec<_>, _>>().map(|all| all.concat())
    } else if volume.ephemeral.is_some() {
        return Ok(named(own, Content::Writable));
    } else {
        Err("this kind of volume is not supported in local mode".into())
    };
    let files = files.map_err(failed)?;
    for file in &files {
        let plain = Path::new(&file.path).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || file.path.is_empty() {
            return Err(failed(format!("path {:?} must be relative, without `..`", file.path)));
        }
    }
    Ok(named(own, Content::Files(files)))
}

fn projection(source: &VolumeProjection, mode: Option<i32>, facts: &Facts<'_>) -> Result<Vec<Item>, NotYet> {
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
        let data = Data::Token { audience: token.audience.clone(), seconds: token.expiration_seconds.unwrap_or(3600) };
        // As the kubelet does: readable by all in the pod unless fsGroup narrows it.
        return Ok(vec![Item { path: token.path.clone(), mode: 0o644, data }]);
    }
    Err("this projection is not supported in local mode".into())
}

fn from_config_map(source: &ConfigMapProjection, mode: Option<i32>, facts: &Facts<'_>) -> Result<Vec<Item>, NotYet> {
    let missing = || format!("configmap {:?} not found", source.name);
    select(facts.config_map(&source.name), source.items.as_deref(), source.optional, mode, missing)
}

fn from_secret(source: &SecretProjection, mode: Option<i32>, facts: &Facts<'_>) -> Result<Vec<Item>, NotYet> {
    let missing = || format!("secret {:?} not found", source.name);
    select(facts.secret(&source.name), source.items.as_deref(), source.optional, mode, missing)
}

fn select(
    values: Option<std::collections::BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
    missing: impl Fn() -> String,
) -> Result<Vec<Item>, NotYet> {
    let Some(mut values) = values else {
        return if optional == Some(true) { Ok(Vec::new()) } else { Err(missing()) };
    };
    let file = |path: String, mode: u32, bytes: Vec<u8>| Item { path, mode, data: Data::Bytes(bytes) };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(values.into_iter().map(|(key, bytes)| file(key, mode_bits(mode), bytes)).collect());
    };
    let mut files = Vec::with_capacity(items.len());
    for item in items {
        match values.remove(&item.key) {
            Some(bytes) => files.push(file(item.path.clone(), mode_bits(item.mode.or(mode)), bytes)),
            None if optional == Some(true) => {}
            None => return Err(format!("{}: no key {:?}", missing().replace(" not found", ""), item.key)),
        }
    }
    Ok(files)
}

fn from_fields(items: Option<&[DownwardAPIVolumeFile]>, mode: Option<i32>, facts: &Facts<'_>) -> Result<Vec<Item>, NotYet> {
    let value = |item: &DownwardAPIVolumeFile| -> Result<String, NotYet> {
        if let Some(field) = &item.field_ref {
            return facts.field(&field.field_path);
        }
        let reference = item.resource_field_ref.as_ref().ok_or("neither fieldRef nor resourceFieldRef is given")?;
        let containers = facts.pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        let wanted = reference.container_name.as_deref();
        let container = containers.iter().find(|c| Some(c.name.as_str()) == wanted).ok_or("no such container")?;
        quantity::resource(container, &reference.resource, reference.divisor.as_ref().map(|q| q.0.as_str()))
    };
    items
        .into_iter()
        .flatten()
        .map(|item| {
            let data = Data::Bytes(value(item)?.into_bytes());
            Ok(Item { path: item.path.clone(), mode: mode_bits(item.mode.or(mode)), data })
        })
        .collect()
}

fn mode_bits(mode: Option<i32>) -> u32 {
    mode.map_or(0o644, |mode| mode.cast_unsigned() & 0o777)
}

/// Makes a volume as planned. `token` makes service-account tokens; files already as planned are left alone, tokens
/// are always made anew. `group` is the pod's `fsGroup`.
pub(crate) fn write(
    plan: &Plan,
    group: Option<u32>,
    token: &dyn Fn(Option<&str>, i64) -> io::Result<String>,
) -> io::Result<()> {
    match &plan.content {
        Content::Host => {
            fs::metadata(&plan.path)?;
        }
        Content::HostDirectory => fs::create_dir_all(&plan.path)?,
        Content::Writable => {
            if !plan.path.is_dir() {
                fs::create_dir_all(&plan.path)?;
                fs::set_permissions(&plan.path, fs::Permissions::from_mode(0o777))?;
                own(&plan.path, group, 0o2777)?;
            }
        }
        Content::Files(files) => {
            fs::create_dir_all(&plan.path)?;
            own(&plan.path, group, 0o2755)?;
            for file in files {
                let bytes = match &file.data {
                    Data::Bytes(bytes) => bytes.clone(),
                    Data::Token { audience, seconds } => token(audience.as_deref(), *seconds)?.into_bytes(),
                };
                // With fsGroup, owner and group may read what others may not.
                let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
                replace(&plan.path.join(&file.path), &bytes, mode, group)?;
            }
        }
    }
    Ok(())
}

fn own(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = parent.join(format!(".{name}.next"));
    fs::write(&next, bytes)?;
    fs::set_permissions(&next, fs::Permissions::from_mode(mode))?;
    std::os::unix::fs::chown(&next, None, group)?;
    fs::rename(&next, path)
}

/// The shortest lifetime of the plan's tokens, in seconds.
pub(crate) fn shortest_token(plans: &[Plan]) -> Option<i64> {
    let files = plans.iter().filter_map(|plan| match &plan.content {
        Content::Files(files) => Some(files),
        _ => None,
    });
    files
        .flatten()
        .filter_map(|file| match &file.data {
            Data::Token { seconds, .. } => Some(*seconds),
            Data::Bytes(_) => None,
        })
        .min()
}

/// A container's `volumeMounts` as binds; `env` serves `subPathExpr`.
pub(crate) fn mounts(container: &Container, plans: &[Plan], env: &[(String, String)]) -> Result<Vec<Mount>, NotYet> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let plan = plans
            .iter()
            .find(|plan| plan.name == mount.name)
            .ok_or_else(|| format!("volumeMount {}: the pod has no such volume", mount.name))?;
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) => path.clone(),
            (None, Some(expression)) => expand(expression, env),
            (None, None) => String::new(),
        };
        if !Path::new(&sub).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("volumeMount {}: subPath {sub:?} must stay in the volume", mount.name));
        }
        let source = if sub.is_empty() { plan.path.clone() } else { plan.path.join(&sub) };
        if !sub.is_empty() && plan.content == Content::Writable && !source.exists() {
            fs::create_dir_all(&source).map_err(|e| format!("{}: {e}", source.display()))?;
            let _ = fs::set_permissions(&source, fs::Permissions::from_mode(0o777));
        }
        let files = matches!(plan.content, Content::Files(_));
        let host = matches!(plan.content, Content::Host | Content::HostDirectory);
        binds.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: files || mount.read_only.unwrap_or(false),
            recursive: host,
        });
    }
    // Parents before what is mounted inside them.
    binds.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(binds)
}

#[cfg(test)]
mod tests;
