// SPDX-License-Identifier: GPL-2.0

//! Every way in which a connection ends. The module must forget the client with the connection, and
//! never show the client for a later one.

use std::collections::HashSet;
use std::fs;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use socket2::SockRef;
use socket2::Socket;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::module;
use crate::namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::CLIENT_V6;
use crate::net::PORT;
use crate::net::ROWS_WITH_CLIENT;
use crate::proc_tcp;
use crate::process;
use crate::process::Process;
use crate::remote::Remote;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    ipv4_socket_reconnected_to_the_same_address_shows_that_address,
    ipv6_socket_reconnected_to_the_same_address_shows_that_address,
    dual_stack_socket_reconnected_to_the_same_ipv4_address_shows_that_address,
    dual_stack_socket_reconnected_to_the_same_ipv6_address_shows_that_address,
    nat64_socket_reconnected_to_the_same_address_shows_that_address,
    socket_reconnected_to_another_address_shows_that_address,
    socket_disconnected_in_each_state_is_forgotten_at_once,
    disconnect_under_a_reader_forgets_the_client_unless_it_is_refused,
    disconnected_socket_that_listens_shows_new_clients,
    socket_turned_into_ipv4_is_forgotten_when_disconnected,
    aborted_connection_is_forgotten_when_it_is_closed,
    connection_aborted_before_it_is_accepted_is_forgotten_at_once,
    reset_connection_is_forgotten_when_it_is_closed,
    connection_in_time_wait_has_no_record,
    connection_reusing_a_time_wait_shows_its_own_client,
    killed_process_leaves_no_record,
    namespace_destroyed_under_traffic_leaves_nothing,
];

/// A connection that the far end makes, with an option that names a client.
struct Row {
    family: Family,
    ipv6: bool,
    client: SocketAddr,
}

fn ipv4_client() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(203, 0, 113, 9).into(), 4660)
}

fn ipv6_client() -> SocketAddr {
    SocketAddr::new(IpAddr::V6(CLIENT_V6), 4661)
}

fn row(family: Family, ipv6: bool, client: SocketAddr) -> Row {
    Row {
        family,
        ipv6,
        client,
    }
}

fn rows() -> [Row; 5] {
    [
        row(Family::V4, false, ipv4_client()),
        row(Family::V6Only, true, ipv6_client()),
        row(Family::DualStack, false, ipv4_client()),
        row(Family::DualStack, true, ipv6_client()),
        row(Family::DualStack, false, ipv6_client()),
    ]
}

/// The port of the far end.
const FAR: u16 = 4000;

/// Makes the far end of connections to the server.
pub fn remote(net: &Net, ipv6: bool) -> Remote {
    if ipv6 {
        Remote::v6(&net.server)
    } else {
        Remote::v4(&net.server)
    }
}

/// Disconnects a socket, and connects it to the port `again`. The record must be removed, and the
/// next connection must show its target.
#[track_caller]
fn check_reconnected(net: &Net, row: &Row, again: u16) {
    let Row { family, client, .. } = *row;
    let remote = remote(net, row.ipv6);
    let listener = net.listen(family);
    let _first = remote.connect(FAR, 1000, &toa_option(TOA_KIND, client));
    let accepted = listener.accept();
    assert_eq!(accepted.name, family.name(client));
    assert_eq!(accepted.peer(), family.name(client));
    // The listener would own the port of the next connection.
    drop(listener);
    let local = accepted.local().address().expect("an address");
    let between = connect_again(&accepted, &remote, again);
    assert_eq!(accepted.local().address(), Some(local), "the same end here");
    let expected = family.name(remote.end(again));
    assert_eq!(accepted.peer(), expected, "getpeername");
    let told = sys::so_peername(accepted.stream.as_raw_fd(), expected.length());
    assert_eq!(told, Ok(expected), "SO_PEERNAME");
    assert_eq!(between, Errno::ENOTCONN, "between the connections");
    assert_eq!(net.stats().get("records_live"), 0);
    // The far end answers nothing more.
    let _accepted = accepted.ending_by_reset();
}

/// Disconnects a socket, and connects it to the port `again` from its own address. Returns the error of
/// getpeername in between.
#[track_caller]
pub fn connect_again(accepted: &Accepted, remote: &Remote, again: u16) -> Errno {
    let local = accepted.local().address().expect("an address");
    sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
    let between = sockets::peer_error(&accepted.stream);
    let socket = SockRef::from(&accepted.stream);
    socket.bind(&local.into()).expect("its own address");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    let target = accepted.family.form(remote.end(again));
    let begun = socket.connect(&target.into()).expect_err("it takes time");
    assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS));
    let _second = remote.accept(again);
    wait::ready(&accepted.stream, PollFlags::POLLOUT, "the connection");
    assert_eq!(socket.take_error().expect("SO_ERROR").map(|_| ()), None);
    between
}

