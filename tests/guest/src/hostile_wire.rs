// SPDX-License-Identifier: GPL-2.0

//! Conversations from a seed of a hostile client with the tests' server. Each opens a connection with
//! options of any sort. Before and after that go segments that must change nothing: of other
//! connections, out of the window, damaged, cut off. After some conversations the counters must have
//! the sum that [`options::judge`] expects.

pub mod options;

use std::collections::BTreeMap;
use std::thread;

use etherparse::TcpHeader;
use proptest::prelude::Rng;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;

use self::options::any_of;
use self::options::one_in;
use crate::handmade::HandmadeClient;
use crate::handmade::HandmadeConnection;
use crate::ktap::note;
use crate::net::Net;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;

/// Client ports, of which each conversation takes the next.
const FIRST_PORT: u16 = 1024;

/// A client port that opens no connection.
const STRANGER: u16 = 1000;

/// A port of the server without a listener.
const CLOSED_PORT: u16 = 9;

/// Further from the next sequence number than any window of the server.
const OUT_OF_WINDOW: u32 = 1 << 30;

/// The most segments before the opening one, and the most behind it.
const NOISE: u32 = 8;

/// The server and its hostile client, which sends over IPv4 and IPv6.
pub struct HostileWire {
    random: TestRng,
    // Ends before the net.
    listener: Listener,
    clients: [HandmadeClient; 2],
    net: Net,
    port: u16,
    before: Stats,
    expected: BTreeMap<&'static str, i64>,
    segments: u64,
    conversations: u64,
}

impl HostileWire {
    pub fn new(seed: u64) -> Self {
        let net = Net::new();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            random: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            listener: net.listen(Family::DualStack),
            clients: [
                HandmadeClient::new(&net.server),
                HandmadeClient::with_ipv6(&net.server),
            ],
            before: net.stats(),
            net,
            port: FIRST_PORT,
            expected: BTreeMap::new(),
            segments: 0,
            conversations: 0,
        }
    }

    /// The segments that were sent.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// The connections that were made.
    pub fn conversations(&self) -> u64 {
        self.conversations
    }

    /// Runs so many conversations, and checks the counters.
    #[track_caller]
    pub fn run(&mut self, conversations: u64) {
        for _ in 0..conversations {
            self.converse();
        }
        self.net.wait_for_no_records();
        let change: BTreeMap<_, _> = self.net.stats().since(&self.before).into_iter().collect();
        self.expected.retain(|_, number| *number != 0);
        assert_eq!(
            change, self.expected,
            "after {} conversations",
            self.conversations
        );
    }

    #[track_caller]
    fn converse(&mut self) {
        let Self {
            random,
            listener,
            clients,
            expected,
            segments,
            ..
        } = self;
        let port = self.port;
        self.port = port.checked_add(1).unwrap_or(FIRST_PORT);
        let is_ipv6 = random.random();
        let client = &clients[usize::from(is_ipv6)];
        let syn = options::for_syn(random);
        let list = options::for_opening(random);
        let _told = Told(format!(
            "conversation {} from port {port}, IPv6 {is_ipv6}: {syn:?}, then {list:?}",
            self.conversations
        ));
        let (mut connection, _) = client.connect(port, &syn);
        for _ in 0..random.random_range(0..NOISE) {
            send_noise(random, client, &connection, false);
            *segments += 1;
        }
        connection.send(&list, &vec![b'?'; random.random_range(0..3)]);
        let verdict = options::judge(&list, is_ipv6);
        let accepted = listener.accept().ending_by_reset();
        for _ in 0..random.random_range(0..NOISE) {
            send_noise(random, client, &connection, true);
            *segments += 1;
        }
        let seen = verdict.client.unwrap_or(client.address(port));
        let seen = listener.family.name(seen);
        let told = [&accepted.name, &accepted.peer()];
        assert_eq!(
            told, [&seen; 2],
            "conversation {}: {list:?}, IPv6 {is_ipv6}",
            self.conversations
        );
        *segments += 2;
        self.conversations += 1;
        let is_taken = verdict.outcome == "option_taken";
        let mut count = |row, number| *expected.entry(row).or_default() += number;
        count(verdict.outcome, 1);
        count("duplicate", i64::from(verdict.is_duplicate));
        if is_taken {
            count("syn_recv_sock_toa", 1);
            count("getname_toa_ok", 2);
        } else {
            count("syn_recv_sock_no_toa", 1);
            count("getname_toa_empty", 2);
        }
        if verdict.client.is_some_and(|client| client.is_ipv6()) {
            count("ip6_address_alloc", 1);
            count("ip6_address_free", 1);
        }
    }
}

