// SPDX-License-Identifier: GPL-2.0

//! The balancer's hostile and lossy side: options of every layout over IPv6 and NAT64,
//! clients that leave no room for the option, headers before TCP's own, and a network
//! that loses, doubles and reorders.

use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::thread;

use etherparse::ip_number;
use etherparse::IpNumber;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::options::NAMED;
use crate::cases::options::OTHER;
use crate::handmade;
use crate::handmade::HandmadeClient;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::Wiring;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;

pub const CASES: &[Case] = cases![Loaded:
    layouts_of_other_vendors_are_no_client_over_ipv6_and_nat64,
    options_of_both_lengths_are_seen_over_ipv4_and_long_ones_over_ipv6,
    malformed_options_are_counted_over_ipv6_and_nat64,
    first_of_two_options_decides_over_ipv6_and_nat64,
    option_in_a_full_header_is_read_wherever_it_stands,
    option_behind_ipv4_options_is_seen,
    option_behind_ipv6_extension_headers_is_seen,
    client_that_fills_its_header_is_seen_when_the_balancer_makes_room,
    forged_option_in_a_full_header_goes_to_make_room,
    forged_option_behind_the_balancers_does_not_count,
    header_without_room_leaves_the_balancer,
    header_without_room_leaves_a_forged_option,
    header_without_room_leaves_no_forged_ipv4_client_to_ipv6_traffic,
    segment_too_long_for_the_option_leaves_the_balancer,
    lowered_mss_leaves_room_for_the_option,
    data_too_long_for_the_option_passes_and_the_client_stays,
    connections_over_a_lossy_network_show_their_clients,
    connections_over_a_reordering_network_show_their_clients,
    connections_over_a_hostile_network_show_their_clients,
];

const NOP: u8 = 1;
/// An option kind without a meaning.
const UNKNOWN: u8 = 77;

const NAMED_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 9)),
    4660,
);
const OTHER_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 99)),
    22136,
);

fn option(client: SocketAddr) -> Vec<u8> {
    toa_option(TOA_KIND, client)
}

const TOA: (&str, i64) = ("syn_recv_sock_toa", 1);
const TAKEN: (&str, i64) = ("option_taken", 1);
const NO_TOA: (&str, i64) = ("syn_recv_sock_no_toa", 1);
const NO_OPTION: (&str, i64) = ("no_option", 1);
const HEADER_FULL: (&str, i64) = ("no_option_header_full", 1);
const OTHER_KIND: (&str, i64) = ("kind_not_configured", 1);
const MALFORMED: (&str, i64) = ("malformed", 1);
const FOREIGN_LENGTH: (&str, i64) = ("foreign_length", 1);
const DUPLICATE: (&str, i64) = ("duplicate", 1);