#[track_caller]
fn check_same_address(row: &Row) {
    check_reconnected(&Net::new(), row, FAR);
}

fn ipv4_socket_reconnected_to_the_same_address_shows_that_address() {
    check_same_address(&row(Family::V4, false, ipv4_client()));
}

fn ipv6_socket_reconnected_to_the_same_address_shows_that_address() {
    check_same_address(&row(Family::V6Only, true, ipv6_client()));
}

fn dual_stack_socket_reconnected_to_the_same_ipv4_address_shows_that_address() {
    check_same_address(&row(Family::DualStack, false, ipv4_client()));
}

fn dual_stack_socket_reconnected_to_the_same_ipv6_address_shows_that_address() {
    check_same_address(&row(Family::DualStack, true, ipv6_client()));
}

fn nat64_socket_reconnected_to_the_same_address_shows_that_address() {
    check_same_address(&row(Family::DualStack, false, ipv6_client()));
}

fn socket_reconnected_to_another_address_shows_that_address() {
    let net = Net::new();
    for row in rows() {
        check_reconnected(&net, &row, FAR + 1);
    }
}

fn socket_disconnected_in_each_state_is_forgotten_at_once() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        for ended in [None, Some(Shutdown::Read), Some(Shutdown::Write)] {
            for client_ended in [false, true] {
                let (client, mut accepted) = net.pair(&listener, way);
                if let Some(how) = ended {
                    accepted.stream.shutdown(how).expect("shutdown");
                }
                if client_ended {
                    client.stream.shutdown(Shutdown::Write).expect("a FIN");
                    assert_eq!(accepted.read_all(), b"");
                }
                assert_eq!(net.stats().get("records_live"), 1);
                sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
                let what = format!("{way:?}, {ended:?}, the client ended: {client_ended}");
                assert_eq!(net.stats().get("records_live"), 0, "{what}");
                assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
            }
        }
    }
}

/// Waits until the thread `task` of `/proc` waits for data of a socket.
#[track_caller]
fn wait_for_reader(task: &str) {
    wait::until("the thread waits for data", || {
        let stack = fs::read_to_string(format!("/proc/{task}/stack")).unwrap_or_default();
        match stack.contains(" sk_wait_data+") {
            true => Ok(()),
            false => Err(stack),
        }
    });
}

/// Some kernels refuse to disconnect a socket while a thread waits for its data (EBUSY, the field
/// `sk_wait_pending`). The connection then stays, and its client with it.
fn disconnect_under_a_reader_forgets_the_client_unless_it_is_refused() {
    let net = Net::new();
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        let (mut client, accepted) = net.pair(&listener, way);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let task = fs::read_link("/proc/thread-self").expect("this thread");
                sender.send(task).expect("it is waited for");
                (&accepted.stream).read(&mut [0])
            });
            let task = receiver.recv().expect("the thread runs");
            wait_for_reader(&task.display().to_string());
            let refused = sys::disconnect(accepted.stream.as_raw_fd()).err();
            let live = net.stats().get("records_live");
            if refused.is_none() {
                assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
                assert_eq!(live, 0, "{family:?} {way:?}");
                return;
            }
            assert_eq!(refused.and_then(|e| e.raw_os_error()), Some(libc::EBUSY));
            assert_eq!(live, 1, "{family:?} {way:?}");
            assert_eq!(accepted.peer(), family.name(client.address));
            client.stream.write_all(b"!").expect("the client sends");
            let read = reader.join().expect("it does not panic");
            assert_eq!(read.expect("data"), 1);
        });
    }
}

/// A socket that had IPv4 traffic cannot serve IPv6 clients any more, with the module or without
/// (`icsk_af_ops` stays `ipv6_mapped`).
fn disconnected_socket_that_listens_shows_new_clients() {
    let rows = [
        (Family::V4, Way::V4, &[Way::V4][..]),
        (Family::V6Only, Way::V6, &[Way::V6]),
        (Family::DualStack, Way::V4, &[Way::V4, Way::Nat64]),
        (Family::DualStack, Way::V6, &Way::ALL),
        (Family::DualStack, Way::Nat64, &[Way::V4, Way::Nat64]),
    ];
    let net = Net::new();
    for (family, first, ways) in rows {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, first);
        assert_eq!(accepted.peer(), family.name(client.address));
        drop(listener);
        sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
        assert_eq!(net.stats().get("records_live"), 0);
        let listener = Listener::from(Socket::from(accepted.stream), family, PORT);
        assert_eq!(sockets::peer_error(&listener.socket), Errno::ENOTCONN);
        for &way in ways {
            let (mut client, mut accepted) = net.pair(&listener, way);
            let expected = family.name(client.address);
            assert_eq!(accepted.name, expected, "accept: {family:?} {way:?}");
            assert_eq!(accepted.peer(), expected, "getpeername: {family:?} {way:?}");
            sockets::exchange(&mut client, &mut accepted);
        }
    }
}

