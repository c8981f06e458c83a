// SPDX-License-Identifier: GPL-2.0

//! The nftables rules that the packages ship as an example (`packaging/toa-trust.nft`), loaded on
//! the server's host: they remove the option from everyone but the balancer.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;

use etherparse::ip_number;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::namespace::run;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::LOCAL;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::runner::cases;
use crate::runner::Case;
use crate::servers::Directory;
use crate::sockets;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;
use crate::sys;
use crate::wait::BOUND;

pub const CASES: &[Case] = cases![Loaded:
    nftables_rules_leave_the_balancers_clients_alone,
    nftables_rules_remove_and_count_a_forged_option_of_the_ack,
    nftables_rules_remove_and_count_a_forged_option_of_the_first_data,
    nftables_rules_drop_a_segment_with_a_second_forged_option,
    nftables_rules_drop_a_forged_option_in_fragments,
    nftables_rules_drop_a_forged_option_behind_headers_in_fragments,
    nftables_rules_pass_fragments_of_udp,
    nftables_rules_can_be_loaded_again,
];

/// The file as it is shipped.
const SHIPPED: &str = include_str!("../../../../packaging/toa-trust.nft");

/// The elements of its sets, to be replaced.
const EXAMPLES: [&str; 2] = ["192.0.2.0/28", "2001:db8:1::/124"];

/// The clients that the forger names.
const NAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 4660);
const NAMED_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 9)),
    4660,
);

/// The rules, loaded for the tests' balancer until the namespace goes.
struct Rules<'a> {
    server: &'a Namespace,
    directory: Directory,
}

impl<'a> Rules<'a> {
    #[track_caller]
    fn load(net: &'a Net) -> Self {
        let rules = Self {
            server: &net.server,
            directory: Directory::new(&net.server, "nftables"),
        };
        let mut text = SHIPPED.to_owned();
        for (example, local) in EXAMPLES.into_iter().zip(LOCAL) {
            assert_eq!(text.matches(example).count(), 1, "{example}");
            text = text.replace(example, local);
        }
        fs::write(rules.file(), text).expect("a file of rules");
        rules.load_again();
        rules
    }

    #[track_caller]
    fn load_again(&self) {
        self.nft(&["-f", &self.file()]);
    }

    fn file(&self) -> String {
        self.directory.0.join("toa-trust.nft").display().to_string()
    }

    #[track_caller]
    fn nft(&self, arguments: &[&str]) -> String {
        self.server
            .enter(|| run(Command::new("nft").args(arguments)))
    }

    /// The segments that a counter of the rules has counted.
    #[track_caller]
    fn counted(&self, counter: &str) -> u64 {
        let text = self.nft(&["list", "counter", "inet", "toa", counter]);
        let after = text.split("packets ").nth(1).unwrap_or_default();
        let number = after
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("nft prints {text:?}"))
    }

    /// Forged options and fragments.
    #[track_caller]
    fn counts(&self) -> (u64, u64) {
        (self.counted("toa_forged"), self.counted("toa_fragments"))
    }
}

/// A host outside the sets, and the clients that it names there.
type Forger = (HandmadeClient, &'static [SocketAddr]);

/// With IPv4, where 20 bytes mean NAT64, and with IPv6.
fn forgers(net: &Net) -> [Forger; 2] {
    [
        (HandmadeClient::new(&net.server), &[NAMED, NAMED_V6]),
        (HandmadeClient::with_ipv6(&net.server), &[NAMED_V6]),
    ]
}

/// Calls `test` for each forger and each client that it names, with a new port.
fn for_each_forgery(net: &Net, mut test: impl FnMut(&HandmadeClient, u16, &[u8])) {
    let mut ports = 4000..;
    for (forger, named) in forgers(net) {
        for &client in named {
            let port = ports.next().expect("a port");
            test(&forger, port, &toa_option(TOA_KIND, client));
        }
    }
}

/// Forgeries of [`for_each_forgery`].
const FORGERIES: u64 = 3;

/// Accepts a connection that must show its sender, and must have been counted as one without an
/// option.
#[track_caller]
fn accept_sender(net: &Net, listener: &Listener, sender: SocketAddr, before: &Stats) {
    let accepted = listener.accept().ending_by_reset();
    accepted.assert_shows(sender);
    let change = net.stats().since(before);
    let expected = [
        ("syn_recv_sock_no_toa", 1),
        ("getname_toa_empty", 2),
        ("no_option", 1),
    ];
    assert_eq!(change, expected, "{sender}");
}

fn nftables_rules_leave_the_balancers_clients_alone() {
    for plan in [Plan::dpvs(), Plan::dpvs().losing_the_ack()] {
        let net = Net::with(&plan);
        let rules = Rules::load(&net);
        let listener = net.listen(Family::DualStack);
        for way in Way::ALL {
            let mut client = net.connect(way);
            client.stream.write_all(b"?").expect("the client sends");
            let accepted = listener.accept().ending_by_reset();
            accepted.assert_shows(client.address);
        }
        assert_eq!(rules.counts(), (0, 0), "{plan:?}");
    }
}

fn nftables_rules_remove_and_count_a_forged_option_of_the_ack() {
    let net = Net::new();
    let rules = Rules::load(&net);
    let listener = net.listen(Family::DualStack);
    let mut forged = 0;
    for_each_forgery(&net, |forger, port, option| {
        let before = net.stats();
        let (mut connection, _) = forger.connect(port, &[]);
        connection.send(option, &[]);
        accept_sender(&net, &listener, forger.address(port), &before);
        forged += 1;
        assert_eq!(rules.counts(), (forged, 0));
    });
    assert_eq!(forged, FORGERIES);
}

fn nftables_rules_remove_and_count_a_forged_option_of_the_first_data() {
    let net = Net::new();
    let rules = Rules::load(&net);
    let deferring = net.server.enter(|| {
        let socket = sockets::socket(Family::DualStack);
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        sys::set_option(socket.as_raw_fd(), level, option, 10).expect("TCP_DEFER_ACCEPT");
        Listener::from(socket, Family::DualStack, PORT)
    });
    let mut forged = 0;
    // The handshake's ACK has none, or is lost.
    for ack in [true, false] {
        for_each_forgery(&net, |forger, port, option| {
            let before = net.stats();
            let port = port + u16::from(ack) * 100;
            let (mut connection, _) = forger.connect(port, &[]);
            if ack {
                connection.send(&[], &[]);
            }
            connection.send(option, b"data");
            accept_sender(&net, &deferring, forger.address(port), &before);
            forged += 1;
            assert_eq!(rules.counts(), (forged, 0));
        });
    }
    assert_eq!(forged, 2 * FORGERIES);
}

/// One statement of nftables removes the first option only.
fn nftables_rules_drop_a_segment_with_a_second_forged_option() {
    let net = Net::new();
    let rules = Rules::load(&net);
    let listener = net.listen(Family::DualStack);
    let mut forged = 0;
    // Too short for an address.
    let decoy = [TOA_KIND, 2];
    for_each_forgery(&net, |forger, port, option| {
        let before = net.stats();
        let (mut connection, _) = forger.connect(port, &[]);
        connection.send(&[&decoy[..], option].concat(), &[]);
        assert_eq!(net.stats().since(&before), []);
        // The server still waits for the handshake's end.
        connection.send(&[], &[]);
        accept_sender(&net, &listener, forger.address(port), &before);
        forged += 1;
        assert_eq!(rules.counts(), (forged, 0));
    });
    assert_eq!(forged, FORGERIES);
}

/// The place to cut an ACK at, behind four bytes of TCP options.
const IN_OPTIONS: usize = 24;

/// Two destination options headers of eight bytes, each with a PadN option (RFC 8200 section 4.6).
/// The first one announces the second, the second TCP.
const TWO_HEADERS: [u8; 16] = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];

