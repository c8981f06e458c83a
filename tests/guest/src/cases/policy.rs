// SPDX-License-Identifier: GPL-2.0

//! The policy's effects on connections: who may name clients, in which options, and which of them
//! count, in one namespace and in several at once.

use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::impossible_clients::client;
use crate::cases::impossible_clients::Fate;
use crate::cases::impossible_clients::Stage;
use crate::cases::impossible_clients::IMPOSSIBLE;
use crate::cases::options::NAMED;
use crate::cases::options::OTHER;
use crate::handmade::HandmadeClient;
use crate::kmsg::KernelLog;
use crate::ktap::note;
use crate::module;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::CLIENT_V6;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys::Name;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    forger_beside_trusted_balancers_sees_its_own_address_and_is_counted,
    set_without_hosts_trusts_none_and_the_empty_one_trusts_any,
    disabled_namespace_records_no_new_client_and_answers_for_the_old_ones,
    containers_with_different_policies_and_one_that_follows_the_node_at_once,
    grandchild_follows_its_parent_and_keeps_the_policy_of_one_that_ends,
    each_dialect_is_read_from_a_sender_that_writes_it,
    virtual_servers_address_is_never_the_client,
    last_of_two_options_wins_where_it_is_picked,
    nat46_admits_ipv4_clients_in_ipv6_segments,
    own_addresses_are_admitted_from_trusted_hosts_only,
    ten_thousand_changes_under_traffic_leave_neither_a_wrong_peer_nor_memory,
    thousand_and_24_prefixes_decide_as_one,
];

pub const UNLOADED: &[Case] = cases![Unloaded:
    forger_that_connects_during_the_load_is_never_trusted,
    share_is_lowered_by_the_namespace_and_bounds_its_records,
];

/// The balancer's local addresses as prefixes.
const BALANCERS: &str = "10.0.1.0/28,fd00:0:0:1::/124";

/// The addresses of handmade clients.
const FORGERS: &str = "192.0.2.7,2001:db8:9::7";

/// The fate of clients that an untrusted host names.
const UNTRUSTED: Fate = Fate::Refused("untrusted");

/// The ways whose clients a listener of that family shows.
fn ways(family: Family) -> &'static [Way] {
    match family {
        Family::V4 => &[Way::V4],
        Family::V6Only => &[Way::V6],
        Family::DualStack => &Way::ALL,
    }
}

/// Checks that connections through the balancer show their clients, or the balancer.
#[track_caller]
fn check_balanced(net: &Net, listener: &Listener, trusted: bool) {
    for &way in ways(listener.family) {
        let (client, accepted) = net.pair(listener, way);
        accepted.assert_shows(if trusted {
            client.address
        } else {
            net.balancer_of(&accepted)
        });
    }
    net.wait_for_no_records();
}

/// IPv4, IPv6, IPv4-mapped and NAT64.
fn forger_beside_trusted_balancers_sees_its_own_address_and_is_counted() {
    Stage::each(|stage| {
        let Stage {
            net,
            listener,
            ipv6,
            ..
        } = stage;
        let named = [NAMED, SocketAddr::new(CLIENT_V6.into(), 4660)];
        // An 8-byte option in an IPv6 segment has a foreign length.
        let named = if *ipv6 { &named[1..] } else { &named };
        net.server.set_policy("trusted", BALANCERS);
        for client in named {
            stage.check(*client, UNTRUSTED);
        }
        // The source counts first, whatever the option names.
        stage.check(client("::1"), UNTRUSTED);
        check_balanced(net, listener, true);
        net.server.set_policy("trusted", FORGERS);
        for client in named {
            stage.check(*client, Fate::Seen);
        }
        check_balanced(net, listener, false);
    });
}

fn set_without_hosts_trusts_none_and_the_empty_one_trusts_any() {
    Stage::each(|stage| {
        let named = SocketAddr::new(CLIENT_V6.into(), 4660);
        for (set, fate) in [("none", UNTRUSTED), ("", Fate::Seen), ("none", UNTRUSTED)] {
            stage.net.server.set_policy("trusted", set);
            stage.check(named, fate);
        }
        // The families are separate.
        let others = if stage.ipv6 { "0.0.0.0/0" } else { "::/0" };
        stage.net.server.set_policy("trusted", others);
        stage.check(named, UNTRUSTED);
        stage.net.server.set_policy("trusted", "0.0.0.0/0,::/0");
        stage.check(named, Fate::Seen);
    });
}

