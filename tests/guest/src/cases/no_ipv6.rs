// SPDX-License-Identifier: GPL-2.0

//! The tests of the boot [`Boot::NoIpv6`](super::Boot): IPv6 is switched off, and the kernel does
//! not clear memory.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;

use nix::errno::Errno;

use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::cases::impossible_clients;
use crate::cases::impossible_clients::Fate;
use crate::cases::impossible_clients::Stage;
use crate::cases::impossible_clients::IMPOSSIBLE;
use crate::kmsg::KernelLog;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::net::CLIENT_V6;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::stats;
use crate::sys::Name;

pub const LOADED: &[Case] = cases![Loaded:
    ipv4_client_is_seen_by_a_kernel_without_ipv6,
    ipv6_address_in_the_option_leaves_the_balancers_to_a_kernel_without_ipv6,
    kernel_without_ipv6_refuses_impossible_clients_and_its_own_ipv4_addresses,
];

pub const CASES: &[Case] = cases![Unloaded:
    module_says_in_these_words_that_it_comes_and_goes,
    connections_outlive_the_module_without_ipv6,
    every_load_works_in_memory_full_of_old_data,
];

fn ipv4_client_is_seen_by_a_kernel_without_ipv6() {
    let refused = TcpListener::bind("[::1]:0").expect_err("IPv6 is off");
    assert_eq!(refused.raw_os_error(), Some(Errno::EAFNOSUPPORT as i32));
    let net = Net::ipv4_only(&Plan::dpvs());
    let listener = net.listen(Family::V4);
    let before = net.stats();
    let (mut client, mut accepted) = net.pair(&listener, Way::V4);
    let expected = Name::of(client.address);
    assert_eq!(accepted.name, expected, "accept");
    assert_eq!(accepted.peer(), expected, "getpeername");
    let counted = [
        ("syn_recv_sock_toa", 1),
        ("getname_toa_ok", 2),
        ("option_taken", 1),
        ("records_live", 1),
    ];
    assert_eq!(net.stats().since(&before), counted);
    sockets::exchange(&mut client, &mut accepted);
    sockets::finish(&mut client, &mut accepted);
    drop((client, accepted));
    net.wait_for_no_records();
}

fn ipv6_address_in_the_option_leaves_the_balancers_to_a_kernel_without_ipv6() {
    let named = toa_option(TOA_KIND, SocketAddr::new(CLIENT_V6.into(), 4660));
    let net = Net::ipv4_only(&Plan::inserting(&named));
    let listener = net.listen(Family::V4);
    let before = net.stats();
    let (mut client, mut accepted) = net.pair(&listener, Way::V4);
    accepted.assert_shows(net.balancer_of(&accepted));
    let counted = [
        ("syn_recv_sock_toa", 1),
        ("getname_toa_bypass", 2),
        ("ip6_address_alloc", 1),
        ("option_taken", 1),
        ("records_live", 1),
    ];
    assert_eq!(net.stats().since(&before), counted);
    sockets::exchange(&mut client, &mut accepted);
    sockets::finish(&mut client, &mut accepted);
    drop((client, accepted));
    net.wait_for_no_records();
}

/// The kernel's list of IPv6 addresses is a null pointer: no IPv6 address is the server's.
fn kernel_without_ipv6_refuses_impossible_clients_and_its_own_ipv4_addresses() {
    let stage = Stage::on(Net::ipv4_only(&Plan::none()), Family::V4, false);
    let mut log = KernelLog::from_now();
    let (v4, v6) = (SERVER_V4.to_string(), SERVER_V6.to_string());
    for (ip, fate) in [
        ("2001:db8:7::7", Fate::Seen),
        (&v6, Fate::Seen),
        ("fe80::1", Fate::Seen),
        ("::", IMPOSSIBLE),
        ("::1", IMPOSSIBLE),
        ("ff02::1", IMPOSSIBLE),
        ("::ffff:127.0.0.1", IMPOSSIBLE),
        ("::ffff:203.0.113.9", IMPOSSIBLE),
        ("::127.0.0.1", IMPOSSIBLE),
        ("203.0.113.9", Fate::Seen),
        (&v4, IMPOSSIBLE),
        ("127.0.0.1", IMPOSSIBLE),
        ("0.0.0.0", IMPOSSIBLE),
        ("224.0.0.1", IMPOSSIBLE),
        ("255.255.255.255", IMPOSSIBLE),
    ] {
        stage.check(impossible_clients::client(ip), fate);
    }
    assert_eq!(log.new_lines(), [""; 0]);
}

