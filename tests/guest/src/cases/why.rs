// SPDX-License-Identifier: GPL-2.0

//! The answers of `toa why`, one for each leaf of the decision tree in `doc/operating.md`.

use std::net::SocketAddr;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::cases::command::toa;
use crate::cases::impossible_clients::Stage;
use crate::cases::options::NAMED;
use crate::cases::outcomes::use_up_idle_records;
use crate::cases::outcomes::FEW_IDLE;
use crate::module;
use crate::net::CLIENT_V6;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::test_module::TestModule;

pub const LOADED: &[Case] = cases![Loaded:
    command_explains_each_row_of_the_counters,
    command_explains_what_arrives_at_a_port_of_a_disabled_namespace,
    command_explains_what_others_than_the_module_decide,
];

pub const CASES: &[Case] = cases![Unloaded:
    command_explains_connections_without_the_module,
    command_explains_a_lack_of_memory,
];

/// A connection that a row counts.
struct Leaf {
    row: &'static str,
    ipv6: bool,
    options: fn() -> Vec<u8>,
    policy: Option<(&'static str, &'static str)>,
    /// A part of the answer for the open connection.
    answer: &'static str,
    /// A part of the advice, or none if the answer has it.
    remedy: Option<&'static str>,
}

impl Leaf {
    const fn new(row: &'static str, options: fn() -> Vec<u8>, remedy: &'static str) -> Self {
        Self {
            row,
            ipv6: false,
            options,
            policy: None,
            answer: "the module has no client for this connection",
            remedy: Some(remedy),
        }
    }

    const fn over_ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    const fn under(mut self, setting: &'static str, value: &'static str) -> Self {
        self.policy = Some((setting, value));
        self
    }

    const fn answered(mut self, answer: &'static str) -> Self {
        self.answer = answer;
        self.remedy = None;
        self
    }
}

fn good() -> Vec<u8> {
    toa_option(TOA_KIND, NAMED)
}

fn of_v6() -> Vec<u8> {
    toa_option(TOA_KIND, SocketAddr::new(CLIENT_V6.into(), 4660))
}

fn loopback() -> Vec<u8> {
    toa_option(TOA_KIND, "127.0.0.1:80".parse().expect("an end"))
}

const LEAVES: &[Leaf] = &[
    Leaf::new("no_option", Vec::new, "the balancer inserts nothing: switch TOA on there"),
    Leaf::new(
        "no_option_header_full",
        || vec![1; 40],
        "let the balancer remove other options, as DPVS does",
    ),
    Leaf::new(
        "kind_not_configured",
        || toa_option(253, NAMED),
        "run toa policy set kinds=254,NUMBER",
    ),
    Leaf::new("untrusted", good, "")
        .under("trusted", "192.0.2.128/25")
        .answered("192.0.2.7 is not in the trusted set: if it is a balancer, run toa policy set trusted+=192.0.2.7"),
    Leaf::new("disabled", good, "")
        .under("enabled", "0")
        .answered("the policy disables toa in this network namespace: run toa policy set enabled=1"),
    Leaf::new(
        "impossible_client",
        loopback,
        "allow only the balancer to reach the port",
    ),
    Leaf::new("foreign_length", good, "let it strip kind 254").over_ipv6(),
    Leaf::new(
        "malformed",
        || vec![TOA_KIND, 4, 0, 80],
        "run toa policy set kinds=KIND/LENGTH:DIALECT",
    ),
    Leaf::new(
        "record_table_full",
        good,
        "load the module with more records: rmmod toa && modprobe toa max_records=NUMBER",
    )
    .under("max_records", "0"),
    Leaf::new("option_taken", good, "").answered("the module has the client, and getpeername returns it"),
];

/// The row that [`command_explains_a_lack_of_memory`] has.
const WITHOUT_MEMORY: &str = "record_alloc_failed";

/// The rows that tests of this file explain.
#[cfg(test)]
pub fn explained() -> impl Iterator<Item = &'static str> {
    LEAVES.iter().map(|leaf| leaf.row).chain([WITHOUT_MEMORY])
}

/// Makes a connection whose ACK carries the options.
#[track_caller]
fn connect(stage: &Stage, options: &[u8]) -> (Accepted, SocketAddr) {
    let port = stage.next_port();
    let (mut connection, _) = stage.client.connect(port, &[]);
    connection.send(options, &[]);
    let accepted = stage.listener.accept().ending_by_reset();
    (accepted, stage.client.address(port))
}

/// Asks for an end, and returns the status and the answer.
#[track_caller]
fn why(stage: &Stage, end: &str) -> (i32, String) {
    let (status, text, errors) = toa(&stage.net.server, &format!("why {end} --interval 0"));
    assert_eq!(errors, "", "{text}");
    (status, text)
}

