// SPDX-License-Identifier: GPL-2.0

//! Tests of the balancer's output, byte for byte: first DPVS's behaviour, then the
//! plans of tests. etherparse makes the clients' and servers' packets and checks all
//! results.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use etherparse::NetHeaders;
use etherparse::PacketBuilder;
use etherparse::PacketHeaders;
use etherparse::TcpHeader;
use etherparse::TransportHeader;
use toa_balancer::balancer::BadConfig;
use toa_balancer::balancer::Balancer;
use toa_balancer::balancer::Config;

const GRACE: Duration = Duration::from_secs(7);
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 0xffff_fff0;
const TOA_V4: [u8; 8] = [254, 8, 0x9c, 0x40, 203, 0, 113, 7];
const TOA_V6: [u8; 20] = [
    254, 20, 0x9c, 0x40, 0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
];
/// MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
const SYN_OPTIONS: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// NOP, NOP, four blocks.
const FOUR_SACKS: [u8; 36] = [
    1, 1, 5, 34, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0,
    7, 0, 0, 0, 8,
];

/// Client, virtual server, real server, first local address and port, as text.
#[derive(Clone, Copy)]
struct Way {
    client: &'static str,
    vip: &'static str,
    server: &'static str,
    lip: &'static str,
}

const V4: Way = Way {
    client: "203.0.113.7:40000",
    vip: "198.51.100.1:80",
    server: "10.0.0.1:8080",
    lip: "10.9.0.1:1025",
};
const V6: Way = Way {
    client: "[2001:db8:7::7]:40000",
    vip: "[2001:db8:100::1]:80",
    server: "[fd00::1]:8080",
    lip: "[fd00:9::1]:1025",
};
const NAT64: Way = Way {
    client: "[2001:db8:7::7]:40000",
    vip: "[2001:db8:164::1]:80",
    server: "10.0.0.1:8080",
    lip: "10.9.0.1:1025",
};

/// Makes a packet with etherparse.
fn packet(from: &str, to: &str, tcp: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (parsed(from), parsed(to));
    let ip = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 63)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), 63)
        }
        _ => panic!("two families"),
    };
    let tcp = TcpHeader {
        source_port: from.port(),
        destination_port: to.port(),
        ..tcp
    };
    let mut bytes = Vec::new();
    ip.tcp_header(tcp)
        .write(&mut bytes, payload)
        .expect("the packet is written");
    bytes
}

fn parsed(address: &str) -> SocketAddr {
    address.parse().expect("valid address")
}

fn tcp(seq: u32, ack: u32, options: &[u8]) -> TcpHeader {
    let mut tcp = TcpHeader {
        ack: true,
        acknowledgment_number: ack,
        ..TcpHeader::new(0, 0, seq, 0x7000)
    };
    tcp.set_options_raw(options).expect("the options fit");
    tcp
}

fn syn() -> TcpHeader {
    TcpHeader {
        syn: true,
        ack: false,
        ..tcp(CLIENT_ISN, 0, &SYN_OPTIONS)
    }
}

/// An outgoing packet whose checksums are verified.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    from: SocketAddr,
    to: SocketAddr,
    tcp: TcpHeader,
    payload: Vec<u8>,
    bytes: Vec<u8>,
}

impl Seen {
    #[track_caller]
    fn new(bytes: &[u8]) -> Self {
        let headers = PacketHeaders::from_ip_slice(bytes).expect("the packet is whole");
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("not TCP: {headers:?}");
        };
        let payload = headers.payload.slice();
        let (from, to, right) = match &headers.net {
            Some(NetHeaders::Ipv4(ip, _)) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!(usize::from(ip.total_len), bytes.len());
                let right = tcp.calc_checksum_ipv4(ip, payload);
                (ip.source.into(), ip.destination.into(), right)
            }
            Some(NetHeaders::Ipv6(ip, _)) => {
                assert_eq!(usize::from(ip.payload_length) + 40, bytes.len());
                let right = tcp.calc_checksum_ipv6(ip, payload);
                (ip.source.into(), ip.destination.into(), right)
            }
            _ => panic!("not IP"),
        };
        assert_eq!(Ok(tcp.checksum), right);
        Self {
            from: SocketAddr::new(from, tcp.source_port),
            to: SocketAddr::new(to, tcp.destination_port),
            payload: payload.to_vec(),
            bytes: bytes.to_vec(),
            tcp,
        }
    }

    fn options(&self) -> &[u8] {
        self.tcp.options.as_slice()
    }
}