/// The hook of `inet6_getname` is registered, since the function exists. The function is never
/// called.
fn module_says_in_these_words_that_it_comes_and_goes() {
    let mut log = KernelLog::from_now();
    module::load();
    let version = fs::read_to_string("/sys/module/toa/version").expect("the module has one");
    module::unload();
    let said: Vec<String> = log
        .new_lines()
        .iter()
        .filter(|line| line.starts_with("TOA: "))
        .map(|line| without_sizes(line))
        .collect();
    let loaded = format!(
        "TOA: toa loaded, version {}, IPv4 and IPv6, at most N records in N buckets (N kept for \
         the first network namespace, N for each other of the host, N for all of other user \
         namespaces together), {} crate",
        version.trim(),
        module::kernel_crate()
    );
    let expected = [
        &loaded,
        "TOA: trusting TOA options (kind 254) from any host: allow only the balancer to reach the \
         server ports, or write its addresses: sysctl -w net.toa.trusted=PREFIX,PREFIX",
        "TOA: toa unloaded",
    ];
    assert_eq!(said, expected);
}

/// The line with N in place of the numbers that depend on the machine's memory.
fn without_sizes(line: &str) -> String {
    let Some((what, sizes)) = line.split_once(", at most ") else {
        return line.to_owned();
    };
    let mut text = format!("{what}, at most ");
    for character in sizes.chars() {
        match character {
            '0'..='9' if text.ends_with('N') => {}
            '0'..='9' => text.push('N'),
            _ => text.push(character),
        }
    }
    text
}

fn connections_outlive_the_module_without_ipv6() {
    let net = Net::ipv4_only(&Plan::dpvs());
    let listener = net.listen(Family::V4);
    module::load();
    let (mut client, mut accepted) = net.pair(&listener, Way::V4);
    assert_eq!(accepted.peer(), Name::of(client.address));
    let waiting = net.connect(Way::V4);
    listener.wait();
    module::unload();
    assert_eq!(stats::text(&net.server), None);
    let balancer = Name::of(net.balancer_of(&accepted));
    assert_eq!(accepted.peer(), balancer);
    sockets::exchange(&mut client, &mut accepted);
    let late = listener.accept();
    assert_eq!(late.name, Name::of(net.balancer_of(&late)));
    drop(waiting);
}

const LOADS: usize = 12;

/// A module that reads memory before writing it finds zeroes on most kernels, because these clear
/// all memory that they allocate.
fn every_load_works_in_memory_full_of_old_data() {
    let net = Net::ipv4_only(&Plan::dpvs());
    let listener = net.listen(Family::V4);
    fill_memory_and_free_it();
    for load in 0..LOADS {
        if let Err(error) = module::insert("") {
            panic!("load {load} of {LOADS}: {error}");
        }
        let (client, accepted) = net.pair(&listener, Way::V4);
        assert_eq!(accepted.peer(), Name::of(client.address), "load {load}");
        drop((client, accepted));
        net.wait_for_no_records();
        module::unload();
    }
}

/// Leaves no zeroes in free pages. `slab_debug=P` does the same for the memory of kmalloc.
fn fill_memory_and_free_it() {
    const FILE: &str = "/dev/shm/old-data";
    const MEGABYTES: usize = 256;
    let chunk = vec![0xa5; 1 << 20];
    let mut file = File::create(FILE).expect("a file in memory");
    for _ in 0..MEGABYTES {
        file.write_all(&chunk).expect("there is enough memory");
    }
    fs::remove_file(FILE).expect("it is there");
}
