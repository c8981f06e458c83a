// SPDX-License-Identifier: GPL-2.0

//! Paths between the balancer and the server: Ethernet, VLANs, a bridge, a device that merges
//! segments. Also one local address with all of its ports.

use std::collections::HashMap;
use std::env;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::capture::Capture;
use crate::capture::Segment;
use crate::ktap::note;
use crate::net::Net;
use crate::net::Way;
use crate::net::Wiring;
use crate::net::PORT;
use crate::path;
use crate::path::Path;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;

pub const CASES: &[Case] = cases![Loaded:
    clients_are_seen_over_virtual_ethernet,
    clients_are_seen_over_a_vlan,
    clients_are_seen_over_a_bridge_and_a_vlan,
    client_is_seen_when_its_first_data_were_merged,
    all_ports_of_one_local_address_show_their_clients,
];

fn routed(plan: &Plan, path: Path) -> Net {
    let wiring = Wiring {
        router: true,
        ..Wiring::default()
    };
    let net = Net::wired(plan, wiring);
    path.make(&net);
    net
}

#[track_caller]
fn check_path(path: Path) {
    let net = routed(&Plan::dpvs(), path);
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (mut client, mut accepted) = net.pair(&listener, way);
        accepted.assert_shows(client.address);
        sockets::exchange(&mut client, &mut accepted);
        sockets::finish(&mut client, &mut accepted);
    }
}

fn clients_are_seen_over_virtual_ethernet() {
    check_path(Path::Veth);
}

fn clients_are_seen_over_a_vlan() {
    check_path(Path::Vlan);
}

fn clients_are_seen_over_a_bridge_and_a_vlan() {
    check_path(Path::BridgeAndVlan);
}

/// More bytes than fit into the segments that a client sends at first.
const FIRST_DATA: usize = 20_000;

const FILE: &str = "/toa/out/merged.pcap";

/// The number of connections of which one must see a merged segment: the network decides when to
/// merge.
const TRIES: usize = 20;

/// The handshake's ACK is lost. The client's next segments all carry the option, and reach TCP as
/// one.
fn client_is_seen_when_its_first_data_were_merged() {
    let net = routed(&Plan::dpvs().losing_the_ack(), Path::Veth);
    path::merge_segments(&net);
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let merged = |_| first_data(&net, &listener, way).payload > 1500;
        assert!((0..TRIES).any(merged), "{way:?}: nothing was merged");
    }
}

/// Makes a connection that must show its client, and returns the segment that made its socket.
#[track_caller]
fn first_data(net: &Net, listener: &Listener, way: Way) -> Segment {
    let data: Vec<u8> = (0..FIRST_DATA).map(|n| (n % 251) as u8).collect();
    let file = std::path::Path::new(FILE);
    let capture = Capture::start(&net.server, path::SERVER_END, file);
    let mut client = net.connect(way);
    client.stream.write_all(&data).expect("the client sends");
    let mut accepted = listener.accept();
    accepted.assert_shows(client.address);
    let mut received = vec![0; FIRST_DATA];
    accepted
        .stream
        .read_exact(&mut received)
        .expect("the server receives");
    assert!(received == data, "{way:?}: the data differs");
    sockets::finish(&mut client, &mut accepted);
    let first = capture
        .finish(2)
        .into_iter()
        .find(|segment| segment.target.port() == PORT && segment.payload > 0)
        .expect("there was data");
    assert_eq!(first.options_of_kind(TOA_KIND).len(), 1, "{first:?}");
    first
}

/// The number of connections, unless the environment sets it. The kernel passes unknown NAME=VALUE
/// words of its command line to the first program's environment.
const CONNECTIONS: usize = 32_768;
const VARIABLE: &str = "TOA_CONNECTIONS";

/// Connections that wait to be accepted at the same time, and that are open at the same time.
const BATCH: usize = 128;
const OPEN: usize = 4_096;

/// Makes connection `number`, from one of many addresses.
fn connect(number: usize) -> Client {
    let way = Way::ALL[number % Way::ALL.len()];
    let host = 20 + (number / Way::ALL.len() % 200) as u8;
    let ip: IpAddr = match way {
        Way::V4 => Ipv4Addr::new(203, 0, 113, host).into(),
        Way::V6 | Way::Nat64 => Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, host.into()).into(),
    };
    let target = SocketAddr::new(way.virtual_server(), PORT);
    Client::connect(SocketAddr::new(ip, 0), target)
        .unwrap_or_else(|error| panic!("connection {number}: {error}"))
}

/// Makes some of the connections, each of which must show its own client.
#[track_caller]
fn make(listener: &Listener, numbers: std::ops::Range<usize>) -> Vec<(Client, Accepted)> {
    let count = numbers.len();
    let mut clients = HashMap::new();
    for client in numbers.map(connect) {
        clients.insert(listener.family.form(client.address), client);
    }
    let accept = |_| {
        let one = listener.accept();
        let shown = one.name.address().expect("an address");
        let client = clients.remove(&shown);
        let client = client.unwrap_or_else(|| panic!("{shown} is none of these clients"));
        (client, one)
    };
    (0..count).map(accept).collect()
}

/// One address of each family, whose ports are used one after the other.
fn all_ports_of_one_local_address_show_their_clients() {
    let connections = env::var(VARIABLE).map_or(CONNECTIONS, |count| {
        count.parse().expect("a number of connections")
    });
    note(&format!("{VARIABLE}={connections}"));
    let wiring = Wiring {
        local: &["10.0.1.1/32", "fd00:0:0:1::1/128"],
        ..Wiring::default()
    };
    let mut net = Net::wired(&Plan::dpvs(), wiring);
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    net.client.enter(|| {
        for first in (0..connections).step_by(OPEN) {
            let batches = (first..connections.min(first + OPEN)).step_by(BATCH);
            let pairs: Vec<_> = batches
                .flat_map(|first| make(&listener, first..connections.min(first + BATCH)))
                .collect();
            for (client, accepted) in &pairs {
                accepted.assert_shows(client.address);
                sockets::reset_at_end(&client.stream);
            }
            note(&format!("{} connections", first + pairs.len()));
        }
    });
    net.wait_for_no_records();
    let change = net.stats().since(&before);
    let all = connections as i64;
    assert!(change.contains(&("syn_recv_sock_toa", all)), "{change:?}");
    assert!(change.contains(&("getname_toa_ok", 2 * all)), "{change:?}");
    assert_eq!(net.finish().get("connections"), connections as u64);
}
