// SPDX-License-Identifier: GPL-2.0

//! The outcomes in `/proc/net/toa_stats`: each connection counts in exactly one row, whichever
//! options it carries. The leaves of the decision tree in `doc/operating.md` name tests of this file.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::process::Command;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::impossible_clients::Stage;
use crate::cases::options::NAMED;
use crate::kmsg::KernelLog;
use crate::module;
use crate::namespace;
use crate::net::Net;
use crate::net::Way;
use crate::netstat;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::stats::Stats;
use crate::stats::OUTCOMES;
use crate::test_module::TestModule;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    good_option_counts_as_option_taken,
    segment_without_option_counts_as_no_option,
    header_without_room_counts_as_no_option_header_full,
    option_of_a_kind_that_does_not_count_is_kind_not_configured,
    kinds_of_the_standards_are_no_kinds_to_configure,
    option_that_names_the_server_or_loopback_counts_as_impossible_client,
    short_option_in_ipv6_segments_counts_as_foreign_length,
    option_of_no_clients_length_counts_as_malformed,
    outcomes_add_up_to_the_connections,
    outcomes_add_up_to_the_connections_by_syncookies,
    connections_through_a_plain_balancer_count_as_no_option,
];

pub const UNLOADED: &[Case] = cases![Unloaded:
    connection_beyond_the_share_counts_as_record_table_full,
    connection_without_memory_counts_as_record_alloc_failed,
    full_share_is_logged_once_for_each_namespace,
    line_about_a_full_share_waits_for_its_turn,
    line_about_a_lowered_share_names_the_sysctl,
];

const NAMED_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 9)),
    4660,
);

const NOP: u8 = 1;

/// RFC 7323, with two NOPs in front, as most clients send it.
const TIMESTAMPS: [u8; 12] = [NOP, NOP, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];

/// The clients that the stage's segments may name: over IPv4 also by NAT64.
fn named(stage: &Stage) -> &'static [SocketAddr] {
    match stage.ipv6 {
        false => &[NAMED, NAMED_V6],
        true => &[NAMED_V6],
    }
}

/// Makes a connection whose ACK carries the options.
#[track_caller]
fn connect(stage: &Stage, options: &[u8]) -> Accepted {
    let (mut connection, _) = stage.client.connect(stage.next_port(), &[]);
    connection.send(options, &[]);
    stage.listener.accept().ending_by_reset()
}

/// The changes of the outcomes, and of DPVS's two rows.
#[track_caller]
fn changes(stage: &Stage, before: &Stats) -> Vec<(&'static str, i64)> {
    let mut changes = stage.net.stats().since(before);
    changes.retain(|(row, _)| OUTCOMES.contains(row) || row.starts_with("syn_recv_sock_"));
    changes
}

/// Checks that a connection with these options counts in one row of outcomes, and in DPVS's row
/// that follows from it.
#[track_caller]
fn check(stage: &Stage, options: &[u8], outcome: &'static str) {
    let before = stage.net.stats();
    drop(connect(stage, options));
    let with_client = ["option_taken", "record_table_full", "record_alloc_failed"];
    let of_dpvs = match with_client.contains(&outcome) {
        true => "syn_recv_sock_toa",
        false => "syn_recv_sock_no_toa",
    };
    let expected = [(of_dpvs, 1), (outcome, 1)];
    assert_eq!(changes(stage, &before), expected, "{options:02x?}");
}

fn good_option_counts_as_option_taken() {
    Stage::each(|stage| {
        for &named in named(stage) {
            let option = toa_option(TOA_KIND, named);
            check(stage, &option, "option_taken");
            // Behind the option nothing decides any more.
            check(stage, &[&option[..], &TIMESTAMPS].concat(), "option_taken");
            check(stage, &[&option[..], &[77, 1]].concat(), "option_taken");
            check(
                stage,
                &[&option[..], &toa_option(253, NAMED)].concat(),
                "option_taken",
            );
        }
    });
}

fn segment_without_option_counts_as_no_option() {
    Stage::each(|stage| {
        check(stage, &[], "no_option");
        check(stage, &TIMESTAMPS, "no_option");
        // The balancer had room for its option, to the byte.
        let most = if stage.ipv6 { 20 } else { 32 };
        check(stage, &vec![NOP; most], "no_option");
    });
}

