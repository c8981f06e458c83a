// SPDX-License-Identifier: GPL-2.0

//! The program's command line.

use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use toa_balancer::service::Service;

const SERVICES: &str = "\
SERVICES
  A service is a list of key=value with commas between:

  vip=ADDR:PORT       the virtual server: 198.51.100.1:80, [2001:db8::1]:80
  rs=ADDR:PORT        the real server; IPv4 behind an IPv6 vip is NAT64
  plan=ITEM+ITEM...   the bytes to insert, in this order (default: toa; or none)
      toa                 the client, 8 bytes for IPv4, 20 for IPv6
      toa:ADDR:PORT       a toa item with a forged address
      nop, eol            one byte 1, one byte 0
      hex:BYTES           bytes as given, valid or not
  kind=N              kind of the toa items (default: 254)
  pad=nop|eol         fills the plan up to 32 bits (default: nop)
  segments=...        the segments that get the plan
      all                 (default) as DPVS: the client's, without SYN or RST,
                          until it acknowledges data of the server
      ack-only            those of all without payload
      data-only           those of all with payload
      syn                 the client's SYN and nothing else
  place=...           the plan's place in the header
      front               (default) as DPVS: before the segment's own options
      back                after the segment's own options
      only                instead of the segment's own options
  mss=lower|keep      lower: the SYN-ACK's MSS is less by the plan's length (default)
  lose=ack            drops the client's segments without payload until one
                      with payload, FIN or RST arrives

EXAMPLES
  toa-balancer --client-ns c --server-ns s --lip 10.9.0.0/24 --lip fd00:9::/112 \\
      --service 'vip=198.51.100.1:80,rs=10.0.0.1:80' \\
      --service 'vip=[2001:db8:100::1]:80,rs=[fd00::1]:80,plan=nop+toa' \\
      --service 'vip=[2001:db8:164::1]:80,rs=10.0.0.1:80'
  ...,plan=toa+toa:203.0.113.99:22      a second option, forged
  ...,plan=hex:fe14010203040506         a length that runs past the header's end
  ...,segments=data-only,lose=ack       the handshake's ACK is lost

OUTPUT
  `ready` when packets can flow; one line of JSON with the counters on SIGTERM or
  SIGINT. The devices and their routes disappear with the process.

NAMESPACES
  The program adds routes to the vips (client) and to the local addresses (server).
  The caller assigns the addresses of clients and real servers. rp_filter may be strict.";

/// FullNAT balancer between two network namespaces that inserts the TCP option TOA as DPVS does.
#[derive(Debug, Parser)]
#[command(version, after_help = SERVICES)]
pub struct Args {
    /// The clients' namespace: a name, or a path such as /run/netns/NAME
    #[arg(long, value_name = "NS")]
    pub client_ns: PathBuf,

    /// The real servers' namespace
    #[arg(long, value_name = "NS")]
    pub server_ns: PathBuf,

    /// Name of the TUN device in the clients' namespace
    #[arg(long, value_name = "NAME", default_value = "tclient")]
    pub client_dev: String,

    /// Name of the TUN device in the servers' namespace
    #[arg(long, value_name = "NAME", default_value = "tserver")]
    pub server_dev: String,

    /// Local addresses, IPv4 or IPv6; repeatable
    #[arg(long, value_name = "PREFIX", required = true)]
    pub lip: Vec<IpNet>,

    /// A virtual server, see below; repeatable
    #[arg(long, value_name = "SPEC", required = true)]
    pub service: Vec<Service>,

    /// MTU of both devices
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(1280..))]
    pub mtu: u16,

    /// Time for which a closed connection keeps its local port
    #[arg(long, value_name = "SECONDS", default_value_t = 7)]
    pub grace: u64,

    /// Seed of the sequence numbers' shifts and of --drop, --duplicate and --reorder
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Share of the packets, in both directions, that is dropped
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub drop: u8,

    /// Share of the packets that arrives twice
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub duplicate: u8,

    /// Share of the packets that arrives after the next packet, or after 10 ms without one
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub reorder: u8,
}
