// SPDX-License-Identifier: GPL-2.0

//! Addresses of the server itself, which no other host can have: an option that names one leaves
//! the sender's address. The segment's device and namespace decide which addresses these are.

use std::net::SocketAddr;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use crate::balancer;
use crate::cases::impossible_clients::client;
use crate::cases::impossible_clients::Fate;
use crate::cases::impossible_clients::Stage;
use crate::cases::impossible_clients::IMPOSSIBLE;
use crate::handmade;
use crate::ktap::note;
use crate::namespace::Namespace;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::netstat;
use crate::runner;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Family;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    servers_own_address_leaves_the_sender,
    broadcast_address_of_the_servers_network_leaves_the_sender,
    anyip_address_leaves_the_sender,
    link_local_address_of_any_device_leaves_the_sender,
    tentative_address_leaves_the_sender,
    syncookie_connection_with_an_own_address_leaves_the_sender,
    vrf_address_leaves_the_sender_within_its_vrf_only,
    syncookie_connection_refuses_the_addresses_of_its_vrf_only,
    address_added_after_the_segment_stays_a_client,
    address_removed_after_the_segment_stays_refused,
    address_that_comes_and_goes_is_the_client_or_the_sender,
    nat64_client_is_seen_where_ipv6_is_disabled,
];

/// Checks the fate of clients in every form that the stage's segments can carry.
#[track_caller]
fn check_all(stage: &Stage, rows: &[(&str, Fate)]) {
    for &(ip, fate) in rows {
        let named = client(ip);
        // An 8-byte option in an IPv6 segment has a foreign length.
        if named.is_ipv6() || !stage.ipv6 {
            stage.check(named, fate);
        }
    }
}

fn servers_own_address_leaves_the_sender() {
    let [v4, v6] = [SERVER_V4.to_string(), SERVER_V6.to_string()];
    Stage::each(|stage| {
        let device = stage.client.device();
        stage.net.server.ip(&format!(
            "addr add 10.66.0.1/24 dev {device}\n\
             addr add fd00:66::1/64 dev {device} nodad\n"
        ));
        check_all(
            stage,
            &[
                // Two addresses of the loopback device, then two of the segment's device.
                (&v4, IMPOSSIBLE),
                (&v6, IMPOSSIBLE),
                ("10.66.0.1", IMPOSSIBLE),
                ("fd00:66::1", IMPOSSIBLE),
                ("10.66.0.2", Fate::Seen),
                ("fd00:66::2", Fate::Seen),
            ],
        );
    });
}

fn broadcast_address_of_the_servers_network_leaves_the_sender() {
    Stage::each(|stage| {
        let (server, device) = (&stage.net.server, stage.client.device());
        server.ip(&format!("addr add 10.66.0.1/24 brd + dev {device}"));
        check_all(
            stage,
            &[("10.66.0.255", IMPOSSIBLE), ("10.66.0.254", Fate::Seen)],
        );
    });
}

/// A route of type local makes the server answer for a whole network.
fn anyip_address_leaves_the_sender() {
    Stage::each(|stage| {
        stage.net.server.ip("route add local 198.18.0.0/24 dev lo");
        check_all(
            stage,
            &[
                ("198.18.0.0", IMPOSSIBLE),
                ("198.18.0.200", IMPOSSIBLE),
                ("198.18.1.0", Fate::Seen),
            ],
        );
    });
}

/// The link-local addresses of a server with two devices, and another host's.
fn check_link_local(stage: &Stage) {
    stage.net.server.ip(&format!(
        "addr add fe80::66/64 dev {} nodad\n\
         addr add fe80::67/64 dev {} nodad\n",
        stage.client.device(),
        balancer::SERVER_SIDE
    ));
    check_all(
        stage,
        &[
            ("fe80::66", IMPOSSIBLE),
            // The other device's.
            ("fe80::67", IMPOSSIBLE),
            ("fe80::68", Fate::Seen),
        ],
    );
}

fn link_local_address_of_any_device_leaves_the_sender() {
    Stage::each(check_link_local);
}

/// An address whose duplicate address detection has failed stays tentative.
fn tentative_address_leaves_the_sender() {
    Stage::each(|stage| {
        let device = stage.client.device();
        stage
            .net
            .server
            .sysctl(&format!("ipv6/conf/{device}/dad_transmits"), "100");
        stage
            .net
            .server
            .ip(&format!("addr add fd00:66::9/64 dev {device}"));
        check_all(
            stage,
            &[("fd00:66::9", IMPOSSIBLE), ("fd00:66::8", Fate::Seen)],
        );
    });
}

/// Turns all handshakes of the stage into syncookies.
fn only_syncookies(stage: &Stage) {
    stage.net.server.sysctl("ipv4/tcp_syncookies", "2");
}

/// Checks that connections have come by syncookies.
#[track_caller]
fn assert_syncookies(stage: &Stage, expected: u64) {
    let received = netstat::tcp(&stage.net.server, "SyncookiesRecv");
    assert_eq!(received, expected, "good cookies that came back");
}

