// SPDX-License-Identifier: GPL-2.0

//! A client's and a server's host with the balancer between them, as one value. Each
//! test makes a new one, which is removed on drop.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use nix::sys::stat::fstat;
use socket2::Protocol;

use crate::balancer::Balancer;
use crate::balancer::Counts;
use crate::balancer::Plan;
use crate::balancer::Service;
use crate::namespace::Namespace;
use crate::proc_tcp;
use crate::runner::problem;
use crate::site;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats;
use crate::stats::Stats;
use crate::wait;

/// The clients of the balancer vendors' examples: TEST-NET-3 and RFC 3849.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);

/// The networks of clients: the client's host may use each of their addresses.
const CLIENTS_V4: &str = "203.0.113.0/24";
const CLIENTS_V6: &str = "2001:db8:7::/64";

/// The virtual servers.
const VIP_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const VIP_NAT64: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x164, 0, 0, 0, 0, 1);

/// The real server.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// The balancer's local addresses, which the real server sees, IPv4 first.
pub const LOCAL: [&str; 2] = ["10.0.1.0/28", "fd00:0:0:1::/124"];

/// The port of the tests' own servers.
pub const PORT: u16 = 8080;

/// The ways through the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// An IPv4 client, an IPv4 server.
    V4,
    /// IPv6 on both sides.
    V6,
    /// An IPv6 client, IPv4 to the server.
    Nat64,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Nat64];

    pub fn client(self) -> IpAddr {
        match self {
            Self::V4 => CLIENT_V4.into(),
            Self::V6 | Self::Nat64 => CLIENT_V6.into(),
        }
    }

    pub fn virtual_server(self) -> IpAddr {
        match self {
            Self::V4 => VIP_V4.into(),
            Self::V6 => VIP_V6.into(),
            Self::Nat64 => VIP_NAT64.into(),
        }
    }

    pub fn real_server(self) -> IpAddr {
        match self {
            Self::V4 | Self::Nat64 => SERVER_V4.into(),
            Self::V6 => SERVER_V6.into(),
        }
    }
}

/// The listeners' families and the ways to them: the rows of the design's table.
pub const ROWS: [(Family, Way); 6] = [
    (Family::V4, Way::V4),
    (Family::V4, Way::Nat64),
    (Family::V6Only, Way::V6),
    (Family::DualStack, Way::V4),
    (Family::DualStack, Way::V6),
    (Family::DualStack, Way::Nat64),
];

/// The rows of the design's table in which a socket's name shows the client.
pub const ROWS_WITH_CLIENT: [(Family, Way); 5] = [
    (Family::V4, Way::V4),
    (Family::V6Only, Way::V6),
    (Family::DualStack, Way::V4),
    (Family::DualStack, Way::V6),
    (Family::DualStack, Way::Nat64),
];

/// Returns whether the address is one of the balancer's local addresses.
pub fn is_local_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[..3] == [10, 0, 1] && v4.octets()[3] < 16,
        IpAddr::V6(v6) => v6.segments()[..7] == [0xfd00, 0, 0, 1, 0, 0, 0] && v6.segments()[7] < 16,
    }
}

/// The two hosts and the balancer.
#[derive(Debug)]
pub struct Net {
    balancer: Balancer,
    abandoned: bool,
    pub client: Namespace,
    pub server: Namespace,
    /// A host between the balancer and the server.
    pub router: Option<Namespace>,
}

/// The deviations from the usual network.
#[derive(Clone, Copy, Debug)]
pub struct Wiring<'a> {
    /// All local addresses of the balancer.
    pub local: &'a [&'a str],
    /// Additional arguments of the balancer.
    pub arguments: &'a [&'a str],
    /// Whether the balancer sends to a router. The test then makes the path from the
    /// router to the server.
    pub router: bool,
}

impl Default for Wiring<'_> {
    fn default() -> Self {
        Self {
            local: &LOCAL,
            arguments: &[],
            router: false,
        }
    }
}

impl Net {
    /// Makes a net with a balancer that behaves as DPVS does.
    pub fn new() -> Self {
        Self::with(&Plan::dpvs())
    }

    /// Makes a net with a balancer that follows the test's plan.
    pub fn with(plan: &Plan) -> Self {
        Self::with_ports(plan, &[PORT])
    }

    /// Makes a net whose balancer serves these ports.
    pub fn with_ports(plan: &Plan, ports: &[u16]) -> Self {
        Self::with_ways(&Way::ALL, plan, ports)
    }

    /// Makes a net without IPv6, for a kernel that has none.
    pub fn ipv4_only(plan: &Plan) -> Self {
        Self::with_ways(&[Way::V4], plan, &[PORT])
    }

    /// Makes a net with all paths, wired as the test needs it.
    pub fn wired(plan: &Plan, wiring: Wiring<'_>) -> Self {
        Self::with_all(&Way::ALL, plan, &[PORT], wiring)
    }

    fn with_ways(ways: &[Way], plan: &Plan, ports: &[u16]) -> Self {
        let ipv6 = ways.iter().any(|way| way.client().is_ipv6());
        let wiring = Wiring {
            local: if ipv6 { &LOCAL[..] } else { &LOCAL[..1] },
            ..Wiring::default()
        };
        Self::with_all(ways, plan, ports, wiring)
    }

