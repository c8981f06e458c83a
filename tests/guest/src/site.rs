// SPDX-License-Identifier: GPL-2.0

//! Real servers on the server's host, and clients that visit each of them.

use crate::net;
use crate::net::Net;
use crate::net::Way;
use crate::servers;
use crate::servers::Server;

const NGINX_V4: u16 = 8081;
const NGINX_V6_ONLY: u16 = 8082;
const NGINX_DUAL_STACK: u16 = 8083;
const PYTHON: u16 = 8091;
const PYTHON_DUAL_STACK: u16 = 8092;

/// The ports that the balancer has to serve.
pub const PORTS: [u16; 5] = [
    NGINX_V4,
    NGINX_V6_ONLY,
    NGINX_DUAL_STACK,
    PYTHON,
    PYTHON_DUAL_STACK,
];

/// One request, and the client that its log line must show with the module.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub way: Way,
    pub port: u16,
    /// The client; None: the balancer, with and without the module.
    pub client: Option<&'static str>,
    /// The server's listening configuration, for people.
    pub server: &'static str,
}

/// The client's addresses as servers write them.
const IPV4: Option<&str> = Some("203.0.113.7");
const MAPPED: Option<&str> = Some("::ffff:203.0.113.7");
const IPV6: Option<&str> = Some("2001:db8:7::7");

const fn visit(way: Way, port: u16, client: Option<&'static str>, server: &'static str) -> Visit {
    Visit {
        way,
        port,
        client,
        server,
    }
}

pub const NGINX_VISITS: [Visit; 6] = [
    visit(Way::V4, NGINX_V4, IPV4, "nginx, listen 0.0.0.0"),
    visit(
        Way::V6,
        NGINX_V6_ONLY,
        IPV6,
        "nginx, listen [::] ipv6only=on",
    ),
    visit(
        Way::V4,
        NGINX_DUAL_STACK,
        MAPPED,
        "nginx, listen [::] ipv6only=off",
    ),
    visit(
        Way::V6,
        NGINX_DUAL_STACK,
        IPV6,
        "nginx, listen [::] ipv6only=off",
    ),
    visit(
        Way::Nat64,
        NGINX_DUAL_STACK,
        IPV6,
        "nginx, listen [::] ipv6only=off",
    ),
    visit(Way::Nat64, NGINX_V4, None, "nginx, listen 0.0.0.0"),
];

pub const PYTHON_VISITS: [Visit; 4] = [
    visit(Way::V4, PYTHON, IPV4, "python3 -m http.server"),
    visit(
        Way::V4,
        PYTHON_DUAL_STACK,
        MAPPED,
        "python3 -m http.server --bind ::",
    ),
    visit(
        Way::V6,
        PYTHON_DUAL_STACK,
        IPV6,
        "python3 -m http.server --bind ::",
    ),
    visit(
        Way::Nat64,
        PYTHON_DUAL_STACK,
        IPV6,
        "python3 -m http.server --bind ::",
    ),
];

/// The servers, running.
pub struct Site<'a> {
    net: &'a Net,
    servers: Vec<(Vec<u16>, Server)>,
}

impl<'a> Site<'a> {
    pub fn nginx(net: &'a Net) -> Self {
        let ports = vec![NGINX_V4, NGINX_V6_ONLY, NGINX_DUAL_STACK];
        let server = Server::nginx(&net.server, NGINX_V4, NGINX_V6_ONLY, NGINX_DUAL_STACK);
        Self {
            net,
            servers: vec![(ports, server)],
        }
    }

    pub fn python(net: &'a Net) -> Self {
        let plain = Server::python(&net.server, PYTHON, None);
        let dual_stack = Server::python(&net.server, PYTHON_DUAL_STACK, Some("::"));
        Self {
            net,
            servers: vec![(vec![PYTHON], plain), (vec![PYTHON_DUAL_STACK], dual_stack)],
        }
    }

    /// Makes the visit; returns its line of the access log.
    #[track_caller]
    pub fn receive(&self, visit: Visit) -> String {
        let (_, server) = self
            .servers
            .iter()
            .find(|(ports, _)| ports.contains(&visit.port))
            .expect("a server has that port");
        let before = server.log_lines(0).len();
        let client = self.net.connect_to_port(visit.way, visit.port);
        servers::get_page(client.stream);
        server.log_lines(before + 1).remove(before)
    }
}

/// Returns the client in an access log's line.
pub fn client_in(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// Returns whether the address is one of the balancer's local addresses.
pub fn is_balancer(logged: &str) -> bool {
    logged.parse().is_ok_and(net::is_local_address)
}
