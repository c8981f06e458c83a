// SPDX-License-Identifier: GPL-2.0

//! The Ethernet path between the balancer's host and the server's, which frames pass
//! before a segment reaches TCP.

use std::process::Command;

use crate::namespace;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::LOCAL;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::runner::skip;

/// The cable's end at the server.
pub const SERVER_END: &str = "cable1";

const ROUTER_END: &str = "cable0";

/// Time in which a segment waits to be merged with the next one: 20 ms.
const GRO_FLUSH_TIMEOUT: &str = "20000000";

/// The devices on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A pair of virtual Ethernet devices.
    Veth,
    /// A pair of virtual Ethernet devices, with a VLAN on both sides.
    Vlan,
    /// A bridge on the router with its end as a port, and a VLAN on the bridge.
    BridgeAndVlan,
}

impl Path {
    /// Makes the path between the net's hosts.
    pub fn make(self, net: &Net) {
        let router = net.router.as_ref().expect("the net has a router");
        let server = net.server.name();
        router.ip(&format!(
            "link add {ROUTER_END} type veth peer name {SERVER_END} netns {server}\n\
             link set {ROUTER_END} up\n"
        ));
        net.server.ip(&format!("link set {SERVER_END} up"));
        let (near, far) = match self {
            Self::Veth => (ROUTER_END, SERVER_END),
            Self::Vlan => ("vlan0", "vlan1"),
            Self::BridgeAndVlan => ("vlan0", "vlan1"),
        };
        let carrier = match self {
            Self::BridgeAndVlan => {
                router.ip(&format!(
                    "link add bridge0 type bridge forward_delay 0\n\
                     link set {ROUTER_END} master bridge0\n\
                     link set bridge0 up\n"
                ));
                "bridge0"
            }
            Self::Veth | Self::Vlan => ROUTER_END,
        };
        if self != Self::Veth {
            let vlan = |on, name| format!("link add link {on} name {name} type vlan id 7\n");
            router.ip(&vlan(carrier, near));
            net.server.ip(&vlan(SERVER_END, far));
        }
        router.sysctl("ipv4/ip_forward", "1");
        router.sysctl("ipv6/conf/all/forwarding", "1");
        router.ip(&format!(
            "link set {near} up\n\
             address add 10.0.2.1/24 dev {near}\n\
             address add fd00:0:0:2::1/64 dev {near} nodad\n\
             route add {SERVER_V4} via 10.0.2.2\n\
             route add {SERVER_V6} via fd00:0:0:2::2\n"
        ));
        let [local_v4, local_v6] = LOCAL;
        net.server.ip(&format!(
            "link set {far} up\n\
             address add 10.0.2.2/24 dev {far}\n\
             address add fd00:0:0:2::2/64 dev {far} nodad\n\
             route add {local_v4} via 10.0.2.1\n\
             route add {local_v6} via fd00:0:0:2::1\n"
        ));
    }
}

/// Makes the server's end of the cable merge segments (GRO), and wait for more. The kernel
/// does so only if the other end does not merge them (`veth_skb_is_eligible_for_gro`).
///
/// Skips the case if only XDP makes veth merge, as before 5.13: then GRO is on from the start, and
/// has no effect.
pub fn merge_segments(net: &Net) {
    let features = net
        .server
        .enter(|| namespace::run(Command::new("ethtool").args(["-k", SERVER_END])));
    if features.contains("generic-receive-offload: on") {
        skip("veth of this kernel does not merge segments");
    }
    let set = |host: &Namespace, words: &[&str]| {
        host.enter(|| namespace::run(Command::new("ethtool").arg("-K").args(words)));
    };
    let router = net.router.as_ref().expect("the net has a router");
    set(router, &[ROUTER_END, "tso", "off"]);
    set(&net.server, &[SERVER_END, "gro", "on"]);
    // `ip netns exec` mounts the sysfs of the namespace.
    let file = format!("/sys/class/net/{SERVER_END}/gro_flush_timeout");
    let write = format!("echo {GRO_FLUSH_TIMEOUT} > {file}");
    namespace::run(Command::new("ip").args([
        "netns",
        "exec",
        net.server.name(),
        "sh",
        "-c",
        &write,
    ]));
}
