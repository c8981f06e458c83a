// SPDX-License-Identifier: GPL-2.0

//! Counts the instructions that the module adds to the calls of servers.
//!
//! The virtual machine's clock counts executed instructions ([`clock`]). Each
//! operation runs many times in three phases: without the module, with it, and
//! without it again. The last two phases differ by the module's cost, the first and
//! the last by the error of the method. Most numbers are medians. The number for a
//! whole connection is a mean, which includes deferred work of the kernel, such as
//! freeing.
//!
//! Clients are single segments ([`wire`]): the segment that opens a connection is
//! counted alone, without the work of a client.

mod clock;
pub mod slab;
mod wire;

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::panic::catch_unwind;
use std::time::Duration;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::module;
use crate::namespace::write_policy_here;
use crate::namespace::Namespace;
use crate::net::Way;
use crate::net::PORT;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::Place;
use clock::Clock;
use slab::Slabs;
use wire::Wire;
use wire::LOCAL_V4;

/// Number of connections for one result.
const CONNECTIONS: usize = 1000;

/// Number of batches of calls, and of calls in each batch.
const BATCHES: usize = 200;
const CALLS: usize = 100;

/// The number of the socket option that DPVS's module registers.
const TOA_SO_GET_LOOKUP: libc::c_int = 4096;

/// RFC 7323, appendix A: timestamps behind two no-operations.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];

/// Sizes of the sets of trusted hosts. The empty set trusts any host.
const TRUSTED: [u32; 4] = [0, 1, 16, 1024];

/// Prefixes that do not merge, of which the last one has the source of the segments.
fn prefixes(count: u32) -> String {
    let source = u32::from(LOCAL_V4);
    let prefix = |at: u32| format!("{}/32", Ipv4Addr::from_bits(source - 2 * at));
    (0..count).map(prefix).collect::<Vec<_>>().join(",")
}

/// Number of open connections for the memory measurement.
const RECORDS: usize = 10_000;

/// The results, one number for each row.
type Rows = Vec<(String, f64)>;

/// The results of one phase, with the module or without it.
struct Phase {
    rows: Rows,
    /// The growth of memory with [`RECORDS`] connections.
    growth: Slabs,
}

/// Runs the benchmark; returns whether it succeeded.
pub fn run() -> bool {
    // The reason of a panic is on standard error.
    catch_unwind(measure).is_ok()
}

fn measure() {
    let clock = Clock::calibrate();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("Linux {}", release.trim());
    println!("{clock}");
    // The first run lets the kernel's caches grow.
    phase(&clock, false);
    let before = phase(&clock, false);
    module::load();
    let with = phase(&clock, true);
    module::unload();
    let after = phase(&clock, false);
    print_instructions([&before.rows, &with.rows, &after.rows]);
    print_memory(&with.growth, &after.growth);
}

/// Measures one phase in a new namespace.
fn phase(clock: &Clock, loaded: bool) -> Phase {
    let server = Namespace::new("bench");
    let mut wire = Wire::new(&server);
    let mut phase = server.enter(|| {
        let mut rows = Rows::new();
        for way in [Way::V4, Way::V6] {
            for option in [false, true] {
                let mut bench = Bench::new(clock, &mut wire, way, option, loaded);
                bench.ask_for_names(&mut rows);
                bench.make_connections(&mut rows);
            }
        }
        ask_udp(clock, &mut rows);
        make_loopback_connections(clock, &mut rows);
        Bench::new(clock, &mut wire, Way::V4, true, loaded).open_with_timestamps(&mut rows);
        Bench::new(clock, &mut wire, Way::V4, true, loaded).open_with_trusted_hosts(&mut rows);
        let mut bench = Bench::new(clock, &mut wire, Way::V4, true, loaded);
        Phase {
            rows,
            growth: bench.hold_connections(),
        }
    });
    // The rows follow the order of a server's calls, not that of the measurement.
    let order = ["segment", "accept", "close", "in all", "loopback"];
    let rank = |row: &str| order.iter().position(|word| row.contains(word));
    phase.rows.sort_by_key(|(row, _)| rank(row));
    phase
}

