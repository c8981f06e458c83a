// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds the client of a TCP socket behind a FullNAT load balancer, and the balancer
//! between them.
//!
//! The balancer puts the client's address into a TCP option, which the kernel module
//! toa reads. [`peer`] asks the module, and `getpeername` if the module is not loaded
//! or has no client. A server that listens on an IPv4 address behind a NAT64 balancer
//! has no other way to find its IPv6 clients.
//!
//! ```
//! use std::io;
//! use std::net::TcpStream;
//!
//! fn log(stream: &TcpStream) -> io::Result<()> {
//!     println!("{}", toa_peer::peer(stream)?);
//!     Ok(())
//! }
//! ```
//!
//! The functions take any value with a descriptor ([`AsFd`]): the sockets of the
//! standard library, tokio, mio and socket2.
//!
//! The module exists on Linux only. On other systems [`peer`] asks `getpeername`, and
//! the other functions have no client for any socket. On Windows, the functions take any
//! value with a socket (`AsSocket`).
//!
//! Trust the client's address only if the balancer alone can reach the server's port.
//! Any other host that reaches the port can claim any address.

#![deny(missing_docs)]
#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(not(any(unix, windows)))]
compile_error!("toa-peer needs getpeername, which this system does not have");

#[cfg(target_os = "linux")]
mod answer;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod sys;

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsSocket as AsFd;

use socket2::SockAddr;
use socket2::SockRef;
use socket2::Socket;

/// `getsockopt` option of the client: DPVS's `TOA_SO_GET_LOOKUP`.
const CLIENT: c_int = 4096;

/// `getsockopt` option of the balancer, which only toa has.
const BALANCER: c_int = 4097;

/// The client of a connection, and the balancer that the connection came through.
///
/// All ports are in host order, as everywhere in Rust. Addresses are never
/// IPv4-mapped: `::ffff:203.0.113.7` becomes `203.0.113.7`. So a client looks the same
/// through every kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// The client, as [`origin`](Self::origin) reports it.
    pub client: SocketAddr,
    /// The balancer: the address and port that the connection's packets come from.
    /// `None` if the module has no client.
    pub balancer: Option<SocketAddr>,
    /// The source of `client`.
    pub origin: Origin,
}

/// The source of [`Peer::client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The balancer's TCP option, which the module has read.
    Toa,
    /// `getpeername`. Without the module, the client is the balancer if the connection
    /// came through one.
    Getpeername,
}

/// The reason why the module has no client for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoClient {
    /// No module is loaded, or the socket is not TCP (`ENOPROTOOPT`). The only reason on
    /// systems other than Linux.
    NoModule,
    /// The connection came without the option, or the module refused its client
    /// (`EINVAL`). The command `toa why` explains the second case.
    NoOption,
    /// The socket is a true MPTCP connection, or a UNIX socket (`EOPNOTSUPP`).
    Unsupported,
    /// The module is DPVS's (`EFAULT`). It has an answer only for clients that
    /// `getpeername` cannot return.
    OtherModule,
}

impl fmt::Display for NoClient {
    /// Writes the reason as a clause for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoModule => "no module is loaded, or the socket is not TCP",
            Self::NoOption => "the connection came without an option that the module accepts",
            Self::Unsupported => "the socket is an MPTCP connection or a UNIX socket",
            Self::OtherModule => "another module is loaded, which leaves the client to getpeername",
        })
    }
}

impl fmt::Display for Peer {
    /// Writes a line for logs: `[2001:db8:7::7]:42275 by toa, balancer 10.0.1.6:1025`, or
    /// `203.0.113.7:4660 by getpeername`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.client, self.origin)?;
        match self.balancer {
            Some(balancer) => write!(f, ", balancer {balancer}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Origin {
    /// Writes `toa` or `getpeername`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Toa => "toa",
            Self::Getpeername => "getpeername",
        })
    }
}

/// Returns the client of this socket, and the balancer that the connection came through.
///
/// The function asks the module first, and `getpeername` if the module is not loaded or
/// has no client. It makes two system calls on Linux, and keeps nothing between calls.
///
/// # Errors
///
/// The errors of `getpeername`:
///
/// - [`NotConnected`](ErrorKind::NotConnected) (`ENOTCONN`): the socket was never
///   connected, or the connection has ended in both directions, or was reset. Clients
///   that disconnect early cause this error at any time;
/// - `ENOTSOCK`: the descriptor is not a socket;
///
/// and [`Unsupported`](ErrorKind::Unsupported) for sockets of other families than
/// `AF_INET` and `AF_INET6`, such as UNIX sockets, whose peers have no address.
///
/// # Examples
///
/// ```
/// use std::net::TcpListener;
/// use std::net::TcpStream;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let (stream, _) = listener.accept()?;
///
/// let peer = toa_peer::peer(&stream)?;
/// // A connection within this machine passes no balancer.
/// assert_eq!(peer.client, client.local_addr()?);
/// assert_eq!(peer.balancer, None);
/// assert_eq!(peer.origin, toa_peer::Origin::Getpeername);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let socket = SockRef::from(&socket);
    let Ok(client) = ask(&socket, CLIENT)? else {
        return Ok(Peer {
            client: name(&socket)?,
            balancer: None,
            origin: Origin::Getpeername,
        });
    };
    let balancer = match ask(&socket, BALANCER) {
        // The connection has ended between the two calls. The client is still valid.
        Err(error) if error.kind() == ErrorKind::NotConnected => None,
        balancer => balancer?.ok(),
    };
    Ok(Peer {
        client,
        balancer,
        origin: Origin::Toa,
    })
}