/// A balancer with one service, and both ends.
struct Bench {
    way: Way,
    balancer: Balancer,
    start: Instant,
}

impl Bench {
    fn new(way: Way, rest: &str) -> Self {
        Self::with_local(way, rest, &["10.9.0.0/24", "fd00:9::/112"])
    }

    fn with_local(way: Way, rest: &str, local: &[&str]) -> Self {
        let service = format!("vip={},rs={}{rest}", way.vip, way.server);
        let balancer = Balancer::new(config(&[&service], local)).expect("valid service");
        Self {
            way,
            balancer,
            start: Instant::now(),
        }
    }

    fn client_bytes(&mut self, bytes: &[u8]) -> Option<Seen> {
        self.balancer
            .pass_to_server(bytes, self.start)
            .map(Seen::new)
    }

    fn client_at(&mut self, port: u16, tcp: TcpHeader, payload: &[u8]) -> Option<Seen> {
        let client = SocketAddr::new(parsed(self.way.client).ip(), port);
        let bytes = packet(&client.to_string(), self.way.vip, tcp, payload);
        self.client_bytes(&bytes)
    }

    fn try_client(&mut self, tcp: TcpHeader, payload: &[u8]) -> Option<Seen> {
        self.client_at(40000, tcp, payload)
    }

    #[track_caller]
    fn client(&mut self, tcp: TcpHeader, payload: &[u8]) -> Seen {
        self.try_client(tcp, payload).expect("the packet passes")
    }

    fn try_server_to(&mut self, to: SocketAddr, tcp: TcpHeader, payload: &[u8]) -> Option<Seen> {
        let bytes = packet(self.way.server, &to.to_string(), tcp, payload);
        self.balancer
            .pass_to_client(&bytes, self.start)
            .map(Seen::new)
    }

    #[track_caller]
    fn server(&mut self, tcp: TcpHeader, payload: &[u8]) -> Seen {
        let lip = parsed(self.way.lip);
        self.try_server_to(lip, tcp, payload)
            .expect("the packet passes")
    }

    /// Passes SYN and SYN-ACK; returns the shift of the sequence numbers.
    #[track_caller]
    fn open(&mut self) -> u32 {
        let seen = self.client(syn(), b"");
        let shift = seen.tcp.sequence_number.wrapping_sub(CLIENT_ISN);
        self.server(syn_ack(shift), b"");
        shift
    }

    /// Passes the handshake's ACK with these own options.
    #[track_caller]
    fn ack(&mut self, own: &[u8]) -> Seen {
        self.client(early(own), b"")
    }
}

fn config(services: &[&str], local: &[&str]) -> Config {
    Config {
        services: services
            .iter()
            .map(|text| text.parse().expect("valid service"))
            .collect(),
        local: local
            .iter()
            .map(|text| text.parse().expect("valid prefix"))
            .collect(),
        mtu: 1500,
        grace: GRACE,
        seed: 254,
    }
}

fn syn_ack(shift: u32) -> TcpHeader {
    TcpHeader {
        syn: true,
        ..tcp(
            SERVER_ISN,
            shift.wrapping_add(CLIENT_ISN + 1),
            &[2, 4, 5, 180],
        )
    }
}

/// Returns a segment that acknowledges the SYN-ACK and no more.
fn early(own: &[u8]) -> TcpHeader {
    tcp(CLIENT_ISN + 1, SERVER_ISN.wrapping_add(1), own)
}

fn rst() -> TcpHeader {
    TcpHeader {
        rst: true,
        ..early(&[])
    }
}

fn fin(tcp: TcpHeader) -> TcpHeader {
    TcpHeader { fin: true, ..tcp }
}

/// Checks the handshake's whole ACK, for a path whose server gets the option `toa`.
#[track_caller]
fn check_exact_bytes(way: Way, toa: &[u8]) {
    let mut bench = Bench::new(way, "");
    let shift = bench.open();
    let seen = bench.ack(&[]);
    let shifted = shift.wrapping_add(CLIENT_ISN + 1);
    let expected = packet(
        way.lip,
        way.server,
        tcp(shifted, SERVER_ISN.wrapping_add(1), toa),
        b"",
    );
    assert_eq!(seen.bytes, expected);
    assert_eq!(bench.balancer.statistics.option_inserted, 1);
}

