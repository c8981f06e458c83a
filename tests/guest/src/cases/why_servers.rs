// SPDX-License-Identifier: GPL-2.0

//! The answers of `toa why` about situations that no row of the counters shows: servers that take the
//! address from elsewhere, and connections that never pass the module.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use socket2::Protocol;
use socket2::SockRef;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::born;
use crate::cases::command::toa;
use crate::cases::die;
use crate::cases::hostile;
use crate::cases::impossible_clients::Stage;
use crate::cases::in_kernel;
use crate::cases::mptcp;
use crate::cases::options::NAMED;
use crate::cases::why::check_row;
use crate::handmade::HandmadeClient;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::nginx::Nginx;
use crate::nginx::Setup;
use crate::proc_tcp;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sys::Name;

pub const LOADED: &[Case] = cases![Loaded:
    command_explains_a_connection_before_it_is_accepted,
    command_explains_a_server_that_asks_in_a_kernel_thread,
    command_explains_a_server_that_uses_mptcp,
    command_explains_servers_that_read_the_proxy_protocol_or_a_header,
    command_explains_a_process_that_is_newer_than_the_module,
    command_explains_connections_by_tcp_fast_open,
    command_explains_a_socket_that_was_connected_again,
    command_explains_segments_without_room_for_the_option,
];

/// Asks for an end, and returns the status and the answer.
#[track_caller]
fn why(net: &Net, end: SocketAddr) -> (i32, String) {
    let (status, text, errors) = toa(&net.server, &format!("why {end} --interval 0"));
    assert_eq!(errors, "", "{text}");
    (status, text)
}

/// The answers to a server that has the client, and logs another address.
const HAS_THE_CLIENT: &str = "the module has the client, and getpeername returns it to programs\n\
    a server that logs another address took it from the PROXY protocol or a header, uses true MPTCP, or \
    asks in a kernel thread, such as nfsd\n";

/// Checks the answer about a connection with a record, by each of its ends. `process` is the name of the
/// process that holds the socket.
#[track_caller]
fn check_recorded(net: &Net, balancer: SocketAddr, client: SocketAddr, process: Option<&str>) {
    let balancer = canonical(balancer);
    for end in [balancer, client] {
        let (status, text) = why(net, end);
        assert_eq!(status, 0, "{text}");
        let (first, rest) = text.split_once('\n').expect(&text);
        assert_eq!(rest, HAS_THE_CLIENT);
        assert!(first.starts_with(&format!("{balancer} -> ")), "{first}");
        let (_, tail) = first.split_once(", ").expect(first);
        let expected = match process {
            Some(process) => format!("client {client}, {process} ("),
            None => format!("client {client}"),
        };
        assert!(tail.starts_with(&expected), "{first}");
        assert_eq!(tail == expected, process.is_none(), "{first}");
    }
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

/// The name of this process.
const OURS: Option<&str> = Some("toa-guest");

/// No process holds the socket yet.
fn command_explains_a_connection_before_it_is_accepted() {
    for (family, ipv6) in [(Family::V4, false), (Family::DualStack, true)] {
        let stage = Stage::new(family, ipv6);
        let (_connection, sender) = stage.connect(NAMED_BY[usize::from(ipv6)]);
        stage.listener.wait();
        check_recorded(&stage.net, sender, NAMED_BY[usize::from(ipv6)], None);
        let accepted = stage.listener.accept().ending_by_reset();
        check_recorded(&stage.net, sender, NAMED_BY[usize::from(ipv6)], OURS);
        drop(accepted);
    }
}

/// The clients in options, over IPv4 and over IPv6.
const NAMED_BY: [SocketAddr; 2] = [
    NAMED,
    SocketAddr::new(std::net::IpAddr::V6(crate::net::CLIENT_V6), 4660),
];

fn command_explains_a_server_that_asks_in_a_kernel_thread() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        let balancer = net.balancer_of(&accepted);
        let answers = in_kernel::ask(&accepted);
        let names = [Family::DualStack.name(client.address), Name::of(balancer)];
        assert_eq!(answers, names.each_ref().map(in_kernel::printed), "{way:?}");
        check_recorded(&net, balancer, client.address, OURS);
    }
}