/// A segment with a syncookie has only the index of its device left when the child is made.
fn syncookie_connection_with_an_own_address_leaves_the_sender() {
    let [v4, v6] = [SERVER_V4.to_string(), SERVER_V6.to_string()];
    Stage::each(|stage| {
        only_syncookies(stage);
        check_all(
            stage,
            &[
                (&v4, IMPOSSIBLE),
                (&v6, IMPOSSIBLE),
                ("10.0.0.2", Fate::Seen),
                ("fd00::2", Fate::Seen),
            ],
        );
        check_link_local(stage);
        let names = if stage.ipv6 { 5 } else { 7 };
        assert_syncookies(stage, 2 * names);
    });
}

const VRF: &str = "red";
const VRF_TABLE: u32 = 77;

/// Makes a VRF that also has the server's addresses. The VRF's table ends in unreachable routes, as
/// the kernel's `Documentation/networking/vrf.rst` recommends. The listener accepts connections of
/// each VRF.
fn add_vrf(stage: &Stage) {
    let server = &stage.net.server;
    server.ip(&format!(
        "link add {VRF} type vrf table {VRF_TABLE}\n\
         link set {VRF} up\n\
         addr add {SERVER_V4}/32 dev {VRF}\n\
         addr add {SERVER_V6}/128 dev {VRF} nodad\n\
         addr add 10.77.0.1/32 dev {VRF}\n\
         addr add fd00:77::1/128 dev {VRF} nodad\n\
         route add unreachable default metric 4278198272 table {VRF_TABLE}\n\
         route add unreachable ::/0 metric 4278198272 table {VRF_TABLE}\n\
         addr add 10.88.0.1/32 dev lo\n\
         addr add fd00:88::1/128 dev lo nodad\n"
    ));
    server.sysctl("ipv4/tcp_l3mdev_accept", "1");
}

/// Moves the client's device into the VRF or out of it, and moves the route, which does not follow.
fn move_client(stage: &Stage, vrf: Option<u32>) {
    let (master, table) = match vrf {
        Some(table) => (format!("master {VRF}"), format!("table {table}")),
        None => ("nomaster".to_owned(), String::new()),
    };
    let address = match stage.ipv6 {
        false => handmade::ADDRESS_V4.to_string(),
        true => handmade::ADDRESS_V6.to_string(),
    };
    let device = stage.client.device();
    stage.net.server.ip(&format!(
        "link set {device} {master}\n\
         route replace {address} dev {device} {table}\n"
    ));
}

/// Checks the addresses of the VRF and those outside, by connections within it and outside.
#[track_caller]
fn check_vrf(stage: &Stage) {
    add_vrf(stage);
    move_client(stage, Some(VRF_TABLE));
    let (server, device) = (&stage.net.server, stage.client.device());
    server.ip(&format!("addr add fe80::77/64 dev {device} nodad"));
    check_all(
        stage,
        &[
            ("10.77.0.1", IMPOSSIBLE),
            ("fd00:77::1", IMPOSSIBLE),
            ("fe80::77", IMPOSSIBLE),
            ("fe80::78", Fate::Seen),
            ("10.88.0.1", Fate::Seen),
            ("fd00:88::1", Fate::Seen),
            // The server has no route to these.
            ("203.0.113.9", Fate::Seen),
            ("2001:db8:9:9::9", Fate::Seen),
        ],
    );
    move_client(stage, None);
    check_all(
        stage,
        &[
            ("10.77.0.1", Fate::Seen),
            ("fd00:77::1", Fate::Seen),
            ("10.88.0.1", IMPOSSIBLE),
            ("fd00:88::1", IMPOSSIBLE),
        ],
    );
}

/// Skips the test on a kernel without VRFs.
fn need_vrf() {
    let loaded = Command::new("modprobe").arg("vrf").status();
    if !loaded.expect("modprobe runs").success() {
        runner::skip("the kernel has no module vrf");
    }
}

fn vrf_address_leaves_the_sender_within_its_vrf_only() {
    need_vrf();
    Stage::each(check_vrf);
}

fn syncookie_connection_refuses_the_addresses_of_its_vrf_only() {
    need_vrf();
    Stage::each(|stage| {
        only_syncookies(stage);
        check_vrf(stage);
        let names = if stage.ipv6 { 7 } else { 12 };
        assert_syncookies(stage, 2 * names);
    });
}

/// Addresses that the server has for a time.
const COMING_V4: &str = "198.51.100.77";
const COMING_V6: &str = "2001:db8:77::77";

/// Commands that add an address to the server, and remove it.
fn addition_and_removal(ip: &str) -> [String; 2] {
    let (length, nodad) = match client(ip).is_ipv6() {
        false => (32, ""),
        true => (128, "nodad"),
    };
    [
        format!("addr add {ip}/{length} dev lo {nodad}\n"),
        format!("addr del {ip}/{length} dev lo\n"),
    ]
}

