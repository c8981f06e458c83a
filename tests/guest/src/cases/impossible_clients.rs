// SPDX-License-Identifier: GPL-2.0

//! Clients that no segment can come from: an option that names one leaves the sender's address.
//! The kernel drops packets from them as martians, so programs trust a loopback peer.

use std::cell::Cell;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::getsockopt;
use crate::cases::options::NAMED;
use crate::handmade::HandmadeClient;
use crate::handmade::HandmadeConnection;
use crate::kmsg::KernelLog;
use crate::ktap::note;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;
use crate::sys;
use crate::sys::Call;
use crate::sys::Place;

pub const CASES: &[Case] = cases![Loaded:
    impossible_ipv4_client_leaves_the_sender,
    impossible_ipv6_client_leaves_the_sender,
    ipv4_client_in_a_20_byte_option_leaves_the_sender,
    client_with_port_0_leaves_the_sender,
    forged_burst_makes_no_record_and_no_log_line,
    loopback_client_through_the_balancer_leaves_the_balancer,
    ipv4_option_in_ipv6_segments_leaves_the_sender,
    clients_next_to_impossible_ones_are_seen,
];

/// The port of the clients that options name.
const CLIENT_PORT: u16 = 4660;

/// A client from an option.
#[track_caller]
pub fn client(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), CLIENT_PORT)
}

fn clients(ips: &[&str]) -> Vec<SocketAddr> {
    ips.iter().map(|ip| client(ip)).collect()
}

/// The fate of an option's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server sees the client.
    Seen,
    /// The server sees the sender, and this counter counts.
    Refused(&'static str),
}

/// The fate of clients that no segment can come from.
pub const IMPOSSIBLE: Fate = Fate::Refused("impossible_client");

/// The fate of 8-byte options in IPv6 segments.
const FOREIGN_LENGTH: Fate = Fate::Refused("foreign_length");

/// A client whose segments are made by hand, in front of a listener.
pub struct Stage {
    pub listener: Listener,
    pub client: HandmadeClient,
    pub net: Net,
    pub ipv6: bool,
    port: Cell<u16>,
}

impl Stage {
    /// Makes a client that sends over IPv6 or IPv4.
    pub fn new(family: Family, ipv6: bool) -> Self {
        Self::on(Net::new(), family, ipv6)
    }

    /// Makes the client on a net of the test.
    pub fn on(net: Net, family: Family, ipv6: bool) -> Self {
        let client = match ipv6 {
            false => HandmadeClient::new(&net.server),
            true => HandmadeClient::with_ipv6(&net.server),
        };
        Self {
            listener: net.listen(family),
            client,
            net,
            ipv6,
            port: Cell::new(4000),
        }
    }

    /// Runs `check` for each IP version and each socket family that takes it. The kernel logs
    /// nothing during the checks.
    #[track_caller]
    pub fn each(check: impl Fn(&Self)) {
        for (family, ipv6) in [
            (Family::V4, false),
            (Family::DualStack, false),
            (Family::V6Only, true),
            (Family::DualStack, true),
        ] {
            let stage = Self::new(family, ipv6);
            let mut log = KernelLog::from_now();
            check(&stage);
            assert_eq!(log.new_lines(), [""; 0], "{family:?}, IPv6 {ipv6}");
        }
    }

    /// The source port of the next connection.
    pub fn next_port(&self) -> u16 {
        self.port.replace(self.port.get() + 1)
    }

    /// Sends a handshake that names `named`, and returns the connection with its sender.
    #[track_caller]
    pub fn connect(&self, named: SocketAddr) -> (HandmadeConnection<'_>, SocketAddr) {
        let port = self.next_port();
        let (mut connection, _) = self.client.connect(port, &[]);
        connection.send(&toa_option(TOA_KIND, named), &[]);
        (connection, self.client.address(port))
    }

