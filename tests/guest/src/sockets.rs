// SPDX-License-Identifier: GPL-2.0

//! Sockets of the server and of the client, all of whose waits are bounded.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;

use crate::runner::skip;
use crate::sys;
use crate::sys::Answer;
use crate::sys::Call;
use crate::sys::Name;
use crate::sys::Place;
use crate::wait;
use crate::wait::BOUND;

/// The family of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET
    V4,
    /// AF_INET6 with IPV6_V6ONLY
    V6Only,
    /// AF_INET6 without IPV6_V6ONLY
    DualStack,
}

impl Family {
    pub fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6Only | Self::DualStack => Domain::IPV6,
        }
    }

    fn any(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6Only | Self::DualStack => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Returns an address in the form that a socket of this family reports.
    pub fn form(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Self::V6Only | Self::DualStack, IpAddr::V4(v4)) => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }

    /// Returns the name that a socket of this family reports for an address.
    pub fn name(self, address: SocketAddr) -> Name {
        Name::of(self.form(address))
    }
}

/// Makes a TCP socket of the family, which never blocks for long.
/// Whether the kernel has MPTCP (CONFIG_MPTCP).
pub fn has_mptcp() -> bool {
    fs::exists("/proc/sys/net/mptcp").expect("/proc")
}

/// Ends the running case as skipped if the kernel has no MPTCP.
pub fn need_mptcp() {
    if !has_mptcp() {
        skip("the kernel has no MPTCP");
    }
}

pub fn socket(family: Family) -> Socket {
    socket_of(family, Protocol::TCP)
}

/// Makes a socket of the family and of another protocol, which never blocks for long.
pub fn socket_of(family: Family, protocol: Protocol) -> Socket {
    let socket = Socket::new(family.domain(), Type::STREAM, Some(protocol)).expect("a socket");
    if family != Family::V4 {
        socket
            .set_only_v6(family == Family::V6Only)
            .expect("IPV6_V6ONLY");
    }
    bound(&socket);
    socket
}

/// Bounds the waits of a socket's calls.
fn bound(socket: &Socket) {
    socket.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
    socket.set_write_timeout(Some(BOUND)).expect("SO_SNDTIMEO");
}

/// A listening socket on every address.
#[derive(Debug)]
pub struct Listener {
    pub socket: Socket,
    pub family: Family,
}

impl Listener {
    pub fn new(family: Family, port: u16) -> Self {
        Self::from(socket(family), family, port)
    }

    /// Makes a listener from a socket whose options the caller has set.
    pub fn from(socket: Socket, family: Family, port: u16) -> Self {
        Self::try_from(socket, family, port).expect("the port is free")
    }

    /// Does the same, or returns the error of bind.
    pub fn try_from(socket: Socket, family: Family, port: u16) -> io::Result<Self> {
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddr::new(family.any(), port).into())?;
        socket.listen(1024).expect("it listens");
        Ok(Self { socket, family })
    }

    /// Waits for a connection.
    #[track_caller]
    pub fn wait(&self) {
        wait::ready(&self.socket, PollFlags::POLLIN, "a connection to accept");
    }

    #[track_caller]
    pub fn accept(&self) -> Accepted {
        self.accept_by(Call::Accept4, Place::AMPLE)
    }

    #[track_caller]
    pub fn accept_by(&self, call: Call, place: Place) -> Accepted {
        self.wait();
        let answer = sys::ask(call, self.socket.as_raw_fd(), place)
            .unwrap_or_else(|error| panic!("{call:?}: {error}"));
        let socket = Socket::from(answer.socket.expect("accept gives a socket"));
        bound(&socket);
        Accepted {
            stream: TcpStream::from(socket),
            name: answer.name,
            family: self.family,
        }
    }
}

/// The server's end of a connection.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    /// The peer's name that accept returned.
    pub name: Name,
    pub family: Family,
}

impl Accepted {
    /// Returns getpeername's answer.
    #[track_caller]
    pub fn peer(&self) -> Name {
        name(Call::GetPeerName, &self.stream)
    }

    /// Returns getsockname's answer.
    #[track_caller]
    pub fn local(&self) -> Name {
        name(Call::GetSockName, &self.stream)
    }

    /// Checks that both accept and getpeername returned this name.
    #[track_caller]
    pub fn assert_shows(&self, peer: SocketAddr) {
        let expected = self.family.name(peer);
        assert_eq!(self.name, expected, "accept");
        self.assert_shows_peer(peer);
    }

    /// Checks that getpeername returns this name.
    #[track_caller]
    pub fn assert_shows_peer(&self, peer: SocketAddr) {
        assert_eq!(self.peer(), self.family.name(peer), "getpeername");
    }

    /// Makes the connection end by a reset, which needs no answer.
    pub fn ending_by_reset(self) -> Self {
        reset_at_end(&self.stream);
        self
    }

    /// Reads the other side's data to its end.
    #[track_caller]
    pub fn read_all(&mut self) -> Vec<u8> {
        read_all(&mut self.stream)
    }
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    /// The client's own address, which a server should see.
    pub address: SocketAddr,
}

impl Client {
    /// Connects from `source` (port 0: any) in the calling thread's namespace.
    pub fn connect(source: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        Self::connect_by(Protocol::TCP, source, target)
    }

    /// Connects by another protocol.
    pub fn connect_by(
        protocol: Protocol,
        source: SocketAddr,
        target: SocketAddr,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(source);
        let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
        bound(&socket);
        socket.bind(&source.into())?;
        socket.connect_timeout(&target.into(), BOUND)?;
        let stream = TcpStream::from(socket);
        let address = stream.local_addr()?;
        Ok(Self { stream, address })
    }
}

/// Returns a name of a socket; panics if the call fails.
#[track_caller]
pub fn name(call: Call, socket: &impl AsRawFd) -> Name {
    match sys::ask(call, socket.as_raw_fd(), Place::AMPLE) {
        Ok(Answer { name, .. }) => name,
        Err(error) => panic!("{call:?}: {error}"),
    }
}

/// Returns the error of getpeername; panics if the call succeeds.
#[track_caller]
pub fn peer_error(socket: &impl AsRawFd) -> Errno {
    sys::ask(Call::GetPeerName, socket.as_raw_fd(), Place::AMPLE).expect_err("it has no peer")
}

#[track_caller]
pub fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("data until its end");
    bytes
}

/// Makes closing the stream a reset.
pub fn reset_at_end(stream: &TcpStream) {
    let at_once = Some(Duration::ZERO);
    SockRef::from(stream)
        .set_linger(at_once)
        .expect("SO_LINGER");
}

/// Exchanges one byte in each direction: all earlier segments have arrived then.
#[track_caller]
pub fn exchange(client: &mut Client, accepted: &mut Accepted) {
    let mut byte = [0];
    client.stream.write_all(b"?").expect("the client sends");
    accepted
        .stream
        .read_exact(&mut byte)
        .expect("the server receives");
    assert_eq!(&byte, b"?");
    accepted.stream.write_all(b"!").expect("the server sends");
    client
        .stream
        .read_exact(&mut byte)
        .expect("the client receives");
    assert_eq!(&byte, b"!");
}

/// Ends both directions in order, and checks that both sides see the end.
#[track_caller]
pub fn finish(client: &mut Client, accepted: &mut Accepted) {
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("the client ends");
    assert_eq!(accepted.read_all(), b"");
    accepted
        .stream
        .shutdown(Shutdown::Write)
        .expect("the server ends");
    assert_eq!(read_all(&mut client.stream), b"");
}
