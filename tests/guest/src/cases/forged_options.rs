// SPDX-License-Identifier: GPL-2.0

//! Clients behind the balancer that send options of kind 254 themselves. The tests try every way to
//! get such an option to the server: each list of the client's options, in each segment that the
//! client can choose for it. A model predicts the result.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use etherparse::TcpHeader;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::handmade::HandmadeConnection;
use crate::ktap::note;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;

pub const CASES: &[Case] = cases![Loaded:
    forged_options_over_ipv4_have_the_results_of_the_table,
    forged_options_over_ipv6_have_the_results_of_the_table,
    forged_options_over_nat64_have_the_results_of_the_table,
    syn_ack_with_data_completes_a_handshake_and_shows_its_sender,
    syn_ack_with_data_from_behind_the_balancer_shows_the_balancer,
];

/// The addresses in forged options, of RFC 2544 and RFC 3849.
const FORGED_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 9, 9)), 4660);
const FORGED_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 99)),
    22136,
);

/// The bytes of options that a header can hold (RFC 9293 §3.1).
const HEADER: usize = 40;

/// The unit of header lengths.
const WORD: usize = 4;

const MTU: usize = 1500;

const NOP: u8 = 1;
/// An option of a kind that has no meaning.
const UNKNOWN: u8 = 77;
/// RFC 7323: timestamps, after the NOPs that align them.
const TIMESTAMPS: [u8; 12] = [NOP, NOP, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];

/// The rest of a client's options, beside a forged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filler {
    /// One option of an unknown kind, which may be as long as the header.
    One,
    /// Options of an unknown kind, a word each.
    Small,
    Nops,
    /// Timestamps, and a NOP for each byte that is left.
    Timestamps,
    /// Timestamps, and options of an unknown kind, a word each.
    TimestampsAndSmall,
}

impl Filler {
    const ALL: [Self; 5] = [
        Self::One,
        Self::Small,
        Self::Nops,
        Self::Timestamps,
        Self::TimestampsAndSmall,
    ];

    /// Bytes of the option that a balancer never removes, with its alignment.
    fn protected(self) -> usize {
        match self {
            Self::One | Self::Small | Self::Nops => 0,
            Self::Timestamps | Self::TimestampsAndSmall => TIMESTAMPS.len(),
        }
    }

    /// Returns `length` bytes in whole words, or none if the filler is longer.
    fn bytes(self, length: usize) -> Option<Vec<u8>> {
        let rest = length.checked_sub(self.protected())?;
        let words = |word: [u8; WORD]| word.repeat(rest / WORD);
        let small = words([UNKNOWN, WORD as u8, 0x77, 0x77]);
        Some(match self {
            Self::One => {
                let mut option = vec![UNKNOWN, length as u8];
                option.resize(length, 0x77);
                option
            }
            Self::Small => small,
            Self::Nops => words([NOP; WORD]),
            Self::Timestamps => [&TIMESTAMPS[..], &words([NOP; WORD])].concat(),
            Self::TimestampsAndSmall => [&TIMESTAMPS[..], &small].concat(),
        })
    }
}

/// A client's options.
#[derive(Clone, Debug)]
struct Own {
    bytes: Vec<u8>,
    forged: Option<SocketAddr>,
    /// Bytes that a balancer never removes.
    protected: usize,
}

impl Own {
    /// All lists of each length: a forged option or none, in front of the filler or behind it.
    fn all() -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for forged in [None, Some(FORGED_V4), Some(FORGED_V6)] {
            let option = forged.map_or(Vec::new(), |named| toa_option(TOA_KIND, named));
            for length in (option.len()..=HEADER).step_by(WORD) {
                for filler in Filler::ALL {
                    let Some(filled) = filler.bytes(length - option.len()) else {
                        continue;
                    };
                    let (before, behind) = ([&filled[..], &option], [&option[..], &filled]);
                    for bytes in [before.concat(), behind.concat()] {
                        if seen.insert(bytes.clone()) {
                            all.push(Self {
                                bytes,
                                forged,
                                protected: filler.protected(),
                            });
                        }
                    }
                }
            }
        }
        all
    }
}