fn disabled_namespace_records_no_new_client_and_answers_for_the_old_ones() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let old = Way::ALL.map(|way| net.pair(&listener, way));
    net.server.set_policy("enabled", "0");
    let before = net.stats();
    for way in Way::ALL {
        let (_client, accepted) = net.pair(&listener, way);
        accepted.assert_shows(net.balancer_of(&accepted));
    }
    for (client, accepted) in &old {
        accepted.assert_shows(client.address);
    }
    let counted = [
        ("syn_recv_sock_no_toa", 3),
        ("getname_toa_ok", 3),
        ("getname_toa_empty", 6),
        ("disabled", 3),
    ];
    assert_eq!(net.stats().since(&before), counted);
    net.server.set_policy("enabled", "1");
    drop(old);
    check_balanced(&net, &listener, true);
}

/// The first namespace, whose policy is the default again when this is dropped.
struct Node(Namespace);

impl Node {
    fn new() -> Self {
        Self(Namespace::first())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for (file, value) in [
            ("enabled", "1"),
            ("trusted", ""),
            ("kinds", "254"),
            ("pick", "first"),
            ("nat46", "0"),
            ("own_addresses", "0"),
        ] {
            self.0.set_policy(file, value);
        }
    }
}

/// The inherited settings of a namespace that writes none.
const ALL_INHERITED: &str = "enabled trusted kinds pick nat46 own_addresses";

fn containers_with_different_policies_and_one_that_follows_the_node_at_once() {
    let node = Node::new();
    let nets = [Net::new(), Net::new(), Net::new()];
    let [strict, off, follower] = &nets;
    let listeners = nets.each_ref().map(|net| net.listen(Family::DualStack));
    strict.server.set_policy("trusted", FORGERS);
    off.server.set_policy("enabled", "0");
    assert_eq!(
        nets.each_ref().map(|net| net.server.policy("inherited")),
        [
            "enabled kinds pick nat46 own_addresses",
            "trusted kinds pick nat46 own_addresses",
            ALL_INHERITED,
        ]
    );
    assert_eq!(node.0.policy("inherited"), "");

    // The connections of all three are there at the same time.
    for (set, shows) in [("none", false), (BALANCERS, true), ("none", false)] {
        node.0.set_policy("trusted", set);
        assert_eq!(follower.server.policy("trusted"), set);
        assert_eq!(off.server.policy("trusted"), set);
        assert_eq!(
            strict.server.policy("trusted"),
            "192.0.2.7/32,2001:db8:9::7/128"
        );
        let before = nets.each_ref().map(Net::stats);
        for way in Way::ALL {
            let clients = nets.each_ref().map(|net| net.connect(way));
            let accepted = listeners.each_ref().map(Listener::accept);
            for ((net, accepted), client) in nets.iter().zip(&accepted).zip(&clients) {
                let trusted = std::ptr::eq(net, follower) && shows;
                accepted.assert_shows(if trusted {
                    client.address
                } else {
                    net.balancer_of(accepted)
                });
            }
        }
        let counted = |at: usize, row: &str| nets[at].stats().get(row) - before[at].get(row);
        assert_eq!([counted(0, "untrusted"), counted(0, "disabled")], [3, 0]);
        assert_eq!([counted(1, "untrusted"), counted(1, "disabled")], [0, 3]);
        let refused = if shows { 0 } else { 3 };
        assert_eq!(
            [counted(2, "untrusted"), counted(2, "disabled")],
            [refused, 0]
        );
    }
}