/// The place to cut such an ACK at: the first fragment ends before its protocol is known.
const BETWEEN_HEADERS: usize = 8;

/// Completes handshakes with a forged option in two fragments, and without rules is believed.
/// Behind the rules the ACK is lost, and a later one without an option completes the handshake.
#[track_caller]
fn check_fragments(forger: impl Fn(&Net) -> HandmadeClient, cut: usize, named: &[SocketAddr]) {
    let net = Net::new();
    let forger = forger(&net);
    let listener = net.listen(Family::DualStack);
    let send_forged_ack = |port, client| {
        let (mut connection, _) = forger.connect(port, &[]);
        forger.cut_at(Some(cut));
        connection.send(&toa_option(TOA_KIND, client), &[]);
        forger.cut_at(None);
        connection
    };
    for (&client, port) in named.iter().zip(3000..) {
        let _connection = send_forged_ack(port, client);
        listener.accept().ending_by_reset().assert_shows(client);
    }
    net.wait_for_no_records();
    let rules = Rules::load(&net);
    for ((&client, port), forged) in named.iter().zip(4000..).zip(1..) {
        let before = net.stats();
        let mut connection = send_forged_ack(port, client);
        assert_eq!(net.stats().since(&before), [], "{client}");
        connection.send(&[], &[]);
        accept_sender(&net, &listener, forger.address(port), &before);
        assert_eq!(rules.counts(), (0, 2 * forged));
    }
}

fn nftables_rules_drop_a_forged_option_in_fragments() {
    let v4 = |net: &Net| HandmadeClient::new(&net.server);
    let v6 = |net: &Net| HandmadeClient::with_ipv6(&net.server);
    check_fragments(v4, IN_OPTIONS, &[NAMED, NAMED_V6]);
    check_fragments(v6, IN_OPTIONS, &[NAMED_V6]);
}

fn nftables_rules_drop_a_forged_option_behind_headers_in_fragments() {
    let forger = |net: &Net| {
        let forger = HandmadeClient::with_ipv6(&net.server);
        forger.with_extension_headers(ip_number::IPV6_DESTINATION_OPTIONS, &TWO_HEADERS)
    };
    check_fragments(forger, BETWEEN_HEADERS, &[NAMED_V6]);
}

fn nftables_rules_pass_fragments_of_udp() {
    const DATAGRAM: [u8; 4000] = [7; 4000];
    let net = Net::new();
    let rules = Rules::load(&net);
    net.server.ip("link set lo mtu 1500");
    for own in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
        let bind = || UdpSocket::bind((own, 0)).expect("a socket");
        let [from, to] = [net.server.enter(bind), net.server.enter(bind)];
        to.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
        let target = to.local_addr().expect("an address");
        from.send_to(&DATAGRAM, target).expect("it goes out");
        let mut received = [0; DATAGRAM.len()];
        let length = to.recv(&mut received).expect("it comes");
        assert_eq!(received[..length], DATAGRAM, "{own}");
    }
    assert_eq!(rules.counts(), (0, 0));
}

fn nftables_rules_can_be_loaded_again() {
    let net = Net::new();
    let rules = Rules::load(&net);
    let once = rules.nft(&["list", "ruleset"]);
    rules.load_again();
    assert_eq!(rules.nft(&["list", "ruleset"]), once);
}