/// A listener of one family, with clients that send the option or not.
struct Bench<'a> {
    clock: &'a Clock,
    wire: &'a mut Wire,
    listener: Listener,
    server: SocketAddr,
    /// The options of the segment that opens a connection.
    option: Vec<u8>,
    /// The client that the server must see; None: the source of the segments.
    told: Option<SocketAddr>,
    loaded: bool,
    name: String,
}

impl<'a> Bench<'a> {
    fn new(clock: &'a Clock, wire: &'a mut Wire, way: Way, option: bool, loaded: bool) -> Self {
        let family = match way {
            Way::V4 | Way::Nat64 => Family::V4,
            Way::V6 => Family::V6Only,
        };
        let client = SocketAddr::new(way.client(), 4321);
        Self {
            clock,
            wire,
            listener: Listener::new(family, PORT),
            server: SocketAddr::new(way.real_server(), PORT),
            option: match option {
                true => toa_option(TOA_KIND, client),
                false => Vec::new(),
            },
            told: (option && loaded).then_some(client),
            loaded,
            name: format!(
                "IPv{}, {} option",
                if family == Family::V4 { 4 } else { 6 },
                if option { "with" } else { "no" }
            ),
        }
    }

    fn row(&self, rows: &mut Rows, what: &str, instructions: f64) {
        rows.push((format!("{what:<20} {}", self.name), instructions));
    }

    /// Opens a connection. Returns it with the costs of its two steps: the segment that
    /// completes the handshake, and accept.
    fn connect(&mut self) -> (Socket, [u64; 2]) {
        let (from, segment) = self.wire.shake_hands(self.server, &self.option);
        let (opening, ()) = self.clock.count(|| self.wire.send(&segment));
        let (accepting, accepted) = self.clock.count(|| self.listener.socket.accept());
        let (socket, peer) = accepted.expect("accept succeeds");
        assert_eq!(peer.as_socket(), Some(self.told.unwrap_or(from)));
        // Closing the socket resets the connection and leaves no state behind.
        let at_once = Some(Duration::ZERO);
        socket.set_linger(at_once).expect("SO_LINGER");
        (socket, [opening, accepting])
    }

    fn ask_for_names(&mut self, rows: &mut Rows) {
        let (socket, _) = self.connect();
        let peer = ask(self.clock, || {
            socket.peer_addr().expect("the socket has a peer")
        });
        let own = ask(self.clock, || {
            socket.local_addr().expect("the socket has a name")
        });
        // The call returns an error without the module.
        let fd = socket.as_raw_fd();
        let option = ask(self.clock, || {
            sys::get_option(fd, libc::IPPROTO_IP, TOA_SO_GET_LOOKUP, Place::AMPLE)
        });
        self.row(rows, "getpeername", peer);
        self.row(rows, "getsockopt 4096", option);
        if self.option.is_empty() {
            self.row(rows, "getsockname", own);
        }
    }

    fn make_connections(&mut self, rows: &mut Rows) {
        let mut steps = [const { Vec::new() }; 3];
        let (all, ()) = self.clock.count(|| {
            for _ in 0..CONNECTIONS {
                let (socket, [opening, accepting]) = self.connect();
                let (closing, ()) = self.clock.count(|| drop(socket));
                steps[0].push(opening);
                steps[1].push(accepting);
                steps[2].push(closing);
            }
        });
        for (what, counts) in ["opening segment", "accept", "close"].iter().zip(steps) {
            self.row(rows, what, clock::median(counts));
        }
        self.row(rows, "connection, in all", all as f64 / CONNECTIONS as f64);
    }