#[test]
fn ipv4_ack_carries_8_bytes_between_local_address_and_server() {
    check_exact_bytes(V4, &TOA_V4);
}

#[test]
fn ipv6_ack_carries_20_bytes_between_local_address_and_server() {
    check_exact_bytes(V6, &TOA_V6);
}

#[test]
fn nat64_ack_carries_20_bytes_in_ipv4() {
    let mut bench = Bench::new(NAT64, "");
    let shift = bench.open();
    let seen = bench.ack(&[]);
    let shifted = shift.wrapping_add(CLIENT_ISN + 1).to_be_bytes();
    let mut expected = vec![
        0x45, 0, 0, 60, 0, 0, 0x40, 0, 63, 6, 0, 0, 10, 9, 0, 1, 10, 0, 0, 1, // IPv4, DF
        0x04, 0x01, 0x1f, 0x90, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xf1, // ports, seq, ack
        0xa0, 0x10, 0x70, 0, 0, 0, 0, 0, // data offset 10, ACK, window
    ];
    expected[24..28].copy_from_slice(&shifted);
    expected.extend(TOA_V6);
    // `Seen` verifies the checksums.
    for checksum in [10..12, 36..38] {
        expected[checksum.clone()].copy_from_slice(&seen.bytes[checksum]);
    }
    assert_eq!(seen.bytes, expected);
}

#[test]
fn server_of_nat64_answers_from_the_virtual_server() {
    let mut bench = Bench::new(NAT64, "");
    let shift = bench.open();
    let ack = shift.wrapping_add(CLIENT_ISN + 1);
    let seen = bench.server(tcp(SERVER_ISN.wrapping_add(1), ack, &[]), b"hello");
    let expected = packet(
        NAT64.vip,
        NAT64.client,
        tcp(SERVER_ISN.wrapping_add(1), CLIENT_ISN + 1, &[]),
        b"hello",
    );
    assert_eq!(seen.bytes, expected);
}

#[test]
fn syn_has_no_option_and_nops_for_timestamps() {
    for way in [V4, V6, NAT64] {
        let mut bench = Bench::new(way, "");
        let seen = bench.client(syn(), b"");
        assert_eq!(
            seen.options(),
            [2, 4, 5, 180, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7]
        );
        assert_eq!((seen.from, seen.to), (parsed(way.lip), parsed(way.server)));
    }
}

#[test]
fn mss_of_the_syn_ack_is_lowered_by_the_option() {
    for (way, rest, mss) in [
        (V4, "", 1452_u16),
        (V6, "", 1440),
        (NAT64, "", 1440),
        (V4, ",plan=none", 1460),
        (V4, ",plan=nop+toa", 1448),
        (V4, ",mss=keep", 1460),
    ] {
        let mut bench = Bench::new(way, rest);
        let first = bench.client(syn(), b"");
        let shift = first.tcp.sequence_number.wrapping_sub(CLIENT_ISN);
        let seen = bench.server(syn_ack(shift), b"");
        let [high, low] = mss.to_be_bytes();
        assert_eq!(seen.options(), [2, 4, high, low], "{}{rest}", way.vip);
        assert_eq!((seen.from, seen.to), (parsed(way.vip), parsed(way.client)));
        assert_eq!(seen.tcp.acknowledgment_number, CLIENT_ISN + 1);
    }
}

#[test]
fn option_is_on_every_segment_until_data_of_the_server_is_acknowledged() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    assert_eq!(bench.ack(&[]).options(), TOA_V4);
    for _ in 0..2 {
        let data = bench.client(early(&[]), b"GET");
        assert_eq!(
            (data.options(), &data.payload[..]),
            (&TOA_V4[..], &b"GET"[..])
        );
    }
    let fin = bench.client(fin(early(&[])), b"");
    assert_eq!(fin.options(), TOA_V4);
    let later = tcp(CLIENT_ISN + 4, SERVER_ISN.wrapping_add(2), &[]);
    assert!(bench.client(later, b"more").options().is_empty());
    assert_eq!(bench.balancer.statistics.option_inserted, 4);
}

#[test]
fn rst_carries_no_option() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    assert!(bench.client(rst(), b"").options().is_empty());
}

#[test]
fn option_stands_before_the_segments_own() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    let own = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(bench.ack(&own).options(), [&TOA_V4[..], &own].concat());
}

#[test]
fn retransmitted_syn_keeps_its_session_and_shift() {
    let mut bench = Bench::new(V4, "");
    let first = bench.client(syn(), b"");
    assert_eq!(bench.client(syn(), b""), first);
    assert_eq!(bench.balancer.statistics.connections, 1);
}