/// A handshake's options, the client that the server sees over IPv4 (None: the sender), and
/// the counters that count.
type Row<'a> = (Vec<u8>, Option<SocketAddr>, &'a [(&'a str, i64)]);

/// Makes handmade connections to a dual stack server for each row, by IPv4 (20 bytes mean NAT64)
/// and by IPv6.
#[track_caller]
fn check_rows(rows: &[Row<'_>]) {
    check_rows_of(rows, HandmadeClient::new);
    let counted: Vec<_> = rows.iter().map(counted_over_ipv6).collect();
    let mut over_ipv6: Vec<Row<'_>> = Vec::new();
    for ((options, seen, _), counted) in rows.iter().zip(&counted) {
        let seen = seen.filter(SocketAddr::is_ipv6);
        over_ipv6.push((options.clone(), seen, counted));
    }
    check_rows_of(&over_ipv6, HandmadeClient::with_ipv6);
}

/// The row's counters over IPv6: an IPv4 client's option has a foreign length there, and the balancer's
/// option needs 20 bytes of the 40.
fn counted_over_ipv6<'a>((options, seen, counted): &Row<'a>) -> Vec<(&'a str, i64)> {
    match (seen, counted) {
        (None, [NO_TOA, NO_OPTION]) if options.len() > 20 => vec![NO_TOA, HEADER_FULL],
        (Some(SocketAddr::V4(_)), [TOA, TAKEN, rest @ ..]) => {
            [&[NO_TOA, FOREIGN_LENGTH], rest].concat()
        }
        _ => counted.to_vec(),
    }
}

#[track_caller]
fn check_rows_of(rows: &[Row<'_>], client: impl Fn(&Namespace) -> HandmadeClient) {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let client = client(&net.server);
    for ((options, seen, counted), port) in rows.iter().zip(4000..) {
        let before = net.stats();
        let (mut connection, _) = client.connect(port, &[]);
        connection.send(options, &[]);
        let accepted = listener.accept().ending_by_reset();
        let expected = seen.unwrap_or(client.address(port));
        let expected = Some(listener.family.form(expected));
        let told = [&accepted.name, &accepted.peer()].map(|name| name.address());
        assert_eq!(told, [expected; 2], "{options:02x?} of {client:?}");
        check_counted(&net, &before, counted);
    }
}

/// Checks the counters, except those of live records and of questions.
#[track_caller]
fn check_counted(net: &Net, before: &Stats, expected: &[(&str, i64)]) {
    let mut change = net.stats().since(before);
    change.retain(|(row, _)| {
        !["records_live", "ip6_address_alloc", "ip6_address_free"].contains(row)
            && !row.starts_with("getname_")
    });
    assert_eq!(change, expected);
}

/// The option without a port: a version byte, and the address.
fn without_port(version: u8, client: SocketAddr) -> Vec<u8> {
    let address = match client.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    [&[28, 3 + address.len() as u8, version], &address[..]].concat()
}

fn layouts_of_other_vendors_are_no_client_over_ipv6_and_nat64() {
    let of_kind = |kind| [toa_option(kind, OTHER), toa_option(kind, OTHER_V6)];
    let mut layouts: Vec<_> = [200, 202, 250, 252, 253]
        .into_iter()
        .flat_map(of_kind)
        .collect();
    layouts.push(without_port(1, OTHER));
    layouts.push(without_port(1, OTHER_V6));
    layouts.push(without_port(2, OTHER_V6));
    let mut rows: Vec<Row> = Vec::new();
    for layout in layouts {
        let before_ours = [&layout[..], &option(NAMED_V6)].concat();
        rows.push((layout, None, &[NO_TOA, OTHER_KIND]));
        rows.push((before_ours, Some(NAMED_V6), &[TOA, TAKEN]));
    }
    check_rows(&rows);
}

fn options_of_both_lengths_are_seen_over_ipv4_and_long_ones_over_ipv6() {
    let mut rows: Vec<Row> = Vec::new();
    for named in [NAMED, NAMED_V6] {
        for nops in 0..4 {
            let options = [&vec![NOP; nops][..], &option(named)].concat();
            rows.push((options, Some(named), &[TOA, TAKEN]));
        }
        let behind_the_end = [&[0], &option(named)[..]].concat();
        rows.push((behind_the_end, None, &[NO_TOA, NO_OPTION]));
    }
    check_rows(&rows);
}

fn malformed_options_are_counted_over_ipv6_and_nat64() {
    let mut rows: Vec<Row> = Vec::new();
    for length in [2, 3, 4, 7, 9, 19, 21, 22, 40] {
        let mut options = vec![TOA_KIND, length];
        options.resize(usize::from(length), 0x77);
        rows.push((options, None, &[NO_TOA, MALFORMED]));
    }
    for cut in [[NOP, NOP, NOP, 254], [NOP, NOP, 254, 0], [NOP, NOP, 77, 1]] {
        rows.push((cut.to_vec(), None, &[NO_TOA, MALFORMED]));
        let after_ours = [&option(NAMED_V6)[..], &cut].concat();
        rows.push((after_ours, Some(NAMED_V6), &[TOA, TAKEN]));
    }
    check_rows(&rows);
}

fn first_of_two_options_decides_over_ipv6_and_nat64() {
    let both = |first, second| [option(first), option(second)].concat();
    let bad = [TOA_KIND, 4, 0x77, 0x77];
    check_rows(&[
        (both(NAMED, OTHER), Some(NAMED), &[TOA, TAKEN, DUPLICATE]),
        (both(NAMED, OTHER_V6), Some(NAMED), &[TOA, TAKEN, DUPLICATE]),
        (
            both(NAMED_V6, OTHER),
            Some(NAMED_V6),
            &[TOA, TAKEN, DUPLICATE],
        ),
        (
            both(NAMED_V6, OTHER_V6),
            Some(NAMED_V6),
            &[TOA, TAKEN, DUPLICATE],
        ),
        // A client's second option does not replace a malformed option of the balancer.
        (
            [&bad, &option(OTHER_V6)[..]].concat(),
            None,
            &[NO_TOA, MALFORMED, DUPLICATE],
        ),
    ]);
}

fn option_in_a_full_header_is_read_wherever_it_stands() {
    let mut rows: Vec<Row> = Vec::new();
    for named in [NAMED, NAMED_V6] {
        let option = option(named);
        let rest = 40 - option.len();
        for before in [0, 1, 2, 7, rest - 3, rest - 1, rest] {
            let mut options = vec![NOP; before];
            options.extend(&option);
            options.resize(40, NOP);
            rows.push((options, Some(named), &[TOA, TAKEN]));
        }
    }
    check_rows(&rows);
}

/// Checks a connection whose packets carry IP options or extension headers before TCP.
#[track_caller]
fn check_shows_itself(client: impl Fn(&Net) -> HandmadeClient, named: SocketAddr) {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let client = client(&net);
    let (mut connection, _) = client.connect(4000, &[]);
    connection.send(&option(named), &[]);
    let mut accepted = listener.accept().ending_by_reset();
    accepted.assert_shows(named);
    let other = if named.is_ipv4() { OTHER } else { OTHER_V6 };
    connection.send(&option(other), b"data");
    let mut data = [0; 4];
    accepted.stream.read_exact(&mut data).expect("the data");
    assert_eq!(&data, b"data");
    accepted.assert_shows(named);
}

fn option_behind_ipv4_options_is_seen() {
    // RFC 791: no operation, the route and the times that hosts fill in, and the longest list.
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let timestamp = [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut longest = [1; 40];
    longest[..3].copy_from_slice(&[7, 39, 4]);
    for options in [&[1, 1, 1, 1][..], &record_route, &timestamp, &longest] {
        let client = |net: &Net| HandmadeClient::new(&net.server).with_ip_options(options);
        check_shows_itself(client, NAMED);
        check_shows_itself(client, NAMED_V6);
    }
}

/// An option for experiments (RFC 4727), which hosts skip if they do not recognize it. The kernel
/// accepts no more than 7 bytes of padding.
const SKIPPED: u8 = 0x1e;

/// An extension header (RFC 8200): the next header, the length in units of 8 bytes less one, and
/// one option.
fn header_with_option(next: IpNumber, length: usize) -> Vec<u8> {
    let data = length - 4;
    let mut header = vec![next.0, (length / 8 - 1) as u8, SKIPPED, data as u8];
    header.resize(length, 0x77);
    header
}

fn option_behind_ipv6_extension_headers_is_seen() {
    let (tcp, options, hop) = (
        ip_number::TCP,
        ip_number::IPV6_DEST_OPTIONS,
        ip_number::IPV6_HOP_BY_HOP,
    );
    let both = [header_with_option(options, 8), header_with_option(tcp, 16)].concat();
    let atomic_fragment = [tcp.0, 0, 0, 0, 0, 0, 0, 7].to_vec();
    let rows = [
        (hop, header_with_option(tcp, 8)),
        (options, header_with_option(tcp, 8)),
        (options, header_with_option(tcp, 32)),
        (hop, both),
        (ip_number::IPV6_FRAG, atomic_fragment),
    ];
    for (first, headers) in rows {
        let client = |net: &Net| {
            HandmadeClient::with_ipv6(&net.server).with_extension_headers(first, &headers)
        };
        check_shows_itself(client, NAMED_V6);
    }
}

/// A handmade client's connection through the balancer, whose ACK carries the options `own`. Also
/// the expected peer, and the expected counters of server and balancer.
struct FullHeader<'a> {
    way: Way,
    plan: Plan,
    own: &'a [u8],
    /// The client, or `None` for the balancer.
    seen: Option<SocketAddr>,
    counted: &'a [(&'a str, i64)],
    counted_by_balancer: &'a [(&'a str, u64)],
}