    /// Checks the fate of `named` by each way of accepting.
    #[track_caller]
    pub fn check(&self, named: SocketAddr, fate: Fate) {
        for call in [Call::Accept, Call::Accept4] {
            let before = self.net.stats();
            let (mut connection, sender) = self.connect(named);
            let accepted = self.listener.accept_by(call, Place::AMPLE);
            let mut accepted = accepted.ending_by_reset();
            self.check_answers(&accepted, named, sender, fate);
            self.check_counted(&before, named, fate);
            connection.exchange(&mut accepted);
            drop(accepted);
            self.net.wait_for_no_records();
        }
    }

    /// Returns whether the names of the listener's sockets have room for `named`.
    fn has_room(&self, named: SocketAddr) -> bool {
        named.is_ipv4() || self.listener.family != Family::V4
    }

    /// Checks each way of asking for the peer.
    #[track_caller]
    pub fn check_answers(
        &self,
        accepted: &Accepted,
        named: SocketAddr,
        sender: SocketAddr,
        fate: Fate,
    ) {
        let family = self.listener.family;
        let context = format!("{named} from {sender} on {family:?}");
        let shown = match fate {
            Fate::Seen if self.has_room(named) => family.name(named),
            Fate::Seen | Fate::Refused(_) => family.name(sender),
        };
        assert_eq!(accepted.name, shown, "accept: {context}");
        assert_eq!(accepted.peer(), shown, "getpeername: {context}");
        let fd = accepted.stream.as_raw_fd();
        let answer = sys::so_peername(fd, shown.length());
        assert_eq!(answer, Ok(shown), "SO_PEERNAME: {context}");
        for &level in getsockopt::levels(family) {
            for (option, address) in [(getsockopt::CLIENT, named), (getsockopt::BALANCER, sender)] {
                let expected = match fate {
                    Fate::Seen => Ok(getsockopt::answer(address)),
                    Fate::Refused(_) => Err(Errno::EINVAL),
                };
                let answer = sys::get_option(fd, level, option, Place::Room(getsockopt::LENGTH));
                assert_eq!(answer, expected, "{option} at {level}: {context}");
            }
        }
    }

    /// Checks all counters after a connection and its [`Stage::check_answers`].
    #[track_caller]
    pub fn check_counted(&self, before: &Stats, named: SocketAddr, fate: Fate) {
        let names = 3;
        let options = 2 * getsockopt::levels(self.listener.family).len() as i64;
        let (answered, bypassed) = match self.has_room(named) {
            true => (names + options, 0),
            false => (options, names),
        };
        let mut expected = match fate {
            Fate::Seen => vec![
                ("syn_recv_sock_toa", 1),
                ("getname_toa_ok", answered),
                ("getname_toa_bypass", bypassed),
                ("ip6_address_alloc", i64::from(named.is_ipv6())),
                ("option_taken", 1),
                ("records_live", 1),
            ],
            Fate::Refused(reason) => vec![
                ("syn_recv_sock_no_toa", 1),
                ("getname_toa_empty", names + options),
                (reason, 1),
            ],
        };
        expected.retain(|&(_, change)| change != 0);
        let stats = self.net.stats();
        assert_eq!(stats.since(before), expected, "{named}");
        let live = u64::from(fate == Fate::Seen);
        assert_eq!(stats.get("records_live"), live, "{named}");
    }
}

/// The first and the last address of each network that no IPv4 client is in.
const IMPOSSIBLE_V4: [&str; 8] = [
    "0.0.0.0",
    "0.255.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "224.0.0.0",
    "239.255.255.255",
    "255.255.255.255",
];

/// The 8-byte option is impossible in IPv6 segments too, and counts as that.
fn impossible_ipv4_client_leaves_the_sender() {
    Stage::each(|stage| {
        for named in clients(&IMPOSSIBLE_V4) {
            stage.check(named, IMPOSSIBLE);
        }
    });
}

/// The 20-byte option is checked in IPv4 segments (NAT64) and in IPv6 segments.
fn impossible_ipv6_client_leaves_the_sender() {
    let impossible = [
        "::",
        "::1",
        "ff00::",
        "ff02::1",
        "ff0e::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    Stage::each(|stage| {
        for named in clients(&impossible) {
            stage.check(named, IMPOSSIBLE);
        }
    });
}

