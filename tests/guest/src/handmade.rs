// SPDX-License-Identifier: GPL-2.0

//! A client without a kernel, behind a TUN device of the server's host or the client's.
//! The test makes the client's segments by hand and reads the answers.

use std::cell::Cell;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use etherparse::ip_number;
use etherparse::IpFragOffset;
use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::Ipv6Header;
use etherparse::TcpHeader;
use nix::poll::PollFlags;

use crate::capture::Segment;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::sockets::Accepted;
use crate::sys;
use crate::wait;

/// The client's addresses, of TEST-NET-1 and RFC 3849.
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);

/// The names of its devices, for IPv4 and IPv6: a host may have both.
const DEVICES: [&str; 2] = ["handmade4", "handmade6"];

const HOPS: u8 = 64;
const WINDOW: u16 = 65000;

/// The first sequence number of every connection.
const FIRST_SEQUENCE: u32 = 1000;

/// A handmade client, which is removed with its device on drop.
#[derive(Debug)]
pub struct HandmadeClient {
    tun: File,
    address: IpAddr,
    target: SocketAddr,
    /// The bytes between the IP header and the TCP header, and their IPv6 protocol number.
    between: (IpNumber, Vec<u8>),
    /// The bytes behind the IP header that its packets' first fragments have.
    cut: Cell<Option<usize>>,
}

impl HandmadeClient {
    /// Makes an IPv4 client on the other side of a link of the server's host.
    pub fn new(server: &Namespace) -> Self {
        Self::on_link(server, ADDRESS_V4.into(), SERVER_V4.into())
    }

    /// Makes an IPv6 client on the other side of a link of the server's host.
    pub fn with_ipv6(server: &Namespace) -> Self {
        Self::on_link(server, ADDRESS_V6.into(), SERVER_V6.into())
    }

    /// Makes a client on the other side of a link of the client's host, which forwards
    /// the packets to the balancer.
    pub fn before_balancer(net: &Net, way: Way) -> Self {
        let address = match way.client() {
            IpAddr::V4(_) => ADDRESS_V4.into(),
            IpAddr::V6(_) => ADDRESS_V6.into(),
        };
        Self::behind(&net.client, address, way.virtual_server())
    }

    /// Makes a client on the other side of a link of a host that forwards its packets.
    pub fn behind(host: &Namespace, address: IpAddr, target: IpAddr) -> Self {
        host.sysctl("ipv4/ip_forward", "1");
        host.sysctl("ipv6/conf/all/forwarding", "1");
        Self::on_link(host, address, target)
    }

    fn on_link(host: &Namespace, address: IpAddr, target: IpAddr) -> Self {
        let device = DEVICES[usize::from(address.is_ipv6())];
        let tun = host
            .enter(|| sys::open_tun(device))
            .unwrap_or_else(|error| panic!("device {device}: {error}"));
        host.ip(&format!(
            "link set {device} up\n\
             route add {address} dev {device}\n"
        ));
        Self {
            tun,
            address,
            target: SocketAddr::new(target, PORT),
            between: (ip_number::TCP, Vec::new()),
            cut: Cell::new(None),
        }
    }

    /// Sends packets in two IP fragments from now on, the first with so many bytes behind the IP
    /// header, a multiple of 8; or whole packets.
    pub fn cut_at(&self, cut: Option<usize>) {
        self.cut.set(cut);
    }

    /// With these options in all IPv4 headers, whole words.
    pub fn with_ip_options(mut self, options: &[u8]) -> Self {
        self.between.1 = options.to_vec();
        self
    }

    /// Adds these extension headers to all IPv6 packets; the first one is of that kind.
    pub fn with_extension_headers(mut self, first: IpNumber, headers: &[u8]) -> Self {
        self.between = (first, headers.to_vec());
        self
    }