fn socket_turned_into_ipv4_is_forgotten_when_disconnected() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in [Way::V4, Way::Nat64] {
        let (_client, accepted) = net.pair(&listener, way);
        let fd = accepted.stream.as_raw_fd();
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM, libc::AF_INET)
            .expect("the traffic is IPv4");
        assert_eq!(net.stats().get("records_live"), 1);
        sys::disconnect(fd).expect("AF_UNSPEC");
        assert_eq!(net.stats().get("records_live"), 0, "{way:?}");
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
    }
}

/// Aborts all connections by `ss -K` (SOCK_DESTROY of `linux/sock_diag.h`).
fn abort_all(net: &Net) {
    net.server.enter(|| {
        let mut ss = Command::new("ss");
        namespace::run(
            ss.args(["-K", "-t", "state", "connected", "sport", "="])
                .arg(format!(":{PORT}")),
        );
    });
}

fn aborted_connection_is_forgotten_when_it_is_closed() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (mut client, mut accepted) = net.pair(&listener, way);
        let whole = listener.family.name(client.address);
        assert_eq!(accepted.peer(), whole);
        abort_all(&net);
        let error = accepted.stream.read(&mut [0]).expect_err("it is over");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED), "{way:?}");
        let error = client.stream.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{way:?}");
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
        // The process still has the socket, and SO_PEERNAME returns the last peer.
        let told = sys::so_peername(accepted.stream.as_raw_fd(), whole.length());
        assert_eq!(told, Ok(whole), "{way:?}");
        drop(accepted);
        assert_eq!(net.stats().get("records_live"), 0, "{way:?}");
    }
}

fn connection_aborted_before_it_is_accepted_is_forgotten_at_once() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let clients = Way::ALL.map(|way| net.connect(way));
    wait::until("the handshakes are complete", || {
        match net.stats().get("records_live") {
            3 => Ok(()),
            live => Err(crate::stats::describe("records_live", live)),
        }
    });
    // The listener stays open, with aborted connections in its queue.
    abort_all(&net);
    for mut client in clients {
        let error = client.stream.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        let accepted = listener.accept();
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
    }
    net.wait_for_no_records();
}

fn reset_connection_is_forgotten_when_it_is_closed() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, mut accepted) = net.pair(&listener, way);
        sys::disconnect(client.stream.as_raw_fd()).expect("AF_UNSPEC");
        let error = accepted.stream.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{way:?}");
        assert_eq!(
            net.stats().get("records_live"),
            1,
            "the socket can still be asked"
        );
        drop(accepted);
        assert_eq!(net.stats().get("records_live"), 0, "{way:?}");
    }
}

/// `TCP_TIME_WAIT` of `include/net/tcp_states.h`.
const TIME_WAIT: u8 = 6;

