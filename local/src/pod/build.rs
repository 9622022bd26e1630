//! A container of a pod as the helper will run it: command, environment, user, mounts, files.
//!
//! Pure but for looking up where the user's home and Weft's programs are. Joins [`super::env`], [`super::volumes`] and the
//! security contexts. Used by [`super::lifecycle`] before each start.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::{Facts, NotYet, environment, expand};
use super::volumes::{Plan, mounts};
use crate::container::privilege::capabilities;
use crate::container::spec::{BIN, ContainerSpec};

/// The directory that is a pod's root, when it is not the host's `/`.
pub const ROOT_ANNOTATION: &str = "local.weft.dev/root";

/// The search path of containers that set none: Weft's programs, then what container images have.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The pod's DNS settings, the same for all pods of a namespace.
pub(crate) struct Place<'a> {
    /// An empty directory for the container's layers.
    pub(crate) scratch: PathBuf,
    /// The directory of Weft's programs.
    pub(crate) programs: &'a Path,
    /// The node's addresses; its resolver listens there.
    pub(crate) nameservers: &'a [IpAddr],
}

/// The spec of one container. What is missing is named; the container waits for it.
pub(crate) fn container_spec(
    container: &Container,
    facts: &Facts<'_>,
    plans: &[Plan],
    place: Place<'_>,
) -> Result<ContainerSpec, NotYet> {
    let pod = facts.pod;
    let mut env = environment(container, facts)?;
    let uid = user(pod, container)?;
    let hostname = hostname(pod);
    let defaults = [
        ("PATH", format!("{BIN}:{PATH}")),
        ("HOSTNAME", hostname.clone()),
        ("HOME", home(uid)),
    ];
    for (name, value) in defaults {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value));
        }
    }
    let annotations = pod.metadata.annotations.as_ref();
    let root = annotations
        .and_then(|a| a.get(ROOT_ANNOTATION))
        .map_or("/", String::as_str);
    let security = container.security_context.as_ref();
    let caps = security.and_then(|s| s.capabilities.as_ref());
    let privileged = security.and_then(|s| s.privileged) == Some(true);
    let list = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
    Ok(ContainerSpec {
        root: PathBuf::from(root),
        scratch: place.scratch,
        programs: place.programs.to_owned(),
        files: files(pod, facts.ips, &hostname, place.nameservers),
        mounts: mounts(container, plans, &env)?,
        read_only_root: security.and_then(|s| s.read_only_root_filesystem) == Some(true),
        command: command(container, place.programs, &env)?,
        cwd: PathBuf::from(
            container
                .working_dir
                .as_deref()
                .filter(|d| !d.is_empty())
                .unwrap_or("/"),
        ),
        uid,
        gid: group(pod, container),
        groups: groups(pod),
        capabilities: capabilities(
            privileged,
            &list(caps.and_then(|c| c.add.as_ref())),
            &list(caps.and_then(|c| c.drop.as_ref())),
        )?,
        no_new_privileges: !privileged
            && security.and_then(|s| s.allow_privilege_escalation) == Some(false),
        hostname,
        env,
    })
}

/// Command and arguments. Images are not pulled, so a container without a command runs the program its image is named
/// after, or else one of Weft's programs of the container's own name.
fn command(
    container: &Container,
    programs: &Path,
    env: &[(String, String)],
) -> Result<Vec<String>, NotYet> {
    let mut words: Vec<String> = container
        .command
        .iter()
        .flatten()
        .map(|word| expand(word, env))
        .collect();
    if words.is_empty() {
        let image = container.image.as_deref().unwrap_or_default();
        let last = image.rsplit('/').next().unwrap_or_default();
        let named_after = last.split([':', '@']).next().unwrap_or_default();
        let program = [named_after, container.name.as_str()]
            .into_iter()
            .find(|name| !name.is_empty() && on_host(name, programs))
            .ok_or_else(|| {
                format!(
                    "container {} has no `command`, and there is no program named {named_after:?} here: local mode does not \
                     pull images, it runs the command from this machine",
                    container.name
                )
            })?;
        words.push(program.to_owned());
    }
    words.extend(
        container
            .args
            .iter()
            .flatten()
            .map(|word| expand(word, env)),
    );
    Ok(words)
}

fn on_host(program: &str, programs: &Path) -> bool {
    std::iter::once(programs)
        .chain(PATH.split(':').map(Path::new))
        .any(|directory| directory.join(program).is_file())
}

/// The host name Kubernetes gives a pod: `spec.hostname` or its name, at most 63 characters.
pub(crate) fn hostname(pod: &Pod) -> String {
    let own = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let name = own
        .filter(|name| !name.is_empty())
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn user(pod: &Pod, container: &Container) -> Result<u32, NotYet> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let of_container = container.security_context.as_ref();
    let uid = of_container
        .and_then(|s| s.run_as_user)
        .or_else(|| of_pod.and_then(|s| s.run_as_user))
        .unwrap_or(0);
    let not_root = of_container
        .and_then(|s| s.run_as_non_root)
        .or_else(|| of_pod.and_then(|s| s.run_as_non_root));
    if uid == 0 && not_root == Some(true) {
        return Err(format!(
            "container {} has runAsNonRoot but would run as root: set runAsUser",
            container.name
        ));
    }
    u32::try_from(uid).map_err(|_| format!("runAsUser {uid} is not a user id"))
}

fn group(pod: &Pod, container: &Container) -> u32 {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let gid = container
        .security_context
        .as_ref()
        .and_then(|s| s.run_as_group);
    gid.or_else(|| of_pod.and_then(|s| s.run_as_group))
        .and_then(|gid| u32::try_from(gid).ok())
        .unwrap_or(0)
}

