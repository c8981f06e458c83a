// SPDX-License-Identifier: GPL-2.0

//! Network namespaces: each has its own statistics, and may go away with
//! connections in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use socket2::SockRef;

use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Family;
use crate::stats;
use crate::stats::ROWS;

pub const CASES: &[Case] = cases![Loaded:
    statistics_have_a_row_each_and_a_column_per_processor,
    statistics_are_readable_by_everyone_and_writable_by_nobody,
    statistics_are_per_namespace,
    live_records_are_counted_while_they_live,
    namespace_with_live_connections_can_go_away,
];

fn statistics_have_a_row_each_and_a_column_per_processor() {
    let net = Net::new();
    let text = stats::text(&net.server).expect("the module is loaded");
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let online = std::thread::available_parallelism().expect("processors");
    let columns: Vec<String> = (0..online.get()).map(|n| format!("CPU{n}")).collect();
    assert_eq!(header, columns);
    let rows: Vec<&str> = lines
        .map(|line| line.split(':').next().unwrap_or_default().trim())
        .collect();
    assert_eq!(rows, ROWS);
    for line in text.lines().skip(1) {
        let numbers = line.split(':').nth(1).unwrap_or_default();
        assert_eq!(numbers.split_whitespace().count(), online.get(), "{line}");
    }
}

fn statistics_are_readable_by_everyone_and_writable_by_nobody() {
    let metadata = fs::metadata("/proc/net/toa_stats").expect("the module is loaded");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o444);
}

fn statistics_are_per_namespace() {
    let (one, other) = (Net::new(), Net::new());
    let (before_one, before_other) = (one.stats(), other.stats());
    let listener = one.listen(Family::DualStack);
    let pairs = Way::ALL.map(|way| one.pair(&listener, way));
    let change = one.stats().since(&before_one);
    assert!(change.contains(&("syn_recv_sock_toa", 3)), "{change:?}");
    assert!(change.contains(&("getname_toa_ok", 3)), "{change:?}");
    assert_eq!(other.stats().since(&before_other), []);
    drop(pairs);
}

fn live_records_are_counted_while_they_live() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let mut pairs = Vec::new();
    for live in 1..=6 {
        pairs.push(net.pair(&listener, Way::ALL[live % 3]));
        assert_eq!(net.stats().get("records_live"), live as u64);
    }
    drop(pairs);
    net.wait_for_no_records();
}

fn namespace_with_live_connections_can_go_away() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let pairs = Way::ALL.map(|way| net.pair(&listener, way));
    let waiting = net.connect(Way::Nat64);
    for (client, accepted) in &pairs {
        let expected = listener.family.name(client.address);
        assert_eq!(accepted.peer(), expected);
    }
    // The namespace's name and its balancer are removed first. The sockets are the last references
    // to the namespace, and are closed while it has connections. One connection ends at once, by a
    // reset that reaches no host. The others stay, with a FIN that no host acknowledges.
    SockRef::from(&pairs[0].1.stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
    net.abandon();
    for (client, accepted) in &pairs {
        let expected = listener.family.name(client.address);
        assert_eq!(accepted.peer(), expected, "in a namespace without a name");
    }
    drop((pairs, waiting, listener));
    module::unload();
    module::load();
}
