// SPDX-License-Identifier: GPL-2.0

//! Errors of the calls, and sockets that have nothing to do with the balancer. All answers are the
//! same as without the module.

use std::fs::File;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use socket2::Socket;

use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::net::SERVER_V4;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::Call;
use crate::sys::Name;
use crate::sys::Place;

/// Cases that compare the answers without the module and with it.
pub const COMPARED: &[Case] = cases![Unloaded:
    errors_and_lengths_are_those_without_the_module,
];

pub const CASES: &[Case] = cases![Loaded:
    udp_sockets_are_unaffected,
    unix_sockets_are_unaffected,
    outgoing_connections_show_their_target,
    disconnected_socket_has_no_peer,
    reused_socket_does_not_show_its_old_client,
];

/// The places that a caller may pass for a name: valid ones, and each kind of invalid one.
const PLACES: [Place; 8] = [
    Place::AMPLE,
    Place::Room(0),
    Place::Room(7),
    Place::Room(-1),
    Place::Room(i32::MIN),
    Place::Nowhere(28),
    Place::Nowhere(0),
    Place::NoLength,
];

/// A line for each socket, call and place: the error, or the length reported.
type Table = Vec<String>;

fn ask_all(table: &mut Table, what: &str, fd: RawFd) {
    for call in Call::ALL {
        for place in PLACES {
            table.push(outcome(what, call, fd, place));
        }
    }
}

fn outcome(what: &str, call: Call, fd: RawFd, place: Place) -> String {
    let answer = sys::ask(call, fd, place).map(|answer| answer.name.length());
    format!("{what}, {call:?}, {place:?}: {answer:?}")
}

/// Asks in every state of a socket that affects its peer.
fn table(net: &Net) -> Table {
    let mut table = Table::new();
    let file = File::open("/dev/null").expect("/dev/null");
    ask_all(&mut table, "no descriptor", -1);
    ask_all(&mut table, "a file", file.as_raw_fd());
    for family in [Family::V4, Family::V6Only, Family::DualStack] {
        let fresh = net.server.enter(|| sockets::socket(family));
        ask_all(&mut table, &format!("fresh {family:?}"), fresh.as_raw_fd());
        drop(fresh);
        tell_of_family(&mut table, net, family);
    }
    table
}

fn tell_of_family(table: &mut Table, net: &Net, family: Family) {
    let ways: &[Way] = match family {
        Family::V4 => &[Way::V4, Way::Nat64],
        Family::V6Only => &[Way::V6],
        Family::DualStack => &Way::ALL,
    };
    let listener = net.listen(family);
    listener.socket.set_nonblocking(true).expect("O_NONBLOCK");
    let listening = format!("listening {family:?}");
    ask_all(table, &listening, listener.socket.as_raw_fd());
    for &way in ways {
        for place in PLACES {
            // accept consumes a connection even for a place that it rejects.
            let _client = net.connect(way);
            listener.wait();
            let fd = listener.socket.as_raw_fd();
            table.push(outcome(&listening, Call::Accept4, fd, place));
            while sys::ask(Call::Accept, fd, Place::AMPLE).is_ok() {}
        }
        tell_of_states(table, net, &listener, way);
    }
}

/// Asks in each state from ESTABLISHED to CLOSE.
fn tell_of_states(table: &mut Table, net: &Net, listener: &Listener, way: Way) {
    let (client, mut accepted) = net.pair(listener, way);
    let fd = accepted.stream.as_raw_fd();
    let what = |state| format!("{state} {:?} {way:?}", listener.family);
    ask_all(table, &what("ESTABLISHED"), fd);
    client.stream.shutdown(Shutdown::Write).expect("a FIN");
    assert_eq!(accepted.read_all(), b"");
    ask_all(table, &what("CLOSE_WAIT"), fd);

    let (client, mut accepted) = net.pair(listener, way);
    let fd = accepted.stream.as_raw_fd();
    socket2::SockRef::from(&client.stream)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("SO_LINGER");
    drop(client);
    let reset = std::io::Read::read(&mut accepted.stream, &mut [0]).expect_err("a reset");
    table.push(format!("{}: {:?}", what("reset"), reset.kind()));
    ask_all(table, &what("CLOSE"), fd);

    let (_client, accepted) = net.pair(listener, way);
    let fd = accepted.stream.as_raw_fd();
    sys::disconnect(fd).expect("AF_UNSPEC");
    ask_all(table, &what("disconnected"), fd);
}

