// SPDX-License-Identifier: GPL-2.0

//! Answers to a server that asks for its client's address: the table of the design, row by row.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::balancer;
use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::net;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::sys;
use crate::sys::Call;
use crate::sys::Name;
use crate::sys::Place;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    ipv4_client_on_ipv4_listener_is_seen,
    ipv6_client_on_v6only_listener_is_seen,
    ipv4_option_in_ipv6_traffic_leaves_the_balancers_address,
    ipv4_client_on_dual_stack_listener_is_seen_as_mapped_address,
    ipv6_client_on_dual_stack_listener_is_seen,
    nat64_client_on_dual_stack_listener_is_seen_as_ipv6_peer,
    nat64_client_on_ipv4_listener_leaves_the_balancers_address,
    own_name_of_the_server_never_changes,
    short_buffer_gets_the_names_start_and_its_full_length,
    so_peername_says_what_getpeername_says,
    half_closed_connection_still_shows_the_client,
    closed_connection_has_no_peer,
    socket_turned_into_ipv4_shows_the_client_as_ipv4,
    nat64_socket_turned_into_ipv4_shows_the_balancer,
    listener_bound_to_a_device_reports_scope_zero,
    connections_never_accepted_leave_no_record,
];

/// The peer that a server must see.
enum Seen {
    /// The client's end of the connection.
    Client,
    /// The balancer, as without the module: the client does not fit into the name.
    Balancer,
    /// The balancer, because the option has a length of the other IP version.
    ForeignLength,
}

/// Checks a row of the table: the names from accept, accept4 and getpeername, and the counters.
#[track_caller]
fn check_row(family: Family, way: Way, plan: &Plan, seen: &Seen) {
    let net = Net::with(plan);
    let listener = net.listen(family);
    let before = net.stats();
    for call in [Call::Accept, Call::Accept4] {
        let client = net.connect(way);
        let accepted = listener.accept_by(call, Place::AMPLE);
        let expected = family.name(match seen {
            Seen::Client => client.address,
            Seen::Balancer | Seen::ForeignLength => net.balancer_of(&accepted),
        });
        assert_eq!(accepted.name, expected, "{call:?}");
        assert_eq!(accepted.peer(), expected, "getpeername after {call:?}");
    }
    let after = net.stats();
    let counted = |row| after.get(row) - before.get(row);
    let (recorded, told) = match seen {
        Seen::Client => (2, 4),
        Seen::Balancer => (2, 0),
        Seen::ForeignLength => (0, 0),
    };
    assert_eq!(counted("syn_recv_sock_toa"), recorded);
    assert_eq!(counted("syn_recv_sock_no_toa"), 2 - recorded);
    assert_eq!(counted("foreign_length"), 2 - recorded);
    assert_eq!(counted("getname_toa_ok"), told);
}

fn ipv4_client_on_ipv4_listener_is_seen() {
    check_row(Family::V4, Way::V4, &Plan::dpvs(), &Seen::Client);
}

fn ipv6_client_on_v6only_listener_is_seen() {
    check_row(Family::V6Only, Way::V6, &Plan::dpvs(), &Seen::Client);
}

fn ipv4_option_in_ipv6_traffic_leaves_the_balancers_address() {
    let named = SocketAddr::new(Ipv4Addr::new(203, 0, 113, 9).into(), 4660);
    let plan = Plan::inserting(&toa_option(TOA_KIND, named));
    for family in [Family::V6Only, Family::DualStack] {
        check_row(family, Way::V6, &plan, &Seen::ForeignLength);
    }
}

fn ipv4_client_on_dual_stack_listener_is_seen_as_mapped_address() {
    check_row(Family::DualStack, Way::V4, &Plan::dpvs(), &Seen::Client);
}

fn ipv6_client_on_dual_stack_listener_is_seen() {
    check_row(Family::DualStack, Way::V6, &Plan::dpvs(), &Seen::Client);
}

fn nat64_client_on_dual_stack_listener_is_seen_as_ipv6_peer() {
    check_row(Family::DualStack, Way::Nat64, &Plan::dpvs(), &Seen::Client);
}

fn nat64_client_on_ipv4_listener_leaves_the_balancers_address() {
    check_row(Family::V4, Way::Nat64, &Plan::dpvs(), &Seen::Balancer);
}