fn header_without_room_counts_as_no_option_header_full() {
    Stage::each(|stage| {
        let least = if stage.ipv6 { 24 } else { 36 };
        for length in (least..=40).step_by(4) {
            check(stage, &vec![NOP; length], "no_option_header_full");
        }
        let mut behind_timestamps = TIMESTAMPS.to_vec();
        behind_timestamps.resize(40, NOP);
        check(stage, &behind_timestamps, "no_option_header_full");
    });
}

fn option_of_a_kind_that_does_not_count_is_kind_not_configured() {
    Stage::each(|stage| {
        for kind in [70, 200, 202, 222, 250, 252, 253, 255] {
            for named in [NAMED, NAMED_V6] {
                let option = toa_option(kind, named);
                check(stage, &option, "kind_not_configured");
            }
            // An address without a port.
            check(stage, &[kind, 6, 203, 0, 113, 9], "kind_not_configured");
        }
        check(stage, &[28, 7, 1, 203, 0, 113, 9], "kind_not_configured");
        let mut v6 = vec![28, 19, 2];
        v6.resize(19, 0x77);
        check(stage, &v6, "kind_not_configured");
        // A full header does not hide the reason.
        let mut full = toa_option(253, NAMED);
        full.resize(40, NOP);
        check(stage, &full, "kind_not_configured");
    });
}

fn kinds_of_the_standards_are_no_kinds_to_configure() {
    Stage::each(|stage| {
        // RFC 5482, Accurate ECN, MPTCP, TCP Fast Open, and one that has no client's length.
        let user_timeout = [28, 4, 0, 1];
        let accurate_ecn = [172, 8, 0, 0, 0, 0, 0, 0];
        let accurate_ecn_1 = [174, 8, 0, 0, 0, 0, 0, 0];
        let multipath = [30, 8, 0x30, 0, 0, 0, 0, 0];
        let fast_open = [34, 6, 0x77, 0x77, 0x77, 0x77];
        let other_length = [77, 5, 254, 8, 1];
        for options in [
            &user_timeout[..],
            &accurate_ecn,
            &accurate_ecn_1,
            &multipath,
            &fast_open,
            &other_length,
        ] {
            check(stage, options, "no_option");
        }
    });
}

fn option_that_names_the_server_or_loopback_counts_as_impossible_client() {
    Stage::each(|stage| {
        let local = stage.listener.family != Family::V6Only && !stage.ipv6;
        let own: IpAddr = match local {
            true => Ipv4Addr::new(10, 0, 0, 1).into(),
            false => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        };
        for ip in [own, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let option = toa_option(TOA_KIND, SocketAddr::new(ip, 4660));
            check(stage, &option, "impossible_client");
        }
    });
}

fn short_option_in_ipv6_segments_counts_as_foreign_length() {
    Stage::each(|stage| {
        let outcome = match stage.ipv6 {
            true => "foreign_length",
            false => "option_taken",
        };
        check(stage, &toa_option(TOA_KIND, NAMED), outcome);
    });
}

fn option_of_no_clients_length_counts_as_malformed() {
    Stage::each(|stage| {
        check(stage, &[TOA_KIND, 4, 0, 80], "malformed");
        check(stage, &[NOP, NOP, TOA_KIND, 8], "malformed");
        check(stage, &[NOP, NOP, NOP, 77], "malformed");
        // Another kind in front of it is no reason to configure that kind.
        let option = [&toa_option(253, NAMED)[..], &[TOA_KIND, 4, 0, 80]].concat();
        check(stage, &option, "malformed");
    });
}

/// One list of options for each outcome that segments alone decide, with the row over IPv4 and over
/// IPv6.
fn mixture() -> Vec<(Vec<u8>, [&'static str; 2])> {
    let loopback = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 4660);
    vec![
        (toa_option(TOA_KIND, NAMED_V6), ["option_taken"; 2]),
        (
            toa_option(TOA_KIND, NAMED),
            ["option_taken", "foreign_length"],
        ),
        (Vec::new(), ["no_option"; 2]),
        (TIMESTAMPS.to_vec(), ["no_option"; 2]),
        (vec![NOP; 40], ["no_option_header_full"; 2]),
        (toa_option(253, NAMED), ["kind_not_configured"; 2]),
        (toa_option(TOA_KIND, loopback), ["impossible_client"; 2]),
        (vec![TOA_KIND, 4, 0, 80], ["malformed"; 2]),
        (vec![NOP, NOP, 254, 0], ["malformed"; 2]),
    ]
}

