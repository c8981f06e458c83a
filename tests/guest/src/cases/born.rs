// SPDX-License-Identifier: GPL-2.0

//! The ways in which a connection is made: the segment that makes its socket, and the queue in
//! which the connection waits. Also connections that never reach a queue.

use std::collections::HashMap;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::thread;

use nix::errno::Errno;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::options::NAMED;
use crate::cases::options::OTHER;
use crate::handmade::HandmadeClient;
use crate::handmade::HandmadeConnection;
use crate::module;
use crate::net;
use crate::net::Net;
use crate::net::Way;
use crate::net::Wiring;
use crate::net::PORT;
use crate::netstat;
use crate::proc_tcp;
use crate::runner;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::Call;
use crate::sys::Name;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    each_of_a_reuseport_group_accepts_the_right_clients,
    program_chooses_in_a_reuseport_group_and_clients_are_right,
    closed_listener_of_a_group_leaves_its_connections_with_their_clients,
    connection_for_which_the_queue_was_full_shows_its_client_later,
    connection_refused_by_a_full_queue_leaves_no_record,
    clients_in_front_of_a_full_queue_are_right_when_they_get_in,
    clients_at_once_behind_one_local_address_are_told_apart,
    connections_that_nobody_accepts_leave_no_record,
    simultaneous_open_shows_the_other_side_and_leaves_no_record,
    fin_with_data_makes_a_connection_that_shows_its_client,
    fin_without_data_makes_a_connection_that_shows_its_client,
    fast_open_by_a_cookie_shows_the_balancer,
    fast_open_through_the_balancer_shows_the_balancer,
    experimental_fast_open_is_no_client,
    experimental_fast_open_without_a_cookie_is_no_client,
    syncookie_connections_are_counted_and_show_their_clients,
    syncookie_connection_made_by_data_shows_its_client,
    wrong_syncookie_leaves_no_record,
    deferred_accept_shows_its_client_each_way,
    deferred_accept_takes_the_option_of_the_data_not_of_the_ack,
    lost_ack_leaves_the_client_to_the_data_each_way,
    first_of_two_acks_names_the_client,
    data_before_the_ack_names_the_client,
    retransmitted_syn_changes_nothing,
    reset_instead_of_the_ack_makes_nothing,
    ack_without_a_connection_makes_nothing,
    ack_out_of_the_window_makes_nothing,
];

/// Cases that compare the answers without the module and with it.
pub const UNLOADED: &[Case] = cases![Unloaded:
    connection_reset_before_accept_is_as_without_the_module,
];

const NAMED_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 9)),
    4660,
);

fn option(client: SocketAddr) -> Vec<u8> {
    toa_option(TOA_KIND, client)
}

const TOA: &str = "syn_recv_sock_toa";
const NO_TOA: &str = "syn_recv_sock_no_toa";

/// A client other than `named`, of the same IP version.
fn other(named: SocketAddr) -> SocketAddr {
    match named {
        SocketAddr::V4(_) => OTHER,
        SocketAddr::V6(v6) => SocketAddr::new((*v6.ip()).into(), OTHER.port()),
    }
}

/// A listener of a group that shares the port.
fn listen_in_group(net: &Net, family: Family) -> Listener {
    net.server.enter(|| {
        let socket = sockets::socket(family);
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        Listener::from(socket, family, PORT)
    })
}

fn can_accept(listener: &Listener) -> bool {
    let mut waiting = [PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::ZERO).expect("poll") == 1
}

/// Makes connections to a group, and checks that each shows its client. Returns the number of
/// connections that each listener accepted.
#[track_caller]
fn connect_to_group(net: &Net, group: &[Listener], count: usize) -> Vec<usize> {
    let mut accepted_by = vec![0; group.len()];
    let mut pairs = Vec::new();
    for way in Way::ALL.into_iter().cycle().take(count) {
        let client = net.connect(way);
        let number = wait::until("one of the group has a connection", || {
            let ready = group.iter().position(can_accept);
            ready.ok_or_else(|| "none".to_owned())
        });
        let accepted = group[number].accept();
        accepted.assert_shows(client.address);
        accepted_by[number] += 1;
        pairs.push((client, accepted));
    }
    accepted_by
}