#[test]
fn shift_is_the_connections_own_and_undone_towards_the_client() {
    let mut bench = Bench::new(V4, "");
    let shift = bench.open();
    assert_ne!(shift, 0);
    let mut sack = [1, 1, 5, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let edges = [2000_u32, 3000, 4000, 5000];
    for (bytes, edge) in sack[4..].chunks_exact_mut(4).zip(edges) {
        bytes.copy_from_slice(&shift.wrapping_add(edge).to_be_bytes());
    }
    let header = tcp(SERVER_ISN.wrapping_add(1), shift.wrapping_add(1500), &sack);
    let seen = bench.server(header, b"");
    assert_eq!(seen.tcp.acknowledgment_number, 1500);
    assert_eq!(seen.tcp.sequence_number, SERVER_ISN.wrapping_add(1));
    let shifted_back: Vec<u32> = seen.options()[4..]
        .chunks_exact(4)
        .map(|edge| u32::from_be_bytes(edge.try_into().expect("four bytes")))
        .collect();
    assert_eq!(shifted_back, edges);
    let other = bench
        .client_at(40001, syn(), b"")
        .expect("the packet passes");
    assert_ne!(other.tcp.sequence_number, shift.wrapping_add(CLIENT_ISN));
}

#[test]
fn sack_of_the_client_is_the_servers_business_and_stays() {
    let mut bench = Bench::new(V4, ",plan=none");
    bench.open();
    assert_eq!(bench.ack(&FOUR_SACKS).options(), FOUR_SACKS);
}

#[test]
fn full_header_loses_its_own_options_for_the_balancers() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    assert_eq!(bench.ack(&FOUR_SACKS).options(), TOA_V4);
    let statistics = &bench.balancer.statistics;
    assert_eq!((statistics.no_room, statistics.pruned), (1, 1));
    assert_eq!(
        (statistics.option_inserted, statistics.forwarded_without),
        (1, 0)
    );
}

#[test]
fn full_header_of_timestamps_goes_without_the_option() {
    let mut bench = Bench::new(V6, "");
    bench.open();
    // Timestamps stay. The rest is 18 bytes, 16 in whole words: fewer than the needed 20.
    let own = [&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 5, 18][..], &[0; 16]].concat();
    let seen = bench.ack(&own);
    assert_eq!(seen.options(), [8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
    let statistics = &bench.balancer.statistics;
    assert_eq!((statistics.no_room, statistics.forwarded_without), (1, 1));
    assert_eq!((statistics.option_inserted, statistics.pruned), (0, 0));
}

#[test]
fn client_that_fills_its_header_with_a_forged_option_loses_it() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    let own = [&[254, 8, 0, 22, 1, 2, 3, 4][..], &[1; 32]].concat();
    assert_eq!(bench.ack(&own).options(), TOA_V4);
}

#[test]
fn segment_of_the_whole_mtu_goes_without_the_option() {
    let mut bench = Bench::new(V4, ",mss=keep");
    bench.open();
    let seen = bench.client(early(&[]), &[7; 1460]);
    assert!(seen.options().is_empty());
    let statistics = bench.balancer.statistics.clone();
    assert_eq!(
        (statistics.mtu_excess, statistics.forwarded_without),
        (1, 1)
    );
    assert_eq!((statistics.option_inserted, statistics.no_room), (0, 0));
    assert_eq!(bench.client(early(&[]), &[7; 1452]).options(), TOA_V4);
    assert_ne!(bench.client(early(&[]), &[7; 1453]).options(), TOA_V4);
}

#[test]
fn segment_of_the_whole_mtu_gives_its_own_options_for_the_balancers() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    let own = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let seen = bench.client(early(&own), &[7; 1448]);
    assert_eq!(seen.options(), TOA_V4);
    assert_eq!(seen.bytes.len(), 1496);
    let statistics = &bench.balancer.statistics;
    assert_eq!((statistics.mtu_excess, statistics.pruned), (1, 1));
}

#[test]
fn nat64_has_20_bytes_more_of_the_mtu() {
    let mut bench = Bench::new(NAT64, "");
    bench.open();
    let seen = bench.client(early(&[]), &[7; 1440]);
    assert_eq!((seen.options(), seen.bytes.len()), (&TOA_V6[..], 1500));
}