/// RFC 4291 §2.5.5: the IPv4-mapped and the IPv4-compatible form of impossible clients and of
/// possible ones.
fn ipv4_client_in_a_20_byte_option_leaves_the_sender() {
    let possible = ["203.0.113.9", "10.0.0.2", "255.255.255.254"];
    Stage::each(|stage| {
        for ip in [&IMPOSSIBLE_V4[..], &possible].concat() {
            let ip: Ipv4Addr = ip.parse().expect("an address");
            for ip in [ip.to_ipv6_mapped(), ip.to_ipv6_compatible()] {
                stage.check(SocketAddr::new(ip.into(), CLIENT_PORT), IMPOSSIBLE);
            }
        }
    });
}

fn client_with_port_0_leaves_the_sender() {
    Stage::each(|stage| {
        for ip in ["203.0.113.9", "2001:db8:9:9::9", "::ffff:203.0.113.9"] {
            let ip: IpAddr = ip.parse().expect("an address");
            stage.check(SocketAddr::new(ip, 0), IMPOSSIBLE);
        }
    });
}

/// The connections of a burst.
const BURST: usize = 500;

fn forged_burst_makes_no_record_and_no_log_line() {
    Stage::each(|stage| {
        let before = stage.net.stats();
        let forged = clients(&["::1", "::ffff:127.0.0.1", "ff02::1", "::", "fd00::1"]);
        for named in forged.iter().cycle().take(BURST) {
            let (_, sender) = stage.connect(*named);
            let accepted = stage.listener.accept().ending_by_reset();
            assert_eq!(accepted.name, stage.listener.family.name(sender));
        }
        let burst = BURST as i64;
        let counted = [
            ("syn_recv_sock_no_toa", burst),
            ("getname_toa_empty", burst),
            ("impossible_client", burst),
        ];
        let change = stage.net.stats().since(&before);
        note(&format!("{BURST} forged connections: {change:?}"));
        assert_eq!(change, counted);
    });
}

fn loopback_client_through_the_balancer_leaves_the_balancer() {
    for named in clients(&["127.0.0.1", "::1", "::ffff:127.0.0.1"]) {
        let net = Net::with(&Plan::inserting(&toa_option(TOA_KIND, named)));
        let listener = net.listen(Family::DualStack);
        for way in Way::ALL {
            let before = net.stats();
            let (mut client, mut accepted) = net.pair(&listener, way);
            accepted.assert_shows(net.balancer_of(&accepted));
            let counted = [
                ("syn_recv_sock_no_toa", 1),
                ("getname_toa_empty", 2),
                ("impossible_client", 1),
            ];
            assert_eq!(net.stats().since(&before), counted, "{named} {way:?}");
            sockets::exchange(&mut client, &mut accepted);
            sockets::finish(&mut client, &mut accepted);
        }
    }
}

fn ipv4_option_in_ipv6_segments_leaves_the_sender() {
    Stage::each(|stage| {
        for named in [NAMED, client("10.0.0.2"), client("255.255.255.254")] {
            let fate = match stage.ipv6 {
                false => Fate::Seen,
                true => FOREIGN_LENGTH,
            };
            stage.check(named, fate);
        }
    });
}

/// Private, shared, link-local, reserved and translated addresses, and the networks on both sides
/// of the impossible ones.
fn clients_next_to_impossible_ones_are_seen() {
    let v4 = [
        "1.0.0.0",
        "10.255.255.255",
        "100.64.0.1",
        "126.255.255.255",
        "128.0.0.0",
        "169.254.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "223.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
    ];
    let v6 = [
        "::1:0:0",
        "::fffe:127.0.0.1",
        "::1:ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fc00::1",
        "fd00::2",
        "fe80::1",
        "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    Stage::each(|stage| {
        if !stage.ipv6 {
            clients(&v4)
                .into_iter()
                .for_each(|named| stage.check(named, Fate::Seen));
        }
        clients(&v6)
            .into_iter()
            .for_each(|named| stage.check(named, Fate::Seen));
    });
}
