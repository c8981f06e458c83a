// SPDX-License-Identifier: GPL-2.0

//! Clients that consist of segments written to a TUN device: within one write, the
//! kernel receives a segment and does all the resulting work.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use etherparse::PacketBuilder;
use etherparse::SlicedPacket;
use etherparse::TransportSlice;
use nix::poll::PollFlags;

use crate::namespace::Namespace;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::sys;
use crate::wait;

const DEVICE: &str = "tbench";

/// The source of the segments, a local address of a balancer.
pub const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
pub const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1);

/// The first of the source ports, which are used in turn, and their number.
const FIRST_PORT: u16 = 1024;
const PORTS: u32 = 64_000;

/// The number of clients so far, of all wires.
static CLIENTS: AtomicU32 = AtomicU32::new(0);

const WINDOW: u16 = 65_535;
const FIRST_SEQUENCE: u32 = 1_000_000;

/// The first sequence numbers of two clients with one port differ by this: a server that ended the
/// earlier connection first remembers its numbers for a minute.
const SEQUENCE_STEP: u32 = 1_000_000;
const HOPS: u8 = 64;

/// Size of a buffer that is longer than any packet on the device.
const PACKET_MAX: usize = 1500;

/// The device, up and with routes in the server's namespace.
pub struct Wire {
    tun: File,
}

impl Wire {
    #[track_caller]
    pub fn new(server: &Namespace) -> Self {
        let tun = server
            .enter(|| sys::open_tun(DEVICE))
            .unwrap_or_else(|error| panic!("device {DEVICE}: {error}"));
        server.ip(&format!(
            "link set {DEVICE} up\n\
             addr replace {SERVER_V4}/32 dev lo\n\
             addr replace {SERVER_V6}/128 dev lo nodad\n\
             route add {LOCAL_V4}/32 dev {DEVICE}\n\
             route add {LOCAL_V6}/128 dev {DEVICE}\n"
        ));
        Self { tun }
    }

    /// Makes the first half of a handshake.
    #[track_caller]
    pub fn shake_hands(&self, server: SocketAddr) -> Connection {
        let mut connection = self.next_client(server);
        // Segments of the previous connection may be left.
        self.drain();
        self.send(&connection.syn());
        self.receive_answer(&mut connection);
        connection
    }

    /// Receives the answer to the SYN.
    #[track_caller]
    pub fn receive_answer(&self, connection: &mut Connection) {
        connection.sent = connection.sent.wrapping_add(1);
        self.receive_until(connection, Flag::Syn);
    }

    /// Sends a request in a connection, with `options` in the segment that completes the handshake,
    /// and returns when both have ended it.
    #[track_caller]
    pub fn request(&self, server: SocketAddr, options: &[u8], request: &[u8]) {
        let mut connection = self.shake_hands(server);
        self.send(&connection.opening(options));
        self.send(&connection.segment(&[Flag::Ack, Flag::Push], &[], request));
        connection.sent = connection.sent.wrapping_add(request.len() as u32);
        self.receive_until(&mut connection, Flag::Fin);
        self.send(&connection.segment(&[Flag::Ack, Flag::Fin], &[], &[]));
    }

    /// Returns a client with the next port.
    pub fn next_client(&self, server: SocketAddr) -> Connection {
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let (turn, port) = (number / PORTS, number % PORTS);
        let local: IpAddr = match server {
            SocketAddr::V4(_) => LOCAL_V4.into(),
            SocketAddr::V6(_) => LOCAL_V6.into(),
        };
        Connection {
            from: SocketAddr::new(local, FIRST_PORT + port as u16),
            server,
            sent: FIRST_SEQUENCE + turn * SEQUENCE_STEP,
            received: 0,
        }
    }

    #[track_caller]
    pub fn send(&self, packet: &[u8]) {
        (&self.tun)
            .write_all(packet)
            .expect("the kernel takes the packet");
    }

    /// Returns the next packet that the kernel sent, if any.
    #[track_caller]
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match (&self.tun).read(buffer) {
            Ok(length) => Some(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("device {DEVICE}: {error}"),
        }
    }

    /// Receives the server's segments of a connection, to the one with that flag.
    #[track_caller]
    fn receive_until(&self, connection: &mut Connection, flag: Flag) {
        let mut buffer = [0; PACKET_MAX];
        loop {
            wait::ready(&self.tun, PollFlags::POLLIN, "a segment of the server");
            let packet = self.receive(&mut buffer);
            let sliced = packet.and_then(|packet| SlicedPacket::from_ip(packet).ok());
            let Some(TransportSlice::Tcp(tcp)) = sliced.and_then(|sliced| sliced.transport) else {
                continue;
            };
            if tcp.destination_port() != connection.from.port() {
                continue;
            }
            let length = tcp.payload().len() as u32 + u32::from(tcp.syn()) + u32::from(tcp.fin());
            connection.received = tcp.sequence_number().wrapping_add(length);
            let (syn, fin) = (tcp.syn(), tcp.fin());
            if (flag == Flag::Syn && syn) || (flag == Flag::Fin && fin) {
                return;
            }
            if !tcp.payload().is_empty() {
                self.send(&connection.segment(&[Flag::Ack], &[], &[]));
            }
        }
    }

    /// Drops all packets that the kernel sent.
    #[track_caller]
    pub fn drain(&self) {
        let mut buffer = [0; PACKET_MAX];
        while self.receive(&mut buffer).is_some() {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Syn,
    Ack,
    Push,
    Reset,
    Fin,
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Connection {
    from: SocketAddr,
    server: SocketAddr,
    /// The sequence number of the next segment.
    sent: u32,
    /// The sequence number that it acknowledges.
    received: u32,
}

impl Connection {
    /// The source of the segments.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Returns the segment that begins the handshake.
    pub fn syn(&self) -> Vec<u8> {
        self.segment(&[Flag::Syn], &[], &[])
    }

    /// Returns a segment that ends the connection at once.
    pub fn reset(&self) -> Vec<u8> {
        self.segment(&[Flag::Reset], &[], &[])
    }

    /// Returns the segment that completes the handshake.
    pub fn opening(&self, options: &[u8]) -> Vec<u8> {
        self.segment(&[Flag::Ack], options, &[])
    }

    /// Returns the segments of a client that ends the connection first: its FIN, and the
    /// acknowledgement of the server's, which has sent nothing else.
    pub fn ending(&mut self) -> [Vec<u8>; 2] {
        let fin = self.segment(&[Flag::Ack, Flag::Fin], &[], &[]);
        self.sent = self.sent.wrapping_add(1);
        self.received = self.received.wrapping_add(1);
        [fin, self.segment(&[Flag::Ack], &[], &[])]
    }

    fn segment(&self, flags: &[Flag], options: &[u8], payload: &[u8]) -> Vec<u8> {
        let ip = match (self.from.ip(), self.server.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), HOPS)
            }
            (from, to) => panic!("{from} and {to} are of two families"),
        };
        let mut tcp = ip.tcp(self.from.port(), self.server.port(), self.sent, WINDOW);
        for flag in flags {
            tcp = match flag {
                Flag::Syn => tcp.syn(),
                Flag::Ack => tcp.ack(self.received),
                Flag::Push => tcp.psh(),
                Flag::Reset => tcp.rst(),
                Flag::Fin => tcp.fin(),
            };
        }
        let tcp = tcp.options_raw(options).expect("the options fit");
        let mut packet = Vec::new();
        tcp.write(&mut packet, payload).expect("a packet");
        packet
    }
}
