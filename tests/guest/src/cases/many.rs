// SPDX-License-Identifier: GPL-2.0

//! Many connections, and much data.

use std::collections::HashMap;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;

use crate::cases::processors::Pinned;
use crate::ktap::note;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;

pub const CASES: &[Case] = cases![Loaded:
    ten_thousand_connections_each_show_their_own_client,
    twenty_thousand_handshakes_of_one_processor_each_make_a_record,
    megabytes_pass_unharmed_both_ways,
];

const CONNECTIONS: usize = 10_000;

/// Connections that wait to be accepted at the same time.
const BATCH: usize = 100;

/// Connections that are open at the same time.
const OPEN: usize = 2_500;

/// The number of different clients' addresses.
const CLIENTS: usize = 200;

/// The client of a connection: one of many addresses, any port.
fn source(way: Way, number: usize) -> SocketAddr {
    let host = 20 + (number % CLIENTS) as u8;
    let ip: IpAddr = match way {
        Way::V4 => Ipv4Addr::new(203, 0, 113, host).into(),
        Way::V6 | Way::Nat64 => {
            Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, number as u16, host.into()).into()
        }
    };
    SocketAddr::new(ip, 0)
}

/// Makes a batch of connections, each of which must show its own client.
fn make_batch(listener: &Listener, first: usize) -> Vec<(Client, Accepted)> {
    let mut clients = HashMap::new();
    for number in first..first + BATCH {
        let way = Way::ALL[number % Way::ALL.len()];
        let target = SocketAddr::new(way.virtual_server(), PORT);
        let source = source(way, number);
        let client = Client::connect(source, target)
            .unwrap_or_else(|error| panic!("connection {number}: {error}"));
        clients.insert(listener.family.form(client.address), client);
    }
    let accept = |_| {
        let one = listener.accept();
        let shown = one.name.address().expect("an address");
        let client = clients
            .remove(&shown)
            .unwrap_or_else(|| panic!("{shown} is no client of this batch, or was shown twice"));
        (client, one)
    };
    (0..BATCH).map(accept).collect()
}

/// Ends connections in order or by resets, and checks that each still shows its own client. Half of
/// the connections end in the order in which they were made, half in reverse order.
fn end_all(listener: &Listener, mut pairs: Vec<(Client, Accepted)>, in_order: bool) {
    let middle = pairs.len() / 2;
    pairs[middle..].reverse();
    for (client, accepted) in pairs {
        assert_eq!(accepted.peer(), listener.family.name(client.address));
        if !in_order {
            sockets::reset_at_end(&client.stream);
        }
    }
}

fn ten_thousand_connections_each_show_their_own_client() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    net.client.enter(|| {
        for start in (0..CONNECTIONS).step_by(OPEN) {
            let batches = (start..start + OPEN).step_by(BATCH);
            let pairs = batches.flat_map(|first| make_batch(&listener, first));
            end_all(&listener, pairs.collect(), start == 0);
            // The harness stops a machine that prints nothing for two minutes.
            note(&format!("{} connections", start + OPEN));
        }
    });
    net.wait_for_no_records();
    let change = net.stats().since(&before);
    let all = CONNECTIONS as i64;
    assert!(change.contains(&("syn_recv_sock_toa", all)), "{change:?}");
    assert!(change.contains(&("getname_toa_ok", 2 * all)), "{change:?}");
}

/// The idle records do not last for so many: the worker allocates more in the meantime.
fn twenty_thousand_handshakes_of_one_processor_each_make_a_record() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    let all = 2 * CONNECTIONS;
    let pinned = Pinned::to(0);
    net.client.enter(|| {
        for start in (0..all).step_by(OPEN) {
            let batches = (start..start + OPEN).step_by(BATCH);
            let pairs: Vec<_> = batches
                .flat_map(|first| make_batch(&listener, first))
                .collect();
            for (client, _) in &pairs {
                sockets::reset_at_end(&client.stream);
            }
            note(&format!("{} connections", start + OPEN));
        }
    });
    drop(pinned);
    net.wait_for_no_records();
    let change = net.stats().since(&before);
    assert!(change.contains(&("option_taken", all as i64)), "{change:?}");
    assert!(
        change.iter().all(|(row, _)| *row != "record_alloc_failed"),
        "{change:?}"
    );
}

const MEGABYTES: usize = 2;

/// Bytes that do not repeat in step with any segment size.
fn pattern(seed: u8) -> Vec<u8> {
    let byte = |n: usize| ((n / 251) as u8).wrapping_mul(31) ^ (n % 251) as u8 ^ seed;
    (0..MEGABYTES << 20).map(byte).collect()
}

fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("all is sent");
    stream.shutdown(Shutdown::Write).expect("the end is sent");
}

#[track_caller]
fn receive(mut stream: &TcpStream, expected: &[u8]) {
    let mut bytes = Vec::with_capacity(expected.len());
    stream.read_to_end(&mut bytes).expect("all is received");
    assert_eq!(bytes.len(), expected.len());
    let differs = bytes.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
}

fn megabytes_pass_unharmed_both_ways() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (up, down) = (pattern(0), pattern(0x5a));
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        thread::scope(|scope| {
            scope.spawn(|| send(&client.stream, &up));
            scope.spawn(|| send(&accepted.stream, &down));
            scope.spawn(|| receive(&client.stream, &down));
            receive(&accepted.stream, &up);
        });
    }
}
