// SPDX-License-Identifier: GPL-2.0

//! The command `toa` on a running kernel: what it prints, and its exit statuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use crate::balancer::Plan;
use crate::module;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;

pub const LOADED: &[Case] = cases![Loaded:
    command_lists_each_connection_with_its_process,
    command_shows_the_sums_of_the_counters,
    command_checks_the_module_as_a_monitoring_plugin,
    command_verifies_each_way_under_the_hosts_policy,
    command_verifies_while_other_namespaces_come_and_go,
    command_verify_fails_where_the_policy_refuses_the_sender,
    command_explains_a_balancer_that_inserts_nothing,
    command_explains_a_recorded_client_and_ends_that_nothing_has,
    command_explains_what_the_policy_refuses,
    command_sets_all_values_or_none,
    command_without_rights_names_what_root_adds,
    command_without_rights_sets_no_policy,
];

pub const CASES: &[Case] = cases![Unloaded:
    command_names_the_missing_module,
];

pub const TOA: &str = "/toa/bin/toa";

/// The end of a command: status, standard output, standard error.
pub type End = (i32, String, String);

pub fn end(output: Output) -> End {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

/// Runs the command in a namespace.
pub fn toa(namespace: &Namespace, arguments: &str) -> End {
    let words = arguments.split(' ');
    let output = namespace.enter(|| Command::new(TOA).args(words).output());
    end(output.expect("toa starts"))
}

/// Runs the command, which must succeed and print nothing to standard error.
#[track_caller]
pub fn printed(namespace: &Namespace, arguments: &str) -> String {
    let (status, output, errors) = toa(namespace, arguments);
    assert_eq!((status, errors.as_str()), (0, ""), "{arguments}: {output}");
    output
}

/// Runs the command as a user without rights.
fn toa_without_rights(namespace: &Namespace, arguments: &str) -> End {
    let words = arguments.split(' ');
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", TOA];
    let output = namespace.enter(|| Command::new("setpriv").args(user).args(words).output());
    end(output.expect("setpriv starts"))
}

fn command_lists_each_connection_with_its_process() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let pairs = Way::ALL.map(|way| net.pair(&listener, way));
    let process = format!("toa-guest ({})", std::process::id());
    let row = |(client, accepted): &(Client, Accepted)| {
        let ends = [
            client.address,
            net.balancer_of(accepted),
            accepted.local().address().expect("an address"),
        ];
        let ends = ends.map(|end| std::net::SocketAddr::new(end.ip().to_canonical(), end.port()));
        let mut row: Vec<String> = ends.iter().map(ToString::to_string).collect();
        row.push(process.clone());
        row.join(" ")
    };
    let mut expected: Vec<String> = pairs.iter().map(row).collect();
    expected.sort();
    let rows = |arguments: &str| {
        let text = printed(&net.server, arguments);
        let words = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut rows: Vec<String> = words.collect();
        rows.sort();
        rows
    };
    assert_eq!(rows("list -H"), expected);
    assert_eq!(rows("list -H :8080 2001:db8:7::/64").len(), 2);
    assert_eq!(rows("list -H4"), [expected[0].as_str()]);
    assert_eq!(rows("list -H port 80"), [""; 0]);
    assert_eq!(rows("list"), {
        let mut all = expected.clone();
        all.push("client balancer server process".to_owned());
        all.sort();
        all
    });
    // The same rows from the first namespace, by the name of the server's.
    let name = net.server.name();
    let from_outside = Command::new(TOA)
        .args(["list", "-H", "--netns", name])
        .output();
    assert_eq!(end(from_outside.expect("toa starts")).1.lines().count(), 3);
    let all = Command::new(TOA)
        .args(["list", "-H", "--all-netns"])
        .output();
    let (status, all, errors) = end(all.expect("toa starts"));
    assert_eq!((status, errors.as_str()), (0, ""));
    let in_server = all.lines().filter(|line| line.ends_with(name)).count();
    assert_eq!(in_server, 3, "{all}");
}

