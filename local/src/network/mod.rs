//! The node of a mesh: a network namespace with a bridge, and one namespace with a veth pair for each pod.
//!
//! ```text
//! host ── veth ── node namespace (br0, service rules, cluster DNS, control plane) ── veth ── pod eth0
//! ```
//!
//! A pod's address is a /32 (and a /128) with the bridge as its only neighbour, so every packet between pods is
//! routed by the node: replies pass its connection tracking and get their service address back, without (or in spite
//! of) the bridge-netfilter module. [`rules`] holds the service rules, [`subnet`] the addresses, [`host`] what is changed
//! outside the namespaces. `ip -batch` and `nft -f` do the work: one process for many changes, and nft's transaction.

pub(crate) mod host;
pub(crate) mod rules;
pub(crate) mod subnet;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

pub use subnet::Subnet;

use crate::names::Layout;
use crate::{Error, sys, tool};

/// The node's network namespace, up.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    layout: Layout,
    /// The ranges chosen for this mesh.
    pub(crate) subnet: Subnet,
}

impl Node {
    /// Makes the node's namespace, its bridge and the link to the host. Blocking; some milliseconds.
    pub(crate) fn up(layout: &Layout) -> Result<Self, Error> {
        // Two meshes that start together must not choose the same range.
        let _one_at_a_time = host::lock()?;
        host::remember()?;
        let mut routes = tool::ip_query(&["-o", "route", "show", "table", "all"])?;
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        if ipv6 {
            routes += &tool::ip_query(&["-6", "-o", "route", "show", "table", "all"])?;
        }
        let subnet = Subnet::choose(&routes, ipv6)?;
        let node = Self {
            layout: layout.clone(),
            subnet,
        };
        let netns = layout.node_netns();
        tool::ip(None, &format!("netns add {netns}\n"))?;
        sys::in_netns(&netns, || node_sysctls(ipv6))?;
        tool::ip(
            None,
            &format!(
                "link add {} type veth peer name host0 netns {netns}\n",
                layout.host_link()
            ),
        )?;
        tool::ip(Some(&netns), &node.node_script())?;
        tool::ip(None, &node.host_script())?;
        tool::nft(Some(&netns), &rules::node_base(subnet))?;
        host::forward(layout, subnet)?;
        Ok(node)
    }

    fn node_script(&self) -> String {
        let (node, host) = (self.subnet.v4(1), self.subnet.v4(254));
        let mut script = format!(
            "link set lo up\n\
             link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             addr add {node}/24 dev br0\n\
             link set br0 up\n\
             link set host0 up\n\
             route add {host}/32 dev host0 src {node}\n\
             route add default via {host} dev host0 src {node}\n"
        );
        if self.subnet.ipv6 {
            let (node, host) = (self.subnet.v6(1), self.subnet.v6(254));
            let _ = write!(
                script,
                "addr add {node}/64 dev br0 nodad\n\
                 addr add fe80::1/64 dev host0 nodad\n\
                 route add {host}/128 via fe80::2 dev host0 src {node}\n\
                 route add default via fe80::2 dev host0 src {node}\n"
            );
        }
        script
    }

    fn host_script(&self) -> String {
        let (node, host, link) = (
            self.subnet.v4(1),
            self.subnet.v4(254),
            self.layout.host_link(),
        );
        let mut script = format!(
            "addr add {host}/32 dev {link}\n\
             link set {link} up\n\
             route add {node}/32 dev {link} src {host}\n\
             route add {}/24 via {node} dev {link} src {host}\n",
            self.subnet.v4(0)
        );
        if self.subnet.ipv6 {
            let host = self.subnet.v6(254);
            let _ = write!(
                script,
                "addr add {host}/128 dev {link} nodad\n\
                 addr add fe80::2/64 dev {link} nodad\n\
                 route add {}/64 via fe80::1 dev {link} src {host}\n",
                self.subnet.v6(0)
            );
        }
        script
    }

    /// Makes a pod's namespace with both addresses of host part `host` and a default route over the node.
    pub(crate) fn add_pod(&self, namespace: &str, pod: &str, host: u8) -> Result<(), Error> {
        let netns = self.layout.pod_netns(namespace, pod);
        let (node, link) = (self.layout.node_netns(), Layout::pod_link(namespace, pod));
        // The settings first: a link takes over the defaults of the moment it is made.
        tool::ip(None, &format!("netns add {netns}\n"))?;
        sys::in_netns(&netns, || pod_sysctls(self.subnet.ipv6))?;
        tool::ip(
            None,
            &format!("link add {link} netns {node} type veth peer name eth0 netns {netns}\n"),
        )?;
        let (address, gateway) = (self.subnet.v4(host), self.subnet.v4(1));
        let mut script = format!(
            "link set lo up\n\
             addr add {address}/32 dev eth0\n\
             link set eth0 up\n\
             route add {gateway}/32 dev eth0 scope link\n\
             route add default via {gateway} dev eth0\n"
        );
        if self.subnet.ipv6 {
            let (address, gateway) = (self.subnet.v6(host), self.subnet.v6(1));
            let _ = write!(
                script,
                "addr add {address}/128 dev eth0 nodad\n\
                 route add {gateway}/128 dev eth0 src {address}\n\
                 route add default via {gateway} dev eth0 src {address}\n"
            );
        }
        tool::ip(Some(&netns), &script)?;
        tool::ip(
            Some(&node),
            &format!("link set {link} master br0\nlink set {link} up\n"),
        )
    }

    /// Removes a pod's namespace, and with it the link. Its processes must be gone: they would keep it alive.
    pub(crate) fn remove_pod(&self, namespace: &str, pod: &str) {
        // The link first: deleting a namespace frees its links some time later, and a pod of the same name may follow.
        let netns = self.layout.pod_netns(namespace, pod);
        let _ = tool::ip(Some(&netns), "link delete eth0\n");
        tool::ip_force(&format!("netns delete {netns}\n"));
    }

    /// Replaces the rules for all services, in one transaction.
    pub(crate) fn apply_services(&self, services: &[rules::ServicePort]) -> Result<(), Error> {
        tool::nft(
            Some(&self.layout.node_netns()),
            &rules::services(services, self.subnet.ipv6),
        )
    }

    /// The node's addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.subnet.node()
    }
}

fn node_sysctls(ipv6: bool) -> io::Result<()> {
    set_all(&[
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Pods are neighbours on the wire but must stay on the routed path.
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ])?;
    // Where the bridge-netfilter module is loaded, the bridge would apply the service rules a second time, below routing.
    for name in [
        "bridge-nf-call-iptables",
        "bridge-nf-call-ip6tables",
        "bridge-nf-call-arptables",
    ] {
        if Path::new("/proc/sys/net/bridge").join(name).exists() {
            set_all(&[(&format!("bridge/{name}"), "0")])?;
        }
    }
    if ipv6 {
        set_all(&[
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
        ])?;
    }
    Ok(())
}

fn pod_sysctls(ipv6: bool) -> io::Result<()> {
    set_all(&[
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
        // As container runtimes do: any user may bind port 80 and ping.
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
    ])?;
    if ipv6 {
        set_all(&[
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/accept_redirects", "0"),
            ("ipv6/conf/all/accept_redirects", "0"),
        ])?;
    }
    Ok(())
}

fn set_all(values: &[(&str, &str)]) -> io::Result<()> {
    for (key, value) in values {
        let path = format!("/proc/sys/net/{key}");
        fs::write(&path, value)
            .map_err(|e| io::Error::new(e.kind(), format!("{path} = {value}: {e}")))?;
    }
    Ok(())
}
