// SPDX-License-Identifier: GPL-2.0

//! A FullNAT balancer between two network namespaces. It passes the client's address
//! to the real server in the TCP option TOA, as DPVS does.
//!
//! ```text
//!  client namespace                                        server namespace
//!  client ──► VIP ── tclient ──► [ toa-balancer ] ──► tserver ── LIP ──► real server
//! ```
//!
//! # The wire
//!
//! The balancer follows DPVS's `ip_vs_proto_tcp.c` (v1.10):
//!
//! - The SYN carries no TOA option. Its timestamps option becomes NOPs, since all
//!   clients behind one local address would share one clock.
//! - The MSS of the SYN-ACK is lowered by the option's length: 8 bytes for an IPv4
//!   client, 20 for an IPv6 client.
//! - The client's segments carry the option while their acknowledgement number is the
//!   server's first sequence number + 1. These are the handshake's ACK and all segments
//!   until the client acknowledges data of the server. Segments with SYN or RST carry
//!   none. The option directly follows the fixed header.
//! - The client's sequence numbers are shifted by a random number per connection.
//!   The server's acknowledgements and SACK blocks are shifted back.
//! - If the header (60 bytes) or the MTU has no room, the segment's own options are
//!   cut: first NOPs and options of the same kind, then all but timestamps. If there
//!   is still no room, the segment leaves without the option.
//! - An IPv6 client may have an IPv4 server (NAT64): the 20-byte option in IPv4.
//!
//! Tests may choose other behaviour: see [`service::Service`] and [`plan::Plan`].
//!
//! # The namespaces
//!
//! The program makes the TUN devices and their routes: for virtual servers in the
//! client namespace, for local addresses in the server namespace. The caller assigns
//! the addresses of clients and real servers, on any interface. The caller also adds
//! a route back for connections without a bound source address. The routes are
//! symmetric, so `rp_filter` may be strict. Neither namespace has to forward. If
//! `/dev/net/tun` is missing, run `modprobe tun` first.
//!
//! # The code
//!
//! [`balancer::Balancer`] and its modules decide on packets. They do no input or
//! output, and receive the time as an argument. `main.rs` and its modules move
//! packets between the devices.

pub mod balancer;
pub mod flow;
pub mod local;
pub mod options;
pub mod packet;
pub mod plan;
pub mod service;
pub mod session;
pub mod statistics;
pub mod weather;