/// A conversation, which is named if the test fails during it.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            note(&self.0);
        }
    }
}

/// Sends a segment that opens no connection and ends none. Before the connection is open, none that is
/// acceptable goes to it.
fn send_noise(
    random: &mut TestRng,
    client: &HandmadeClient,
    connection: &HandmadeConnection<'_>,
    is_open: bool,
) {
    let list = options::any(random);
    let payload = vec![b'?'; random.random_range(0..64)];
    let flags: u8 = random.random();
    let number: u32 = random.random();
    match random.random_range(0..6) {
        // To a port without a listener, or of a connection that does not exist.
        0 => {
            let stranger = client.begin(STRANGER).towards_port(CLOSED_PORT);
            let change = |tcp: &mut TcpHeader| set_flags(tcp, flags);
            client.write_packet(&stranger.packet(change, &list, &payload).0);
        }
        1 => {
            let stranger = client.begin(STRANGER);
            let change = |tcp: &mut TcpHeader| {
                set_flags(tcp, flags);
                tcp.syn = false;
                tcp.acknowledgment_number = number;
            };
            client.write_packet(&stranger.packet(change, &list, &payload).0);
        }
        // Out of the window, with any flags.
        2 => {
            let change = |tcp: &mut TcpHeader| {
                set_flags(tcp, flags);
                // A SYN at a new sequence number may open a connection in place of the first.
                tcp.syn = false;
                tcp.sequence_number = tcp.sequence_number.wrapping_add(OUT_OF_WINDOW);
            };
            client.write_packet(&connection.packet(change, &list, &payload).0);
        }
        // Data of the connection.
        3 if is_open => {
            let change = |tcp: &mut TcpHeader| {
                tcp.psh = flags & 1 != 0;
                tcp.sequence_number = tcp.sequence_number.wrapping_add(number % 4);
            };
            client.write_packet(&connection.packet(change, &list, &payload).0);
        }
        // Damaged: with a wrong checksum, a header's length that is impossible, or cut off.
        kind => {
            let (mut packet, tcp) = connection.packet(|_| (), &list, &payload);
            match kind {
                5 => packet.truncate(random.random_range(tcp..packet.len())),
                _ if one_in(random, 2) => {
                    packet[tcp + CHECKSUM] ^= any_of(random, &[1, 0x80, 0xff]);
                }
                _ => {
                    let words = match (packet.len() - tcp) / 4 {
                        // The header seems to be longer than the segment.
                        words @ 5..15 => any_of(random, &[0, 1, 4, words as u8 + 1, 15]),
                        _ => any_of(random, &[0, 1, 4]),
                    };
                    set_header_length(&mut packet[tcp..], words);
                }
            }
            client.write_packet(&packet);
        }
    }
}

/// The places of a TCP header's length, in words, and of its checksum (RFC 9293 section 3.1).
const HEADER_LENGTH: usize = 12;
const CHECKSUM: usize = 16;

/// Sets the length of a TCP header, and mends the checksum (RFC 1624).
fn set_header_length(tcp: &mut [u8], words: u8) {
    let word = |tcp: &[u8], at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let before = word(tcp, HEADER_LENGTH);
    tcp[HEADER_LENGTH] = (tcp[HEADER_LENGTH] & 0xf) | (words << 4);
    let after = word(tcp, HEADER_LENGTH);
    let mut sum = u32::from(!word(tcp, CHECKSUM)) + u32::from(!before) + u32::from(after);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Sets the flags of a header from bits.
fn set_flags(tcp: &mut TcpHeader, bits: u8) {
    let is = |bit: u8| bits & (1 << bit) != 0;
    tcp.fin = is(0);
    tcp.syn = is(1);
    tcp.rst = is(2);
    tcp.psh = is(3);
    tcp.ack = is(4);
    tcp.urg = is(5);
    tcp.ece = is(6);
    tcp.cwr = is(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_follows_the_headers_length() {
        let ip = etherparse::Ipv4Header::new(
            24,
            64,
            etherparse::ip_number::TCP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .expect("a short packet");
        let mut tcp = TcpHeader::new(1, 2, 3, 4);
        tcp.set_options_raw(&[1; 4]).expect("they fit");
        tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).expect("a short segment");
        let mut bytes = tcp.to_bytes().to_vec();
        set_header_length(&mut bytes, 5);
        // The options are data now.
        tcp.set_options_raw(&[]).expect("they fit");
        tcp.checksum = tcp
            .calc_checksum_ipv4(&ip, &[1; 4])
            .expect("a short segment");
        assert_eq!(bytes, [&tcp.to_bytes()[..], &[1; 4]].concat());
    }
}
