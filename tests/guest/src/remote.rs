// SPDX-License-Identifier: GPL-2.0

//! The far end of the server's connections, made by hand behind a TUN device of the
//! server's host. It connects from any port with any option, accepts connections, and
//! reuses a port at the test's request, over IPv4 and IPv6.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use etherparse::PacketBuilder;
use nix::poll::PollFlags;

use crate::capture::Segment;
use crate::namespace::Namespace;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::sys;
use crate::wait;

/// The far end's addresses, of TEST-NET-1 and RFC 3849.
const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 8, 0, 0, 0, 0, 8);

const DEVICE: &str = "remote";

const HOPS: u8 = 64;
const WINDOW: u16 = 65000;

/// A far end, which is removed with its device on drop.
pub struct Remote {
    tun: File,
    address: IpAddr,
    server: IpAddr,
}

/// The purpose of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Syn,
    SynAck,
    Ack,
    Fin,
}

impl Remote {
    pub fn v4(server: &Namespace) -> Self {
        Self::new(server, ADDRESS_V4.into(), SERVER_V4.into())
    }

    pub fn v6(server: &Namespace) -> Self {
        Self::new(server, ADDRESS_V6.into(), SERVER_V6.into())
    }

    fn new(namespace: &Namespace, address: IpAddr, server: IpAddr) -> Self {
        let tun = namespace
            .enter(|| sys::open_tun(DEVICE))
            .unwrap_or_else(|error| panic!("device {DEVICE}: {error}"));
        namespace.ip(&format!(
            "link set {DEVICE} up\n\
             route add {address} dev {DEVICE}\n"
        ));
        Self {
            tun,
            address,
            server,
        }
    }

    /// Returns the far end's address with that port.
    pub fn end(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Connects to the tests' server, with these options in the segment that
    /// completes the handshake.
    #[track_caller]
    pub fn connect(&self, port: u16, sequence: u32, options: &[u8]) -> FarEnd<'_> {
        let mut end = FarEnd {
            remote: self,
            port,
            server_port: PORT,
            sequence,
            acknowledgement: 0,
        };
        end.send(Flag::Syn, &[]);
        let answer = end.wait_for("a SYN-ACK", |segment| segment.syn && segment.ack);
        end.acknowledgement = answer.sequence.wrapping_add(1);
        end.send(Flag::Ack, options);
        end
    }

    /// Waits until the server connects to that port, and accepts.
    #[track_caller]
    pub fn accept(&self, port: u16) -> FarEnd<'_> {
        let mut end = FarEnd {
            remote: self,
            port,
            server_port: PORT,
            sequence: 7000,
            acknowledgement: 0,
        };
        let syn = end.wait_for("a SYN", |segment| segment.syn && !segment.ack);
        end.server_port = syn.source.port();
        end.acknowledgement = syn.sequence.wrapping_add(1);
        end.send(Flag::SynAck, &[]);
        end.wait_for("an ACK", |segment| segment.ack && !segment.syn);
        end
    }
}

/// One end of a connection.
pub struct FarEnd<'a> {
    remote: &'a Remote,
    port: u16,
    server_port: u16,
    /// The sequence number of the next segment.
    sequence: u32,
    acknowledgement: u32,
}

impl FarEnd<'_> {
    /// Waits for the server's FIN, and ends the connection in order.
    #[track_caller]
    pub fn finish_after_the_server(mut self) {
        let fin = self.wait_for("a FIN", |segment| segment.fin);
        self.acknowledgement = fin.sequence.wrapping_add(1);
        self.send(Flag::Fin, &[]);
        self.wait_for("the last ACK", |segment| segment.ack && !segment.fin);
    }

    #[track_caller]
    fn send(&mut self, flag: Flag, options: &[u8]) {
        let header = match (self.remote.address, self.remote.server) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                PacketBuilder::ipv4(source.octets(), target.octets(), HOPS)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                PacketBuilder::ipv6(source.octets(), target.octets(), HOPS)
            }
            families => panic!("two families: {families:?}"),
        };
        let header = header.tcp(self.port, self.server_port, self.sequence, WINDOW);
        let header = match flag {
            Flag::Syn => header.syn(),
            Flag::SynAck => header.syn().ack(self.acknowledgement),
            Flag::Ack => header.ack(self.acknowledgement),
            Flag::Fin => header.fin().ack(self.acknowledgement),
        };
        let mut packet = Vec::new();
        header
            .options_raw(options)
            .expect("the options fit")
            .write(&mut packet, &[])
            .expect("the packet is not too long");
        (&self.remote.tun)
            .write_all(&packet)
            .expect("the device is up");
        if flag != Flag::Ack {
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Returns the server's next segment to this port that satisfies the condition.
    #[track_caller]
    fn wait_for(&self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Segment {
        let mut packet = [0; 2048];
        loop {
            wait::ready(&self.remote.tun, PollFlags::POLLIN, what);
            let length = match (&self.remote.tun).read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("device {DEVICE}: {error}"),
            };
            // The kernel also sends neighbour discovery there.
            match Segment::parse(&packet[..length]) {
                Some(segment) if segment.target.port() == self.port && wanted(&segment) => {
                    return segment;
                }
                _ => {}
            }
        }
    }
}
