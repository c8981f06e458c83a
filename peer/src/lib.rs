// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who is the client of a TCP socket behind a FullNAT load balancer, and which
//! balancer is between them.
//!
//! The balancer puts its client's address into a TCP option. The kernel module toa
//! reads it, and [`peer`] asks the module; where it is not loaded, or knows no
//! client, `getpeername`. A server that listens on an IPv4 address behind a NAT64
//! balancer has no other way to know its IPv6 clients.
//!
//! ```
//! use std::io;
//! use std::net::TcpStream;
//!
//! fn log(stream: &TcpStream) -> io::Result<()> {
//!     let peer = toa_peer::peer(stream)?;
//!     println!("client {} by {}", peer.client, peer.origin);
//!     Ok(())
//! }
//! ```
//!
//! The sockets of tokio, mio and socket2 will do as well as those of the standard
//! library: all that is taken is a descriptor ([`AsFd`]).
//!
//! It can be believed only if nobody but the balancer reaches the server's port:
//! whoever else does can claim any address.

#![deny(missing_docs)]
#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(not(target_os = "linux"))]
compile_error!("toa is a module of Linux: elsewhere use TcpStream::peer_addr");

mod answer;
#[allow(unsafe_code)]
mod sys;

use std::fmt;
use std::io;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use socket2::SockAddr;
use socket2::SockRef;

/// `getsockopt` option of the client, known as `TOA_SO_GET_LOOKUP` from DPVS.
const CLIENT: libc::c_int = 4096;

/// `getsockopt` option of the balancer, which only toa has.
const BALANCER: libc::c_int = 4097;

/// Who is at the other end of a connection.
///
/// All ports are in host order, as everywhere in Rust. Addresses are never
/// IPv4-mapped: `::ffff:203.0.113.7` is told as `203.0.113.7`, so that the same
/// client looks the same through every kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The client, as far as [`origin`](Self::origin) can say.
    pub client: SocketAddr,
    /// The balancer between them: the address and port that the connection really
    /// comes from. `None` if the module did not tell a client.
    pub balancer: Option<SocketAddr>,
    /// Who says so.
    pub origin: Origin,
}

/// Where [`Peer::client`] is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From the balancer, by a TCP option that the module has read.
    Toa,
    /// From `getpeername`. Without the module that is the balancer, if there is
    /// one.
    Getpeername,
}

impl fmt::Display for Origin {
    /// `toa` or `getpeername`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Toa => "toa",
            Self::Getpeername => "getpeername",
        })
    }
}

/// Who is at the other end of this socket.
///
/// The module is asked first. Where it does not know a client, or is not loaded,
/// `getpeername` is asked. Either way it takes two system calls, and nothing is kept
/// from one call to the next.
///
/// # Errors
///
/// Those of `getpeername`:
///
/// - [`NotConnected`](ErrorKind::NotConnected) (`ENOTCONN`): the socket was never
///   connected, or the connection has ended in both directions, or was reset. This
///   may happen to a server whenever a client goes away early;
/// - `ENOTSOCK`: it is a descriptor of something else;
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
/// // No balancer is on the way to this machine itself.
/// assert_eq!(peer.client, client.local_addr()?);
/// assert_eq!(peer.balancer, None);
/// assert_eq!(peer.origin, toa_peer::Origin::Getpeername);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let socket = socket.as_fd();
    let Some(client) = client_by_toa(socket)? else {
        return Ok(Peer {
            client: name(socket)?,
            balancer: None,
            origin: Origin::Getpeername,
        });
    };
    let balancer = match balancer(socket) {
        // It has ended between the two questions; the client is known already.
        Err(error) if error.kind() == ErrorKind::NotConnected => None,
        balancer => balancer?,
    };
    Ok(Peer {
        client,
        balancer,
        origin: Origin::Toa,
    })
}

/// The client, if the module knows one.
///
/// `None` if it does not: the connection came without the option, the module is
/// not loaded, or the socket is none of TCP.
///
/// # Errors
///
/// [`NotConnected`](ErrorKind::NotConnected) if the module is loaded and the
/// socket is not connected, and what `getsockopt` says to a descriptor that is not
/// a socket.
///
/// # Examples
///
/// To let a feature depend on whether the address can be relied on:
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _) = listener.accept()?;
/// match toa_peer::client_by_toa(&stream)? {
///     Some(client) => println!("the balancer says {client}"),
///     None => println!("the balancer says nothing"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn client_by_toa(socket: impl AsFd) -> io::Result<Option<SocketAddr>> {
    ask(socket.as_fd(), CLIENT)
}

/// The balancer, if the module knows a client of the connection: the address that
/// `getpeername` would tell without the module.
///
/// `None` as with [`client_by_toa`], and with modules of others, which have no
/// such option.
///
/// # Errors
///
/// Those of [`client_by_toa`].
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
    ask(socket.as_fd(), BALANCER)
}

/// Asks the module. IPPROTO_IP is right for AF_INET6 sockets as well, whatever
/// their traffic is.
fn ask(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<Option<SocketAddr>> {
    let mut room = [0; answer::LENGTH];
    answer::read(sys::getsockopt(socket, libc::IPPROTO_IP, option, &mut room))
}

/// What getpeername says.
fn name(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let name = SockRef::from(&socket).peer_addr()?;
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

/// An IPv4-mapped address as IPv4; others stay as they are, with their scope.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Its examples are compiled, too.
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
    fn origin_is_written_in_one_word() {
        assert_eq!(Origin::Toa.to_string(), "toa");
        assert_eq!(Origin::Getpeername.to_string(), "getpeername");
        assert_eq!(format!("{:>5}", Origin::Toa), "  toa");
    }
}