fn groups(pod: &Pod) -> Vec<u32> {
    let security = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let supplementary = security
        .and_then(|s| s.supplemental_groups.as_ref())
        .into_iter()
        .flatten();
    let own = security.and_then(|s| s.fs_group);
    supplementary
        .copied()
        .chain(own)
        .filter_map(|gid| u32::try_from(gid).ok())
        .collect()
}

/// The pod's `fsGroup`.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec
        .as_ref()?
        .security_context
        .as_ref()?
        .fs_group
        .and_then(|gid| u32::try_from(gid).ok())
}

fn home(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| "/".to_owned(), |user| user.dir.display().to_string())
}

fn files(
    pod: &Pod,
    ips: &[IpAddr],
    hostname: &str,
    nameservers: &[IpAddr],
) -> Vec<(PathBuf, String)> {
    vec![
        (PathBuf::from("/etc/hostname"), format!("{hostname}\n")),
        (PathBuf::from("/etc/hosts"), hosts(pod, ips, hostname)),
        (
            PathBuf::from("/etc/resolv.conf"),
            resolv_conf(pod, nameservers),
        ),
    ]
}

fn hosts(pod: &Pod, ips: &[IpAddr], hostname: &str) -> String {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = match spec
            .and_then(|s| s.subdomain.as_deref())
            .filter(|s| !s.is_empty())
        {
            Some(domain) => writeln!(
                text,
                "{ip}\t{hostname}.{domain}.{namespace}.svc.cluster.local\t{hostname}"
            ),
            None => writeln!(text, "{ip}\t{hostname}"),
        };
    }
    for alias in spec
        .and_then(|s| s.host_aliases.as_ref())
        .into_iter()
        .flatten()
    {
        let _ = writeln!(
            text,
            "{}\t{}",
            alias.ip,
            alias.hostnames.clone().unwrap_or_default().join("\t")
        );
    }
    text
}

/// As the kubelet writes it, by `dnsPolicy` and `dnsConfig`.
fn resolv_conf(pod: &Pod, nameservers: &[IpAddr]) -> String {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let policy = spec
        .and_then(|s| s.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let (mut servers, mut search, mut options) = match policy {
        "None" => (Vec::new(), Vec::new(), Vec::new()),
        "Default" => (
            nameservers.iter().map(ToString::to_string).collect(),
            Vec::new(),
            Vec::new(),
        ),
        _ => (
            nameservers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            vec![
                format!("{namespace}.svc.cluster.local"),
                "svc.cluster.local".into(),
                "cluster.local".into(),
            ],
            vec!["ndots:5".to_owned()],
        ),
    };
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        servers.extend(config.nameservers.iter().flatten().cloned());
        search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            options.retain(|known| known.split(':').next() != Some(&name));
            options.push(
                option
                    .value
                    .as_ref()
                    .map_or_else(|| name.clone(), |value| format!("{name}:{value}")),
            );
        }
    }
    // The resolver library reads three name servers and no more.
    let mut text = String::new();
    for server in servers.iter().take(3) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use weft_k8s::Objects;

    fn spec_of(pod: Value) -> Result<ContainerSpec, NotYet> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let objects = Objects::default();
        let ips: [IpAddr; 2] = [
            "10.244.1.2".parse().unwrap(),
            "fd77:77:1::2".parse().unwrap(),
        ];
        let facts = Facts {
            pod: &pod,
            ips: &ips,
            host_ips: &[],
            objects: &objects,
        };
        let nameservers = ["10.244.1.1".parse().unwrap()];
        let place = Place {
            scratch: "/scratch".into(),
            programs: Path::new("/nowhere"),
            nameservers: &nameservers,
        };
        container_spec(
            &pod.spec.as_ref().unwrap().containers[0],
            &facts,
            &[],
            place,
        )
    }

    #[test]
    fn command_user_and_files() {
        let spec = spec_of(json!({
            "metadata": {"name": "db-0", "namespace": "shop"},
            "spec": {"hostname": "db-0", "subdomain": "db", "securityContext": {"runAsUser": 5, "fsGroup": 7},
                "containers": [{"name": "c", "command": ["sh", "-c"], "args": ["echo $(X) $$(X)"],
                    "env": [{"name": "X", "value": "1"}],
                    "securityContext": {"runAsGroup": 6, "allowPrivilegeEscalation": false}}]},
        }))
        .unwrap();
        assert_eq!(spec.command, ["sh", "-c", "echo 1 $(X)"]);
        assert_eq!(
            (spec.uid, spec.gid, spec.groups.as_slice()),
            (5, 6, [7].as_slice())
        );
        assert!(spec.no_new_privileges && !spec.read_only_root);
        let file = |path: &str| {
            &spec
                .files
                .iter()
                .find(|(p, _)| p == Path::new(path))
                .unwrap()
                .1
        };
        assert!(file("/etc/hosts").contains("10.244.1.2\tdb-0.db.shop.svc.cluster.local\tdb-0\n"));
        assert_eq!(
            file("/etc/resolv.conf"),
            "nameserver 10.244.1.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
    }

    #[test]
    fn images_are_only_names() {
        let with_image = |image: &str| {
            spec_of(
                json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image, "args": ["1"]}]}}),
            )
        };
        assert_eq!(
            with_image("registry:5000/library/sleep:1@sha256:00")
                .unwrap()
                .command,
            ["sleep", "1"]
        );
        assert!(
            with_image("example/no-such-thing:2")
                .unwrap_err()
                .contains("\"no-such-thing\"")
        );
    }

    #[test]
    fn root_is_refused_where_forbidden() {
        let error = spec_of(json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "command": ["true"], "securityContext": {"runAsNonRoot": true}}]}}))
        .unwrap_err();
        assert!(error.contains("runAsNonRoot"), "{error}");
    }
}