fn each_of_a_reuseport_group_accepts_the_right_clients() {
    let net = Net::new();
    let group: Vec<_> = (0..4)
        .map(|_| listen_in_group(&net, Family::DualStack))
        .collect();
    let accepted_by = connect_to_group(&net, &group, 60);
    let busy = accepted_by.iter().filter(|&&count| count > 0).count();
    assert!(busy >= 2, "{accepted_by:?}");
}

/// Classic BPF's `ret #k`.
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn program_chooses_in_a_reuseport_group_and_clients_are_right() {
    let net = Net::new();
    let group: Vec<_> = (0..3)
        .map(|_| listen_in_group(&net, Family::DualStack))
        .collect();
    let mut always_the_third = [libc::sock_filter {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: 2,
    }];
    sys::choose_in_group_by(group[0].socket.as_raw_fd(), &mut always_the_third)
        .expect("SO_ATTACH_REUSEPORT_CBPF");
    assert_eq!(connect_to_group(&net, &group, 12), [0, 0, 12]);
}

/// 5.10 has the sysctl by a backport, and does not migrate.
fn closed_listener_of_a_group_leaves_its_connections_with_their_clients() {
    let net = Net::new();
    if !netstat::has(&net.server, "TCPMigrateReqSuccess") {
        runner::skip("the kernel does not migrate connections of a closed listener");
    }
    net.server.sysctl("ipv4/tcp_migrate_req", "1");
    let first = listen_in_group(&net, Family::V4);
    let client = HandmadeClient::new(&net.server);
    let before = net.stats();
    let (mut whole, _) = client.connect(4000, &[]);
    whole.send(&option(NAMED), &[]);
    first.wait();
    let (mut half, _) = client.connect(4001, &[]);
    let second = listen_in_group(&net, Family::V4);
    drop(first);
    half.send(&option(OTHER), &[]);
    let accepted = [(); 2].map(|()| second.accept().ending_by_reset());
    accepted[0].assert_shows(NAMED);
    accepted[1].assert_shows(OTHER);
    let change = net.stats().since(&before);
    assert!(change.contains(&(TOA, 2)), "{change:?}");
    let moved = netstat::tcp(&net.server, "TCPMigrateReqSuccess");
    assert_eq!(moved, 2, "by the second listener");
}

/// Shortens the listener's queue to two connections.
fn shorten_queue(listener: &Listener) {
    listener.socket.listen(1).expect("it listens");
}

/// The client that the handmade connection from a port names.
fn named_by(port: u16) -> SocketAddr {
    SocketAddr::new(NAMED.ip(), port)
}

/// Begins three handshakes, and completes two of them, which fill the queue. Returns the third
/// connection.
fn fill_queue<'a>(listener: &Listener, client: &'a HandmadeClient) -> HandmadeConnection<'a> {
    let [mut first, mut second, third] = [4000, 4001, 4002].map(|port| client.connect(port, &[]).0);
    shorten_queue(listener);
    first.send(&option(named_by(4000)), &[]);
    second.send(&option(named_by(4001)), &[]);
    listener.wait();
    third
}

fn wait_for_overflow(net: &Net) {
    wait::until("the queue overflows", || {
        match netstat::tcp(&net.server, "ListenOverflows") {
            0 => Err("it does not".to_owned()),
            _ => Ok(()),
        }
    });
}

fn connection_for_which_the_queue_was_full_shows_its_client_later() {
    let net = Net::new();
    let listener = net.listen(Family::V4);
    let client = HandmadeClient::new(&net.server);
    let mut third = fill_queue(&listener, &client);
    third.send(&option(OTHER), &[]);
    wait_for_overflow(&net);
    assert_eq!(net.stats().get("records_live"), 2);
    let accepted = [(); 2].map(|()| listener.accept().ending_by_reset());
    accepted[0].assert_shows(named_by(4000));
    accepted[1].assert_shows(named_by(4001));
    third.send(&option(named_by(4002)), &[]);
    listener
        .accept()
        .ending_by_reset()
        .assert_shows(named_by(4002));
}

