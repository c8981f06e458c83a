// SPDX-License-Identifier: GPL-2.0

//! The shares of the records that network namespaces may hold: namespaces that unprivileged users
//! make cannot starve the host, nor a container of the host's root, and neither can that container.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::ops::Range;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::module;
use crate::namespace::Namespace;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;
use crate::wait;

pub const CASES: &[Case] = cases![Unloaded:
    ten_unprivileged_namespaces_together_hold_a_quarter_and_starve_neither_host_nor_container,
    share_of_unprivileged_namespaces_is_free_again_when_they_are_gone,
    container_of_the_hosts_root_holds_a_quarter,
    containers_of_the_hosts_root_together_hold_half,
    first_namespace_holds_all_that_the_others_leave,
    single_record_is_a_share_of_each_namespace,
];

/// `max_records`, of which a quarter is 10.
const MAX: usize = 40;
const HALF: usize = MAX / 2;
const QUARTER: usize = MAX / 4;

/// The namespaces that an unprivileged user makes.
const CELLS: usize = 10;

/// The connections to each, more than a tenth of their common share.
const TRIES: usize = 3;

/// The first port of a host's clients.
const FIRST_PORT: u16 = 4000;

/// A network namespace with a server, and clients of a balancer before it.
struct Host {
    // Ends before the namespace's name goes.
    listener: Listener,
    balancer: HandmadeClient,
    namespace: Namespace,
}

impl Host {
    fn v4(namespace: Namespace) -> Self {
        let balancer = HandmadeClient::new(&namespace);
        Self::new(namespace, balancer, SERVER_V4.into())
    }

    fn v6(namespace: Namespace) -> Self {
        let balancer = HandmadeClient::with_ipv6(&namespace);
        Self::new(namespace, balancer, SERVER_V6.into())
    }

    /// The server's address goes with the balancer's device: the first namespace stays as it was.
    fn new(namespace: Namespace, balancer: HandmadeClient, address: IpAddr) -> Self {
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        let device = balancer.device();
        namespace.ip(&format!("addr add {address} dev {device}{nodad}"));
        Self {
            listener: namespace.enter(|| Listener::new(Family::DualStack, PORT)),
            balancer,
            namespace,
        }
    }

    /// Completes that many handshakes, whose options name clients. No process accepts.
    #[track_caller]
    fn connect(&self, count: usize) -> Range<u16> {
        let ports = FIRST_PORT..FIRST_PORT + count as u16;
        let before = self.stats();
        for port in ports.clone() {
            let (mut connection, _) = self.balancer.connect(port, &[]);
            connection.send(&toa_option(TOA_KIND, self.client(port)), &[]);
        }
        let seen = self.stats().get("syn_recv_sock_toa") - before.get("syn_recv_sock_toa");
        assert_eq!(seen, count as u64, "options of {count} connections");
        ports
    }

    /// The client that the option of that port's connection names.
    fn client(&self, port: u16) -> SocketAddr {
        let address: IpAddr = match self.balancer.address(port) {
            SocketAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 7).into(),
            SocketAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7).into(),
        };
        SocketAddr::new(address, port)
    }

    /// Accepts these connections: the first `recorded` show their clients, the others the
    /// balancer.
    #[track_caller]
    fn accept(&self, ports: Range<u16>, recorded: usize) -> Vec<Accepted> {
        let ports = ports.enumerate();
        let accept = |(at, port)| {
            let accepted = self.listener.accept().ending_by_reset();
            accepted.assert_shows(match at < recorded {
                true => self.client(port),
                false => self.balancer.address(port),
            });
            accepted
        };
        ports.map(accept).collect()
    }

    fn stats(&self) -> Stats {
        Stats::read(&self.namespace)
    }

    /// The records of the namespace, and the connections that found no place.
    fn held(&self) -> (usize, usize) {
        let stats = self.stats();
        let row = |name| stats.get(name) as usize;
        (row("records_live"), row("record_table_full"))
    }

    /// Ends all connections that no process has accepted, and waits until no record is left.
    #[track_caller]
    fn close(self) -> Namespace {
        drop(self.listener);
        wait::until("no records", || {
            match Stats::read(&self.namespace).get("records_live") {
                0 => Ok(()),
                live => Err(crate::stats::describe("records_live", live)),
            }
        });
        self.namespace
    }
}

