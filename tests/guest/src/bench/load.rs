// SPDX-License-Identifier: GPL-2.0

//! The calls and segments that are counted, in one namespace with one subject.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::bench::clock;
use crate::bench::clock::Clock;
use crate::bench::slab::Slabs;
use crate::bench::subject::Subject;
use crate::bench::table::Table;
use crate::bench::wire::Connection;
use crate::bench::wire::Wire;
use crate::bench::wire::LOCAL_V4;
use crate::bench::wire::LOCAL_V6;
use crate::namespace::Namespace;
use crate::net::Way;
use crate::net::PORT;
use crate::servers::Server;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;

/// The connections for one number.
const CONNECTIONS: usize = 500;

/// The batches of calls for one number, and the calls in each batch.
const BATCHES: usize = 200;
const CALLS: usize = 100;

/// The segments of a flood.
const FLOOD: usize = 10_000;

/// The connections that are open while their memory is counted.
pub const HELD: usize = 10_000;

/// The ports of nginx: IPv4, IPv6 and both.
const NGINX: [u16; 3] = [8081, 8082, 8083];

/// The port of the option's client.
const CLIENT_PORT: u16 = 4321;

/// The segments of the main table, and whether they carry the option.
const SHAPES: [(Way, bool); 4] = [
    (Way::V4, false),
    (Way::V4, true),
    (Way::V6, false),
    (Way::V6, true),
];

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// The number of the socket option that DPVS's module registers.
const TOA_SO_GET_LOOKUP: libc::c_int = 4096;

/// RFC 7323, appendix A: timestamps behind two no-operations.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];

/// The sets of trusted hosts. The empty set trusts any host.
const TRUSTED: [u32; 4] = [0, 1, 16, 1024];

/// The ends of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client ends the connection, then the server does.
    Fin,
    /// The server closes with SO_LINGER of 0 seconds.
    Reset,
}

impl End {
    const ALL: [Self; 2] = [Self::Fin, Self::Reset];

    fn name(self) -> &'static str {
        match self {
            Self::Fin => "FIN",
            Self::Reset => "reset",
        }
    }
}

/// The numbers of one connection.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// The segment that completes the handshake, which makes the socket.
    opening: u64,
    accept: u64,
    /// The close, and the client's last segments.
    close: u64,
}

impl Costs {
    fn whole(&self) -> u64 {
        self.opening + self.accept + self.close
    }
}

/// A namespace with a wire, while one subject runs.
pub struct Load<'a> {
    clock: &'a Clock,
    host: &'a Namespace,
    subject: Subject,
    wire: Wire,
}

impl<'a> Load<'a> {
    pub fn new(clock: &'a Clock, host: &'a Namespace, subject: Subject) -> Self {
        Self {
            clock,
            host,
            subject,
            wire: Wire::new(host),
        }
    }

    /// Measures the rows of the main table.
    pub fn whole(&mut self, table: &mut Table) {
        self.within(|load| {
            for (way, option) in SHAPES {
                let mut clients = Clients::new(load, way, option);
                clients.peer(table);
                clients.other_questions(table);
                clients.connections(table);
            }
            for way in [Way::V4, Way::V6] {
                Clients::new(load, way, false).syns(table);
            }
            Clients::new(load, Way::V4, true).timestamps(table);
            load.udp(table);
            load.loopback(table);
            load.flood(table);
        });
        self.nginx(table);
    }

    /// Measures getpeername and connections, with and without the option.
    pub fn connections(&mut self, table: &mut Table) {
        self.within(|load| {
            for (way, option) in SHAPES.into_iter().filter(|(way, _)| *way == Way::V4) {
                let mut clients = Clients::new(load, way, option);
                clients.peer(table);
                clients.connections(table);
            }
        });
    }

    /// Measures the opening segment under policies.
    pub fn policies(&mut self, table: &mut Table) {
        let (host, subject) = (self.host, self.subject);
        let set = |file: &str, value: &str| {
            if subject.has_policy() {
                host.set_policy(file, value);
            }
        };
        self.within(|load| {
            for way in [Way::V4, Way::V6] {
                let mut clients = Clients::new(load, way, true);
                let name = clients.name();
                for count in TRUSTED {
                    set("trusted", &prefixes(way, count));
                    clients.opening(&format!("{name}, {count} trusted"), table);
                    if count == 1 {
                        set("own_addresses", "1");
                        let row = format!("{name}, 1 trusted, own addresses admitted");
                        clients.opening(&row, table);
                        set("own_addresses", "0");
                    }
                }
                set("trusted", "");
            }
        });
    }

    /// Returns the growth of the kernel's memory with [`HELD`] connections open.
    pub fn growth(&mut self) -> Slabs {
        self.within(|load| {
            let mut clients = Clients::new(load, Way::V4, true);
            let before = Slabs::shrunk();
            let sockets: Vec<Socket> = (0..HELD).map(|_| clients.open().1).collect();
            let growth = Slabs::shrunk().since(&before);
            for socket in sockets {
                reset_at_close(&socket);
            }
            clients.load.wire.drain();
            growth
        })
    }