fn connection_refused_by_a_full_queue_leaves_no_record() {
    let net = Net::new();
    net.server.sysctl("ipv4/tcp_abort_on_overflow", "1");
    let listener = net.listen(Family::V4);
    let client = HandmadeClient::new(&net.server);
    let before = net.stats();
    let mut third = fill_queue(&listener, &client);
    third.send(&option(OTHER), &[]);
    let answer = third.receive();
    assert!(answer.rst, "{answer:?}");
    let expected = [(TOA, 2), ("option_taken", 2), ("records_live", 2)];
    assert_eq!(net.stats().since(&before), expected);
}

/// The server's kernel turns to syncookies and then drops the ACKs. The clients are connected, but
/// the server has no state of them before they send data.
fn clients_in_front_of_a_full_queue_are_right_when_they_get_in() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    shorten_queue(&listener);
    thread::scope(|scope| {
        let ways = Way::ALL.into_iter().cycle().take(9);
        let clients: Vec<_> = ways
            .map(|way| {
                let net = &net;
                scope.spawn(move || {
                    let mut client = net.connect(way);
                    client.stream.write_all(b"?").expect("the client sends");
                    client
                })
            })
            .collect();
        wait_for_overflow(&net);
        let mut accepted: HashMap<SocketAddr, Accepted> = HashMap::new();
        for _ in 0..clients.len() {
            let one = listener.accept();
            let shown = one.name.address().expect("an address");
            assert!(accepted.insert(shown, one).is_none(), "{shown} twice");
        }
        for client in clients {
            let client = client.join().expect("it connects");
            let own = listener.family.form(client.address);
            let one = accepted.get_mut(&own);
            let one = one.unwrap_or_else(|| panic!("{own} was not accepted"));
            assert_eq!(one.peer().address(), Some(own));
            let mut byte = [0];
            one.stream.read_exact(&mut byte).expect("the data");
            assert_eq!(&byte, b"?");
        }
    });
}

fn clients_at_once_behind_one_local_address_are_told_apart() {
    let local = ["10.0.1.1/32", "fd00:0:0:1::1/128"];
    let wiring = Wiring {
        local: &local,
        ..Wiring::default()
    };
    let net = Net::wired(&Plan::dpvs(), wiring);
    let listener = net.listen(Family::DualStack);
    for (way, port) in Way::ALL.into_iter().zip(40_000..) {
        let sources: [IpAddr; 2] = match way {
            Way::V4 => [7, 8].map(|host| Ipv4Addr::new(203, 0, 113, host).into()),
            Way::V6 | Way::Nat64 => {
                [7, 8].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, host).into())
            }
        };
        // The clients' ports are the same, too.
        let target = SocketAddr::new(way.virtual_server(), PORT);
        let clients = sources.map(|source| {
            let source = SocketAddr::new(source, port);
            let client = net.client.enter(|| Client::connect(source, target));
            client.expect("it connects")
        });
        let accepted = [(); 2].map(|()| listener.accept());
        for (client, one) in clients.iter().zip(&accepted) {
            one.assert_shows(client.address);
        }
        let [first, second] = [0, 1].map(|n: usize| net.balancer_of(&accepted[n]));
        assert_eq!(first.ip(), second.ip(), "{way:?}");
        assert_ne!(first.port(), second.port(), "{way:?}");
        drop((clients, accepted));
    }
}

/// Resets a connection that waits to be accepted: only accept can still return its peer. Returns
/// the client's address, and the address from accept.
#[track_caller]
fn reset_before_accept(net: &Net, listener: &Listener, way: Way) -> (SocketAddr, SocketAddr) {
    let Client { stream, address } = net.connect(way);
    listener.wait();
    sockets::reset_at_end(&stream);
    drop(stream);
    wait::until("the reset arrives", || {
        let rows = proc_tcp::rows(&net.server);
        let open = rows.iter().filter(|row| row.state != proc_tcp::LISTEN);
        match open.count() {
            0 => Ok(()),
            open => Err(format!("{open} connections")),
        }
    });
    let mut accepted = listener.accept();
    assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
    let error = accepted.stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.raw_os_error(), Some(Errno::ECONNRESET as i32));
    assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
    let told = accepted.name.address().expect("accept returns an address");
    (listener.family.form(address), told)
}