fn command_shows_the_sums_of_the_counters() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let _pairs = Way::ALL.map(|way| net.pair(&listener, way));
    let text = printed(&net.server, "status --interval 0");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(words).collect();
    for expected in [
        "toa: loaded",
        "version 0.1.0",
        "hooks tcp_child_process, inet_getname, inet6_getname, tcp_clear_retrans",
        "connections: 3 since the load",
        "option_taken 3 carries a client, who is recorded",
        "no_option 0 carries no option",
        "syn_recv_sock_toa 3",
        "ip6_address_alloc 2",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}: {text}"
        );
    }
    let records = lines
        .iter()
        .find(|line| line.starts_with("records "))
        .expect("the records");
    assert!(records.starts_with("records 3"), "{records}");
    let metrics = printed(&net.server, "status --prometheus");
    let metric = "toa_connections_total{outcome=\"option_taken\"} 3";
    assert!(metrics.lines().any(|line| line == metric), "{metrics}");
}

fn command_checks_the_module_as_a_monitoring_plugin() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let _pair = net.pair(&listener, Way::V4);
    let text = printed(&net.server, "check");
    assert!(text.starts_with("TOA OK - 1 records of "), "{text}");
    assert!(text.contains(" | records=1;"), "{text}");
    // One record is more than 0 % of the share.
    let (status, text, _) = toa(&net.server, "check --warning 0 --critical 100");
    assert_eq!(status, 1, "{text}");
    assert!(text.starts_with("TOA WARNING - 1 records of "), "{text}");
    assert_eq!(
        toa(&net.server, "policy set enabled=0"),
        (0, String::new(), String::new())
    );
    let (status, text, _) = toa(&net.server, "check");
    assert_eq!(status, 1, "{text}");
    assert!(
        text.starts_with("TOA WARNING - the policy disables toa"),
        "{text}"
    );
}

/// The lines of `toa verify` under the module's default policy, without the last one.
const WAYS: [&str; 3] = [
    "passed  IPv4, any host trusted ",
    "passed  IPv6, any host trusted ",
    "passed  NAT64, any host trusted ",
];

fn command_verifies_each_way_under_the_hosts_policy() {
    let net = Net::new();
    let before = (printed(&net.server, "policy show"), net.stats());
    let text = printed(&net.server, "verify");
    for (line, way) in text.lines().zip(WAYS) {
        assert!(line.starts_with(way), "{text}");
    }
    assert!(
        text.contains("\npassed  the host's policy, sender 198.18.0.2 "),
        "{text}"
    );
    assert!(
        text.ends_with("4 of 4 connections showed their client\n"),
        "{text}"
    );
    // The host's network, policy and counters are as before.
    assert_eq!((printed(&net.server, "policy show"), net.stats()), before);
    let devices = net.server.enter(|| fs::exists("/sys/class/net/toa-verify"));
    assert!(!devices.expect("sysfs"));
    // A trusted balancer passes too.
    assert_eq!(printed(&net.server, "policy set trusted=10.0.1.0/28"), "");
    let text = printed(&net.server, "verify");
    assert!(
        text.contains("\npassed  the host's policy, sender 10.0.1.1 "),
        "{text}"
    );
}

/// The kernel holds the lock of network devices while it removes a namespace, and adds the route of a
/// new address in a work item that waits for the lock.
fn command_verifies_while_other_namespaces_come_and_go() {
    let net = Net::new();
    let verified = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !verified.load(Ordering::Relaxed) {
                let other = Namespace::new("other");
                for pair in 0..8 {
                    other.ip(&format!("link add a{pair} up type veth peer name b{pair}"));
                }
            }
        });
        let texts = [(); 20].map(|()| toa(&net.server, "verify").1);
        verified.store(true, Ordering::Relaxed);
        for text in texts {
            let end = "4 of 4 connections showed their client\n";
            assert!(text.ends_with(end), "{text}");
        }
    });
}