    /// The name of its device.
    pub fn device(&self) -> &'static str {
        DEVICES[usize::from(self.address.is_ipv6())]
    }

    /// The end of a connection from that port.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Returns a connection that has sent nothing: its first segment is a SYN.
    pub fn begin(&self, port: u16) -> HandmadeConnection<'_> {
        HandmadeConnection {
            client: self,
            port,
            target: self.target,
            sequence: FIRST_SEQUENCE,
            acknowledgement: None,
        }
    }

    /// Sends a SYN to the tests' server; returns the connection and the answer.
    #[track_caller]
    pub fn connect(&self, port: u16, options: &[u8]) -> (HandmadeConnection<'_>, Segment) {
        let mut connection = self.begin(port);
        let answer = connection.open(options, &[]);
        (connection, answer)
    }

    fn write(&self, tcp: TcpHeader, to: IpAddr, payload: &[u8]) {
        let (ip, content) = self.packet(tcp, to, payload);
        let packets = match self.cut.get() {
            Some(cut) => in_fragments(&ip, &content, cut).to_vec(),
            None => vec![[&ip[..], &content].concat()],
        };
        for packet in packets {
            self.write_packet(&packet);
        }
    }

    /// Sends these bytes as a packet.
    #[track_caller]
    pub fn write_packet(&self, packet: &[u8]) {
        (&self.tun).write_all(packet).expect("the device is up");
    }

    /// Returns the IP header of a packet, and what follows it.
    fn packet(&self, mut tcp: TcpHeader, to: IpAddr, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (first, between) = &self.between;
        let length = between.len() + tcp.header_len() + payload.len();
        let (ip, before_tcp, checksum) = match (self.address, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (from, to) = (from.octets(), to.octets());
                let mut ip = Ipv4Header::new(length as u16, HOPS, ip_number::TCP, from, to)
                    .expect("the packet is not too long");
                ip.options = between[..].try_into().expect("40 bytes at the most");
                ip.header_checksum = ip.calc_header_checksum();
                let checksum = tcp.calc_checksum_ipv4(&ip, payload);
                (ip.to_bytes().to_vec(), &[][..], checksum)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = Ipv6Header {
                    payload_length: length as u16,
                    next_header: *first,
                    hop_limit: HOPS,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                let checksum = tcp.calc_checksum_ipv6(&ip, payload);
                (ip.to_bytes().to_vec(), &between[..], checksum)
            }
            _ => panic!("two families"),
        };
        tcp.checksum = checksum.expect("the segment is not too long");
        (ip, [before_tcp, &tcp.to_bytes(), payload].concat())
    }
}

/// Cuts what follows a plain IP header into two packets, behind its first `cut` bytes.
fn in_fragments(ip: &[u8], content: &[u8], cut: usize) -> [Vec<u8>; 2] {
    [(0, &content[..cut]), (cut, &content[cut..])].map(|(offset, part)| {
        let more = offset == 0;
        let header = match Ipv4Header::from_slice(ip) {
            Ok((mut ip, _)) => {
                ip.total_len = (ip.header_len() + part.len()) as u16;
                ip.more_fragments = more;
                ip.fragment_offset =
                    IpFragOffset::try_new(offset as u16 / 8).expect("the offset is small");
                ip.header_checksum = ip.calc_header_checksum();
                ip.to_bytes().to_vec()
            }
            Err(_) => {
                let (mut ip, _) = Ipv6Header::from_slice(ip).expect("an IPv6 header");
                // RFC 8200 section 4.5: next header, reserved, offset and M flag, identification.
                let place = (offset as u16 | u16::from(more)).to_be_bytes();
                let fragment = [ip.next_header.0, 0, place[0], place[1], 0, 0, 0, 1];
                ip.payload_length = (fragment.len() + part.len()) as u16;
                ip.next_header = ip_number::IPV6_FRAGMENTATION_HEADER;
                [&ip.to_bytes()[..], &fragment].concat()
            }
        };
        [&header[..], part].concat()
    })
}

/// A connection from one of its ports, which acknowledges the server's SYN and
/// nothing after it.
pub struct HandmadeConnection<'a> {
    client: &'a HandmadeClient,
    port: u16,
    target: SocketAddr,
    /// The sequence number of the next segment.
    pub sequence: u32,
    /// The acknowledgement number; None before the server's answer: the next segment is the SYN.
    pub acknowledgement: Option<u32>,
}