/// The module records the client of the first subflow, and programs ask the MPTCP socket.
fn command_explains_a_server_that_uses_mptcp() {
    sockets::need_mptcp();
    let net = Net::new();
    let listener = mptcp::listen(&net, Family::DualStack);
    for way in Way::ALL {
        let mut client = net.connect_by(Protocol::MPTCP, way, PORT);
        let mut accepted = listener.accept();
        let protocol = SockRef::from(&accepted.stream).protocol();
        assert_eq!(protocol.expect("SO_PROTOCOL"), Some(Protocol::MPTCP));
        let balancer = net.balancer_of(&accepted);
        assert_eq!(accepted.peer(), Name::of(balancer), "{way:?}");
        check_recorded(&net, balancer, client.address, OURS);
        sockets::exchange(&mut client, &mut accepted);
        sockets::finish(&mut client, &mut accepted);
    }
}

/// The address in the PROXY protocol's line and in the header.
const ELSEWHERE: &str = "198.51.100.9";

const PROXY: u16 = 80;
const HEADER: u16 = 81;

/// Sends a request over a connection that stays open, and reads the answer.
#[track_caller]
fn request(client: &mut Client, before: &str, header: &str) {
    let text = format!("{before}GET / HTTP/1.1\r\nHost: toa\r\n{header}\r\n");
    client
        .stream
        .write_all(text.as_bytes())
        .expect("the request");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        client.stream.read_exact(&mut byte).expect("the answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 204 "), "{answer:?}");
}

/// Starts an nginx without the modules of this project, which trusts the address of any peer.
#[track_caller]
fn nginx(net: &Net) -> Nginx {
    let setup = Setup {
        modules: false,
        http: "set_real_ip_from 0.0.0.0/0;\n\
               server { listen 80 proxy_protocol; real_ip_header proxy_protocol; return 204; }\n\
               server { listen 81; real_ip_header X-Forwarded-For; return 204; }",
        ports: &[PROXY, HEADER],
        ..Setup::default()
    };
    Nginx::start(net, setup)
}

fn command_explains_servers_that_read_the_proxy_protocol_or_a_header() {
    let net = Net::with_ports(&Plan::dpvs(), &[PROXY, HEADER]);
    let nginx = nginx(&net);
    let line = format!("PROXY TCP4 {ELSEWHERE} 10.0.0.1 56324 80\r\n");
    let header = format!("X-Forwarded-For: {ELSEWHERE}\r\n");
    for (number, (port, line, header)) in [(PROXY, &*line, ""), (HEADER, "", &*header)]
        .into_iter()
        .enumerate()
    {
        let mut client = net.connect_to_port(Way::V4, port);
        request(&mut client, line, header);
        assert_eq!(nginx.lines(number + 1)[number].remote, ELSEWHERE);
        let balancer = established(&net, port);
        check_recorded(&net, balancer, client.address, Some("nginx"));
    }
}

/// Returns the other end of the only connection to a port of the server.
#[track_caller]
fn established(net: &Net, port: u16) -> SocketAddr {
    let rows = proc_tcp::rows(&net.server);
    let mut found = rows
        .iter()
        .filter(|row| row.state == proc_tcp::ESTABLISHED && row.local.port() == port);
    let (Some(row), None) = (found.next(), found.next()) else {
        panic!("not one connection: {rows:?}");
    };
    row.remote
}

fn command_explains_a_process_that_is_newer_than_the_module() {
    let net = Net::with_ports(&Plan::none(), &[PROXY, HEADER]);
    let nginx = nginx(&net);
    let mut client = net.connect_to_port(Way::V4, HEADER);
    request(&mut client, "", "");
    let balancer = established(&net, HEADER);
    assert_eq!(nginx.lines(1)[0].remote, balancer.ip().to_string());
    let (status, text) = why(&net, balancer);
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains(
            "\nthe module has no client for this connection, which is newer than the module\n"
        ),
        "{text}"
    );
    check_row(
        &text,
        "no_option",
        "the balancer inserts nothing: switch TOA on there",
    );
}

/// The part of the answer about connections that SYNs with data made.
fn made_by_fast_open(count: u64) -> String {
    format!(
        "\nTCP Fast Open made {count} connections of this network namespace, whose clients the module never gets. \
         If this is one, it shows the balancer until it ends\n"
    )
}