/// The rounds of a mixture.
const ROUNDS: usize = 12;

#[track_caller]
fn check_sum(stage: &Stage) {
    let before = stage.net.stats();
    let mut expected = [0; OUTCOMES.len()];
    let mixture = mixture();
    for (options, rows) in mixture.iter().cycle().take(ROUNDS * mixture.len()) {
        drop(connect(stage, options));
        let row = rows[usize::from(stage.ipv6)];
        let place = OUTCOMES.iter().position(|outcome| *outcome == row);
        expected[place.expect("a row of outcomes")] += 1;
    }
    let after = stage.net.stats();
    let change: Vec<_> = OUTCOMES
        .iter()
        .map(|row| after.get(row) - before.get(row))
        .collect();
    assert_eq!(change, expected);
    let made = (ROUNDS * mixture.len()) as u64;
    assert_eq!(after.connections() - before.connections(), made);
    let of_dpvs = ["syn_recv_sock_toa", "syn_recv_sock_no_toa"];
    let sum = |stats: &Stats| of_dpvs.iter().map(|row| stats.get(row)).sum::<u64>();
    assert_eq!(sum(&after) - sum(&before), made, "DPVS's rows");
}

fn outcomes_add_up_to_the_connections() {
    Stage::each(check_sum);
}

fn outcomes_add_up_to_the_connections_by_syncookies() {
    Stage::each(|stage| {
        stage.net.server.sysctl("ipv4/tcp_syncookies", "2");
        check_sum(stage);
        let by_cookies = netstat::tcp(&stage.net.server, "SyncookiesRecv");
        assert_eq!(by_cookies, (ROUNDS * mixture().len()) as u64);
    });
}

fn connections_through_a_plain_balancer_count_as_no_option() {
    let net = Net::with(&Plan::none());
    let listener = net.listen(Family::DualStack);
    let before = net.stats();
    for way in Way::ALL {
        let (mut client, mut accepted) = net.pair(&listener, way);
        sockets::exchange(&mut client, &mut accepted);
    }
    let after = net.stats();
    assert_eq!(after.get("no_option") - before.get("no_option"), 3);
    assert_eq!(after.connections() - before.connections(), 3);
}

/// The records of a namespace of root, if the module is loaded with [`MAX_RECORDS`].
const SHARE: usize = 2;
const MAX_RECORDS: &str = "max_records=8";

/// The log line about the full share of the stage's namespace.
fn line_of(stage: &Stage) -> String {
    line(stage, SHARE, "rmmod toa && modprobe toa max_records=16")
}

/// The log line about a full share, and the command that makes room.
fn line(stage: &Stage, share: usize, command: &str) -> String {
    let path = format!("/run/netns/{}", stage.net.server.name());
    let number = namespace::run(Command::new("stat").args(["-L", "-c", "%i", &path]));
    format!(
        "TOA: all {share} records of the share of network namespace {} are taken: its further \
         connections show the balancer until others end. For more records, run: {command}",
        number.trim()
    )
}

/// Fills the share of the stage's namespace, and returns the connections that hold it.
#[track_caller]
fn fill(stage: &Stage) -> Vec<Accepted> {
    let option = toa_option(TOA_KIND, NAMED_V6);
    (0..SHARE).map(|_| connect(stage, &option)).collect()
}

fn stages() -> [Stage; 4] {
    [
        Stage::new(Family::V4, false),
        Stage::new(Family::DualStack, false),
        Stage::new(Family::V6Only, true),
        Stage::new(Family::DualStack, true),
    ]
}

fn connection_beyond_the_share_counts_as_record_table_full() {
    module::load_with(MAX_RECORDS);
    for stage in stages() {
        let held = fill(&stage);
        for &named in named(&stage) {
            let option = toa_option(TOA_KIND, named);
            check(&stage, &option, "record_table_full");
        }
        drop(held);
        stage.net.wait_for_no_records();
        let option = toa_option(TOA_KIND, NAMED_V6);
        check(&stage, &option, "option_taken");
        stage.net.wait_for_no_records();
    }
    module::unload();
}

/// A module with few idle records. The namespaces' shares are larger than all that may be idle.
pub const FEW_IDLE: &str = "max_records=1000";

/// Makes connections until one has no record for lack of memory, and returns that one last.
pub fn use_up_idle_records<T>(stage: &Stage, mut connect: impl FnMut() -> T) -> Vec<T> {
    let before = stage.net.stats().get("record_alloc_failed");
    let mut made = Vec::new();
    while stage.net.stats().get("record_alloc_failed") == before {
        assert!(made.len() < 250, "records are allocated all the same");
        made.push(connect());
    }
    made
}

