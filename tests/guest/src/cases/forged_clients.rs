// SPDX-License-Identifier: GPL-2.0

//! Servers of the distribution that trust their own host, and a forger whose option names an
//! address of that host. The servers must see the sender of the segments.

use std::cell::Cell;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::net::Net;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::nginx::Nginx;
use crate::nginx::Setup;
use crate::programs::table;
use crate::programs::table::DUAL_STACK;
use crate::programs::table::V4;
use crate::programs::table::V6_ONLY;
use crate::programs::Running;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Client;
use crate::sockets::Family;

pub const CASES: &[Case] = cases![Loaded:
    redis_in_protected_mode_denies_the_forger_its_directory,
    redis_lists_the_sender_of_a_forged_option_and_the_client_of_a_good_one,
    nginx_that_allows_its_own_host_answers_403_to_the_forger,
];

/// Those that need the larger image.
pub const MORE: &[Case] = cases![Loaded:
    postgresql_that_trusts_its_own_host_rejects_the_forger,
];

/// The port of each option: 12345, or 30 39.
const PORT: u16 = 12345;

/// Clients that a balancer could name.
const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 9));

const LOOPBACK_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const OWN_V4: IpAddr = IpAddr::V4(SERVER_V4);
const OWN_V6: IpAddr = IpAddr::V6(SERVER_V6);
const MAPPED_LOOPBACK: IpAddr = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
const MAPPED_OWN: IpAddr = IpAddr::V6(SERVER_V4.to_ipv6_mapped());

/// The addresses of the server's host in IPv4 segments to an IPv4 socket.
const FORGED_V4: &[IpAddr] = &[LOOPBACK_V4, IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9)), OWN_V4];

/// The addresses in IPv6 segments, and in IPv4 segments (as by NAT64) to a dual-stack socket.
const FORGED_V6: &[IpAddr] = &[LOOPBACK_V6, MAPPED_LOOPBACK, OWN_V6, MAPPED_OWN];

/// The counters of one refused option.
const REFUSED: [(&str, i64); 2] = [("syn_recv_sock_no_toa", 1), ("impossible_client", 1)];

/// A host without a balancer's help: its options are what the test writes.
struct Forger<'a> {
    net: &'a Net,
    v4: HandmadeClient,
    v6: HandmadeClient,
    /// The forger's port of the next connection.
    next_port: Cell<u16>,
}

/// A connection to a server, and the address that its option names.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// IPv6 segments, not IPv4.
    ipv6: bool,
    family: Family,
    port: u16,
    named: IpAddr,
}

/// All forgeries by that way.
fn forgeries(ipv6: bool, family: Family, port: u16) -> Vec<Attempt> {
    let named = match (ipv6, family) {
        (true, _) => FORGED_V6.to_vec(),
        (false, Family::DualStack) => [FORGED_V4, FORGED_V6].concat(),
        (false, _) => FORGED_V4.to_vec(),
    };
    named
        .into_iter()
        .map(|named| Attempt {
            ipv6,
            family,
            port,
            named,
        })
        .collect()
}

impl Attempt {
    /// A good client by the same way.
    fn with_client(self) -> Self {
        let named = if self.ipv6 { CLIENT_V6 } else { CLIENT_V4 };
        Self { named, ..self }
    }

    /// An address as the server's socket reports it.
    fn form(self, address: IpAddr) -> String {
        let address = SocketAddr::new(address, 0);
        self.family.form(address).ip().to_string()
    }
}

impl<'a> Forger<'a> {
    fn new(net: &'a Net) -> Self {
        Self {
            net,
            v4: HandmadeClient::new(&net.server),
            v6: HandmadeClient::with_ipv6(&net.server),
            next_port: Cell::new(4000),
        }
    }

    fn host(&self, attempt: Attempt) -> &HandmadeClient {
        match attempt.ipv6 {
            true => &self.v6,
            false => &self.v4,
        }
    }