/// Waits for TIME_WAIT at the server's end of a connection that the server closed first.
#[track_caller]
fn wait_for_time_wait(net: &Net, far: SocketAddr) {
    wait::until("TIME_WAIT", || {
        let rows = proc_tcp::rows(&net.server);
        let of_far = |row: &&proc_tcp::Row| {
            row.remote.port() == far.port() && row.remote.ip().to_canonical() == far.ip()
        };
        match rows.iter().find(of_far).map(|row| row.state) {
            Some(TIME_WAIT) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn connection_in_time_wait_has_no_record() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (mut client, accepted) = net.pair(&listener, way);
        let balancer = net.balancer_of(&accepted);
        let balancer = SocketAddr::new(balancer.ip().to_canonical(), balancer.port());
        drop(accepted);
        assert_eq!(sockets::read_all(&mut client.stream), b"");
        drop(client);
        wait_for_time_wait(&net, balancer);
        assert_eq!(net.stats().get("records_live"), 0, "{way:?}");
    }
}

fn connection_reusing_a_time_wait_shows_its_own_client() {
    let net = Net::new();
    for (row, port) in rows().into_iter().zip(FAR..) {
        let Row { family, client, .. } = row;
        let remote = remote(&net, row.ipv6);
        let listener = net.listen(family);
        for number in 0..3 {
            let client = SocketAddr::new(client.ip(), client.port() + number);
            // A number above all that the last connection has sent.
            let sequence = 1000 + 100_000 * u32::from(number);
            let far = remote.connect(port, sequence, &toa_option(TOA_KIND, client));
            let accepted = listener.accept();
            assert_eq!(accepted.name, family.name(client), "{family:?}");
            assert_eq!(accepted.peer(), family.name(client), "{family:?}");
            drop(accepted);
            far.finish_after_the_server();
            wait_for_time_wait(&net, remote.end(port));
            assert_eq!(net.stats().get("records_live"), 0, "{family:?}");
        }
    }
}

/// A server that accepts a number of connections and prints each peer's name. The server then
/// echoes all data.
const SERVER: &str = "
import selectors, socket, sys
listener = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6,
                                dualstack_ipv6=True, backlog=200)
print('listening', flush=True)
selector = selectors.DefaultSelector()
for _ in range(int(sys.argv[2])):
    connection, name = listener.accept()
    print(name[0], name[1], flush=True)
    selector.register(connection, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        key.fileobj.sendall(key.fileobj.recv(4096))
";

/// Starts [`SERVER`], and returns its output after the line `listening`.
fn start_server(net: &Net, connections: usize) -> (Process, impl BufRead) {
    let mut command = Command::new("python3");
    command
        .args(["-c", SERVER, &PORT.to_string(), &connections.to_string()])
        .stdout(Stdio::piped());
    let mut server = Process::start_in(&net.server, &mut command, Signal::SIGKILL);
    let output = server.child().stdout.take().expect("it is piped");
    (server, process::wait_for_line(output, "listening"))
}

fn killed_process_leaves_no_record() {
    const CONNECTIONS: usize = 100;
    let net = Net::new();
    let (server, said) = start_server(&net, CONNECTIONS);
    let ways = Way::ALL.into_iter().cycle().take(CONNECTIONS);
    let mut clients: Vec<_> = ways.map(|way| net.connect(way)).collect();
    let seen = said.lines().take(CONNECTIONS);
    let seen: HashSet<String> = seen.map(|line| line.expect("a line")).collect();
    let expected = clients.iter().map(|client| {
        let shown = Family::DualStack.form(client.address);
        format!("{} {}", shown.ip(), shown.port())
    });
    assert_eq!(seen, expected.collect());
    assert_eq!(net.stats().get("records_live"), CONNECTIONS as u64);
    // Half of the connections have data to answer.
    for client in clients.iter_mut().step_by(2) {
        client.stream.write_all(b"?").expect("the client sends");
    }
    drop(server);
    net.wait_for_no_records();
    for client in &mut clients {
        let mut bytes = Vec::new();
        let _ = client.stream.read_to_end(&mut bytes);
        assert!(bytes.len() <= 1, "{bytes:?}");
    }
}

fn namespace_destroyed_under_traffic_leaves_nothing() {
    const CONNECTIONS: usize = 12;
    let net = Net::new();
    let (server, said) = start_server(&net, CONNECTIONS);
    let ways = Way::ALL.into_iter().cycle().take(CONNECTIONS);
    let clients: Vec<_> = ways.map(|way| net.connect(way)).collect();
    let seen = said.lines().take(CONNECTIONS);
    assert!(
        seen.map_while(Result::ok).count() == CONNECTIONS,
        "all are accepted"
    );
    assert_eq!(net.stats().get("records_live"), CONNECTIONS as u64);
    let rounds = AtomicU64::new(0);
    thread::scope(|scope| {
        for client in &clients {
            let rounds = &rounds;
            scope.spawn(move || {
                let mut stream = &client.stream;
                let mut answer = [0; 512];
                while stream.write_all(&[7; 512]).is_ok() && stream.read_exact(&mut answer).is_ok()
                {
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait::until("traffic", || match rounds.load(Ordering::Relaxed) {
            many if many > 200 => Ok(()),
            few => Err(format!("{few} rounds")),
        });
        // The balancer ends first, then the names, then the last process of the namespace.
        net.abandon();
        drop(server);
        for client in &clients {
            client.stream.shutdown(Shutdown::Read).expect("shutdown");
        }
    });
    // No server is left to acknowledge a FIN. Some kernels refuse while a thread waits for data.
    for client in &clients {
        sys::disconnect(client.stream.as_raw_fd()).expect("AF_UNSPEC");
    }
    module::unload();
    module::load();
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (client, accepted): (_, Accepted) = net.pair(&listener, Way::Nat64);
    assert_eq!(accepted.peer(), listener.family.name(client.address));
}