fn own_name_of_the_server_never_changes() {
    let net = Net::new();
    for (family, way) in net::ROWS {
        let listener = net.listen(family);
        let (_client, accepted) = net.pair(&listener, way);
        let real_server = SocketAddr::new(way.real_server(), PORT);
        assert_eq!(
            accepted.local(),
            family.name(real_server),
            "{family:?} {way:?}"
        );
    }
}

fn short_buffer_gets_the_names_start_and_its_full_length() {
    let net = Net::new();
    for (family, way) in [(Family::V4, Way::V4), (Family::DualStack, Way::Nat64)] {
        let listener = net.listen(family);
        for call in [Call::Accept, Call::Accept4] {
            for room in [0, 2, 8, 15] {
                let client = net.connect(way);
                let accepted = listener.accept_by(call, Place::Room(room));
                let expected = Name::cut(family.form(client.address), room as usize);
                assert_eq!(accepted.name, expected, "{call:?} with {room} bytes");
                let fd = accepted.stream.as_raw_fd();
                let told = sys::ask(Call::GetPeerName, fd, Place::Room(room));
                let told = told.expect("a short buffer is no error").name;
                assert_eq!(told, expected, "getpeername with {room} bytes");
            }
        }
    }
}

fn so_peername_says_what_getpeername_says() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        let expected = listener.family.name(client.address);
        let told = sys::so_peername(accepted.stream.as_raw_fd(), expected.length());
        assert_eq!(told, Ok(expected), "{way:?}");
    }
}

fn half_closed_connection_still_shows_the_client() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, mut accepted) = net.pair(&listener, way);
        let expected = listener.family.name(client.address);
        client
            .stream
            .shutdown(Shutdown::Write)
            .expect("the client ends");
        assert_eq!(accepted.read_all(), b"");
        assert_eq!(accepted.peer(), expected, "{way:?} in CLOSE_WAIT");
        accepted
            .stream
            .shutdown(Shutdown::Read)
            .expect("the server stops reading");
        assert_eq!(accepted.peer(), expected, "{way:?} after SHUT_RD");
    }
}

fn closed_connection_has_no_peer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (mut client, mut accepted) = net.pair(&listener, way);
        sockets::finish(&mut client, &mut accepted);
        wait::until("the server's socket is closed", || {
            match sys::ask(Call::GetPeerName, accepted.stream.as_raw_fd(), Place::AMPLE) {
                Err(nix::errno::Errno::ENOTCONN) => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        });
    }
}

/// Turns an AF_INET6 socket with IPv4 traffic into an AF_INET socket (IPV6_ADDRFORM).
fn turn_into_ipv4(accepted: &sockets::Accepted) {
    let fd = accepted.stream.as_raw_fd();
    sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM, libc::AF_INET)
        .expect("the traffic is IPv4");
}

fn socket_turned_into_ipv4_shows_the_client_as_ipv4() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (client, accepted) = net.pair(&listener, Way::V4);
    turn_into_ipv4(&accepted);
    assert_eq!(accepted.peer(), Name::of(client.address));
}

fn nat64_socket_turned_into_ipv4_shows_the_balancer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (client, accepted) = net.pair(&listener, Way::Nat64);
    assert_eq!(accepted.peer(), Name::of(client.address));
    turn_into_ipv4(&accepted);
    let balancer = net.balancer_of(&accepted);
    assert!(matches!(balancer.ip(), IpAddr::V4(_)), "{balancer}");
    assert_eq!(accepted.peer(), Name::of(balancer));
}

fn listener_bound_to_a_device_reports_scope_zero() {
    let net = Net::new();
    let listener = net.listen(Family::V6Only);
    listener
        .socket
        .bind_device(Some(balancer::SERVER_SIDE.as_bytes()))
        .expect("SO_BINDTODEVICE");
    let (client, accepted) = net.pair(&listener, Way::V6);
    assert_eq!(accepted.name, Name::of(client.address));
    assert_eq!(accepted.peer(), Name::of(client.address));
}

fn connections_never_accepted_leave_no_record() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let clients = Way::ALL.map(|way| net.connect(way));
    wait::until("the handshakes are complete", || {
        match net.stats().get("records_live") {
            3 => Ok(()),
            live => Err(crate::stats::describe("records_live", live)),
        }
    });
    drop(listener);
    net.wait_for_no_records();
    drop(clients);
}