/// Returns the client that the module has for this socket.
///
/// `None` if the connection came without the option, the module is not loaded, or the
/// socket is not TCP. Always `None` on systems other than Linux.
///
/// # Errors
///
/// [`NotConnected`](ErrorKind::NotConnected) if the module is loaded and the
/// socket is not connected, and `ENOTSOCK` for a descriptor that is not a socket.
///
/// # Examples
///
/// Make a feature depend on the source of the address:
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _) = listener.accept()?;
/// match toa_peer::client_by_toa(&stream)? {
///     Some(client) => println!("the balancer sent {client}"),
///     None => println!("no client from a balancer"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn client_by_toa(socket: impl AsFd) -> io::Result<Option<SocketAddr>> {
    Ok(client_or_reason(socket)?.ok())
}

/// Returns the client that the module has for this socket, or the reason why it has none.
///
/// # Errors
///
/// The errors of [`client_by_toa`].
///
/// # Examples
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _) = listener.accept()?;
/// if let Err(reason) = toa_peer::client_or_reason(&stream)? {
///     println!("no client: {reason}");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn client_or_reason(socket: impl AsFd) -> io::Result<Result<SocketAddr, NoClient>> {
    ask(&SockRef::from(&socket), CLIENT)
}

/// Returns the balancer of this socket: the address that `getpeername` would return
/// without the module.
///
/// `None` in the cases of [`client_by_toa`], and with other modules for TOA, which have
/// no option for the balancer.
///
/// # Errors
///
/// The errors of [`client_by_toa`].
///
/// # Examples
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _) = listener.accept()?;
/// if let Some(balancer) = toa_peer::balancer(&stream)? {
///     println!("over {balancer}");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn balancer(socket: impl AsFd) -> io::Result<Option<SocketAddr>> {
    Ok(ask(&SockRef::from(&socket), BALANCER)?.ok())
}

/// Asks the module for an option. Its level is IPPROTO_IP for AF_INET6 sockets as well,
/// whatever their traffic is.
#[cfg(target_os = "linux")]
fn ask(socket: &Socket, option: c_int) -> io::Result<Result<SocketAddr, NoClient>> {
    let mut room = [0; answer::LENGTH];
    let socket = socket.as_fd();
    answer::read(sys::getsockopt(socket, libc::IPPROTO_IP, option, &mut room))
}

/// Has no answer, because the module exists on Linux only.
#[cfg(not(target_os = "linux"))]
fn ask(_: &Socket, _: c_int) -> io::Result<Result<SocketAddr, NoClient>> {
    Ok(Err(NoClient::NoModule))
}

/// Returns the result of `getpeername`.
fn name(socket: &Socket) -> io::Result<SocketAddr> {
    let name = socket.peer_addr()?;
    let address = name.as_socket().ok_or_else(|| no_address(&name))?;
    Ok(unmapped(address))
}

fn no_address(name: &SockAddr) -> io::Error {
    let kind = ErrorKind::Unsupported;
    if name.is_unix() {
        return io::Error::new(kind, "the peer of a UNIX socket has no address");
    }
    let family = name.family();
    io::Error::new(kind, format!("a peer of family {family} has no IP address"))
}

/// Turns an IPv4-mapped address into IPv4; others stay unchanged, with their scope.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The README, whose examples rustdoc compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV6;

    #[test]
    fn scope_and_flow_of_an_ipv6_address_are_kept() {
        let ip = "fe80::1".parse().expect("an address");
        let address = SocketAddr::V6(SocketAddrV6::new(ip, 4660, 7, 3));
        assert_eq!(unmapped(address), address);
    }

    #[test]
    fn peer_is_written_in_one_line() {
        let client = "[2001:db8:7::7]:42275".parse().expect("an address");
        let mut peer = Peer {
            client,
            balancer: "10.0.1.6:1025".parse().ok(),
            origin: Origin::Toa,
        };
        let line = "[2001:db8:7::7]:42275 by toa, balancer 10.0.1.6:1025";
        assert_eq!(peer.to_string(), line);
        (peer.balancer, peer.origin) = (None, Origin::Getpeername);
        assert_eq!(peer.to_string(), "[2001:db8:7::7]:42275 by getpeername");
    }

    #[test]
    fn origin_is_written_in_one_word() {
        assert_eq!(Origin::Toa.to_string(), "toa");
        assert_eq!(Origin::Getpeername.to_string(), "getpeername");
        assert_eq!(format!("{:>5}", Origin::Toa), "  toa");
    }
}