/// Checks that the fate of a client is decided when its segment arrives: `before` and `after` that,
/// the server's addresses change.
#[track_caller]
fn check_decided_by_segment(fate: Fate) {
    Stage::each(|stage| {
        for ip in [COMING_V4, COMING_V6] {
            let named = client(ip);
            if named.is_ipv4() && stage.ipv6 {
                continue;
            }
            let server = &stage.net.server;
            let [addition, removal] = addition_and_removal(ip);
            if fate == IMPOSSIBLE {
                server.ip(&addition);
            }
            let before = stage.net.stats();
            let (mut connection, sender) = stage.connect(named);
            stage.listener.wait();
            match fate {
                Fate::Seen => server.ip(&addition),
                Fate::Refused(_) => server.ip(&removal),
            }
            let mut accepted = stage.listener.accept().ending_by_reset();
            stage.check_answers(&accepted, named, sender, fate);
            stage.check_counted(&before, named, fate);
            connection.exchange(&mut accepted);
            drop(accepted);
            if fate == Fate::Seen {
                server.ip(&removal);
            }
            stage.net.wait_for_no_records();
        }
    });
}

fn address_added_after_the_segment_stays_a_client() {
    check_decided_by_segment(Fate::Seen);
}

fn address_removed_after_the_segment_stays_refused() {
    check_decided_by_segment(IMPOSSIBLE);
}

/// Additions and removals by one run of `ip`.
const CHANGES: usize = 50;

/// Connections that see each fate before a test is over.
const ENOUGH: i64 = 30;

fn address_that_comes_and_goes_is_the_client_or_the_sender() {
    Stage::each(|stage| {
        if stage.listener.family == Family::DualStack && !stage.ipv6 {
            check_coming(stage, COMING_V4);
        }
        if stage.listener.family == Family::DualStack {
            check_coming(stage, COMING_V6);
        }
    });
}

/// Changes the server's addresses by commands of `ip`, again and again, beside `job`.
fn beside_changes<T>(server: &Namespace, commands: &str, job: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                server.ip(commands);
            }
        });
        // The thread must be stopped before a panic unwinds further.
        let outcome = panic::catch_unwind(AssertUnwindSafe(job));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|cause| panic::resume_unwind(cause))
    })
}

/// Makes connections that name `ip` while the address comes and goes, until both fates were seen.
#[track_caller]
fn check_coming(stage: &Stage, ip: &str) {
    let named = client(ip);
    let commands = addition_and_removal(ip).concat().repeat(CHANGES);
    let before = stage.net.stats();
    let mut counts = [0, 0];
    beside_changes(&stage.net.server, &commands, || {
        wait::until("connections of both fates", || {
            let refused = connect_once(stage, named);
            counts[usize::from(refused)] += 1;
            match counts.iter().all(|&count| count >= ENOUGH) {
                true => Ok(()),
                false => Err(format!("seen and refused: {counts:?}")),
            }
        });
    });
    let [seen, refused] = counts;
    note(&format!("{named}: {seen} seen, {refused} refused"));
    stage.net.wait_for_no_records();
    let mut change = stage.net.stats().since(&before);
    change.retain(|(row, _)| !row.starts_with("getname_") && !row.starts_with("ip6_"));
    let expected = [
        ("syn_recv_sock_toa", seen),
        ("syn_recv_sock_no_toa", refused),
        ("option_taken", seen),
        ("impossible_client", refused),
    ];
    assert_eq!(change, expected, "{named}");
}

/// Makes a connection that shows its sender or `named`, and returns whether it shows its sender.
#[track_caller]
fn connect_once(stage: &Stage, named: SocketAddr) -> bool {
    let (_connection, sender) = stage.connect(named);
    let accepted = stage.listener.accept().ending_by_reset();
    let family = stage.listener.family;
    let names = [accepted.name.clone(), accepted.peer()];
    let of_sender = names == [family.name(sender), family.name(sender)];
    let of_client = names == [family.name(named), family.name(named)];
    assert!(
        of_sender || of_client,
        "{names:?} for {named} from {sender}"
    );
    of_sender
}

/// The namespace's IPv6 is switched off: its list of addresses is empty, not absent.
fn nat64_client_is_seen_where_ipv6_is_disabled() {
    let own = SERVER_V6.to_string();
    Stage::each(|stage| {
        if stage.ipv6 {
            return;
        }
        check_all(stage, &[(&own, IMPOSSIBLE)]);
        let server = &stage.net.server;
        server.sysctl("ipv6/conf/all/disable_ipv6", "1");
        check_all(
            stage,
            &[
                // With IPv6, the server lost its address.
                (&own, Fate::Seen),
                ("2001:db8:9:9::9", Fate::Seen),
                ("::1", IMPOSSIBLE),
                ("203.0.113.9", Fate::Seen),
                ("10.0.0.1", IMPOSSIBLE),
            ],
        );
    });
}