const PORT_OF_CLIENT: u16 = 4000;

impl FullHeader<'_> {
    #[track_caller]
    fn check(self) {
        let mut net = Net::with(&self.plan);
        let listener = net.listen(Family::DualStack);
        let before = net.stats();
        let client = HandmadeClient::before_balancer(&net, self.way);
        let (mut connection, _) = client.connect(PORT_OF_CLIENT, &[]);
        connection.send(self.own, &[]);
        let accepted = listener.accept().ending_by_reset();
        let seen = self.seen.unwrap_or_else(|| net.balancer_of(&accepted));
        accepted.assert_shows(seen);
        check_counted(&net, &before, self.counted);
        drop(accepted);
        net.wait_for_no_records();
        let counts = net.finish();
        for (name, expected) in self.counted_by_balancer {
            assert_eq!(counts.get(name), *expected, "{name} of {counts:?}");
        }
    }
}

/// The handmade client's address on the clients' side.
fn handmade_address(way: Way) -> SocketAddr {
    let ip = match way {
        Way::V4 => handmade::ADDRESS_V4.into(),
        Way::V6 | Way::Nat64 => handmade::ADDRESS_V6.into(),
    };
    SocketAddr::new(ip, PORT_OF_CLIENT)
}

/// An option of `length` bytes without a meaning.
fn unknown(length: usize) -> Vec<u8> {
    let mut option = vec![UNKNOWN, length as u8];
    option.resize(length, 0x77);
    option
}