/// Checks that the answer has the row as the likely reason, with its advice.
#[track_caller]
pub fn check_row(text: &str, row: &str, remedy: &str) {
    let (_, rows) = text.split_once("\nsince the load:\n").expect(text);
    let lines: Vec<&str> = rows.lines().collect();
    let words: Vec<&str> = lines[0].split_whitespace().take(2).collect();
    assert_eq!(words, [row, "1"], "{text}");
    assert!(lines[1].contains(remedy), "{remedy}: {text}");
}

fn command_explains_each_row_of_the_counters() {
    for leaf in LEAVES {
        let stage = Stage::new(Family::DualStack, leaf.ipv6);
        // A connection of before, without which all rows have 0.
        drop(connect(&stage, &of_v6()));
        stage.net.wait_for_no_records();
        let before = stage.net.stats();
        if let Some((setting, value)) = leaf.policy {
            stage.net.server.set_policy(setting, value);
        }
        let (_accepted, peer) = connect(&stage, &(leaf.options)());
        let counted = stage.net.stats().since(&before);
        assert!(
            counted.contains(&(leaf.row, 1)),
            "{}: {counted:?}",
            leaf.row
        );
        let (status, text) = why(&stage, &peer.to_string());
        assert_eq!(status, i32::from(leaf.row != "option_taken"), "{text}");
        assert!(text.contains(leaf.answer), "{}: {text}", leaf.row);
        if let Some(remedy) = leaf.remedy {
            check_row(&text, leaf.row, remedy);
        }
    }
}

/// The rows of connections that end before the question.
fn command_explains_what_arrives_at_a_port_of_a_disabled_namespace() {
    let stage = Stage::new(Family::DualStack, false);
    stage.net.server.set_policy("enabled", "0");
    let (accepted, peer) = connect(&stage, &good());
    drop(accepted);
    let (status, text) = why(&stage, &peer.to_string());
    assert_eq!(status, 1, "{text}");
    check_row(&text, "disabled", "run toa policy set enabled=1");
}

fn command_explains_what_others_than_the_module_decide() {
    let stage = Stage::new(Family::DualStack, false);
    let (accepted, peer) = connect(&stage, &good());
    // Question 4, no row: the connection is of another namespace.
    let (status, text, _) = toa(&stage.net.client, &format!("why {peer} --interval 0"));
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("or it is of another namespace"), "{text}");
    // The connection has ended.
    drop(accepted);
    stage.net.wait_for_no_records();
    let (status, text) = why(&stage, &peer.to_string());
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("it has ended"), "{text}");
    check_row(&text, "option_taken", "The connection may have ended since");
    // Question 1: an AF_INET listener has no room for an IPv6 client.
    let stage = Stage::new(Family::V4, false);
    let (_accepted, peer) = connect(&stage, &of_v6());
    let (status, text) = why(&stage, &peer.to_string());
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("let the server listen on [::], or see doc/nat64.md"),
        "{text}"
    );
}

fn command_explains_connections_without_the_module() {
    let stage = Stage::new(Family::DualStack, false);
    let (accepted, peer) = connect(&stage, &good());
    let (status, text) = why(&stage, &peer.to_string());
    assert_eq!(status, 3, "{text}");
    assert!(
        text.contains(
            "the module toa is not loaded, so each peer is the balancer: run modprobe toa"
        ),
        "{text}"
    );
    module::load();
    let (status, text) = why(&stage, &peer.to_string());
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("so this one is older than the module"),
        "{text}"
    );
    // Others count, and the process is older than the module.
    let (newer, _) = connect(&stage, &good());
    let (status, text) = why(&stage, &peer.to_string());
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains(
            "If it is older than the module, it shows the balancer until it ends\n\nsince the load:"
        ),
        "{text}"
    );
    check_row(&text, "option_taken", "The connection may have ended since");
    drop((accepted, newer));
    stage.net.wait_for_no_records();
    module::unload();
}

fn command_explains_a_lack_of_memory() {
    module::load_with(FEW_IDLE);
    {
        let stage = Stage::new(Family::DualStack, false);
        let starve = TestModule::load("starve=1").expect("it loads");
        let made = use_up_idle_records(&stage, || connect(&stage, &good()));
        drop(starve);
        let (_, peer) = made.last().expect("the one without a record");
        let (status, text) = why(&stage, &peer.to_string());
        assert_eq!(status, 1, "{text}");
        check_row(&text, WITHOUT_MEMORY, "see /proc/pressure/memory");
    }
    module::unload();
}