fn connection_reset_before_accept_is_as_without_the_module() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (_, shown) = reset_before_accept(&net, &listener, way);
        assert!(net::is_local_address(shown.ip()), "{shown}");
    }
    module::load();
    for way in Way::ALL {
        let (client, shown) = reset_before_accept(&net, &listener, way);
        assert_eq!(shown, client);
        net.wait_for_no_records();
    }
    module::unload();
}

fn connections_that_nobody_accepts_leave_no_record() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let clients = Way::ALL.map(|way| net.connect(way));
    wait::until("all have their records", || {
        match net.stats().get("records_live") {
            3 => Ok(()),
            live => Err(crate::stats::describe("records_live", live)),
        }
    });
    drop(listener);
    net.wait_for_no_records();
    drop(clients);
}

/// A simultaneous open involves no listener and no child socket.
fn simultaneous_open_shows_the_other_side_and_leaves_no_record() {
    let net = Net::new();
    let client = HandmadeClient::new(&net.server);
    let before = net.stats();
    let other_side = client.address(4000);
    let socket = net.server.enter(|| sockets::socket(Family::V4));
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    let begun = socket.connect(&other_side.into());
    let begun = begun.expect_err("no answer yet");
    assert_eq!(begun.raw_os_error(), Some(Errno::EINPROGRESS as i32));
    let mut ours = client.begin(4000);
    let theirs = ours.receive();
    assert!(theirs.syn && !theirs.ack, "{theirs:?}");
    let mut ours = ours.towards_port(theirs.source.port());
    let answer = ours.open(&option(NAMED), &[]);
    assert_eq!(answer.sequence, theirs.sequence, "the same SYN again");
    ours.send(&option(NAMED), &[]);
    wait::ready(&socket, PollFlags::POLLOUT, "the connection");
    assert_eq!(
        socket.take_error().expect("SO_ERROR").map(|e| e.kind()),
        None
    );
    let stream = TcpStream::from(socket);
    sockets::reset_at_end(&stream);
    let peer = sockets::name(Call::GetPeerName, &stream);
    assert_eq!(peer, Name::of(other_side));
    let mut change = net.stats().since(&before);
    change.retain(|(row, _)| !row.starts_with("getname_"));
    assert_eq!(change, []);
}

/// Returns a handmade client that sends by the IP version of `named`.
fn handmade_client(net: &Net, named: SocketAddr) -> HandmadeClient {
    match named {
        SocketAddr::V4(_) => HandmadeClient::new(&net.server),
        SocketAddr::V6(_) => HandmadeClient::with_ipv6(&net.server),
    }
}

fn fin_with_data_makes_a_connection_that_shows_its_client() {
    check_made_by_fin(b"all of it");
}

fn fin_without_data_makes_a_connection_that_shows_its_client() {
    check_made_by_fin(b"");
}

#[track_caller]
fn check_made_by_fin(data: &[u8]) {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for (port, named) in [(4000, NAMED), (4001, NAMED_V6)] {
        let client = handmade_client(&net, named);
        let (mut connection, _) = client.connect(port, &[]);
        connection.send_with(|tcp| tcp.fin = true, &option(named), data);
        let mut accepted = listener.accept().ending_by_reset();
        accepted.assert_shows(named);
        assert_eq!(accepted.read_all(), data);
        accepted.assert_shows(named);
    }
}

/// The kind of TCP Fast Open (RFC 7413), and the magic number of its experimental form (RFC 6994).
const FAST_OPEN_KIND: u8 = 34;
const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];

/// The value of `net.ipv4.tcp_fastopen` that serves all listeners, without a socket option.
pub const FAST_OPEN: &str = "1026";

/// The value of [`FAST_OPEN`] that also accepts a SYN's data without a cookie.
const FAST_OPEN_TO_ALL: &str = "1538";

/// A net whose server accepts data in the SYN.
pub fn fast_open_net(value: &str, local: &[&str]) -> Net {
    let wiring = Wiring {
        local,
        ..Wiring::default()
    };
    let net = Net::wired(&Plan::dpvs(), wiring);
    net.server.sysctl("ipv4/tcp_fastopen", value);
    net
}

/// An option of TCP Fast Open with a cookie. An empty cookie asks for one.
pub fn fast_open(cookie: &[u8]) -> Vec<u8> {
    [&[FAST_OPEN_KIND, 2 + cookie.len() as u8], cookie].concat()
}