    /// Measures the segment that opens a connection, with timestamps as clients send them.
    fn open_with_timestamps(&mut self, rows: &mut Rows) {
        let told = self.told;
        let option = std::mem::take(&mut self.option);
        for (what, front, told) in [
            ("timestamps", &[][..], None),
            ("option and timestamps", &option[..], told),
        ] {
            self.option = [front, &TIMESTAMPS[..]].concat();
            self.told = told;
            let opening = (0..CONNECTIONS).map(|_| self.connect().1[0]).collect();
            rows.push((format!("opening segment, {what}"), clock::median(opening)));
        }
        (self.option, self.told) = (option, told);
    }

    /// Measures the segment that opens a connection, with sets of trusted hosts.
    fn open_with_trusted_hosts(&mut self, rows: &mut Rows) {
        for count in TRUSTED {
            if self.loaded {
                let set = prefixes(count);
                write_policy_here("trusted", set + "\n").expect("the policy");
            }
            let opening = (0..CONNECTIONS).map(|_| self.connect().1[0]).collect();
            let what = format!("opening segment, {count} prefixes trusted");
            rows.push((what, clock::median(opening)));
        }
        if self.loaded {
            write_policy_here("trusted", "\n").expect("the policy");
        }
    }

    /// Returns the growth of the kernel's memory with all connections open.
    fn hold_connections(&mut self) -> Slabs {
        let before = Slabs::read();
        let sockets: Vec<Socket> = (0..RECORDS).map(|_| self.connect().0).collect();
        let growth = Slabs::read().since(&before);
        drop(sockets);
        self.wire.drain();
        growth
    }
}

/// Returns the median cost of one call.
fn ask<T>(clock: &Clock, mut call: impl FnMut() -> T) -> f64 {
    let mut batch = || (0..CALLS).for_each(|_| drop(std::hint::black_box(call())));
    let costs = (0..BATCHES).map(|_| clock.count(&mut batch).0).collect();
    clock::median(costs) / CALLS as f64
}

fn ask_udp(clock: &Clock, rows: &mut Rows) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    let peer = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    socket.connect(&peer.into()).expect("the socket has a peer");
    let cost = ask(clock, || socket.peer_addr().expect("the socket has a peer"));
    rows.push((format!("{:<20} UDP", "getpeername"), cost));
}

/// Measures whole connections between two sockets: connect, accept, and closing both.
fn make_loopback_connections(clock: &Clock, rows: &mut Rows) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("a listener");
    let server = listener.local_addr().expect("the listener has an address");
    let connection = || {
        let client = TcpStream::connect(server).expect("a connection");
        let accepted = listener.accept().expect("the same connection");
        drop(client);
        drop(accepted);
    };
    let costs = (0..CONNECTIONS).map(|_| clock.count(connection).0);
    let cost = clock::median(costs.collect());
    rows.push((
        format!("{:<20} IPv4, no option", "loopback connection"),
        cost,
    ));
}

fn print_instructions([before, with, after]: [&Rows; 3]) {
    println!(
        "\nInstructions, the program's own included (drift: between the two phases without):\n"
    );
    println!(
        "{:<44} {:>9} {:>9} {:>8} {:>8} {:>7}",
        "", "without", "with", "added", "", "drift"
    );
    for (((row, without), (_, with)), (_, after)) in before.iter().zip(with).zip(after) {
        let added = with - after;
        let ratio = 100.0 * added / after;
        let drift = after - without;
        println!("{row:<44} {after:>9.0} {with:>9.0} {added:>+8.0} {ratio:>+7.1}% {drift:>+7.0}");
    }
}

fn print_memory(with: &Slabs, without: &Slabs) {
    let records = RECORDS as f64;
    println!("\nMemory of {RECORDS} connections with the option, in bytes of slabs for each:\n");
    println!("without {:>8.1}", without.bytes() as f64 / records);
    println!("with    {:>8.1}", with.bytes() as f64 / records);
    println!("\nNew objects:");
    for (class, objects, bytes) in with.since(without).notable(RECORDS as i64 / 100) {
        println!(
            "{class:<20} {objects:>+7} objects {:>+8.1}",
            bytes as f64 / records
        );
    }
}
