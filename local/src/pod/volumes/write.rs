//! Planned volumes made real, and bound into containers.
//!
//! Called through [`super`], by the pod's task and before each start of a container.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::{Content, Data, Plan};
use crate::container::spec::Mount;
use crate::pod::env::{NotYet, expand};

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
                    Data::Token { audience, seconds } => {
                        token(audience.as_deref(), *seconds)?.into_bytes()
                    }
                };
                // With fsGroup, owner and group may read what others may not.
                let mode = if group.is_some() {
                    file.mode | 0o440
                } else {
                    file.mode
                };
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
    let Some(parent) = path.parent() else {
        return Ok(());
    };
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
pub(crate) fn mounts(
    container: &Container,
    plans: &[Plan],
    env: &[(String, String)],
) -> Result<Vec<Mount>, NotYet> {
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
        if !Path::new(&sub)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(format!(
                "volumeMount {}: subPath {sub:?} must stay in the volume",
                mount.name
            ));
        }
        let source = if sub.is_empty() {
            plan.path.clone()
        } else {
            plan.path.join(&sub)
        };
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