    /// Runs `work` in the namespace.
    fn within<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> T + Send) -> T {
        let host = self.host;
        host.enter(|| work(self))
    }

    fn udp(&self, table: &mut Table) {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        let peer = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
        socket.connect(&peer.into()).expect("the socket has a peer");
        let cost = self.call(|| socket.peer_addr().expect("the socket has a peer"));
        table.add("getpeername, UDP", self.subject, cost);
    }

    /// Measures whole connections between two sockets: connect, accept, and closing both.
    fn loopback(&self, table: &mut Table) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("a listener");
        let server = listener.local_addr().expect("the listener has an address");
        let connection = || {
            let client = TcpStream::connect(server).expect("a connection");
            let accepted = listener.accept().expect("the same connection");
            drop(client);
            drop(accepted);
        };
        let costs = (0..CONNECTIONS).map(|_| self.clock.count(connection).0);
        let cost = clock::median(costs.collect());
        table.add("loopback connection, IPv4 none", self.subject, cost);
    }

    /// Measures segments that the server answers with SYN cookies, and keeps nothing of.
    fn flood(&mut self, table: &mut Table) {
        self.host.sysctl("ipv4/tcp_syncookies", "2");
        let _listener = Listener::new(Family::V4, PORT);
        let server = SocketAddr::new(Way::V4.real_server(), PORT);
        let mut costs = Vec::with_capacity(FLOOD);
        for _ in 0..FLOOD {
            let syn = self.wire.next_client(server).syn();
            costs.push(self.clock.count(|| self.wire.send(&syn)).0);
            self.wire.drain();
        }
        self.host.sysctl("ipv4/tcp_syncookies", "1");
        table.add(
            "bare SYN with SYN cookies, IPv4",
            self.subject,
            clock::median(costs),
        );
    }

    /// Measures requests of one connection each, the instructions of nginx and of the kernel from the
    /// SYN to the last FIN.
    fn nginx(&mut self, table: &mut Table) {
        let [v4, v6_only, dual_stack] = NGINX;
        let _nginx = Server::nginx(self.host, v4, v6_only, dual_stack);
        for option in [false, true] {
            let options = options(Way::V4, option);
            let server = SocketAddr::new(Way::V4.real_server(), v4);
            let costs = self.within(|load| {
                let request = |_| {
                    load.clock
                        .count(|| load.wire.request(server, &options, REQUEST))
                        .0
                };
                (0..CONNECTIONS).map(request).collect()
            });
            let row = format!("nginx request, {}", name(Way::V4, option));
            table.add(&row, self.subject, clock::median(costs));
        }
    }

    /// Returns the median cost of one call.
    fn call<T>(&self, mut call: impl FnMut() -> T) -> f64 {
        let mut batch = || (0..CALLS).for_each(|_| drop(std::hint::black_box(call())));
        let costs = (0..BATCHES)
            .map(|_| self.clock.count(&mut batch).0)
            .collect();
        clock::median(costs) / CALLS as f64
    }
}

/// A listener of one family, with clients that send the option or not.
struct Clients<'a, 'b> {
    load: &'b mut Load<'a>,
    listener: Listener,
    way: Way,
    option: bool,
    /// The options of the segment that opens a connection.
    options: Vec<u8>,
}

impl<'a, 'b> Clients<'a, 'b> {
    fn new(load: &'b mut Load<'a>, way: Way, option: bool) -> Self {
        let family = match way {
            Way::V4 | Way::Nat64 => Family::V4,
            Way::V6 => Family::V6Only,
        };
        Self {
            load,
            listener: Listener::new(family, PORT),
            way,
            option,
            options: options(way, option),
        }
    }

    fn name(&self) -> String {
        name(self.way, self.option)
    }

    /// Opens a connection. Returns it with the server's socket, and with the numbers of its two steps.
    fn open(&mut self) -> (Connection, Socket, [u64; 2]) {
        let (clock, subject) = (self.load.clock, self.load.subject);
        let server = SocketAddr::new(self.way.real_server(), PORT);
        let connection = self.load.wire.shake_hands(server);
        let segment = connection.opening(&self.options);
        let (opening, ()) = clock.count(|| self.load.wire.send(&segment));
        let (accepting, accepted) = clock.count(|| self.listener.socket.accept());
        let (socket, peer) = accepted.expect("accept succeeds");
        let expected = match self.option && subject.shows(self.way) {
            true => SocketAddr::new(self.way.client(), CLIENT_PORT),
            false => connection.from(),
        };
        assert_eq!(
            peer.as_socket(),
            Some(expected),
            "{subject}, {}",
            self.name()
        );
        (connection, socket, [opening, accepting])
    }