impl HandmadeConnection<'_> {
    /// Directs the connection to another port of the server.
    pub fn towards_port(mut self, port: u16) -> Self {
        self.target.set_port(port);
        self
    }

    /// Sends a SYN, with data or without, and continues at the answer's acknowledgement.
    #[track_caller]
    pub fn open(&mut self, options: &[u8], payload: &[u8]) -> Segment {
        self.send(options, payload);
        let answer = self.receive();
        assert!(answer.syn && answer.ack, "the answer to a SYN: {answer:?}");
        self.sequence = answer.next;
        self.acknowledgement = Some(answer.sequence.wrapping_add(1));
        answer
    }

    /// Sends a segment with these options, padded with zeroes.
    #[track_caller]
    pub fn send(&mut self, options: &[u8], payload: &[u8]) {
        self.send_with(|_| (), options, payload);
    }

    /// Sends a segment with these options and a modified header, such as other flags.
    #[track_caller]
    pub fn send_with(&mut self, change: impl Fn(&mut TcpHeader), options: &[u8], payload: &[u8]) {
        let tcp = self.segment(change, options);
        self.sequence += payload.len() as u32 + u32::from(tcp.fin);
        self.client.write(tcp, self.target.ip(), payload);
    }

    fn segment(&self, change: impl Fn(&mut TcpHeader), options: &[u8]) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.port, self.target.port(), self.sequence, WINDOW);
        tcp.set_options_raw(options).expect("the options fit");
        tcp.syn = self.acknowledgement.is_none();
        tcp.ack = !tcp.syn;
        tcp.acknowledgment_number = self.acknowledgement.unwrap_or(0);
        change(&mut tcp);
        tcp
    }

    /// Returns the packet of such a segment, and the place of its TCP header. The connection does not
    /// take it as sent.
    pub fn packet(
        &self,
        change: impl Fn(&mut TcpHeader),
        options: &[u8],
        payload: &[u8],
    ) -> (Vec<u8>, usize) {
        let (ip, content) =
            self.client
                .packet(self.segment(change, options), self.target.ip(), payload);
        let place = ip.len();
        ([ip, content].concat(), place)
    }

    /// Sends a byte and receives one: the connection works in both directions.
    #[track_caller]
    pub fn exchange(&mut self, accepted: &mut Accepted) {
        self.send(&[], b"?");
        let mut byte = [0];
        let received = accepted.stream.read_exact(&mut byte);
        received.expect("the server receives");
        assert_eq!(&byte, b"?");
        let sent = accepted.stream.write_all(b"!");
        sent.expect("the server sends");
        let mut answer = self.receive();
        while answer.payload == 0 {
            answer = self.receive();
        }
        assert_eq!((answer.payload, answer.next), (1, self.sequence));
    }

    /// The server's next segment to this port.
    #[track_caller]
    pub fn receive(&mut self) -> Segment {
        let mut packet = [0; 2048];
        let mut tun = &self.client.tun;
        loop {
            wait::ready(tun, PollFlags::POLLIN, "an answer of the server");
            let length = match tun.read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("the device: {error}"),
            };
            // The kernel also sends neighbour discovery there.
            match Segment::parse(&packet[..length]) {
                Some(segment) if segment.target.port() == self.port => return segment,
                _ => {}
            }
        }
    }

    /// Sends a request, returns the server's data until its FIN or reset, and forgets the
    /// connection by a reset.
    #[track_caller]
    pub fn converse(mut self, request: &[u8]) -> Vec<u8> {
        self.send(&[], request);
        let mut answer = Vec::new();
        loop {
            let segment = self.receive();
            if segment.rst {
                return answer;
            }
            // A segment whose acknowledgement was late comes again.
            if Some(segment.sequence) != self.acknowledgement {
                continue;
            }
            answer.extend(&segment.data);
            let length = segment.payload as u32;
            self.acknowledgement = Some(segment.sequence.wrapping_add(length));
            if segment.fin {
                self.send_with(|tcp| tcp.rst = true, &[], &[]);
                return answer;
            }
            if length > 0 {
                self.send(&[], &[]);
            }
        }
    }
}