fn connection_without_memory_counts_as_record_alloc_failed() {
    module::load_with(FEW_IDLE);
    for stage in stages() {
        for &named in named(&stage) {
            let option = toa_option(TOA_KIND, named);
            let no_memory = TestModule::load("starve=1").expect("it loads");
            let before = stage.net.stats();
            let held = use_up_idle_records(&stage, || connect(&stage, &option));
            let made = held.len() as i64;
            let expected = [
                ("syn_recv_sock_toa", made),
                ("option_taken", made - 1),
                ("record_alloc_failed", 1),
            ];
            assert_eq!(changes(&stage, &before), expected);
            assert_eq!(stage.net.stats().get("records_live"), made as u64 - 1);
            drop(no_memory);
            // On PREEMPT_RT only the worker allocates, after a connection that found nothing.
            let taken = || stage.net.stats().get("option_taken");
            let before = taken();
            wait::until("records are allocated again", || {
                drop(connect(&stage, &option));
                (taken() > before)
                    .then_some(())
                    .ok_or_else(|| "no record yet".to_owned())
            });
            drop(held);
            stage.net.wait_for_no_records();
        }
    }
    module::unload();
}

/// The lines of the log about full shares.
fn lines_about_shares(log: &mut KernelLog) -> Vec<String> {
    let mut lines = log.new_lines();
    lines.retain(|line| line.contains("records of the share"));
    lines
}

fn full_share_is_logged_once_for_each_namespace() {
    module::load_with(MAX_RECORDS);
    let mut log = KernelLog::from_now();
    for stage in stages() {
        let held = fill(&stage);
        assert_eq!(lines_about_shares(&mut log), [""; 0], "not yet full");
        for _ in 0..3 {
            drop(connect(&stage, &toa_option(TOA_KIND, NAMED_V6)));
        }
        assert_eq!(lines_about_shares(&mut log), [line_of(&stage)]);
        drop(held);
        stage.net.wait_for_no_records();
        let held = fill(&stage);
        drop(connect(&stage, &toa_option(TOA_KIND, NAMED_V6)));
        assert_eq!(lines_about_shares(&mut log), [""; 0], "full again");
        drop(held);
        stage.net.wait_for_no_records();
    }
    module::unload();
}

fn line_about_a_lowered_share_names_the_sysctl() {
    module::load_with(MAX_RECORDS);
    let stage = Stage::new(Family::DualStack, false);
    stage.net.server.set_policy("max_records", "1");
    let mut log = KernelLog::from_now();
    let held = connect(&stage, &toa_option(TOA_KIND, NAMED));
    assert_eq!(lines_about_shares(&mut log), [""; 0], "not yet full");
    drop(connect(&stage, &toa_option(TOA_KIND, NAMED)));
    let command = "sysctl -w net.toa.max_records=2";
    assert_eq!(lines_about_shares(&mut log), [line(&stage, 1, command)]);
    drop(held);
    stage.net.wait_for_no_records();
    module::unload();
}

/// The limit of the lines of all of networking, in lines and seconds.
const BURST: &str = "/proc/sys/net/core/message_burst";

fn line_about_a_full_share_waits_for_its_turn() {
    module::load_with(MAX_RECORDS);
    let stage = Stage::new(Family::DualStack, false);
    let usual = std::fs::read_to_string(BURST).expect("the limit");
    let mut log = KernelLog::from_now();
    let held = fill(&stage);
    std::fs::write(BURST, "0").expect("no line is allowed");
    for _ in 0..3 {
        drop(connect(&stage, &toa_option(TOA_KIND, NAMED)));
    }
    let none = lines_about_shares(&mut log);
    std::fs::write(BURST, usual.trim()).expect("as before");
    assert_eq!(none, [""; 0]);
    // The time of the limit must pass before lines are allowed again.
    let lines = wait::until("the line", || {
        drop(connect(&stage, &toa_option(TOA_KIND, NAMED)));
        let lines = lines_about_shares(&mut log);
        match lines.is_empty() {
            true => Err("no line".to_owned()),
            false => Ok(lines),
        }
    });
    assert_eq!(lines, [line_of(&stage)]);
    drop(held);
    stage.net.wait_for_no_records();
    module::unload();
}