/// The experimental option of TCP Fast Open, whose kind is also TOA's.
fn experimental_fast_open(cookie: &[u8]) -> Vec<u8> {
    let start = [TOA_KIND, 4 + cookie.len() as u8];
    [&start[..], &FAST_OPEN_MAGIC, cookie].concat()
}

/// Asks the server for a cookie, and returns the cookie.
#[track_caller]
pub fn ask_for_cookie(client: &HandmadeClient, port: u16) -> Vec<u8> {
    let (mut connection, answer) = client.connect(port, &fast_open(&[]));
    connection.send_with(|tcp| tcp.rst = true, &[], &[]);
    match answer.options_of_kind(FAST_OPEN_KIND)[..] {
        [cookie] if cookie.len() == 8 => cookie.to_vec(),
        _ => panic!("no cookie: {answer:?}"),
    }
}

/// The number of connections that SYNs with data have made.
pub fn fast_opened(net: &Net) -> u64 {
    netstat::tcp(&net.server, "TCPFastOpenPassive")
}

fn fast_open_by_a_cookie_shows_the_balancer() {
    let net = fast_open_net(FAST_OPEN, &net::LOCAL);
    let listener = net.listen(Family::DualStack);
    for (number, named) in [NAMED, NAMED_V6].into_iter().enumerate() {
        let client = handmade_client(&net, named);
        let cookie = ask_for_cookie(&client, 4000);
        let before = net.stats();
        let mut connection = client.begin(4001);
        connection.open(&fast_open(&cookie), b"early ");
        assert_eq!(fast_opened(&net), number as u64 + 1);
        let mut accepted = listener.accept().ending_by_reset();
        accepted.assert_shows(client.address(4001));
        connection.send(&option(named), b"late");
        connection.send_with(|tcp| tcp.fin = true, &option(named), b"");
        assert_eq!(accepted.read_all(), b"early late");
        accepted.assert_shows(client.address(4001));
        let mut change = net.stats().since(&before);
        change.retain(|(row, _)| !row.starts_with("getname_"));
        assert_eq!(change, []);
    }
}

/// The client's kernel asks for the cookie in the first connection, and sends the cookie in the
/// second.
fn fast_open_through_the_balancer_shows_the_balancer() {
    let net = fast_open_net(FAST_OPEN, &["10.0.1.1/32", "fd00:0:0:1::1/128"]);
    let listener = net.listen(Family::DualStack);
    for (number, way) in Way::ALL.into_iter().enumerate() {
        let (first, accepted) = fast_open_pair(&net, &listener, way);
        accepted.assert_shows(first.local_addr().expect("its address"));
        assert_eq!(fast_opened(&net), number as u64);
        drop((first, accepted));
        let (second, accepted) = fast_open_pair(&net, &listener, way);
        assert_eq!(fast_opened(&net), number as u64 + 1);
        accepted.assert_shows(net.balancer_of(&accepted));
        drop((second, accepted));
    }
}

/// Makes a connection whose SYN carries data if the client has a cookie.
#[track_caller]
pub fn fast_open_pair(net: &Net, listener: &Listener, way: Way) -> (TcpStream, Accepted) {
    let target = SocketAddr::new(way.virtual_server(), PORT);
    let source = SocketAddr::new(way.client(), 0);
    let socket = net
        .client
        .enter(|| Socket::new(Domain::for_address(source), Type::STREAM, None).expect("a socket"));
    socket.bind(&source.into()).expect("it is free");
    let sent = socket.send_to_with_flags(b"hello", &target.into(), libc::MSG_FASTOPEN);
    assert_eq!(sent.expect("it connects and sends"), 5);
    let mut accepted = listener.accept();
    let mut hello = [0; 5];
    accepted.stream.read_exact(&mut hello).expect("the data");
    assert_eq!(&hello, b"hello");
    (TcpStream::from(socket), accepted)
}

/// Cookies whose options have the lengths of TOA options, for IPv4 and for IPv6.
const COOKIES: [&[u8]; 2] = [&[203, 0, 113, 9], &[0x77; 16]];

