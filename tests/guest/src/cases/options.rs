// SPDX-License-Identifier: GPL-2.0

//! The options in the segment that completes the handshake: valid ones in any position, malformed
//! ones, and none.

use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::Name;

pub const CASES: &[Case] = cases![Loaded:
    connection_without_option_shows_the_balancer_and_is_counted,
    option_with_the_length_of_no_address_is_malformed,
    option_of_length_zero_is_malformed,
    option_of_length_one_is_malformed,
    option_longer_than_the_header_is_malformed,
    option_cut_after_its_kind_is_malformed,
    ack_that_the_kernel_drops_leaves_the_connection_to_the_data,
    good_option_before_a_malformed_one_counts,
    first_of_two_options_wins,
    option_after_one_nop_is_seen,
    option_after_three_nops_is_seen,
    option_after_an_unknown_one_is_seen,
    option_after_the_end_of_the_list_is_not_seen,
    kinds_of_other_vendors_are_ignored_and_counted,
    option_on_the_bare_ack_alone_is_seen,
    option_on_data_alone_comes_too_late,
    option_in_the_syn_is_not_a_clients_address,
    lost_ack_leaves_the_option_to_the_data,
    deferred_accept_reads_the_option_of_the_data,
    syncookie_connection_shows_its_client,
];

const NOP: u8 = 1;
const END: u8 = 0;

/// The client that a test's own options name, different from the sender.
pub const NAMED: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 4660);

/// Another such client.
pub const OTHER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99)), 22136);

fn named() -> Vec<u8> {
    toa_option(TOA_KIND, NAMED)
}

/// Checks a connection with `options`: its peer is `see` (None: the balancer), data passes, and the
/// counters `counted` change. Live records and answers to getpeername are not checked.
#[track_caller]
fn check(options: &[u8], see: Option<SocketAddr>, counted: &[(&str, i64)]) {
    check_plan(&Plan::inserting(options), see, counted);
}

#[track_caller]
fn check_plan(plan: &Plan, see: Option<SocketAddr>, counted: &[(&str, i64)]) {
    let net = Net::with(plan);
    let listener = net.listen(Family::V4);
    let before = net.stats();
    let (mut client, mut accepted) = net.pair(&listener, Way::V4);
    let expected = Name::of(see.unwrap_or_else(|| net.balancer_of(&accepted)));
    assert_eq!(accepted.name, expected, "accept");
    assert_eq!(accepted.peer(), expected, "getpeername");
    let mut changes = net.stats().since(&before);
    changes.retain(|(row, _)| *row != "records_live" && !row.starts_with("getname_"));
    assert_eq!(changes, counted);
    sockets::exchange(&mut client, &mut accepted);
    sockets::finish(&mut client, &mut accepted);
}

const TOA: (&str, i64) = ("syn_recv_sock_toa", 1);
const TAKEN: (&str, i64) = ("option_taken", 1);
const NO_TOA: (&str, i64) = ("syn_recv_sock_no_toa", 1);
const NO_OPTION: (&str, i64) = ("no_option", 1);
const OTHER_KIND: (&str, i64) = ("kind_not_configured", 1);
const MALFORMED: (&str, i64) = ("malformed", 1);
const DUPLICATE: (&str, i64) = ("duplicate", 1);

fn connection_without_option_shows_the_balancer_and_is_counted() {
    check_plan(&Plan::none(), None, &[NO_TOA, NO_OPTION]);
}

fn option_with_the_length_of_no_address_is_malformed() {
    for length in [2, 7, 9, 19, 21] {
        let mut option = vec![254, length];
        option.resize(usize::from(length), 0x77);
        check(&option, None, &[NO_TOA, MALFORMED]);
    }
}

/// Options of length zero near the end of the header. Further from the end, the kernel itself drops
/// the segment: see [`ack_that_the_kernel_drops_leaves_the_connection_to_the_data`].
fn option_of_length_zero_is_malformed() {
    check(&[NOP, NOP, 77, 0], None, &[NO_TOA, MALFORMED]);
    check(&[NOP, NOP, 254, 0], None, &[NO_TOA, MALFORMED]);
}

fn option_of_length_one_is_malformed() {
    check(&[NOP, NOP, 77, 1], None, &[NO_TOA, MALFORMED]);
    check(&[NOP, NOP, 254, 1], None, &[NO_TOA, MALFORMED]);
}

fn option_longer_than_the_header_is_malformed() {
    check(&[NOP, NOP, 254, 3], None, &[NO_TOA, MALFORMED]);
    check(&[NOP, NOP, 254, 8], None, &[NO_TOA, MALFORMED]);
    check(&[NOP, NOP, 254, 255], None, &[NO_TOA, MALFORMED]);
}