/// Namespaces of an unprivileged user, every second with IPv6.
fn cells() -> Vec<Host> {
    let cell = |number: usize| match number % 2 {
        0 => Host::v4(Namespace::unprivileged("cell")),
        _ => Host::v6(Namespace::unprivileged("cell")),
    };
    (0..CELLS).map(cell).collect()
}

/// Fills the common share of the cells, and checks which of them hold how much.
#[track_caller]
fn fill(cells: &[Host]) {
    for cell in cells {
        cell.connect(TRIES);
    }
    assert_cells_hold_a_quarter(cells);
}

/// The first cells hold what they asked for, the next one the rest of the share. Each counts its
/// refusals.
#[track_caller]
fn assert_cells_hold_a_quarter(cells: &[Host]) {
    let held: Vec<_> = cells.iter().map(Host::held).collect();
    let expected: Vec<_> = (0..CELLS)
        .map(|number| QUARTER.saturating_sub(number * TRIES).min(TRIES))
        .map(|records| (records, TRIES - records))
        .collect();
    assert_eq!(held, expected);
}

fn ten_unprivileged_namespaces_together_hold_a_quarter_and_starve_neither_host_nor_container() {
    module::load_with(&format!("max_records={MAX}"));
    let cells = cells();
    let first = Host::v4(Namespace::first());
    let container = Host::v6(Namespace::new("container"));
    let before = [&first, &container].map(Host::held);
    assert_eq!(before, [(0, 0); 2]);
    fill(&cells);
    assert_eq!([&first, &container].map(Host::held), before);

    // The container has a quarter, the first namespace the rest.
    let ports = container.connect(QUARTER + 1);
    let in_container = container.accept(ports, QUARTER);
    assert_eq!(container.held(), (QUARTER, 1));
    assert_eq!(first.held(), (0, 0));
    let rest = MAX - 2 * QUARTER;
    let ports = first.connect(rest + 1);
    let in_first = first.accept(ports, rest);
    assert_eq!(first.held(), (rest, 1));
    assert_eq!(container.held(), (QUARTER, 1));
    assert_cells_hold_a_quarter(&cells);

    drop((in_container, in_first));
    let hosts = cells.into_iter().chain([first, container]);
    hosts.for_each(|host| drop(host.close()));
    module::unload();
}

fn share_of_unprivileged_namespaces_is_free_again_when_they_are_gone() {
    module::load_with(&format!("max_records={MAX}"));
    let first = cells();
    fill(&first);
    first.into_iter().for_each(|cell| drop(cell.close()));
    // These go without a look at their counters.
    fill(&cells());
    let last = cells();
    fill(&last);
    last.into_iter().for_each(|cell| drop(cell.close()));
    module::unload();
}

fn container_of_the_hosts_root_holds_a_quarter() {
    module::load_with(&format!("max_records={MAX}"));
    let container = Host::v4(Namespace::new("container"));
    let ports = container.connect(QUARTER + 2);
    let accepted = container.accept(ports, QUARTER);
    assert_eq!(container.held(), (QUARTER, 2));
    drop(accepted);
    container.close();
    module::unload();
}

fn containers_of_the_hosts_root_together_hold_half() {
    module::load_with(&format!("max_records={MAX}"));
    let containers = [(); 3].map(|()| Host::v4(Namespace::new("container")));
    let mut accepted = Vec::new();
    for (container, share) in containers.iter().zip([QUARTER, HALF - QUARTER, 0]) {
        let ports = container.connect(QUARTER + 1);
        accepted.extend(container.accept(ports, share));
        assert_eq!(container.held(), (share, QUARTER + 1 - share));
    }
    drop(accepted);
    containers.map(Host::close);
    module::unload();
}

fn first_namespace_holds_all_that_the_others_leave() {
    module::load_with(&format!("max_records={MAX}"));
    let first = Host::v4(Namespace::first());
    let ports = first.connect(MAX + 2);
    let accepted = first.accept(ports, MAX);
    assert_eq!(first.held(), (MAX, 2));
    drop(accepted);
    first.close();
    module::unload();
}

fn single_record_is_a_share_of_each_namespace() {
    module::load_with("max_records=1");
    let namespaces: [fn() -> Namespace; 3] = [
        Namespace::first,
        || Namespace::new("container"),
        || Namespace::unprivileged("cell"),
    ];
    for namespace in namespaces {
        let host = Host::v4(namespace());
        let ports = host.connect(2);
        drop(host.accept(ports, 1));
        assert_eq!(host.stats().get("record_table_full"), 1);
        host.close();
    }
    module::unload();
}