fn experimental_fast_open_is_no_client() {
    let net = fast_open_net(FAST_OPEN, &net::LOCAL);
    let listener = net.listen(Family::DualStack);
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        for (cookie, port) in COOKIES.into_iter().zip([4000, 4002]) {
            let syn = experimental_fast_open(cookie);
            let before = net.stats();
            let mut connection = client.begin(port);
            let answer = connection.open(&syn, b"ignored");
            assert_eq!(answer.next, 1001, "the data is not taken");
            connection.send(&[], &[]);
            let accepted = listener.accept().ending_by_reset();
            accepted.assert_shows(client.address(port));
            let change = net.stats().since(&before);
            assert!(change.contains(&(NO_TOA, 1)), "{change:?}");
            assert_eq!(net.stats().get("records_live"), 0);

            let mut connection = client.begin(port + 1);
            connection.open(&syn, b"");
            connection.send(&option(named), &[]);
            let accepted = listener.accept().ending_by_reset();
            accepted.assert_shows(named);
        }
    }
    assert_eq!(fast_opened(&net), 0);
}

fn experimental_fast_open_without_a_cookie_is_no_client() {
    let net = fast_open_net(FAST_OPEN_TO_ALL, &net::LOCAL);
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        for (cookie, port) in COOKIES.into_iter().zip([4000, 4001]) {
            let mut connection = client.begin(port);
            let answer = connection.open(&experimental_fast_open(cookie), b"taken");
            assert_eq!(answer.next, 1006, "the data is taken");
            let accepted = listener.accept().ending_by_reset();
            accepted.assert_shows(client.address(port));
        }
    }
    assert_eq!(fast_opened(&net), 4);
    let mut change = net.stats().since(&before);
    change.retain(|(row, _)| !row.starts_with("getname_"));
    assert_eq!(change, []);
}

/// A net whose server answers each SYN with a syncookie.
fn syncookie_net(plan: &Plan) -> Net {
    let net = Net::with(plan);
    net.server.sysctl("ipv4/tcp_syncookies", "2");
    net
}

#[track_caller]
fn check_syncookies(net: &Net, expected: u64) {
    let received = netstat::tcp(&net.server, "SyncookiesRecv");
    assert_eq!(received, expected, "good cookies that came back");
}

fn syncookie_connections_are_counted_and_show_their_clients() {
    let net = syncookie_net(&Plan::dpvs());
    for (way, family) in [(Way::V6, Family::V6Only), (Way::Nat64, Family::DualStack)] {
        let listener = net.listen(family);
        let before = net.stats();
        let (mut client, mut accepted) = net.pair(&listener, way);
        accepted.assert_shows(client.address);
        let change = net.stats().since(&before);
        assert!(change.contains(&(TOA, 1)), "{change:?}");
        sockets::exchange(&mut client, &mut accepted);
    }
    check_syncookies(&net, 2);
}

fn syncookie_connection_made_by_data_shows_its_client() {
    let net = syncookie_net(&Plan::dpvs().on_data_only().losing_the_ack());
    check_made_by_data(&net, &net.listen(Family::DualStack));
    check_syncookies(&net, 3);
}

/// Makes a connection each way, which the client's data completes.
#[track_caller]
fn check_made_by_data(net: &Net, listener: &Listener) {
    for way in Way::ALL {
        let mut client = net.connect(way);
        client.stream.write_all(b"data").expect("the client sends");
        let mut accepted = listener.accept();
        accepted.assert_shows(client.address);
        let mut data = [0; 4];
        accepted.stream.read_exact(&mut data).expect("the data");
        assert_eq!(&data, b"data");
    }
}

fn wrong_syncookie_leaves_no_record() {
    let net = syncookie_net(&Plan::dpvs());
    let _listener = net.listen(Family::DualStack);
    let before = net.stats();
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        let (mut connection, _) = client.connect(4000, &[]);
        // The lowest bits encode one of four segment sizes: all values are valid.
        let wrong = |number: u32| number.wrapping_add(1 << 20);
        connection.acknowledgement = connection.acknowledgement.map(wrong);
        connection.send(&option(named), &[]);
        let answer = connection.receive();
        assert!(answer.rst, "{answer:?}");
    }
    let refused = netstat::tcp(&net.server, "SyncookiesFailed");
    assert_eq!(refused, 2);
    assert_eq!(net.stats().since(&before), []);
}