/// The segment that carries the client's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Syn,
    Ack,
    /// The first data, after an ACK without the options.
    DataAfterAck,
    /// The first data, without an ACK before it.
    Data,
    /// Data that leaves `spare` bytes of the client's MTU.
    LongData {
        spare: usize,
    },
    Fin,
    /// A SYN-ACK with one byte of data, which the kernel treats as an ACK.
    SynAck,
    /// The ACK of the first of two SYN-ACKs with cookies.
    OlderCookie,
}

/// The places for a balancer that inserts `inserted` bytes.
fn places(inserted: usize) -> [Place; 10] {
    [
        Place::Syn,
        Place::Ack,
        Place::DataAfterAck,
        Place::Data,
        Place::LongData { spare: inserted },
        Place::LongData {
            spare: inserted - 1,
        },
        Place::LongData { spare: 0 },
        Place::Fin,
        Place::SynAck,
        Place::OlderCookie,
    ]
}

/// The server's view of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Client,
    Balancer,
    /// The balancer, since the module rejects the forged option.
    BalancerAfterRefusal,
    Forged,
}

impl Shown {
    fn to_the_server(self) -> Self {
        match self {
            Self::BalancerAfterRefusal => Self::Balancer,
            shown => shown,
        }
    }
}

/// The prediction for a connection: DPVS's rules, and the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prediction {
    shown: Shown,
    /// The forged option arrives behind the balancer's.
    duplicate: bool,
}

/// Bytes that the balancer inserts.
fn inserted(way: Way) -> usize {
    match way {
        Way::V4 => 8,
        Way::V6 | Way::Nat64 => 20,
    }
}

/// The prediction for a connection that carries only the client's options.
fn without_balancers(way: Way, forged: Option<SocketAddr>) -> Prediction {
    let shown = match forged {
        None => Shown::Balancer,
        Some(SocketAddr::V4(_)) if way == Way::V6 => Shown::BalancerAfterRefusal,
        Some(_) => Shown::Forged,
    };
    Prediction {
        shown,
        duplicate: false,
    }
}

fn predict(way: Way, own: &Own, place: Place) -> Prediction {
    let client = |duplicate| Prediction {
        shown: Shown::Client,
        duplicate,
    };
    let spare = match place {
        // The segment that completes the handshake has none of the client's options.
        Place::Syn | Place::DataAfterAck => return client(false),
        // The balancer inserts nothing into segments with SYN, and the module reads nothing there.
        Place::SynAck => return without_balancers(way, None),
        // The balancer inserts nothing into segments that acknowledge another SYN-ACK than the last.
        Place::OlderCookie => return without_balancers(way, own.forged),
        // The server's IP header is 20 bytes shorter.
        Place::LongData { spare } if way == Way::Nat64 => spare + 20,
        Place::LongData { spare } => spare,
        Place::Ack | Place::Data | Place::Fin => MTU,
    };
    let (length, inserted) = (own.bytes.len(), inserted(way));
    if length + inserted <= HEADER && spare >= inserted {
        return client(own.forged.is_some());
    }
    // The balancer removes the client's options to make room, TOA options first. The balancer
    // removes none if all of them would not be enough.
    if length < inserted {
        return without_balancers(way, own.forged);
    }
    if length - own.protected >= inserted {
        return client(false);
    }
    without_balancers(way, None)
}

/// All ways to forge a client's address behind DPVS: the place, the client's traffic, and the
/// length of its option. The server uses SYN cookies. The client sends two SYNs and acknowledges
/// the first SYN-ACK. The balancer inserts its option only into segments that acknowledge the
/// second one (DPVS's `tcp_out_init_seq` forgets the first one, too). To the module, the client's
/// option looks like a balancer's.
const BELIEVED: [(Place, Way, usize); 5] = [
    (Place::OlderCookie, Way::V4, 8),
    (Place::OlderCookie, Way::V4, 20),
    (Place::OlderCookie, Way::V6, 20),
    (Place::OlderCookie, Way::Nat64, 8),
    (Place::OlderCookie, Way::Nat64, 20),
];

/// Forged options that arrive without the balancer's and that the module rejects
/// (`foreign_length`).
const REFUSED: [(Place, Way, usize); 3] = [
    (Place::LongData { spare: 0 }, Way::V6, 8),
    (Place::LongData { spare: 19 }, Way::V6, 8),
    (Place::OlderCookie, Way::V6, 8),
];