fn command_verify_fails_where_the_policy_refuses_the_sender() {
    let net = Net::new();
    for (policy, arguments, row) in [
        ("enabled=0", "verify", "disabled"),
        ("enabled=1", "verify --sender 10.0.1.1", "option_taken"),
        (
            "trusted=10.0.1.0/28",
            "verify --sender 10.0.1.1",
            "option_taken",
        ),
        (
            "trusted=10.0.1.0/28",
            "verify --sender 10.0.2.1",
            "untrusted",
        ),
        (
            "trusted=10.0.1.0/28",
            "verify --sender fd00:0:0:1::1",
            "untrusted",
        ),
        ("trusted=none", "verify", "untrusted"),
        (
            "kinds=253",
            "verify --sender 10.0.1.1",
            "kind_not_configured",
        ),
    ] {
        assert_eq!(
            printed(&net.server, "policy set enabled=1 trusted= kinds=254"),
            ""
        );
        assert_eq!(printed(&net.server, &format!("policy set {policy}")), "");
        let (status, text, errors) = toa(&net.server, arguments);
        let what = format!("{policy}: {arguments}: {text}{errors}");
        // The mechanism works in any case.
        for (line, way) in text.lines().zip(WAYS) {
            assert!(line.starts_with(way), "{what}");
        }
        let last = text.lines().nth(3).expect("the host's policy");
        if row == "option_taken" {
            assert_eq!(status, 0, "{what}");
            assert!(last.starts_with("passed  "), "{what}");
        } else {
            assert_eq!(status, 1, "{what}");
            assert!(
                last.starts_with("FAILED  the host's policy, sender "),
                "{what}"
            );
            assert!(last.contains(&format!("counted as {row}: ")), "{what}");
        }
    }
}

/// Asks for an end, without a wait.
fn why(net: &Net, end: &str) -> End {
    toa(&net.server, &format!("why {end} --interval 0"))
}

fn command_explains_a_balancer_that_inserts_nothing() {
    let net = Net::with(&Plan::none());
    let listener = net.listen(Family::DualStack);
    let (_client, accepted) = net.pair(&listener, Way::V4);
    let balancer = net.balancer_of(&accepted);
    let (status, text, errors) = why(&net, &balancer.to_string());
    assert_eq!((status, errors.as_str()), (1, ""), "{text}");
    for expected in [
        "the module has no client for this connection",
        "\n  no_option  1  carries no option\n",
        "the balancer inserts nothing: switch TOA on there",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

fn command_explains_a_recorded_client_and_ends_that_nothing_has() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (client, accepted) = net.pair(&listener, Way::V4);
    for end in [client.address, net.balancer_of(&accepted)] {
        let (status, text, _) = why(&net, &end.to_string());
        assert_eq!(status, 0, "{text}");
        let expected = format!(", client {}, toa-guest (", client.address);
        assert!(text.contains(&expected), "{text}");
    }
    for (end, expected) in [
        (
            "192.0.2.1:9",
            "no connection of this network namespace has the end",
        ),
        (":9", "no program listens on port 9"),
        (":8080", "no connection of this network namespace completed"),
    ] {
        let (status, text, _) = why(&net, end);
        assert_eq!(status, 1, "{text}");
        assert!(text.starts_with(expected), "{text}");
    }
    // An AF_INET socket has no room for an IPv6 client.
    drop((client, accepted, listener));
    let listener = net.listen(Family::V4);
    let (client, _accepted) = net.pair(&listener, Way::Nat64);
    let (status, text, _) = why(&net, &client.address.to_string());
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("does not fit an AF_INET socket"), "{text}");
}

fn command_explains_what_the_policy_refuses() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for (policy, expected) in [
        ("trusted=192.0.2.0/24", " is not in the trusted set: "),
        ("enabled=0", "the policy disables toa"),
    ] {
        assert_eq!(printed(&net.server, &format!("policy set {policy}")), "");
        let (_client, accepted) = net.pair(&listener, Way::V4);
        let (status, text, _) = why(&net, &net.balancer_of(&accepted).to_string());
        assert_eq!(status, 1, "{text}");
        assert!(text.contains(expected), "{text}");
        assert_eq!(printed(&net.server, "policy set enabled=1 trusted="), "");
    }
}