/// A listener that accepts a connection only after its first data (TCP_DEFER_ACCEPT).
fn listen_for_data(net: &Net) -> Listener {
    net.server.enter(|| {
        let socket = sockets::socket(Family::DualStack);
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        sys::set_option(socket.as_raw_fd(), level, option, 10).expect("TCP_DEFER_ACCEPT");
        Listener::from(socket, Family::DualStack, PORT)
    })
}

fn deferred_accept_shows_its_client_each_way() {
    let net = Net::new();
    check_made_by_data(&net, &listen_for_data(&net));
}

fn deferred_accept_takes_the_option_of_the_data_not_of_the_ack() {
    let net = Net::new();
    let listener = listen_for_data(&net);
    let before = net.stats();
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        let (mut connection, _) = client.connect(4000, &[]);
        connection.send(&option(other(named)), &[]);
        connection.send(&option(named), b"data");
        let accepted = listener.accept().ending_by_reset();
        accepted.assert_shows(named);
    }
    let change = net.stats().since(&before);
    assert!(change.contains(&(TOA, 2)), "{change:?}");
}

fn lost_ack_leaves_the_client_to_the_data_each_way() {
    let net = Net::with(&Plan::dpvs().losing_the_ack());
    check_made_by_data(&net, &net.listen(Family::DualStack));
}

/// Sends two segments that could make the connection, and checks that the first one does.
#[track_caller]
fn check_first_counts(first_data: &[u8], second: impl Fn(&mut HandmadeConnection<'_>, SocketAddr)) {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        let (mut connection, _) = client.connect(4000, &[]);
        connection.send(&option(named), first_data);
        second(&mut connection, other(named));
        let accepted = listener.accept().ending_by_reset();
        accepted.assert_shows(named);
        second(&mut connection, other(named));
        accepted.assert_shows(named);
    }
    let change = net.stats().since(&before);
    assert!(change.contains(&(TOA, 2)), "{change:?}");
}

fn first_of_two_acks_names_the_client() {
    check_first_counts(b"", |connection, other| {
        connection.send(&option(other), b"");
    });
}

fn data_before_the_ack_names_the_client() {
    check_first_counts(b"data", |connection, other| {
        let after = connection.sequence;
        connection.sequence -= 4;
        connection.send(&option(other), b"");
        connection.sequence = after;
    });
}

/// The option of a SYN does not count, not even if the SYN is repeated.
fn retransmitted_syn_changes_nothing() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        let other = option(other(named));
        client.begin(4000).open(&other, &[]);
        let (mut connection, _) = client.connect(4000, &other);
        connection.send(&option(named), &[]);
        let accepted = listener.accept().ending_by_reset();
        accepted.assert_shows(named);
    }
}

/// Checks that the segments of `send` make no connection and change no counter.
#[track_caller]
fn check_makes_nothing(send: impl Fn(&HandmadeClient, SocketAddr)) {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    for named in [NAMED, NAMED_V6] {
        let client = handmade_client(&net, named);
        send(&client, named);
        assert!(!can_accept(&listener));
    }
    assert_eq!(net.stats().since(&before), []);
}

fn reset_instead_of_the_ack_makes_nothing() {
    check_makes_nothing(|client, named| {
        let (mut connection, _) = client.connect(4000, &[]);
        connection.send_with(|tcp| tcp.rst = true, &option(named), &[]);
        // The server has forgotten the SYN, so the ACK belongs to no connection.
        connection.send(&option(named), &[]);
        assert!(connection.receive().rst);
    });
}

fn ack_without_a_connection_makes_nothing() {
    check_makes_nothing(|client, named| {
        let mut connection = client.begin(4000);
        connection.acknowledgement = Some(1);
        connection.send(&option(named), &[]);
        assert!(connection.receive().rst);
    });
}

fn ack_out_of_the_window_makes_nothing() {
    check_makes_nothing(|client, named| {
        let (mut connection, syn) = client.connect(4000, &[]);
        connection.sequence = connection.sequence.wrapping_add(1 << 30);
        connection.send(&option(named), &[]);
        let answer = connection.receive();
        assert!(answer.ack && !answer.rst, "{answer:?}");
        assert_eq!(
            answer.next, syn.next,
            "the next byte that the server expects"
        );
    });
}