fn client_that_fills_its_header_is_seen_when_the_balancer_makes_room() {
    for way in Way::ALL {
        FullHeader {
            way,
            plan: Plan::dpvs(),
            own: &unknown(40),
            seen: Some(handmade_address(way)),
            counted: &[TOA, TAKEN],
            counted_by_balancer: &[("no_room", 1), ("pruned", 1), ("forwarded_without", 0)],
        }
        .check();
    }
}

fn forged_option_in_a_full_header_goes_to_make_room() {
    for way in Way::ALL {
        let forged = option(if way == Way::V4 { OTHER } else { OTHER_V6 });
        let own = [&forged[..], &unknown(40 - forged.len())].concat();
        FullHeader {
            way,
            plan: Plan::dpvs(),
            own: &own,
            seen: Some(handmade_address(way)),
            counted: &[TOA, TAKEN],
            counted_by_balancer: &[("no_room", 1), ("pruned", 1)],
        }
        .check();
    }
}

fn forged_option_behind_the_balancers_does_not_count() {
    for way in Way::ALL {
        FullHeader {
            way,
            plan: Plan::dpvs(),
            own: &option(OTHER_V6),
            seen: Some(handmade_address(way)),
            counted: &[TOA, TAKEN, DUPLICATE],
            counted_by_balancer: &[("no_room", 0), ("option_inserted", 1)],
        }
        .check();
    }
}

/// A plan whose option is too long for the balancer to make room beside 20 bytes.
fn long_plan() -> Plan {
    Plan::inserting(&[&option(NAMED_V6)[..], &[NOP; 4]].concat())
}

fn header_without_room_leaves_the_balancer() {
    for way in Way::ALL {
        FullHeader {
            way,
            plan: long_plan(),
            own: &unknown(20),
            seen: None,
            counted: &[NO_TOA, OTHER_KIND],
            counted_by_balancer: &[("no_room", 1), ("forwarded_without", 1)],
        }
        .check();
    }
}

/// Only the balancer can detect the forgery, and has to strip the option from clients
/// (`doc/operating.md`).
fn header_without_room_leaves_a_forged_option() {
    for way in Way::ALL {
        FullHeader {
            way,
            plan: long_plan(),
            own: &option(OTHER_V6),
            seen: Some(OTHER_V6),
            counted: &[TOA, TAKEN],
            counted_by_balancer: &[("no_room", 1), ("forwarded_without", 1)],
        }
        .check();
    }
}

/// An IPv6 client's option of 8 bytes, in a header where the balancer's 24 do not fit. Over IPv4
/// the server sees the forged client, as with an option of 20 bytes.
fn header_without_room_leaves_no_forged_ipv4_client_to_ipv6_traffic() {
    for way in Way::ALL {
        let (seen, counted): (_, &[_]) = match way {
            Way::V6 => (None, &[NO_TOA, FOREIGN_LENGTH]),
            Way::V4 | Way::Nat64 => (Some(OTHER), &[TOA, TAKEN]),
        };
        FullHeader {
            way,
            plan: long_plan(),
            own: &[&option(OTHER)[..], &unknown(12)].concat(),
            seen,
            counted,
            counted_by_balancer: &[("no_room", 1), ("forwarded_without", 1)],
        }
        .check();
    }
}

/// More bytes than a segment carries.
const MUCH: usize = 4000;

/// Makes a connection whose first segment at the server is full of data.
#[track_caller]
pub fn made_by_a_full_segment(net: &Net, listener: &Listener, way: Way) -> (Client, Accepted) {
    let mut client = net.connect(way);
    let data = [0x77; MUCH];
    client.stream.write_all(&data).expect("the client sends");
    let mut accepted = listener.accept();
    let mut received = [0; MUCH];
    accepted
        .stream
        .read_exact(&mut received)
        .expect("the server receives");
    assert_eq!(received, data);
    (client, accepted)
}