    /// The address that the attempt's segments come from, as the server's socket reports it.
    fn sender(&self, attempt: Attempt) -> String {
        attempt.form(self.host(attempt).address(0).ip())
    }

    /// Connects with the option in the handshake's ACK, makes a request and returns the answer.
    #[track_caller]
    fn ask(&self, attempt: Attempt, request: &[u8]) -> String {
        let option = toa_option(TOA_KIND, SocketAddr::new(attempt.named, PORT));
        // A reset of an earlier connection may still be on its way.
        let port = self.next_port.replace(self.next_port.get() + 1);
        let mut connection = self.host(attempt).begin(port).towards_port(attempt.port);
        connection.open(&[], &[]);
        connection.send(&option, &[]);
        let answer = connection.converse(request);
        self.net.wait_for_no_records();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Asks with an option that the module must refuse.
    #[track_caller]
    fn ask_in_vain(&self, attempt: Attempt, request: &[u8]) -> String {
        let before = self.net.stats();
        let answer = self.ask(attempt, request);
        let mut change = self.net.stats().since(&before);
        change.retain(|(row, _)| !row.starts_with("getname_"));
        assert_eq!(change, REFUSED, "{attempt:?}: {answer:?}");
        answer
    }
}

/// Makes a request from the server's own host, and returns the answer.
#[track_caller]
fn ask_from_own_host(net: &Net, source: IpAddr, port: u16, request: &[u8]) -> String {
    let (source, target) = (SocketAddr::new(source, 0), SocketAddr::new(source, port));
    let mut client = net
        .server
        .enter(|| Client::connect(source, target))
        .unwrap_or_else(|error| panic!("connect to {target}: {error}"));
    table::send(&mut client.stream, request);
    String::from_utf8_lossy(&sockets::read_all(&mut client.stream)).into_owned()
}

/// The ways to a server with an IPv4 socket and an IPv6 socket at one port.
fn forgeries_of_both_sockets() -> Vec<Attempt> {
    [
        forgeries(false, Family::V4, V4),
        forgeries(true, Family::V6Only, V4),
    ]
    .concat()
}

const GET_DIRECTORY: &[u8] = b"CONFIG GET dir\r\nQUIT\r\n";

const DENIED: &str = "-DENIED Redis is running in protected mode because protected mode is \
                      enabled and no password is set for the default user.";

fn redis_in_protected_mode_denies_the_forger_its_directory() {
    let net = Net::new();
    let _redis = Running::start(&table::PROTECTED_REDIS, &net);
    for own in [LOOPBACK_V4, LOOPBACK_V6] {
        let answer = ask_from_own_host(&net, own, V4, GET_DIRECTORY);
        assert!(answer.starts_with("*2\r\n$3\r\ndir\r\n"), "{answer:?}");
    }
    let forger = Forger::new(&net);
    for attempt in forgeries_of_both_sockets() {
        let answer = forger.ask_in_vain(attempt, GET_DIRECTORY);
        assert!(answer.starts_with(DENIED), "{attempt:?}: {answer:?}");
    }
}

fn redis_lists_the_sender_of_a_forged_option_and_the_client_of_a_good_one() {
    const LIST: &[u8] = b"CLIENT LIST\r\nQUIT\r\n";
    let net = Net::new();
    let _redis = Running::start(&table::REDIS, &net);
    let forger = Forger::new(&net);
    for attempt in forgeries_of_both_sockets() {
        let address = |answer: &str| (table::REDIS.client)(answer).map(|seen| seen.address);
        let answer = forger.ask_in_vain(attempt, LIST);
        let sender = forger.host(attempt).address(PORT).ip();
        assert_eq!(address(&answer), Some(sender), "{attempt:?}: {answer:?}");
        let good = attempt.with_client();
        let answer = forger.ask(good, LIST);
        assert_eq!(address(&answer), Some(good.named), "{good:?}: {answer:?}");
    }
}

/// One page for each group of addresses that may read it.
const GUARDED: &str = "
    server {
      listen 0.0.0.0:8101;
      listen [::]:8102 ipv6only=on;
      listen [::]:8103 ipv6only=off;
      location = /loopback { alias ROOT/index.html; allow 127.0.0.0/8; allow ::1; deny all; }
      location = /own { alias ROOT/index.html; allow 10.0.0.1; allow fd00::1; deny all; }
      location = /client {
        alias ROOT/index.html;
        allow 203.0.113.9;
        allow 2001:db8:9:9::9;
        deny all;
      }
    }";

fn nginx_that_allows_its_own_host_answers_403_to_the_forger() {
    let net = Net::new();
    let nginx = Nginx::start(
        &net,
        Setup {
            modules: false,
            http: GUARDED,
            ports: &[V4, V6_ONLY, DUAL_STACK],
            ..Setup::default()
        },
    );
    let get = |page: &str| format!("GET /{page} HTTP/1.0\r\n\r\n").into_bytes();
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let own = [
        (LOOPBACK_V4, "loopback"),
        (LOOPBACK_V6, "loopback"),
        (OWN_V4, "own"),
        (OWN_V6, "own"),
    ];
    let mut requests = 0;
    for (own, page) in own {
        let answer = ask_from_own_host(&net, own, DUAL_STACK, &get(page));
        assert_eq!(status(&answer), "200", "{own} {page}");
        requests += 1;
    }
    let forger = Forger::new(&net);
    // The address that the access log shows.
    let mut logged = || {
        requests += 1;
        nginx.lines(requests).remove(requests - 1).remote
    };
    let ways = [
        forgeries(false, Family::V4, V4),
        forgeries(true, Family::V6Only, V6_ONLY),
        forgeries(false, Family::DualStack, DUAL_STACK),
        forgeries(true, Family::DualStack, DUAL_STACK),
    ];
    for attempt in ways.into_iter().flatten() {
        for page in ["loopback", "own"] {
            let answer = forger.ask_in_vain(attempt, &get(page));
            assert_eq!(status(&answer), "403", "{attempt:?} {page}");
            assert_eq!(logged(), forger.sender(attempt), "{attempt:?} {page}");
        }
        let good = attempt.with_client();
        for (page, expected) in [("client", "200"), ("loopback", "403"), ("own", "403")] {
            let answer = forger.ask(good, &get(page));
            assert_eq!(status(&answer), expected, "{good:?} {page}");
            assert_eq!(logged(), good.form(good.named), "{good:?} {page}");
        }
    }
}

fn postgresql_that_trusts_its_own_host_rejects_the_forger() {
    const START: &[u8] = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let net = Net::new();
    let _postgresql = Running::start(&table::LOCAL_POSTGRESQL, &net);
    let forger = Forger::new(&net);
    // The message that ends the connection.
    let rejection = |address: IpAddr| {
        format!("no pg_hba.conf entry for host \"{address}\", user \"postgres\", ")
            + "database \"postgres\", no encryption"
    };
    // A start-up message, and the end of the session if it begins.
    let request = [
        &table::with_length(START),
        &b"X"[..],
        &table::with_length(b""),
    ]
    .concat();
    for own in [LOOPBACK_V4, OWN_V4, LOOPBACK_V6, OWN_V6] {
        let answer = ask_from_own_host(&net, own, V4, &request);
        assert!(answer.contains("server_version"), "{own}: {answer:?}");
    }
    for attempt in forgeries_of_both_sockets() {
        let sender = forger.host(attempt).address(PORT).ip();
        let good = attempt.with_client();
        let answers = [
            (sender, forger.ask_in_vain(attempt, &request)),
            (good.named, forger.ask(good, &request)),
        ];
        for (seen, answer) in answers {
            assert!(answer.starts_with('E'), "{attempt:?}: {answer:?}");
            for field in ["SFATAL\0".to_owned(), format!("\0M{}\0", rejection(seen))] {
                assert!(answer.contains(&field), "{attempt:?}: {answer:?}");
            }
        }
    }
}
