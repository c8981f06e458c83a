// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests on real sockets for which the module has no client: it is not loaded, or the
//! connections are within this machine.

use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use toa_peer::balancer;
use toa_peer::client_by_toa;
use toa_peer::peer;
use toa_peer::Origin;

const V4: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const V6: (Ipv6Addr, u16) = (Ipv6Addr::LOCALHOST, 0);

/// Connects to the listener; returns the server's end and the client's.
fn connection(listener: &TcpListener, target: Ipv4OrV6) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().expect("it is bound").port();
    let client = match target {
        Ipv4OrV6::V4 => TcpStream::connect((Ipv4Addr::LOCALHOST, port)),
        Ipv4OrV6::V6 => TcpStream::connect((Ipv6Addr::LOCALHOST, port)),
    };
    let client = client.expect("it connects");
    let (server, _) = listener.accept().expect("it is accepted");
    (server, client)
}

#[derive(Clone, Copy)]
enum Ipv4OrV6 {
    V4,
    V6,
}

/// Listens on an AF_INET6 socket that accepts IPv4 as well.
fn dual_stack(protocol: Protocol) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
    socket.listen(1)?;
    Ok(socket.into())
}

#[track_caller]
fn assert_is_by_getpeername(socket: &impl AsFd, client: SocketAddr) {
    let found = peer(socket).expect("a peer");
    assert_eq!(
        (found.client, found.balancer, found.origin),
        (client, None, Origin::Getpeername)
    );
    assert_eq!(client_by_toa(socket).expect("no error"), None);
    assert_eq!(balancer(socket).expect("no error"), None);
}

#[test]
fn ipv4_peer_is_told() {
    let listener = TcpListener::bind(V4).expect("it listens");
    let (server, client) = connection(&listener, Ipv4OrV6::V4);
    assert_is_by_getpeername(&server, client.local_addr().expect("its name"));
    assert_is_by_getpeername(&client, listener.local_addr().expect("its name"));
}

#[test]
fn ipv6_peer_is_told() {
    let listener = TcpListener::bind(V6).expect("it listens");
    let (server, client) = connection(&listener, Ipv4OrV6::V6);
    assert_is_by_getpeername(&server, client.local_addr().expect("its name"));
    assert_is_by_getpeername(&client, listener.local_addr().expect("its name"));
}

#[test]
fn ipv4_peer_of_a_dual_stack_socket_is_told_as_ipv4() {
    let listener = dual_stack(Protocol::TCP).expect("it listens");
    let (server, client) = connection(&listener, Ipv4OrV6::V4);
    let mapped = server.peer_addr().expect("its peer");
    assert!(mapped.is_ipv6(), "the kernel returns {mapped}");
    let client = client.local_addr().expect("its name");
    assert!(client.is_ipv4());
    assert_is_by_getpeername(&server, client);
}

#[test]
fn ipv6_peer_of_a_dual_stack_socket_is_told() {
    let listener = dual_stack(Protocol::TCP).expect("it listens");
    let (server, client) = connection(&listener, Ipv4OrV6::V6);
    assert_is_by_getpeername(&server, client.local_addr().expect("its name"));
}

#[test]
fn peer_is_told_to_owner_and_borrower() {
    let listener = TcpListener::bind(V4).expect("it listens");
    let (server, _client) = connection(&listener, Ipv4OrV6::V4);
    let told = peer(&server).expect("a peer");
    assert_eq!(peer(server.as_fd()).expect("a peer"), told);
    let copy = server.try_clone().expect("a second descriptor");
    drop(server);
    assert_eq!(peer(copy).expect("a peer"), told);
}

#[test]
fn peer_of_a_udp_socket_is_told() {
    for any in [SocketAddr::from(V4), SocketAddr::from(V6)] {
        let socket = UdpSocket::bind(any).expect("a socket");
        let other = UdpSocket::bind(any).expect("another");
        let other = other.local_addr().expect("its name");
        socket.connect(other).expect("it connects");
        assert_is_by_getpeername(&socket, other);
    }
}

#[test]
fn socket_that_is_not_connected_has_no_peer() {
    let listener = TcpListener::bind(V4).expect("it listens");
    let error = peer(&listener).expect_err("it has no peer");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    let udp = UdpSocket::bind(V4).expect("a socket");
    let error = peer(&udp).expect_err("it has no peer");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
}

#[test]
fn connection_that_has_ended_has_no_peer() {
    let listener = TcpListener::bind(V4).expect("it listens");
    let (server, mut client) = connection(&listener, Ipv4OrV6::V4);
    // This side ends first and waits; the other side's FIN then closes it at once.
    server.shutdown(Shutdown::Write).expect("it ends");
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    client.shutdown(Shutdown::Write).expect("it ends");
    let mut byte = [0];
    assert_eq!((&server).read(&mut byte).expect("the end"), 0);
    let error = peer(&server).expect_err("it has no peer");
    assert_eq!(error.kind(), ErrorKind::NotConnected);
}

#[test]
fn unix_socket_is_refused_in_words() {
    let (one, _other) = UnixStream::pair().expect("two sockets");
    let error = peer(&one).expect_err("no address");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "the peer of a UNIX socket has no address"
    );
    assert_eq!(client_by_toa(&one).expect("no error"), None);
    assert_eq!(balancer(&one).expect("no error"), None);
}

#[test]
fn unix_socket_without_a_peer_is_not_connected() {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let error = peer(&socket).expect_err("it has no peer");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
}

#[test]
fn file_is_no_socket() {
    let file = File::open("/dev/null").expect("it is there");
    for error in [
        peer(&file).map(|_| ()),
        client_by_toa(&file).map(|_| ()),
        balancer(&file).map(|_| ()),
    ] {
        let error = error.expect_err("it is a file");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