fn command_explains_connections_by_tcp_fast_open() {
    let net = born::fast_open_net(born::FAST_OPEN, &["10.0.1.1/32", "fd00:0:0:1::1/128"]);
    let listener = net.listen(Family::DualStack);
    // The first connection asks for the cookie, and carries an option.
    let (first, accepted) = born::fast_open_pair(&net, &listener, Way::V4);
    let balancer = net.balancer_of(&accepted);
    check_recorded(
        &net,
        balancer,
        first.local_addr().expect("it has one"),
        OURS,
    );
    drop((first, accepted));
    let pair = born::fast_open_pair(&net, &listener, Way::V4);
    assert_eq!(born::fast_opened(&net), 1);
    let balancer = canonical(net.balancer_of(&pair.1));
    let (status, text) = why(&net, balancer);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains(&made_by_fast_open(1)), "{text}");
    check_row(&text, "option_taken", "The connection may have ended since");

    // A port that gets no others.
    let asked = AtomicBool::new(false);
    let (status, text) = thread::scope(|scope| {
        scope.spawn(|| {
            let mut pairs = Vec::new();
            // The server's list of half-open connections takes 1024.
            while !asked.load(Ordering::Relaxed) && pairs.len() < 500 {
                pairs.push(born::fast_open_pair(&net, &listener, Way::V4));
            }
            while !asked.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        });
        let (status, text, _) = toa(&net.server, &format!("why :{PORT} --interval 1"));
        asked.store(true, Ordering::Relaxed);
        (status, text)
    });
    assert_eq!(status, 1, "{text}");
    let expected = format!(
        " connections of port {PORT} did not pass the module: TCP Fast Open makes such ones\n"
    );
    assert!(text.ends_with(&expected), "{text}");
    drop(pair);

    // A server without another connection.
    let net = born::fast_open_net(born::FAST_OPEN, &crate::net::LOCAL);
    let listener = net.listen(Family::V4);
    let client = HandmadeClient::new(&net.server);
    let cookie = born::ask_for_cookie(&client, 4000);
    let mut connection = client.begin(4001);
    connection.open(&born::fast_open(&cookie), b"early");
    let _accepted = listener.accept().ending_by_reset();
    assert_eq!(born::fast_opened(&net), 1);
    let (status, text) = why(&net, client.address(4001));
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("or TCP Fast Open made it: it shows the balancer until it ends"),
        "{text}"
    );
}

/// The ports of the far end.
const FIRST: u16 = 4000;
const SECOND: u16 = 4001;

fn command_explains_a_socket_that_was_connected_again() {
    let net = Net::new();
    let remote = die::remote(&net, false);
    let listener = net.listen(Family::V4);
    let _first = remote.connect(FIRST, 1000, &toa_option(TOA_KIND, NAMED));
    let accepted = listener.accept();
    check_recorded(&net, remote.end(FIRST), NAMED, OURS);
    // The listener would own the port of the next connection.
    drop(listener);
    die::connect_again(&accepted, &remote, SECOND);
    let (status, text) = why(&net, remote.end(FIRST));
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("it has ended"), "{text}");
    let (status, text) = why(&net, remote.end(SECOND));
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("\nthe module has no client for this connection"),
        "{text}"
    );
    check_row(&text, "option_taken", "The connection may have ended since");
    // The far end answers nothing more.
    let _accepted = accepted.ending_by_reset();
}

/// The start of an option whose kind has no meaning, and the start of timestamps.
const UNKNOWN: [u8; 2] = [77, 14];
const TIMESTAMPS: [u8; 2] = [8, 10];

fn command_explains_segments_without_room_for_the_option() {
    // The first segment is as long as the MTU.
    let net = Net::with(&Plan::dpvs().keeping_the_mss().losing_the_ack());
    let listener = net.listen(Family::DualStack);
    let (client, accepted) = hostile::made_by_a_full_segment(&net, &listener, Way::V4);
    let (status, text) = why(&net, canonical(net.balancer_of(&accepted)));
    assert_eq!(status, 1, "{text}");
    check_row(&text, "no_option", "a first segment as long as the MTU");
    drop((client, accepted, listener));
    // The header of NAT64 has no room for the 20 bytes of an IPv6 client: timestamps stay.
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let client = HandmadeClient::before_balancer(&net, Way::Nat64);
    let (mut connection, _) = client.connect(FIRST, &[]);
    let options = [&UNKNOWN[..], &[0; 12], &TIMESTAMPS, &[0; 8]].concat();
    connection.send(&options, &[]);
    let accepted = listener.accept().ending_by_reset();
    let (status, text) = why(&net, canonical(net.balancer_of(&accepted)));
    assert_eq!(status, 1, "{text}");
    check_row(
        &text,
        "no_option",
        "a full header with NAT64 have the same effect",
    );
}