/// Passes the handshake's ACK with a plan and the segment's own options `own`.
#[track_caller]
fn check_plan(rest: &str, own: &[u8], expected: &[u8]) {
    let mut bench = Bench::new(V4, rest);
    bench.open();
    assert_eq!(bench.ack(own).options(), expected, "{rest}");
}

#[test]
fn plans_go_out_as_they_are_given() {
    let own = [1, 1, 77, 2];
    let toa_and = |rest: &[u8]| [&TOA_V4[..], rest].concat();
    check_plan(",plan=none", &own, &own);
    check_plan(",plan=hex:fe02", &[], &[254, 2, 1, 1]);
    check_plan(",plan=hex:fe02,pad=eol", &own, &[254, 2, 0, 0, 1, 1, 77, 2]);
    check_plan(",plan=nop+nop+nop+hex:fe", &[], &[1, 1, 1, 254]);
    check_plan(",plan=toa+hex:fe010101", &[], &toa_and(&[254, 1, 1, 1]));
    check_plan(
        ",plan=hex:fe14010203040506",
        &[],
        &[254, 20, 1, 2, 3, 4, 5, 6],
    );
    check_plan(
        ",plan=toa+toa:1.2.3.4:22",
        &[],
        &toa_and(&[254, 8, 0, 22, 1, 2, 3, 4]),
    );
    check_plan(
        ",plan=nop+toa",
        &[],
        &[1, 254, 8, 0x9c, 0x40, 203, 0, 113, 7, 1, 1, 1],
    );
    check_plan(",kind=200", &[], &[200, 8, 0x9c, 0x40, 203, 0, 113, 7]);
    check_plan(",place=back", &own, &[&own[..], &TOA_V4].concat());
    check_plan(",place=only", &own, &TOA_V4);
    check_plan(",place=only", &FOUR_SACKS, &TOA_V4);
    check_plan(",plan=toa+toa+toa+toa+toa", &[], &[TOA_V4; 5].concat());
}

#[test]
fn plans_reach_only_the_segments_they_are_for() {
    for (segments, on_syn, on_ack, on_data) in [
        ("all", false, true, true),
        ("ack-only", false, true, false),
        ("data-only", false, false, true),
        ("syn", true, false, false),
    ] {
        let mut bench = Bench::new(V4, &format!(",segments={segments}"));
        let marked = |seen: Seen| seen.options().starts_with(&TOA_V4);
        let first = bench.client(syn(), b"");
        let shift = first.tcp.sequence_number.wrapping_sub(CLIENT_ISN);
        bench.server(syn_ack(shift), b"");
        assert_eq!(marked(first), on_syn, "{segments}");
        assert_eq!(marked(bench.ack(&[])), on_ack, "{segments}");
        let data = bench.client(early(&[]), b"GET");
        assert_eq!(marked(data), on_data, "{segments}");
    }
}

#[test]
fn lost_ack_is_lost_until_data_comes() {
    let mut bench = Bench::new(V4, ",lose=ack");
    bench.open();
    assert_eq!(bench.try_client(early(&[]), b""), None);
    assert_eq!(bench.try_client(early(&[]), b""), None);
    assert_eq!(bench.client(early(&[]), b"GET").options(), TOA_V4);
    assert_eq!(bench.ack(&[]).options(), TOA_V4);
    assert_eq!(bench.balancer.statistics.lost, 2);
}

/// Opens a connection and closes it from both sides.
#[track_caller]
fn open_and_close(bench: &mut Bench) {
    let shift = bench.open();
    bench.ack(&[]);
    bench.client(fin(early(&[])), b"");
    let ack = shift.wrapping_add(CLIENT_ISN + 2);
    bench.server(fin(tcp(SERVER_ISN.wrapping_add(1), ack, &[])), b"");
}

#[test]
fn closed_connection_lets_late_segments_pass_and_goes_after_the_grace() {
    let mut bench = Bench::with_local(V4, "", &["10.9.0.1/32"]);
    open_and_close(&mut bench);
    let last = tcp(CLIENT_ISN + 2, SERVER_ISN.wrapping_add(2), &[]);
    assert_eq!(bench.client(last.clone(), b"").from, parsed(V4.lip));
    // The client reuses its port: another session, since the local port is still in use.
    let again = bench.client(syn(), b"");
    assert_eq!(again.from, parsed("10.9.0.1:1026"));
    assert_eq!(bench.balancer.live(), 2);
    bench.start += GRACE;
    bench
        .client_at(40001, syn(), b"")
        .expect("the packet passes");
    assert_eq!(bench.balancer.live(), 2);
    // The client's port still leads to its new session.
    assert_eq!(bench.client(last, b"").from, parsed("10.9.0.1:1026"));
    let statistics = &bench.balancer.statistics;
    assert_eq!((statistics.connections, statistics.unknown), (3, 0));
}

