// SPDX-License-Identifier: GPL-2.0

//! Proxies with dual-stack listeners forward their clients to servers that have IPv4 only, and deny
//! clients by their addresses.

use std::io::ErrorKind;
use std::net::TcpStream;

use socket2::Protocol;

use crate::balancer::Plan;
use crate::cases::programs::check_on;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::programs::proxies;
use crate::programs::proxies::Backend;
use crate::programs::proxies::DENIED;
use crate::programs::Program;
use crate::programs::Running;
use crate::runner::cases;
use crate::runner::Case;

pub const CASES: &[Case] = cases![Unloaded:
    haproxy_forwards_and_denies_the_client_with_the_module_only,
    haproxy_sends_the_client_by_the_proxy_protocol_with_the_module_only,
    apache_forwards_and_denies_the_client_with_the_module_only,
];

/// The proxy that needs the larger image.
pub const MORE: &[Case] = cases![Unloaded:
    caddy_forwards_and_denies_the_client_with_the_module_only,
];

/// A request, and the answer to a denied client.
type Denial = (fn(&mut TcpStream) -> String, &'static str);

const FORBIDDEN: Denial = (proxies::status, "403");

/// The connection ends without an answer.
const REJECTED: Denial = (proxies::text, "");

/// Checks the address that the server behind the proxy gets, and then the answer to denied clients.
#[track_caller]
fn check(proxy: &Program, (ask, denial): Denial) {
    let net = Net::with_ports(&Plan::dpvs(), &proxy.ports());
    let backend = Backend::start(&net.server);
    check_on(&net, proxy);
    let _running = Running::start(proxy, &net);
    let port = proxy.ports()[0];
    for way in Way::ALL {
        assert_ne!(denied(&net, way, port, ask), denial, "{way:?}");
    }
    module::load();
    let before = backend.requests();
    for way in Way::ALL {
        assert_eq!(denied(&net, way, port, ask), denial, "{way:?}");
    }
    assert_eq!(backend.requests(), before, "requests of denied clients");
    net.wait_for_no_records();
    module::unload();
}

/// Returns the answer to the way's denied client. A reset may come while it connects.
#[track_caller]
fn denied(net: &Net, way: Way, port: u16, ask: fn(&mut TcpStream) -> String) -> String {
    let [v4, v6] = DENIED;
    let source = if way.client().is_ipv4() { v4 } else { v6 };
    match net.try_connect(Protocol::TCP, source, way, port) {
        Ok(mut client) => ask(&mut client.stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{way:?}: {error}"),
    }
}

fn haproxy_forwards_and_denies_the_client_with_the_module_only() {
    check(&proxies::HAPROXY, FORBIDDEN);
}

fn haproxy_sends_the_client_by_the_proxy_protocol_with_the_module_only() {
    check(&proxies::HAPROXY_TCP, REJECTED);
}

fn apache_forwards_and_denies_the_client_with_the_module_only() {
    check(&proxies::APACHE, FORBIDDEN);
}

fn caddy_forwards_and_denies_the_client_with_the_module_only() {
    check(&proxies::CADDY, FORBIDDEN);
}