/// Opens a connection from `port` and completes its handshake.
#[track_caller]
fn connect<'a>(
    client: &'a HandmadeClient,
    way: Way,
    port: u16,
    own: &[u8],
    place: Place,
) -> HandmadeConnection<'a> {
    let mut connection = client.begin(port);
    let in_syn = if place == Place::Syn { own } else { &[] };
    connection.open(in_syn, &[]);
    match place {
        Place::Syn => connection.send(&[], &[]),
        Place::Ack => connection.send(own, &[]),
        Place::DataAfterAck => {
            connection.send(&[], &[]);
            connection.send(own, b"?");
        }
        Place::Data => connection.send(own, b"?"),
        Place::LongData { spare } => {
            let ip = if way == Way::V4 { 20 } else { 40 };
            let payload = MTU - ip - 20 - own.len() - spare;
            connection.send(own, &vec![b'?'; payload]);
        }
        Place::Fin => connection.send_with(|tcp| tcp.fin = true, own, &[]),
        Place::SynAck => send_syn_ack(&mut connection, own),
        Place::OlderCookie => {
            let mut newer = client.begin(port);
            newer.sequence += 1_000_000;
            newer.open(&[], &[]);
            connection.send(own, &[]);
        }
    }
    connection
}

/// Answers the server's SYN-ACK with a SYN-ACK that carries one byte, and awaits the server's ACK.
/// The byte has to be sent again.
#[track_caller]
fn send_syn_ack(connection: &mut HandmadeConnection<'_>, options: &[u8]) {
    let next = connection.sequence;
    let syn_ack = |tcp: &mut TcpHeader| {
        tcp.syn = true;
        tcp.sequence_number -= 1;
    };
    connection.send_with(syn_ack, options, b"?");
    // `tcp_check_req` has made the child. `tcp_validate_incoming` then drops the segment, and
    // challenges it (RFC 5961 §4).
    let answer = connection.receive();
    assert!(answer.ack && !answer.syn && !answer.rst, "{answer:?}");
    assert_eq!(answer.next, next, "the byte was not received");
    connection.sequence = next;
}

/// One connection of the enumeration.
#[derive(Debug)]
struct Attempt<'a> {
    way: Way,
    place: Place,
    own: &'a Own,
    port: u16,
}

impl Attempt<'_> {
    /// Makes the connection, and returns what accept and getpeername show.
    #[track_caller]
    fn make(&self, net: &Net, listener: &Listener, client: &HandmadeClient) -> Shown {
        let _connection = connect(client, self.way, self.port, &self.own.bytes, self.place);
        let mut accepted = listener.accept().ending_by_reset();
        if self.place == Place::DataAfterAck {
            let mut byte = [0];
            accepted.stream.read_exact(&mut byte).expect("the data");
        }
        let name = |address| listener.family.name(address);
        assert_eq!(
            accepted.peer(),
            accepted.name,
            "getpeername, accept: {self:?}"
        );
        if accepted.name == name(client.address(self.port)) {
            Shown::Client
        } else if self.own.forged.map(name).as_ref() == Some(&accepted.name) {
            Shown::Forged
        } else {
            assert_eq!(accepted.name, name(net.balancer_of(&accepted)), "{self:?}");
            Shown::Balancer
        }
    }
}