fn grandchild_follows_its_parent_and_keeps_the_policy_of_one_that_ends() {
    let node = Node::new();
    let parent = Namespace::new("parent");
    let child = parent.enter(|| Namespace::new("child"));
    assert_eq!(child.policy("inherited"), ALL_INHERITED);

    // What the parent writes, both follow no more from the node.
    parent.set_policy("pick", "last");
    node.0.set_policy("pick", "first");
    node.0.set_policy("nat46", "1");
    for namespace in [&parent, &child] {
        assert_eq!(namespace.policy("pick"), "last");
        assert_eq!(namespace.policy("nat46"), "1");
    }
    assert_eq!(child.policy("inherited"), ALL_INHERITED);
    // What the child writes stays in the child.
    child.set_policy("kinds", "253/20");
    parent.set_policy("kinds", "200/8");
    assert_eq!(child.policy("kinds"), "253/20:client6");
    assert_eq!(node.0.policy("kinds"), "254/8:client4,254/20:client6");

    // The child follows again, and keeps a value without writing it.
    child.set_policy("inherited", "kinds trusted pick nat46 own_addresses");
    assert_eq!(child.policy("kinds"), "200/8:client4");
    assert_eq!(
        child.policy("inherited"),
        "trusted kinds pick nat46 own_addresses"
    );
    node.0.set_policy("enabled", "0");
    assert_eq!([&parent, &child].map(|n| n.policy("enabled")), ["0", "1"]);

    // When the parent ends, the child keeps what the parent had written.
    drop(parent);
    wait::until("the child has its own settings", || {
        match child.policy("inherited").as_str() {
            "trusted nat46 own_addresses" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    node.0.set_policy("pick", "first");
    node.0.set_policy("nat46", "0");
    node.0.set_policy("trusted", "10.0.0.0/8");
    assert_eq!(child.policy("pick"), "last");
    assert_eq!(child.policy("kinds"), "200/8:client4");
    assert_eq!(child.policy("nat46"), "0");
    assert_eq!(child.policy("trusted"), "10.0.0.0/8");
}

/// Checks the peer of a connection through a balancer that inserts these bytes. `shows` gets the
/// balancer's end.
#[track_caller]
fn check_inserted(
    policy: &[(&str, &str)],
    way: Way,
    options: &[u8],
    shows: impl Fn(SocketAddr) -> SocketAddr,
) {
    let net = Net::with(&Plan::inserting(options));
    for (file, value) in policy {
        net.server.set_policy(file, value);
    }
    let listener = net.listen(Family::DualStack);
    let (mut client, mut accepted) = net.pair(&listener, way);
    accepted.assert_shows(shows(net.balancer_of(&accepted)));
    sockets::exchange(&mut client, &mut accepted);
    sockets::finish(&mut client, &mut accepted);
}

/// An option of that kind with the address alone.
fn portless(kind: u8, address: IpAddr) -> Vec<u8> {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    [&[kind, octets.len() as u8 + 2], &octets[..]].concat()
}

fn each_dialect_is_read_from_a_sender_that_writes_it() {
    let v6 = SocketAddr::new(CLIENT_V6.into(), 4660);
    let rows = [
        ("client4", Way::V4, toa_option(200, NAMED), NAMED),
        ("client6", Way::V6, toa_option(200, v6), v6),
        ("client6", Way::Nat64, toa_option(200, v6), v6),
        ("client4-noport", Way::V4, portless(200, NAMED.ip()), NAMED),
        ("client6-noport", Way::V6, portless(200, v6.ip()), v6),
        ("client6-noport", Way::Nat64, portless(200, v6.ip()), v6),
    ];
    for (dialect, way, option, named) in rows {
        let rule = format!("253/20,200:{dialect}");
        let policy = [("kinds", rule.as_str())];
        check_inserted(&policy, way, &option, |balancer| {
            let mut shown = named;
            if dialect.ends_with("noport") {
                shown.set_port(balancer.port());
            }
            shown
        });
        // The default rules do not count it, and these do not count the default's.
        check_inserted(&[], way, &option, |balancer| balancer);
        check_inserted(&policy, way, &toa_option(TOA_KIND, named), |balancer| {
            balancer
        });
    }
}

fn virtual_servers_address_is_never_the_client() {
    let vip = toa_option(253, OTHER);
    let named = toa_option(TOA_KIND, NAMED);
    for pick in ["first", "last"] {
        let policy = [("kinds", "253/8:vip,253/20,254"), ("pick", pick)];
        check_inserted(&policy, Way::V4, &vip, |balancer| balancer);
        for list in [[&vip[..], &named].concat(), [&named[..], &vip].concat()] {
            check_inserted(&policy, Way::V4, &list, |_| NAMED);
        }
    }
}

/// A second balancer inserts its option in front of the first one's.
fn last_of_two_options_wins_where_it_is_picked() {
    let cascade = [toa_option(TOA_KIND, OTHER), toa_option(TOA_KIND, NAMED)].concat();
    for (pick, shown) in [("first", OTHER), ("last", NAMED)] {
        check_inserted(&[("pick", pick)], Way::V4, &cascade, |_| shown);
    }
}

fn nat46_admits_ipv4_clients_in_ipv6_segments() {
    for family in [Family::V6Only, Family::DualStack] {
        let stage = Stage::new(family, true);
        stage.check(NAMED, Fate::Refused("foreign_length"));
        stage.net.server.set_policy("nat46", "1");
        stage.check(NAMED, Fate::Seen);
        stage.check(client("127.0.0.1"), IMPOSSIBLE);
        stage.check(SocketAddr::new(SERVER_V4.into(), 4660), IMPOSSIBLE);
        stage.net.server.set_policy("nat46", "0");
        stage.check(NAMED, Fate::Refused("foreign_length"));
    }
}

/// A server that reaches itself through the balancer.
fn own_addresses_are_admitted_from_trusted_hosts_only() {
    Stage::each(|stage| {
        let server = &stage.net.server;
        let own: IpAddr = if stage.ipv6 {
            SERVER_V6.into()
        } else {
            SERVER_V4.into()
        };
        let own = SocketAddr::new(own, 4660);
        stage.check(own, IMPOSSIBLE);
        server.set_policy("own_addresses", "1");
        stage.check(own, IMPOSSIBLE);
        server.set_policy("trusted", FORGERS);
        stage.check(own, Fate::Seen);
        let device = stage.client.device();
        server.ip(&format!("addr add 10.66.0.1/24 brd + dev {device}"));
        for other in ["127.0.0.1", "::1", "ff02::1", "10.66.0.255"] {
            if !(stage.ipv6 && other == "10.66.0.255") {
                stage.check(client(other), IMPOSSIBLE);
            }
        }
        server.set_policy("trusted", BALANCERS);
        stage.check(own, UNTRUSTED);
        server.set_policy("trusted", "");
        stage.check(own, IMPOSSIBLE);
    });
}

/// Prefixes that do not merge, none of which has the tests' hosts.
fn many_prefixes(count: u32) -> String {
    let prefix = |at: u32| format!("{}/32", Ipv4Addr::from_bits(0x6464_6400 + 2 * at));
    (0..count).map(prefix).collect::<Vec<_>>().join(",")
}

/// The memory that programs can have, in KiB.
fn available_memory() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// The changes of a policy under traffic.
const CHANGES: usize = 10_000;

/// The changes would take 160 MB if the sets stayed.
const LEAK: i64 = 64 << 10;

fn ten_thousand_changes_under_traffic_leave_neither_a_wrong_peer_nor_memory() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let child = net.server.enter(|| Namespace::new("child"));
    let untrusted = many_prefixes(1024);
    let trusted =
        format!("{untrusted},{BALANCERS}").replacen("100.100.100.0/32,100.100.100.2/32,", "", 1);
    let values = [
        ("trusted", trusted.as_str()),
        ("kinds", "254,253/20"),
        ("trusted", untrusted.as_str()),
        ("kinds", "253/20"),
        ("trusted", BALANCERS),
        ("enabled", "0"),
        ("kinds", "254"),
        ("trusted", "none"),
        ("enabled", "1"),
        ("pick", "last"),
    ];
    let (stop, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let seen = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let before = available_memory();
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for way in Way::ALL {
                    let (client, accepted) = net.pair(&listener, way);
                    let family = listener.family;
                    let shown = [client.address, net.balancer_of(&accepted)];
                    let at = shown
                        .iter()
                        .position(|end| family.name(*end) == accepted.name);
                    let at = at.unwrap_or_else(|| panic!("{:?} of {shown:?}", accepted.name));
                    seen[at].fetch_add(1, Ordering::Relaxed);
                    connections.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let changes = panic_free(|| {
            for change in 0..CHANGES {
                let (file, value) = values[change % values.len()];
                net.server.set_policy(file, value);
                if traffic.is_finished() {
                    return;
                }
            }
        });
        stop.store(true, Ordering::Relaxed);
        changes.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
    let counts = [&seen[0], &seen[1], &connections].map(|count| count.load(Ordering::Relaxed));
    note(&format!(
        "clients, balancers, connections: {counts:?} in {CHANGES} changes"
    ));
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");

    // The next connection sees the last change, and the child follows.
    for (set, trusted) in [(BALANCERS, true), ("none", false), (BALANCERS, true)] {
        net.server.set_policy("trusted", set);
        check_balanced(&net, &listener, trusted);
        assert_eq!(child.policy("trusted"), set);
    }
    drop(child);
    wait::until("the sets are freed", || match before - available_memory() {
        lost if lost < LEAK => Ok(()),
        lost => Err(format!("{lost} KiB are gone")),
    });
}

/// Runs `work`, and catches its panic.
fn panic_free(work: impl FnOnce()) -> thread::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
}

fn thousand_and_24_prefixes_decide_as_one() {
    let stage = Stage::new(Family::DualStack, false);
    let server = &stage.net.server;
    let others = many_prefixes(1023);
    server.set_policy("trusted", &format!("{others},192.0.2.7/32"));
    stage.check(NAMED, Fate::Seen);
    server.set_policy("trusted", &format!("{others},192.0.2.8/32"));
    stage.check(NAMED, UNTRUSTED);
    assert_eq!(server.policy("trusted"), format!("{others},192.0.2.8/32"));
}

/// A host that connects all the time and forges clients.
struct Forger<'a> {
    client: HandmadeClient,
    listener: &'a Listener,
}

impl Forger<'_> {
    /// Makes a connection, which names a client.
    #[track_caller]
    fn connect(&self, port: u16) -> Accepted {
        let (mut connection, _) = self.client.connect(port, &[]);
        connection.send(&toa_option(TOA_KIND, NAMED), &[]);
        self.listener.accept().ending_by_reset()
    }
}

fn forger_that_connects_during_the_load_is_never_trusted() {
    let nets = [Net::new(), Net::new()];
    let listeners = nets.each_ref().map(|net| net.listen(Family::V4));
    let (stop, forged) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let forger = scope.spawn(|| {
            let forger = Forger {
                client: HandmadeClient::new(&nets[0].server),
                listener: &listeners[0],
            };
            for port in (4000..60_000).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let accepted = forger.connect(port);
                assert_eq!(accepted.name, Name::of(forger.client.address(port)));
                forged.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = |wanted: usize| {
            let start = forged.load(Ordering::Relaxed);
            wait::until("the forger continues", || {
                assert!(!forger.is_finished(), "the forger was trusted");
                match forged.load(Ordering::Relaxed) - start {
                    done if done >= wanted => Ok(()),
                    done => Err(format!("{done} connections")),
                }
            });
        };
        let outcome = panic_free(|| {
            for _ in 0..5 {
                more(20);
                let mut log = KernelLog::from_now();
                module::load_with("wait_for_policy=1");
                let lines = log.new_lines();
                let waits =
                    |line: &String| line.contains("from no host until net.toa.trusted is written");
                assert!(lines.iter().any(waits), "{lines:?}");
                let node = Namespace::first();
                let follower = &nets[0].server;
                assert_eq!([&node, follower].map(|n| n.policy("trusted")), ["none"; 2]);
                more(20);
                // Another setting is no policy.
                node.set_policy("kinds", "254,253/20");
                check_balanced(&nets[1], &listeners[1], false);
                more(20);
                node.set_policy("trusted", BALANCERS);
                check_balanced(&nets[1], &listeners[1], true);
                more(20);
                let untrusted = nets[0].stats().get("untrusted");
                assert!(untrusted >= 60, "{untrusted} counted");
                module::unload();
            }
        });
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
    note(&format!("{forged:?} connections of the forger"));
}

/// Completes handshakes that name clients, and returns the number of records.
#[track_caller]
fn records_of(client: &HandmadeClient, server: &Namespace, ports: std::ops::Range<u16>) -> u64 {
    for port in ports {
        let (mut connection, _) = client.connect(port, &[]);
        connection.send(&toa_option(TOA_KIND, NAMED), &[]);
    }
    crate::stats::Stats::read(server).get("records_live")
}

fn share_is_lowered_by_the_namespace_and_bounds_its_records() {
    module::load_with("max_records=40");
    let rows = [
        (Namespace::first(), 40, 40),
        (Namespace::new("container"), 10, 20),
        (Namespace::unprivileged("cell"), 10, 10),
    ];
    for (namespace, share, most) in rows {
        let client = HandmadeClient::new(&namespace);
        namespace.ip(&format!("addr add {SERVER_V4} dev {}", client.device()));
        let listener = namespace.enter(|| Listener::new(Family::V4, PORT));
        assert_eq!(namespace.policy("max_records"), share.to_string());
        namespace.set_policy("max_records", "3");
        assert_eq!(namespace.policy("max_records"), "3");
        assert_eq!(records_of(&client, &namespace, 4000..4005), 3);
        // Live records stay when the share is lowered below them.
        namespace.set_policy("max_records", "1");
        assert_eq!(records_of(&client, &namespace, 4100..4101), 3);
        namespace.set_policy("max_records", "4");
        assert_eq!(records_of(&client, &namespace, 4200..4202), 4);
        // The initial user namespace may raise the share as far as its owner's namespaces go.
        namespace.set_policy("max_records", &most.to_string());
        assert_eq!(
            namespace.write_policy("max_records", format!("{}\n", most + 1)),
            Err(nix::errno::Errno::EINVAL)
        );
        assert_eq!(namespace.policy("max_records"), most.to_string());
        namespace.set_policy("max_records", "0");
        assert_eq!(records_of(&client, &namespace, 4300..4301), 4);
        drop(listener);
        wait::until("no records", || {
            match crate::stats::Stats::read(&namespace).get("records_live") {
                0 => Ok(()),
                live => Err(crate::stats::describe("records_live", live)),
            }
        });
    }
    module::unload();
}