fn command_sets_all_values_or_none() {
    let server = Namespace::new("set");
    let show = || printed(&server, "policy show --json");
    assert_eq!(
        printed(&server, "policy set trusted=10.0.0.0/8 pick=last"),
        ""
    );
    assert_eq!(printed(&server, "policy set trusted+=fd00::/8"), "");
    let before = show();
    assert!(
        before.contains("\"trusted\": \"10.0.0.0/8,fd00::/8\""),
        "{before}"
    );
    // The command refuses the first, the kernel the second: the share cannot be so large.
    for (arguments, status) in [
        ("policy set nat46=1 enabled=2", 2),
        ("policy set nat46=1 pick=first max_records=4294967295", 5),
    ] {
        let (found, output, errors) = toa(&server, arguments);
        assert_eq!((found, output.as_str()), (status, ""), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert_eq!(show(), before, "{arguments}");
    }
    // A thousand prefixes arrive in one write.
    let prefixes: Vec<String> = (0..1024)
        .map(|at| format!("100.{}.{}.0/25", at / 256, at % 256))
        .collect();
    assert_eq!(
        printed(
            &server,
            &format!("policy set trusted={}", prefixes.join(","))
        ),
        ""
    );
    assert!(show().contains(&format!("\"{}\"", prefixes.join(","))));
}

fn command_without_rights_names_what_root_adds() {
    let net = Net::new();
    let (status, text, errors) = toa_without_rights(&net.server, "status --interval 0");
    assert_eq!((status, errors.as_str()), (0, ""));
    assert!(
        text.contains("the hooks are shown to root only: run sudo toa status"),
        "{text}"
    );
    let expected =
        "toa: reading /proc/thread-self/net/toa needs root of this network namespace: run it with sudo\n";
    let end = toa_without_rights(&net.server, "list");
    assert_eq!(end, (4, String::new(), expected.to_owned()));
    let (status, text, _) = toa_without_rights(&net.server, "check");
    assert_eq!(status, 0, "{text}");
    assert!(text.starts_with("TOA OK - 0 records"), "{text}");
    let end = toa_without_rights(&net.server, "verify");
    let expected = "toa: /dev/net/tun: Permission denied (os error 13): run sudo toa verify\n";
    assert_eq!(end, (4, String::new(), expected.to_owned()));
    // udev gives all users the device, and a user namespace gives the rights for a network.
    let mode = |mode| fs::set_permissions("/dev/net/tun", fs::Permissions::from_mode(mode));
    mode(0o666).expect("the device");
    let (status, text, errors) = toa_without_rights(&net.server, "verify");
    mode(0o600).expect("the device");
    assert_eq!((status, errors.as_str()), (0, ""), "{text}");
}

fn command_without_rights_sets_no_policy() {
    let server = Namespace::new("policy");
    let expected =
        "toa: enabled keeps its value: it needs root of this network namespace: run it with sudo\n";
    let end = toa_without_rights(&server, "policy set enabled=0");
    assert_eq!(end, (4, String::new(), expected.to_owned()));
    assert!(printed(&server, "policy show").starts_with("policy\n  enabled        1\n"));
}

fn command_names_the_missing_module() {
    let server = Namespace::new("unloaded");
    let advice = "toa: the module toa is not loaded: run modprobe toa, and read the kernel's log if that fails\n";
    for arguments in ["list", "verify", "policy show", "top -n1"] {
        let expected = (3, String::new(), advice.to_owned());
        assert_eq!(toa(&server, arguments), expected, "{arguments}");
    }
    let (status, text, _) = toa(&server, "status");
    assert_eq!(status, 3, "{text}");
    assert!(text.starts_with("toa: not loaded\n"), "{text}");
    let (status, text, _) = toa(&server, "check");
    assert_eq!(status, 2, "{text}");
    assert!(
        text.starts_with("TOA CRITICAL - toa is not loaded"),
        "{text}"
    );
    let (status, text, _) = toa(&server, "why :80");
    assert_eq!(status, 3, "{text}");
    let (status, text, _) = toa(&server, "doctor");
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("no, servers see the balancer: modprobe toa"),
        "{text}"
    );

    // A connection that is older than the module.
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (_client, accepted) = net.pair(&listener, Way::V4);
    module::load();
    let balancer = net.balancer_of(&accepted);
    let (status, text, _) = toa(&net.server, &format!("why {balancer}"));
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("so this one is older than the module"),
        "{text}"
    );
    drop((accepted, listener));
    module::unload();
}