    /// Opens a connection, and ends it.
    fn connection(&mut self, end: End) -> Costs {
        let clock = self.load.clock;
        let (mut connection, socket, [opening, accept]) = self.open();
        let wire = &self.load.wire;
        let close = match end {
            End::Reset => {
                reset_at_close(&socket);
                clock.count(|| drop(socket)).0
            }
            End::Fin => {
                let [fin, last] = connection.ending();
                let close = || {
                    wire.send(&fin);
                    drop(socket);
                    wire.send(&last);
                };
                clock.count(close).0
            }
        };
        Costs {
            opening,
            accept,
            close,
        }
    }

    /// Measures getpeername.
    fn peer(&mut self, table: &mut Table) {
        let (_, socket, _) = self.open();
        reset_at_close(&socket);
        let cost = self
            .load
            .call(|| socket.peer_addr().expect("the socket has a peer"));
        self.add(table, "getpeername", cost);
    }

    /// Measures getsockname and getsockopt.
    fn other_questions(&mut self, table: &mut Table) {
        let (_, socket, _) = self.open();
        reset_at_close(&socket);
        if !self.option {
            let cost = self
                .load
                .call(|| socket.local_addr().expect("the socket has a name"));
            self.add(table, "getsockname", cost);
        }
        // Without the module the kernel looks for the option, and refuses. With it, the call succeeds or
        // fails in the module. Either way this program reads nothing of the answer.
        let fd = socket.as_raw_fd();
        let mut room = [0; 32];
        let ask = || sys::read_option(fd, libc::IPPROTO_IP, TOA_SO_GET_LOOKUP, &mut room);
        let cost = self.load.call(ask);
        self.add(table, "getsockopt 4096", cost);
    }

    /// Measures connections with both ends.
    fn connections(&mut self, table: &mut Table) {
        for end in End::ALL {
            let all: Vec<Costs> = (0..CONNECTIONS).map(|_| self.connection(end)).collect();
            let mut add = |what: &str, of: fn(&Costs) -> u64| {
                let cost = clock::median(all.iter().map(of).collect());
                self.add(table, what, cost);
            };
            if end == End::Fin {
                add("opening segment", |costs| costs.opening);
                add("accept", |costs| costs.accept);
            }
            let end = end.name();
            add(&format!("close by {end}"), |costs| costs.close);
            add(&format!("ACK, accept, close by {end}"), Costs::whole);
        }
    }

    /// Measures the segment before the handshake, which carries no option here.
    fn syns(&mut self, table: &mut Table) {
        let server = SocketAddr::new(self.way.real_server(), PORT);
        let costs = (0..CONNECTIONS).map(|_| {
            let wire = &mut self.load.wire;
            let mut connection = wire.next_client(server);
            let syn = connection.syn();
            wire.drain();
            let (cost, ()) = self.load.clock.count(|| wire.send(&syn));
            wire.receive_answer(&mut connection);
            wire.send(&connection.reset());
            cost
        });
        let cost = clock::median(costs.collect());
        let row = format!("SYN, {}", family(self.way));
        table.add(&row, self.load.subject, cost);
    }

    fn add(&self, table: &mut Table, what: &str, cost: f64) {
        table.add(&format!("{what}, {}", self.name()), self.load.subject, cost);
    }

    /// Measures the opening segment alone.
    fn opening(&mut self, name: &str, table: &mut Table) {
        let costs = (0..CONNECTIONS).map(|_| self.connection(End::Reset).opening);
        let cost = clock::median(costs.collect());
        table.add(&format!("opening segment, {name}"), self.load.subject, cost);
    }

    /// Measures the opening segment with timestamps, as clients send them.
    fn timestamps(&mut self, table: &mut Table) {
        let option = self.options.clone();
        for (what, front) in [
            ("timestamps", &[][..]),
            ("option and timestamps", &option[..]),
        ] {
            self.options = [front, &TIMESTAMPS[..]].concat();
            self.option = !front.is_empty();
            self.opening(&format!("IPv4 {what}"), table);
        }
    }
}

/// The options of the segment that opens a connection.
fn options(way: Way, option: bool) -> Vec<u8> {
    let client = SocketAddr::new(way.client(), CLIENT_PORT);
    option
        .then(|| toa_option(TOA_KIND, client))
        .unwrap_or_default()
}

/// The family of the segments.
fn family(way: Way) -> &'static str {
    match way {
        Way::V4 | Way::Nat64 => "IPv4",
        Way::V6 => "IPv6",
    }
}

/// Names a row's clients.
fn name(way: Way, option: bool) -> String {
    format!("{} {}", family(way), if option { "option" } else { "none" })
}

/// Makes the socket's close reset the connection, which leaves no state behind.
fn reset_at_close(socket: &Socket) {
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Prefixes that do not merge, of which the last one has the source of the segments.
fn prefixes(way: Way, count: u32) -> String {
    let prefix = |at: u32| match way {
        Way::V6 => format!(
            "{}/128",
            Ipv6Addr::from_bits(LOCAL_V6.to_bits() + u128::from(2 * at))
        ),
        _ => format!("{}/32", Ipv4Addr::from_bits(LOCAL_V4.to_bits() - 2 * at)),
    };
    (0..count).map(prefix).collect::<Vec<_>>().join(",")
}