/// NAT64 makes the IP header 20 bytes shorter, which leaves room for the option.
fn segment_too_long_for_the_option_leaves_the_balancer() {
    let mut net = Net::with(&Plan::dpvs().keeping_the_mss().losing_the_ack());
    let listener = net.listen(Family::DualStack);
    for way in [Way::V4, Way::V6] {
        let before = net.stats();
        let (mut client, mut accepted) = made_by_a_full_segment(&net, &listener, way);
        accepted.assert_shows(net.balancer_of(&accepted));
        check_counted(&net, &before, &[NO_TOA, NO_OPTION]);
        sockets::finish(&mut client, &mut accepted);
    }
    let (mut client, mut accepted) = made_by_a_full_segment(&net, &listener, Way::Nat64);
    accepted.assert_shows(client.address);
    sockets::finish(&mut client, &mut accepted);
    drop(accepted);
    net.wait_for_no_records();
    let counts = net.finish();
    assert!(counts.get("mtu_excess") >= 2, "{counts:?}");
    assert_eq!(counts.get("forwarded_without"), counts.get("mtu_excess"));
}

fn lowered_mss_leaves_room_for_the_option() {
    let mut net = Net::with(&Plan::dpvs().losing_the_ack());
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (mut client, mut accepted) = made_by_a_full_segment(&net, &listener, way);
        accepted.assert_shows(client.address);
        sockets::finish(&mut client, &mut accepted);
    }
    net.wait_for_no_records();
    assert_eq!(net.finish().get("mtu_excess"), 0);
}

fn data_too_long_for_the_option_passes_and_the_client_stays() {
    let mut net = Net::with(&Plan::dpvs().keeping_the_mss());
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (mut client, mut accepted) = made_by_a_full_segment(&net, &listener, way);
        accepted.assert_shows(client.address);
        sockets::finish(&mut client, &mut accepted);
    }
    net.wait_for_no_records();
    let counts = net.finish();
    assert!(counts.get("forwarded_without") >= 2, "{counts:?}");
}

/// The connections of a test with bad weather, and the clients that connect at once.
const CONNECTIONS: usize = 300;
const CLIENTS: usize = 20;

/// Sends the client's own address to the server, and checks the server's echo.
fn introduce(net: &Net, way: Way) {
    let mut client = net.connect(way);
    let own = client.address.to_string();
    let stream = &mut client.stream;
    stream.write_all(own.as_bytes()).expect("the client sends");
    stream.shutdown(Shutdown::Write).expect("the client ends");
    let told = sockets::read_all(stream);
    assert_eq!(String::from_utf8_lossy(&told), own);
}

/// Reads the client's own address, checks that the kernel shows the same address, and echoes it.
fn greet(mut accepted: Accepted) {
    let said = accepted.read_all();
    let own = String::from_utf8_lossy(&said).parse();
    accepted.assert_shows(own.expect("the client's address"));
    accepted
        .stream
        .write_all(&said)
        .expect("the server answers");
}

/// Each connection is made once and shows its client, whatever is lost or late.
#[track_caller]
fn check_weather(arguments: &[&str], lost: bool) {
    // The end of a connection may be lost more than once, and is repeated after a time that
    // doubles. The balancer must still have the connection then, or there is no answer.
    let arguments = [arguments, &["--grace", "120"]].concat();
    let wiring = Wiring {
        arguments: &arguments,
        ..Wiring::default()
    };
    let mut net = Net::wired(&Plan::dpvs(), wiring);
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (net, ways) = (&net, Way::ALL.into_iter().cycle());
            let ways = ways.skip(number).take(CONNECTIONS / CLIENTS);
            scope.spawn(move || ways.for_each(|way| introduce(net, way)));
        }
        for _ in 0..CONNECTIONS {
            let accepted = listener.accept();
            scope.spawn(move || greet(accepted));
        }
    });
    let all = CONNECTIONS as i64;
    check_counted(
        &net,
        &before,
        &[("syn_recv_sock_toa", all), ("option_taken", all)],
    );
    net.wait_for_no_records();
    let counts = net.finish();
    assert_eq!(counts.get("lost") > 0, lost, "{counts:?}");
}

fn connections_over_a_lossy_network_show_their_clients() {
    check_weather(&["--drop", "5", "--seed", "1"], true);
}

fn connections_over_a_reordering_network_show_their_clients() {
    let arguments = ["--reorder", "30", "--duplicate", "30", "--seed", "2"];
    check_weather(&arguments, false);
}

fn connections_over_a_hostile_network_show_their_clients() {
    let arguments = [
        "--drop",
        "5",
        "--reorder",
        "20",
        "--duplicate",
        "20",
        "--seed",
        "3",
    ];
    check_weather(&arguments, true);
}
