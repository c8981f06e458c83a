// SPDX-License-Identifier: GPL-2.0

//! A TCP segment in its IP packet, parsed and serialised (RFC 791, RFC 8200, RFC 9293).

use std::net::SocketAddrV4;
use std::net::SocketAddrV6;

use etherparse::ip_number;
use etherparse::IpSlice;
use etherparse::Ipv4Header;
use etherparse::Ipv6Header;
use etherparse::TcpHeader;
use etherparse::TcpSlice;

use crate::flow::Flow;

/// The reason for which the balancer rejects a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Another protocol: neighbour discovery, ICMP, UDP …
    NotTcp,
    /// A truncated packet, a fragment, or IPv6 extension headers (as DPVS's NAT64).
    Malformed,
}

#[derive(Clone, Debug)]
enum Ip {
    V4(Ipv4Header),
    V6(Ipv6Header),
}

/// A packet: a copy of the headers, and the payload in the receive buffer.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    ip: Ip,
    pub tcp: TcpHeader,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Unfit> {
        let (ip, segment) = match IpSlice::from_slice(bytes).map_err(|_| Unfit::Malformed)? {
            IpSlice::Ipv4(v4) => (Ip::V4(v4.header().to_header()), v4.payload().clone()),
            IpSlice::Ipv6(v6) => {
                let header = v6.header().to_header();
                if header.next_header != v6.payload().ip_number {
                    return Err(not_tcp_or_malformed(v6.payload().ip_number));
                }
                (Ip::V6(header), v6.payload().clone())
            }
        };
        if segment.ip_number != ip_number::TCP {
            return Err(Unfit::NotTcp);
        }
        if segment.fragmented {
            return Err(Unfit::Malformed);
        }
        let tcp = TcpSlice::from_slice(segment.payload).map_err(|_| Unfit::Malformed)?;
        let payload = &segment.payload[tcp.header_slice().len()..];
        Ok(Self {
            ip,
            tcp: tcp.to_header(),
            payload,
        })
    }

    pub fn flow(&self) -> Flow {
        let (source, destination) = (self.tcp.source_port, self.tcp.destination_port);
        match &self.ip {
            Ip::V4(ip) => Flow::V4 {
                from: SocketAddrV4::new(ip.source.into(), source),
                to: SocketAddrV4::new(ip.destination.into(), destination),
            },
            Ip::V6(ip) => Flow::V6 {
                from: SocketAddrV6::new(ip.source.into(), source, 0, 0),
                to: SocketAddrV6::new(ip.destination.into(), destination, 0, 0),
            },
        }
    }

    /// Replaces the packet's addresses and ports. If their family differs, the IP header
    /// is new and keeps only the old hop limit, as DPVS's.
    pub fn readdress(&mut self, flow: Flow) {
        self.tcp.source_port = flow.from().port();
        self.tcp.destination_port = flow.to().port();
        match flow {
            Flow::V4 { from, to } => {
                let header = self.ip.as_v4();
                header.source = from.ip().octets();
                header.destination = to.ip().octets();
            }
            Flow::V6 { from, to } => {
                let header = self.ip.as_v6();
                header.source = from.ip().octets();
                header.destination = to.ip().octets();
            }
        }
    }

    /// Returns the length of the whole packet.
    pub fn length(&self) -> usize {
        let ip = match &self.ip {
            Ip::V4(ip) => ip.header_len(),
            Ip::V6(_) => Ipv6Header::LEN,
        };
        ip + self.tcp.header_len() + self.payload.len()
    }

    pub fn has_payload(&self) -> bool {
        !self.payload.is_empty()
    }

    /// Returns whether the segment is the SYN that opens a connection.
    pub fn opens(&self) -> bool {
        let tcp = &self.tcp;
        tcp.syn && !tcp.ack && !tcp.fin && !tcp.rst
    }

    /// Returns whether the segment only acknowledges.
    pub fn is_bare_ack(&self) -> bool {
        let tcp = &self.tcp;
        !self.has_payload() && !tcp.syn && !tcp.fin && !tcp.rst
    }

    /// Writes the packet into `buffer` with its lengths and checksums corrected. Returns
    /// `None` if the packet is longer than IP allows.
    pub fn write(mut self, buffer: &mut Vec<u8>) -> Option<()> {
        let segment = self.tcp.header_len() + self.payload.len();
        buffer.clear();
        match &mut self.ip {
            Ip::V4(ip) => {
                ip.set_payload_len(segment).ok()?;
                ip.header_checksum = ip.calc_header_checksum();
                self.tcp.checksum = self.tcp.calc_checksum_ipv4(ip, self.payload).ok()?;
                buffer.extend_from_slice(&ip.to_bytes());
            }
            Ip::V6(ip) => {
                ip.set_payload_length(segment).ok()?;
                self.tcp.checksum = self.tcp.calc_checksum_ipv6(ip, self.payload).ok()?;
                buffer.extend_from_slice(&ip.to_bytes());
            }
        }
        buffer.extend_from_slice(&self.tcp.to_bytes());
        buffer.extend_from_slice(self.payload);
        Some(())
    }
}

impl Ip {
    fn as_v4(&mut self) -> &mut Ipv4Header {
        if let Self::V6(old) = self {
            *self = Self::V4(Ipv4Header {
                time_to_live: old.hop_limit,
                protocol: ip_number::TCP,
                dont_fragment: true,
                ..Ipv4Header::default()
            });
        }
        match self {
            Self::V4(header) => header,
            Self::V6(_) => unreachable!("the IP header was just replaced"),
        }
    }

    fn as_v6(&mut self) -> &mut Ipv6Header {
        if let Self::V4(old) = self {
            *self = Self::V6(Ipv6Header {
                hop_limit: old.time_to_live,
                next_header: ip_number::TCP,
                ..Ipv6Header::default()
            });
        }
        match self {
            Self::V6(header) => header,
            Self::V4(_) => unreachable!("the IP header was just replaced"),
        }
    }
}

fn not_tcp_or_malformed(number: etherparse::IpNumber) -> Unfit {
    if number == ip_number::TCP {
        Unfit::Malformed
    } else {
        Unfit::NotTcp
    }
}