fn option_cut_after_its_kind_is_malformed() {
    check(&[NOP, NOP, NOP, 254], None, &[NO_TOA, MALFORMED]);
}

fn good_option_before_a_malformed_one_counts() {
    let options = [&named()[..], &[254, 1]].concat();
    check(&options, Some(NAMED), &[TOA, TAKEN]);
}

fn first_of_two_options_wins() {
    let options = [named(), toa_option(TOA_KIND, OTHER)].concat();
    check(&options, Some(NAMED), &[TOA, TAKEN, DUPLICATE]);
}

fn option_after_one_nop_is_seen() {
    check(&[&[NOP], &named()[..]].concat(), Some(NAMED), &[TOA, TAKEN]);
}

fn option_after_three_nops_is_seen() {
    check(
        &[&[NOP; 3], &named()[..]].concat(),
        Some(NAMED),
        &[TOA, TAKEN],
    );
}

fn option_after_an_unknown_one_is_seen() {
    let options = [&[77, 5, 254, 8, 1], &named()[..]].concat();
    check(&options, Some(NAMED), &[TOA, TAKEN]);
}

fn option_after_the_end_of_the_list_is_not_seen() {
    check(&[&[END], &named()[..]].concat(), None, &[NO_TOA, NO_OPTION]);
}

fn kinds_of_other_vendors_are_ignored_and_counted() {
    for kind in [200, 253, 252, 28] {
        check(&toa_option(kind, NAMED), None, &[NO_TOA, OTHER_KIND]);
    }
}

fn option_on_the_bare_ack_alone_is_seen() {
    let plan = Plan::inserting(&named()).on_acks_only();
    check_plan(&plan, Some(NAMED), &[TOA, TAKEN]);
}

fn option_on_data_alone_comes_too_late() {
    let plan = Plan::inserting(&named()).on_data_only();
    check_plan(&plan, None, &[NO_TOA, NO_OPTION]);
}

fn option_in_the_syn_is_not_a_clients_address() {
    check_plan(&Plan::dpvs().on_syn_only(), None, &[NO_TOA, NO_OPTION]);
}

/// A kernel with TCP-AO or MD5 (`tcp_inbound_hash`) drops a segment whose options it cannot parse,
/// with the module and without.
fn ack_that_the_kernel_drops_leaves_the_connection_to_the_data() {
    let bad_lists = [
        [&[77, 0], &named()[..]].concat(),
        [&[77, 1], &named()[..]].concat(),
        vec![254, 20, 1, 2, 3, 4, 5, 6],
    ];
    for bad in bad_lists {
        let net = Net::with(&Plan::inserting(&bad).on_acks_only());
        let listener = net.listen(Family::V4);
        let before = net.stats();
        let mut client = net.connect(Way::V4);
        client.stream.write_all(b"?").expect("the client sends");
        let accepted = listener.accept();
        let balancer = net.balancer_of(&accepted);
        assert_eq!(accepted.name, Name::of(balancer), "{bad:02x?}");
        let change = net.stats().since(&before);
        assert!(change.contains(&NO_TOA), "{bad:02x?}: {change:?}");
    }
}

/// Checks a connection whose handshake is completed by the first data.
#[track_caller]
fn check_completed_by_data(net: &Net, listener: &Listener) {
    let mut client = net.connect(Way::V4);
    client.stream.write_all(b"?").expect("the client sends");
    let accepted = listener.accept();
    assert_eq!(accepted.name, Name::of(NAMED));
    assert_eq!(accepted.peer(), Name::of(NAMED));
}

fn lost_ack_leaves_the_option_to_the_data() {
    let plan = Plan::inserting(&named()).on_data_only().losing_the_ack();
    let net = Net::with(&plan);
    check_completed_by_data(&net, &net.listen(Family::V4));
}

fn deferred_accept_reads_the_option_of_the_data() {
    let net = Net::with(&Plan::inserting(&named()).on_data_only());
    let listener = net.server.enter(|| {
        let socket = sockets::socket(Family::V4);
        let fd = socket.as_raw_fd();
        sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10)
            .expect("TCP_DEFER_ACCEPT");
        Listener::from(socket, Family::V4, PORT)
    });
    check_completed_by_data(&net, &listener);
}

fn syncookie_connection_shows_its_client() {
    let net = Net::new();
    net.server.sysctl("ipv4/tcp_syncookies", "2");
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        let expected = listener.family.name(client.address);
        assert_eq!(accepted.name, expected, "{way:?}");
    }
}
