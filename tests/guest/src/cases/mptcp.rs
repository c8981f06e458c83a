// SPDX-License-Identifier: GPL-2.0

//! MPTCP (RFC 8684, the kernel's `net/mptcp`): its listeners also serve plain TCP
//! clients, and its subflows are TCP sockets that come and go by themselves.

use std::io::Read;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use sha2::Digest;
use sha2::Sha256;
use socket2::Protocol;
use socket2::SockRef;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::namespace;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::net::ROWS_WITH_CLIENT;
use crate::netstat;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;
use crate::sys::Name;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    tcp_client_on_an_mptcp_listener_shows_its_client,
    mptcp_connection_shows_the_balancer,
    failed_mptcp_join_leaves_no_record,
    mptcp_join_counts_as_a_connection,
];

/// Starts an MPTCP server.
pub fn listen(net: &Net, family: Family) -> Listener {
    net.server.enter(|| {
        let socket = sockets::socket_of(family, Protocol::MPTCP);
        Listener::from(socket, family, PORT)
    })
}

fn tcp_client_on_an_mptcp_listener_shows_its_client() {
    sockets::need_mptcp();
    let net = Net::new();
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = listen(&net, family);
        let (mut client, mut accepted) = net.pair(&listener, way);
        let expected = family.name(client.address);
        assert_eq!(accepted.name, expected, "accept: {family:?} {way:?}");
        assert_eq!(accepted.peer(), expected, "getpeername: {family:?} {way:?}");
        sockets::exchange(&mut client, &mut accepted);
    }
}

/// accept and getpeername ask the MPTCP socket, which is not a TCP socket.
fn mptcp_connection_shows_the_balancer() {
    sockets::need_mptcp();
    let net = Net::new();
    for way in Way::ALL {
        let listener = listen(&net, Family::DualStack);
        let mut client = net.connect_by(Protocol::MPTCP, way, PORT);
        let mut accepted = listener.accept();
        let protocol = SockRef::from(&accepted.stream).protocol();
        let protocol = protocol.expect("SO_PROTOCOL");
        assert_eq!(protocol, Some(Protocol::MPTCP), "{way:?}");
        let balancer = Name::of(net.balancer_of(&accepted));
        assert_eq!(accepted.name, balancer, "accept: {way:?}");
        assert_eq!(accepted.peer(), balancer, "getpeername: {way:?}");
        sockets::exchange(&mut client, &mut accepted);
        sockets::finish(&mut client, &mut accepted);
    }
}

/// The option of MPTCP, and the subtypes with their version or flags.
const MPTCP_KIND: u8 = 30;
const MP_CAPABLE: u8 = 0x01;
const MP_JOIN: u8 = 0x10;

/// The only required flag: the keys are for HMAC-SHA256.
const HMAC_SHA256: u8 = 0x01;

const CLIENT_KEY: [u8; 8] = *b"our key.";

/// MP_CAPABLE: without keys in the SYN, later with both keys, and with the length of data.
fn mp_capable(keys_and_length: &[&[u8]]) -> Vec<u8> {
    let contents = keys_and_length.concat();
    let start = [
        MPTCP_KIND,
        4 + contents.len() as u8,
        MP_CAPABLE,
        HMAC_SHA256,
    ];
    [&start[..], &contents].concat()
}

/// MP_JOIN in a SYN, with the token of the connection to join.
fn mp_join(server_key: &[u8]) -> Vec<u8> {
    let (address_id, nonce) = (7, *b"once");
    let token = &Sha256::digest(server_key)[..4];
    [&[MPTCP_KIND, 12, MP_JOIN, address_id], token, &nonce].concat()
}

/// The kernel makes a socket for such a join, and destroys the socket before passing it on like
/// other new sockets (`subflow_syn_recv_sock`). A record that is made then would never be removed.
fn failed_mptcp_join_leaves_no_record() {
    sockets::need_mptcp();
    let net = Net::new();
    let listener = listen(&net, Family::V4);
    let client = HandmadeClient::new(&net.server);
    let (mut first, answer) = client.connect(4000, &mp_capable(&[]));
    let server_key = match answer.options_of_kind(MPTCP_KIND)[..] {
        [[MP_CAPABLE, _, key @ ..]] if key.len() == 8 => key,
        _ => panic!("the server does not speak MPTCP: {answer:?}"),
    };
    first.send(&mp_capable(&[&CLIENT_KEY, server_key]), &[]);
    first.send(&mp_capable(&[&CLIENT_KEY, server_key, &[0, 1]]), b"?");
    let mut accepted = listener.accept();
    accepted.stream.read_exact(&mut [0]).expect("the data");
    // The handmade client would not acknowledge a FIN.
    SockRef::from(&accepted.stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");

    let before = net.stats();
    let named = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 4660);
    for port in 5000..5010 {
        let (mut join, answer) = client.connect(port, &mp_join(server_key));
        let agreed = answer.options_of_kind(MPTCP_KIND);
        assert!(matches!(agreed[..], [[MP_JOIN, ..]]), "{answer:?}");
        join.send(&toa_option(TOA_KIND, named), &[]);
        let answer = join.receive();
        assert!(answer.rst, "a join without proof is refused: {answer:?}");
    }
    assert_eq!(net.stats().since(&before), []);
}

/// A subflow that joins passes `tcp_child_process` like any child. The client and the server are one
/// host: a balancer would have to remove the proof of the join to make room for its option.
fn mptcp_join_counts_as_a_connection() {
    let host = Namespace::new("host");
    for command in [
        "limits set subflow 2 add_addr_accepted 2",
        "endpoint add 127.0.0.2 dev lo subflow",
    ] {
        let words = ["-n", host.name(), "mptcp"].into_iter();
        namespace::run(Command::new("ip").args(words.chain(command.split(' '))));
    }
    let before = Stats::read(&host);
    host.enter(|| {
        let socket = sockets::socket_of(Family::V4, Protocol::MPTCP);
        let listener = Listener::from(socket, Family::V4, PORT);
        let source = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
        let client = Client::connect_by(Protocol::MPTCP, source, target);
        let mut client = client.expect("it connects");
        let mut accepted = listener.accept();
        // The client joins when the server has acknowledged data.
        sockets::exchange(&mut client, &mut accepted);
        wait::until("the join", || match netstat::mptcp(&host, "MPJoinAckRx") {
            1 => Ok(()),
            joins => Err(format!("{joins} joins")),
        });
        let change = Stats::read(&host).since(&before);
        let expected = [
            ("syn_recv_sock_no_toa", 2),
            ("no_option", 1),
            ("no_option_header_full", 1),
        ];
        assert_eq!(change, expected);
    });
}
