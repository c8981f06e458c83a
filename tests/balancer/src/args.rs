// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use toa_balancer::service::Service;

const SERVICES: &str = "\
SERVICES
  A service is a list of key=value with commas between:

  vip=ADDR:PORT       what clients connect to: 198.51.100.1:80, [2001:db8::1]:80
  rs=ADDR:PORT        the real server; IPv4 behind an IPv6 vip is NAT64
  plan=ITEM+ITEM...   what is inserted, in this order (default: toa; none: nothing)
      toa                 the client, 8 bytes for IPv4, 20 for IPv6
      toa:ADDR:PORT       the same with a forged address
      nop, eol            one byte 1, one byte 0
      hex:BYTES           bytes as given; their lengths need not be true
  kind=N              kind of the toa items (default: 254)
  pad=nop|eol         fills the plan up to 32 bits (default: nop)
  segments=...        the segments that get the plan
      all                 (default) as DPVS: all of the client without SYN or RST
                          until it acknowledges data of the server
      ack-only            those of them without payload
      data-only           those of them with payload
      syn                 the client's SYN and nothing else
  place=...           where the plan stands in the header
      front               (default) as DPVS: before the segment's own options
      back                after them
      only                instead of them
  mss=lower|keep      lower: the SYN-ACK's MSS is less by the plan's length (default)
  lose=ack            the client's segments without payload are lost until one
                      with payload, FIN or RST came by

EXAMPLES
  toa-balancer --client-ns c --server-ns s --lip 10.9.0.0/24 --lip fd00:9::/112 \\
      --service 'vip=198.51.100.1:80,rs=10.0.0.1:80' \\
      --service 'vip=[2001:db8:100::1]:80,rs=[fd00::1]:80,plan=nop+toa' \\
      --service 'vip=[2001:db8:164::1]:80,rs=10.0.0.1:80'
  ...,plan=toa+toa:203.0.113.99:22      a second option, forged
  ...,plan=hex:fe14010203040506         a length that runs past the header's end
  ...,segments=data-only,lose=ack       the handshake's ACK is lost

OUTPUT
  `ready` when packets can flow; on SIGTERM or SIGINT one line of JSON with what was
  counted. The devices and their routes go away with the process.

NAMESPACES
  The program adds routes to the vips (client) and to the local addresses (server).
  Addresses of clients and real servers are the caller's. Strict rp_filter is fine.";

/// FullNAT balancer between two network namespaces that inserts the TCP option TOA as DPVS does.
#[derive(Debug, Parser)]
#[command(version, after_help = SERVICES)]
pub struct Args {
    /// Namespace of the clients: a name, or a path such as /run/netns/NAME
    #[arg(long, value_name = "NS")]
    pub client_ns: PathBuf,

    /// Namespace of the real servers
    #[arg(long, value_name = "NS")]
    pub server_ns: PathBuf,

    /// TUN device to make in the clients' namespace
    #[arg(long, value_name = "NAME", default_value = "tclient")]
    pub client_dev: String,

    /// TUN device to make in the servers' namespace
    #[arg(long, value_name = "NAME", default_value = "tserver")]
    pub server_dev: String,

    /// Local addresses, IPv4 or IPv6; may be given again
    #[arg(long, value_name = "PREFIX", required = true)]
    pub lip: Vec<IpNet>,

    /// A virtual server, see below; may be given again
    #[arg(long, value_name = "SPEC", required = true)]
    pub service: Vec<Service>,

    /// MTU of both devices
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(1280..))]
    pub mtu: u16,

    /// How long a closed connection keeps its local port
    #[arg(long, value_name = "SECONDS", default_value_t = 7)]
    pub grace: u64,

    /// Makes the shifts of sequence numbers repeatable, and what is lost, doubled and held
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Of 100 packets, either way, so many do not arrive
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub drop: u8,

    /// So many arrive twice
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub duplicate: u8,

    /// So many arrive after the next one, or 10 ms later if there is none
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub reorder: u8,
}
