// SPDX-License-Identifier: GPL-2.0

//! A FullNAT balancer between two network namespaces that tells the real server
//! who the client is, by the TCP option TOA, in the way of DPVS.
//!
//! ```text
//!  client namespace                                        server namespace
//!  client ──► VIP ── tclient ──► [ toa-balancer ] ──► tserver ── LIP ──► real server
//! ```
//!
//! # The wire
//!
//! As DPVS's `ip_vs_proto_tcp.c` (v1.10) has it:
//!
//! - Nothing is put in the SYN; its timestamps option becomes NOPs, since all
//!   clients behind one local address would share one clock.
//! - The MSS of the SYN-ACK is lowered by what is inserted: 8 bytes for a client
//!   with IPv4, 20 for one with IPv6.
//! - Each segment of the client without SYN or RST whose acknowledgement number is
//!   the server's first sequence number + 1 carries the option right after the
//!   fixed header: the handshake's ACK and all that follows until the client
//!   acknowledges data of the server.
//! - Sequence numbers of the client are shifted by a number of the connection's
//!   own; acknowledgements and SACK blocks of the server are shifted back.
//! - Where the header (60 bytes) or the MTU has no room, the segment's own options
//!   are cut: first NOPs and options of the same kind, then all but timestamps.
//!   Where that does not help the segment goes out without the option.
//! - An IPv6 client may have an IPv4 server (NAT64): 20 bytes of option in IPv4.
//!
//! A test may ask for something else: see [`service::Service`] and [`plan::Plan`].
//!
//! # The namespaces
//!
//! The program makes the TUN devices, their routes for virtual servers (client
//! namespace) and local addresses (server namespace), and nothing else. Addresses
//! of clients and real servers are the caller's, on any interface, with a route
//! back for connections that do not choose their own source address. Those routes
//! are symmetric, so `rp_filter` may be strict. Neither namespace has to forward.
//! The kernel's `tun` driver is to be there: where nothing makes `/dev/net/tun` on
//! demand, `modprobe tun` comes first.
//!
//! # The code
//!
//! All that decides about packets ([`balancer::Balancer`] and what it uses) does
//! no input or output and takes the time as an argument; `main.rs` and its modules
//! move packets between the devices.

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
