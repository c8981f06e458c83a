// SPDX-License-Identifier: GPL-2.0

//! A client that is nobody's kernel: the test makes its segments by hand and
//! reads the answers, behind a TUN device of the server's host.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use nix::poll::PollFlags;

use crate::capture::Segment;
use crate::namespace::Namespace;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::sys;
use crate::wait;

/// Its address, of TEST-NET-1.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

const DEVICE: &str = "handmade";

const HOPS: u8 = 64;
const WINDOW: u16 = 65000;

/// What every connection begins with.
const FIRST_SEQUENCE: u32 = 1000;

/// Exists, and its device with it, until it is dropped.
pub struct HandmadeClient {
    tun: File,
}

impl HandmadeClient {
    /// On the other side of a link of the server's.
    pub fn new(server: &Namespace) -> Self {
        let tun = server
            .enter(|| sys::open_tun(DEVICE))
            .unwrap_or_else(|error| panic!("device {DEVICE}: {error}"));
        server.ip(&format!(
            "link set {DEVICE} up\n\
             route add {ADDRESS}/32 dev {DEVICE}\n"
        ));
        Self { tun }
    }

    /// Sends a SYN to the tests' server; gives its answer too.
    #[track_caller]
    pub fn connect(&self, port: u16, options: &[u8]) -> (HandmadeConnection<'_>, Segment) {
        let mut connection = HandmadeConnection {
            tun: &self.tun,
            port,
            sequence: FIRST_SEQUENCE,
            acknowledgement: None,
        };
        connection.send(options, &[]);
        let answer = connection.receive();
        assert!(answer.syn && answer.ack, "the answer to a SYN: {answer:?}");
        connection.sequence += 1;
        connection.acknowledgement = Some(answer.sequence.wrapping_add(1));
        (connection, answer)
    }
}

/// A connection from one of its ports, which acknowledges the server's SYN and
/// nothing after it.
pub struct HandmadeConnection<'a> {
    tun: &'a File,
    port: u16,
    /// Of the next segment.
    sequence: u32,
    /// None before the server has answered: the next segment is the SYN.
    acknowledgement: Option<u32>,
}

impl HandmadeConnection<'_> {
    /// Sends a segment with these options, filled up with zeroes.
    #[track_caller]
    pub fn send(&mut self, options: &[u8], payload: &[u8]) {
        let header = PacketBuilder::ipv4(ADDRESS.octets(), SERVER_V4.octets(), HOPS).tcp(
            self.port,
            PORT,
            self.sequence,
            WINDOW,
        );
        let header = match self.acknowledgement {
            Some(number) => header.ack(number),
            None => header.syn(),
        };
        let mut packet = Vec::new();
        header
            .options_raw(options)
            .expect("the options fit")
            .write(&mut packet, payload)
            .expect("the packet is not too long");
        self.tun.write_all(&packet).expect("the device is up");
        self.sequence += payload.len() as u32;
    }

    /// The server's next segment to this port.
    #[track_caller]
    pub fn receive(&mut self) -> Segment {
        let mut packet = [0; 2048];
        loop {
            wait::ready(self.tun, PollFlags::POLLIN, "an answer of the server");
            let length = match self.tun.read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("device {DEVICE}: {error}"),
            };
            // The kernel also says hello to IPv6 neighbours there.
            match Segment::parse(&packet[..length]) {
                Some(segment) if segment.target.port() == self.port => return segment,
                _ => {}
            }
        }
    }
}