fn errors_and_lengths_are_those_without_the_module() {
    let net = Net::new();
    let without = table(&net);
    module::load();
    let with = table(&net);
    net.wait_for_no_records();
    module::unload();
    assert!(without.len() > 500, "{} lines", without.len());
    assert_eq!(with.len(), without.len());
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(with, without, "with the module, and without");
    }
    for error in [
        "EBADF", "ENOTSOCK", "ENOTCONN", "EFAULT", "EINVAL", "EAGAIN",
    ] {
        let told = |line: &String| line.ends_with(&format!("Err({error})"));
        assert!(without.iter().any(told), "no line with {error}");
    }
}

fn udp_sockets_are_unaffected() {
    let net = Net::new();
    net.server.enter(|| {
        for address in [Ipv4Addr::LOCALHOST.to_string(), "[::1]".to_owned()] {
            let one = UdpSocket::bind(format!("{address}:0")).expect("a socket");
            let other = UdpSocket::bind(format!("{address}:0")).expect("a socket");
            let error = sockets::peer_error(&one);
            assert_eq!(error, Errno::ENOTCONN);
            let target = other.local_addr().expect("it is bound");
            one.connect(target).expect("UDP connects");
            assert_eq!(sockets::name(Call::GetPeerName, &one), Name::of(target));
        }
    });
}

fn unix_sockets_are_unaffected() {
    let path = std::env::temp_dir().join("toa-guest-unix");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a socket");
    let client = UnixStream::connect(&path).expect("it connects");
    let (_accepted, address) = listener.accept().expect("it accepts");
    assert!(address.is_unnamed());
    let named = client.peer_addr().expect("it has a peer");
    assert_eq!(named.as_pathname(), Some(path.as_path()));
    std::fs::remove_file(&path).expect("the socket's file");
}

/// A connection that the server's host makes to itself.
fn connect_within(server: SocketAddr) -> (Socket, TcpStream) {
    let listener = Socket::new(
        socket2::Domain::for_address(server),
        socket2::Type::STREAM,
        None,
    )
    .expect("a socket");
    listener.bind(&server.into()).expect("the address is here");
    listener.listen(1).expect("it listens");
    let target = listener.local_addr().expect("it is bound").as_socket();
    let target = target.expect("an IP address");
    (listener, TcpStream::connect(target).expect("it connects"))
}

fn outgoing_connections_show_their_target() {
    let net = Net::new();
    net.server.enter(|| {
        for address in ["127.0.0.1:0", "[::1]:0", "10.0.0.1:0"] {
            let (listener, client) = connect_within(address.parse().expect("an address"));
            let target = listener.local_addr().expect("it is bound").as_socket();
            let told = sockets::name(Call::GetPeerName, &client);
            assert_eq!(told.address(), target);
            assert_eq!(Some(told), target.map(Name::of));
        }
    });
}

fn disconnected_socket_has_no_peer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        let expected = listener.family.name(client.address);
        assert_eq!(accepted.peer(), expected, "{way:?}");
        sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
    }
}

fn reused_socket_does_not_show_its_old_client() {
    let net = Net::new();
    let target = SocketAddr::new(SERVER_V4.into(), 9000);
    let other = net.server.enter(|| {
        let socket = sockets::socket(Family::V4);
        Listener::from(socket, Family::V4, target.port())
    });
    for (family, way) in [
        (Family::V4, Way::V4),
        (Family::DualStack, Way::V4),
        (Family::DualStack, Way::Nat64),
    ] {
        let listener = net.listen(family);
        let (_client, accepted) = net.pair(&listener, way);
        drop(listener);
        sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
        let target = family.form(target);
        socket2::SockRef::from(&accepted.stream)
            .connect(&target.into())
            .expect("it connects again");
        assert_eq!(accepted.peer(), Name::of(target), "{family:?} {way:?}");
        drop(other.accept());
    }
}
