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
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1);

/// The first of the source ports, which are used in turn.
const FIRST_PORT: u16 = 1024;

const WINDOW: u16 = 65_535;
const FIRST_SEQUENCE: u32 = 1_000_000;
const HOPS: u8 = 64;

/// Size of a buffer that is longer than any packet on the device.
const PACKET_MAX: usize = 1500;

/// The device, up and with routes in the server's namespace.
pub struct Wire {
    tun: File,
    port: u16,
}

impl Wire {
    #[track_caller]
    pub fn new(server: &Namespace) -> Self {
        let tun = server
            .enter(|| sys::open_tun(DEVICE))
            .unwrap_or_else(|error| panic!("device {DEVICE}: {error}"));
        server.ip(&format!(
            "link set {DEVICE} up\n\
             addr add {SERVER_V4}/32 dev lo\n\
             addr add {SERVER_V6}/128 dev lo nodad\n\
             route add {LOCAL_V4}/32 dev {DEVICE}\n\
             route add {LOCAL_V6}/128 dev {DEVICE}\n"
        ));
        Self {
            tun,
            port: FIRST_PORT,
        }
    }

    /// Makes the first half of a handshake. Returns the source address, and the segment
    /// that completes the handshake, with `options`.
    #[track_caller]
    pub fn shake_hands(&mut self, server: SocketAddr, options: &[u8]) -> (SocketAddr, Vec<u8>) {
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        let local: IpAddr = match server {
            SocketAddr::V4(_) => LOCAL_V4.into(),
            SocketAddr::V6(_) => LOCAL_V6.into(),
        };
        let from = SocketAddr::new(local, self.port);
        // Segments of the previous connection may be left.
        self.drain();
        self.send(&segment(from, server, None, &[]));
        let expected = self.sequence_of_answer(self.port).wrapping_add(1);
        (from, segment(from, server, Some(expected), options))
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

    /// Returns the sequence number of the SYN-ACK to that port.
    #[track_caller]
    fn sequence_of_answer(&self, port: u16) -> u32 {
        let mut buffer = [0; PACKET_MAX];
        loop {
            wait::ready(&self.tun, PollFlags::POLLIN, "a SYN-ACK");
            let packet = self.receive(&mut buffer);
            let sliced = packet.and_then(|packet| SlicedPacket::from_ip(packet).ok());
            match sliced.and_then(|sliced| sliced.transport) {
                Some(TransportSlice::Tcp(tcp)) if tcp.syn() && tcp.destination_port() == port => {
                    return tcp.sequence_number();
                }
                _ => {}
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

/// Returns a client's SYN, or its segment that acknowledges the server's SYN.
fn segment(from: SocketAddr, to: SocketAddr, acknowledged: Option<u32>, options: &[u8]) -> Vec<u8> {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOPS),
        _ => panic!("{from} and {to} are of two families"),
    };
    let sequence = FIRST_SEQUENCE + u32::from(acknowledged.is_some());
    let tcp = ip.tcp(from.port(), to.port(), sequence, WINDOW);
    let tcp = match acknowledged {
        None => tcp.syn(),
        Some(number) => tcp.ack(number),
    };
    let tcp = tcp.options_raw(options).expect("the options fit");
    let mut packet = Vec::new();
    tcp.write(&mut packet, &[]).expect("a packet");
    packet
}