#[test]
fn half_closed_connection_stays() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    bench.client(fin(early(&[])), b"");
    bench.start += 2 * GRACE;
    bench
        .client_at(40001, syn(), b"")
        .expect("the packet passes");
    assert_eq!(bench.balancer.live(), 2);
    bench.client(fin(early(&[])), b"");
}

#[test]
fn rst_of_either_side_closes() {
    for side in ["client", "server"] {
        let mut bench = Bench::new(V4, "");
        let shift = bench.open();
        match side {
            "client" => bench.client(rst(), b""),
            _ => bench.server(
                TcpHeader {
                    rst: true,
                    ..tcp(SERVER_ISN.wrapping_add(1), shift, &[])
                },
                b"",
            ),
        };
        bench.start += GRACE;
        bench
            .client_at(40001, syn(), b"")
            .expect("the packet passes");
        assert_eq!(bench.balancer.live(), 1, "{side}");
        assert_eq!(bench.try_client(early(&[]), b""), None, "{side}");
        assert_eq!(bench.balancer.statistics.unknown, 1, "{side}");
    }
}

#[test]
fn what_belongs_to_nobody_is_dropped_and_counted() {
    let mut bench = Bench::new(V4, "");
    assert_eq!(bench.try_client(early(&[]), b""), None);
    let lip = parsed(V4.lip);
    assert_eq!(bench.try_server_to(lip, early(&[]), b""), None);
    let elsewhere = packet(V4.client, "198.51.100.1:81", syn(), b"");
    assert_eq!(bench.client_bytes(&elsewhere), None);
    let mut udp = Vec::new();
    PacketBuilder::ipv4([1, 2, 3, 4], [198, 51, 100, 1], 9)
        .udp(1, 80)
        .write(&mut udp, b"?")
        .expect("the packet is written");
    assert_eq!(bench.client_bytes(&udp), None);
    let whole = packet(V4.client, V4.vip, syn(), b"");
    for length in 0..whole.len() {
        assert_eq!(bench.client_bytes(&whole[..length]), None);
    }
    let mut fragment = whole.clone();
    fragment[6] |= 0x20;
    assert_eq!(bench.client_bytes(&fragment), None);
    let statistics = &bench.balancer.statistics;
    assert_eq!((statistics.unknown, statistics.no_service), (2, 1));
    assert_eq!(statistics.not_tcp, 1);
    assert_eq!(statistics.malformed, whole.len() as u64 + 1);
    assert_eq!((statistics.connections, statistics.from_client), (0, 0));
}

#[test]
fn exhausted_local_ports_are_counted() {
    const PORTS: u16 = 64511;
    let mut bench = Bench::with_local(V4, "", &["10.9.0.1/32"]);
    for port in 1..=PORTS {
        bench.client_at(port, syn(), b"").expect("a port is free");
    }
    assert_eq!(bench.client_at(PORTS + 1, syn(), b""), None);
    assert_eq!(bench.balancer.statistics.no_local_port, 1);
}

#[test]
fn bad_configurations_are_refused() {
    let v4 = "vip=198.51.100.1:80,rs=10.0.0.1:80";
    let refused = |services: &[&str], local: &[&str]| Balancer::new(config(services, local)).err();
    assert_eq!(
        refused(&[v4, v4], &["10.9.0.0/24"]),
        Some(BadConfig::Twice(parsed("198.51.100.1:80")))
    );
    assert_eq!(
        refused(&[v4], &["fd00:9::/112"]),
        Some(BadConfig::NoLocalAddress(parsed("10.0.0.1:80")))
    );
}

#[test]
fn statistics_are_one_line_of_json() {
    let mut bench = Bench::new(V4, "");
    bench.open();
    bench.ack(&[]);
    let line = bench.balancer.statistics.to_string();
    assert!(line
        .starts_with(r#"{"connections":1,"from_client":2,"from_server":1,"option_inserted":1,"#));
    assert!(line.ends_with(r#","write_failed":0}"#));
    assert_eq!(line.lines().count(), 1);
}