    fn with_all(ways: &[Way], plan: &Plan, ports: &[u16], wiring: Wiring<'_>) -> Self {
        let services = ways.iter().flat_map(|&way| {
            ports.iter().map(move |&port| Service {
                virtual_server: SocketAddr::new(way.virtual_server(), port),
                real_server: SocketAddr::new(way.real_server(), port),
                plan: plan.clone(),
            })
        });
        let services: Vec<Service> = services.collect();
        let ipv6 = ways.iter().any(|way| way.client().is_ipv6());
        Self::with_services(&services, ipv6, wiring)
    }

    /// Makes a net whose balancer has these services.
    pub fn with_services(services: &[Service], ipv6: bool, wiring: Wiring<'_>) -> Self {
        let client = Namespace::new("client");
        let server = Namespace::new("server");
        let router = wiring.router.then(|| Namespace::new("router"));
        let behind = router.as_ref().unwrap_or(&server);
        let Wiring {
            local, arguments, ..
        } = wiring;
        let balancer = Balancer::start(&client, behind, local, services, arguments);
        Self::set_up_client(&client, ipv6);
        Self::set_up_server(&server, ipv6);
        Self {
            balancer,
            abandoned: false,
            client,
            server,
            router,
        }
    }

    /// Ends the balancer. Call it when no connection needs the balancer any more.
    #[track_caller]
    pub fn finish(&mut self) -> Counts {
        self.balancer.finish()
    }

    /// Makes a net for the real servers.
    pub fn for_site() -> Self {
        Self::with_ports(&Plan::dpvs(), &site::PORTS)
    }

    /// Assigns every address of the clients' networks to the client's host.
    fn set_up_client(client: &Namespace, ipv6: bool) {
        client.ip(&format!("route add local {CLIENTS_V4} dev lo"));
        client.sysctl("ipv4/ip_nonlocal_bind", "1");
        if ipv6 {
            client.ip(&format!("route add local {CLIENTS_V6} dev lo"));
            client.sysctl("ipv6/ip_nonlocal_bind", "1");
        }
    }

    fn set_up_server(server: &Namespace, ipv6: bool) {
        server.ip(&format!("addr add {SERVER_V4}/32 dev lo"));
        if ipv6 {
            server.ip(&format!("addr add {SERVER_V6}/128 dev lo nodad"));
        }
    }

    /// Starts the tests' server.
    pub fn listen(&self, family: Family) -> Listener {
        self.server.enter(|| Listener::new(family, PORT))
    }

    /// Connects the client.
    #[track_caller]
    pub fn connect(&self, way: Way) -> Client {
        self.connect_to_port(way, PORT)
    }

    #[track_caller]
    pub fn connect_to_port(&self, way: Way, port: u16) -> Client {
        self.connect_by(Protocol::TCP, way, port)
    }

    #[track_caller]
    pub fn connect_by(&self, protocol: Protocol, way: Way, port: u16) -> Client {
        self.connect_as(protocol, way.client(), way, port)
    }

    /// Connects a client that has another address than the way's.
    #[track_caller]
    pub fn connect_from(&self, source: IpAddr, way: Way, port: u16) -> Client {
        self.connect_as(Protocol::TCP, source, way, port)
    }

    #[track_caller]
    fn connect_as(&self, protocol: Protocol, source: IpAddr, way: Way, port: u16) -> Client {
        self.try_connect(protocol, source, way, port)
            .unwrap_or_else(|error| {
                let target = SocketAddr::new(way.virtual_server(), port);
                panic!("connect from {source} to {target}: {error}")
            })
    }

    pub fn try_connect(
        &self,
        protocol: Protocol,
        source: IpAddr,
        way: Way,
        port: u16,
    ) -> io::Result<Client> {
        let target = SocketAddr::new(way.virtual_server(), port);
        let source = SocketAddr::new(source, 0);
        self.client
            .enter(|| Client::connect_by(protocol, source, target))
    }

    /// Connects the client, and returns both ends.
    #[track_caller]
    pub fn pair(&self, listener: &Listener, way: Way) -> (Client, Accepted) {
        let client = self.connect(way);
        let accepted = listener.accept();
        (client, accepted)
    }

    /// Returns the source address of a connection's segments in the form of its socket's
    /// family. It is getpeername's answer without the module.
    #[track_caller]
    pub fn balancer_of(&self, accepted: &Accepted) -> SocketAddr {
        let inode = fstat(&accepted.stream)
            .expect("a socket has an inode")
            .st_ino;
        proc_tcp::rows(&self.server)
            .iter()
            .find(|row| row.inode == inode)
            .unwrap_or_else(|| panic!("socket {inode} is not in the server's namespace"))
            .remote
    }

    /// Removes the balancer and the namespaces' names while sockets exist, and skips the
    /// check for leaks.
    pub fn abandon(mut self) {
        self.abandoned = true;
    }

    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats::read(&self.server)
    }

    /// Waits until the module has no record for a connection of the server.
    #[track_caller]
    pub fn wait_for_no_records(&self) {
        wait::until("records_live is 0", || no_records(&self.server));
    }
}

/// The sockets of a test are dropped before its `Net` is, so no record may be left.
impl Drop for Net {
    fn drop(&mut self) {
        if self.abandoned {
            return;
        }
        if let Err(found) = wait::try_until(|| no_records(&self.server)) {
            problem(format!("after the test: {found}"));
        }
    }
}

fn no_records(server: &Namespace) -> Result<(), String> {
    match Stats::read_if_loaded(server).map(|stats| stats.get("records_live")) {
        None | Some(0) => Ok(()),
        Some(live) => Err(stats::describe("records_live", live)),
    }
}