/// Tries all combinations of one way.
#[track_caller]
fn check(way: Way) {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let client = HandmadeClient::before_balancer(&net, way);
    let before = net.stats();
    let mut ports = 4000..;
    let mut results = BTreeMap::new();
    let (mut believed, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut duplicates = 0;
    for place in places(inserted(way)) {
        let cookies = if place == Place::OlderCookie {
            "2"
        } else {
            "1"
        };
        net.server.sysctl("ipv4/tcp_syncookies", cookies);
        for own in &Own::all() {
            let port = ports.next().expect("there are enough");
            let attempt = Attempt {
                way,
                place,
                own,
                port,
            };
            let prediction = predict(way, own, place);
            let shown = attempt.make(&net, &listener, &client);
            assert_eq!(shown, prediction.shown.to_the_server(), "{attempt:02x?}");
            *results.entry(prediction.shown).or_insert(0) += 1;
            duplicates += i64::from(prediction.duplicate);
            let row = own
                .forged
                .map(|forged| (place, way, toa_option(TOA_KIND, forged).len()));
            match shown {
                Shown::Forged => believed.extend(row),
                _ if prediction.shown == Shown::BalancerAfterRefusal => refused.extend(row),
                _ => {}
            }
        }
    }
    note(&format!(
        "{} combinations, {results:?}",
        results.values().sum::<i64>()
    ));
    let of_way = |row: &&(Place, Way, usize)| row.1 == way;
    assert!(
        believed.iter().eq(BELIEVED.iter().filter(of_way)),
        "{believed:?}"
    );
    assert!(
        refused.iter().eq(REFUSED.iter().filter(of_way)),
        "{refused:?}"
    );
    let result = |shown| results.get(&shown).copied().unwrap_or(0);
    let with_record = result(Shown::Client) + result(Shown::Forged);
    let refusals = result(Shown::BalancerAfterRefusal);
    let change = net.stats().since(&before);
    let change: BTreeMap<_, _> = change.into_iter().collect();
    let expected = [
        ("syn_recv_sock_toa", with_record),
        ("syn_recv_sock_no_toa", result(Shown::Balancer) + refusals),
        ("foreign_length", refusals),
        ("impossible_client", 0),
        ("malformed", 0),
        ("duplicate", duplicates),
    ];
    for (row, expected) in expected {
        assert_eq!(change.get(row).copied().unwrap_or(0), expected, "{row}");
    }
}

fn forged_options_over_ipv4_have_the_results_of_the_table() {
    check(Way::V4);
}

fn forged_options_over_ipv6_have_the_results_of_the_table() {
    check(Way::V6);
}

fn forged_options_over_nat64_have_the_results_of_the_table() {
    check(Way::Nat64);
}

/// Both sides of a connection that began with a SYN-ACK send and receive.
#[track_caller]
fn check_works(connection: &mut HandmadeConnection<'_>, accepted: &mut Accepted) {
    connection.send(&[], b"?");
    let mut byte = [0];
    accepted.stream.read_exact(&mut byte).expect("the byte");
    assert_eq!(&byte, b"?");
    accepted.stream.write_all(b"!").expect("the server sends");
    loop {
        let segment = connection.receive();
        assert!(!segment.rst, "{segment:?}");
        if segment.payload == 1 {
            return;
        }
    }
}

/// Handshakes that a SYN-ACK with data completes, with and without a client's address in it. The
/// server sees the other end of its connection, as without the module.
#[track_caller]
fn check_syn_acks(net: &Net, client: &HandmadeClient) {
    let listener = net.listen(Family::DualStack);
    for (named, port) in [None, Some(FORGED_V4), Some(FORGED_V6)]
        .into_iter()
        .zip(4000..)
    {
        let before = net.stats();
        let option = named.map_or(Vec::new(), |named| toa_option(TOA_KIND, named));
        let (mut connection, _) = client.connect(port, &[]);
        send_syn_ack(&mut connection, &option);
        let mut accepted = listener.accept().ending_by_reset();
        let other_end = net.balancer_of(&accepted);
        accepted.assert_shows(other_end);
        check_works(&mut connection, &mut accepted);
        accepted.assert_shows(other_end);
        let mut change = net.stats().since(&before);
        change.retain(|(row, _)| !row.starts_with("getname_"));
        let expected = [("syn_recv_sock_no_toa", 1), ("no_option", 1)];
        assert_eq!(change, expected, "{named:?}");
    }
}

fn syn_ack_with_data_completes_a_handshake_and_shows_its_sender() {
    for client in [HandmadeClient::new, HandmadeClient::with_ipv6] {
        let net = Net::new();
        let client = client(&net.server);
        check_syn_acks(&net, &client);
    }
}

/// The balancer inserts nothing into segments with SYN, and its options in later ones come too
/// late.
fn syn_ack_with_data_from_behind_the_balancer_shows_the_balancer() {
    for way in Way::ALL {
        let net = Net::new();
        let client = HandmadeClient::before_balancer(&net, way);
        check_syn_acks(&net, &client);
    }
}
