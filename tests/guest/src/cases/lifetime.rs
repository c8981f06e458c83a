// SPDX-License-Identifier: GPL-2.0

//! Loads and unloads of the module while listeners and connections stay open.

use std::fs;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV6;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::kmsg::KernelLog;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats;
use crate::sys;
use crate::sys::Name;

pub const CASES: &[Case] = cases![Unloaded:
    without_the_module_every_peer_is_the_balancer,
    listener_older_than_the_module_is_served,
    connection_older_than_the_module_keeps_the_balancer,
    connection_recorded_before_it_is_accepted_shows_its_client,
    live_connections_outlive_the_module_and_a_second_load,
    connection_waiting_to_be_accepted_outlives_the_module,
    flow_label_is_reported_as_without_the_module,
    second_load_is_refused_and_the_first_goes_on,
    module_without_a_signature_is_refused_if_the_kernel_demands_one,
    log_tells_of_each_load_and_unload_once,
    unload_removes_the_statistics,
    full_table_leaves_later_connections_to_the_balancer,
];

/// Makes a connection each way to a dual stack listener.
fn pairs(net: &Net, listener: &Listener) -> Vec<(Client, Accepted)> {
    Way::ALL.map(|way| net.pair(listener, way)).into()
}

#[track_caller]
fn all_show_their_clients(pairs: &[(Client, Accepted)]) {
    for (client, accepted) in pairs {
        let expected = accepted.family.name(client.address);
        assert_eq!(accepted.peer(), expected);
    }
}

#[track_caller]
fn all_show_the_balancer(net: &Net, pairs: &[(Client, Accepted)]) {
    for (_, accepted) in pairs {
        assert_eq!(accepted.peer(), Name::of(net.balancer_of(accepted)));
    }
}

#[track_caller]
fn all_work(pairs: &mut [(Client, Accepted)]) {
    for (client, accepted) in pairs {
        sockets::exchange(client, accepted);
    }
}

fn without_the_module_every_peer_is_the_balancer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let pairs = pairs(&net, &listener);
    all_show_the_balancer(&net, &pairs);
    for (client, accepted) in &pairs {
        assert_ne!(
            accepted.name.address().map(|a| a.ip()),
            Some(client.address.ip())
        );
        assert_eq!(accepted.name, accepted.peer());
    }
}

fn listener_older_than_the_module_is_served() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let pairs = pairs(&net, &listener);
    all_show_their_clients(&pairs);
    drop(pairs);
    net.wait_for_no_records();
    module::unload();
}

fn connection_older_than_the_module_keeps_the_balancer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let mut old = pairs(&net, &listener);
    module::load();
    all_show_the_balancer(&net, &old);
    all_work(&mut old);
    all_show_the_balancer(&net, &old);
    module::unload();
}

fn connection_recorded_before_it_is_accepted_shows_its_client() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let clients = Way::ALL.map(|way| net.connect(way));
    for client in &clients {
        let accepted = listener.accept();
        let expected = listener.family.name(client.address);
        assert_eq!(accepted.name, expected);
    }
    drop(clients);
    net.wait_for_no_records();
    module::unload();
}

fn live_connections_outlive_the_module_and_a_second_load() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let mut old = pairs(&net, &listener);
    all_show_their_clients(&old);
    module::unload();
    all_show_the_balancer(&net, &old);
    all_work(&mut old);
    module::load();
    all_show_the_balancer(&net, &old);
    let mut new = pairs(&net, &listener);
    all_show_their_clients(&new);
    all_work(&mut old);
    all_work(&mut new);
    drop((old, new));
    net.wait_for_no_records();
    module::unload();
}

fn connection_waiting_to_be_accepted_outlives_the_module() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let mut clients = Way::ALL.map(|way| net.connect(way));
    listener.wait();
    module::unload();
    for client in &mut clients {
        let mut accepted = listener.accept();
        assert_eq!(accepted.name, Name::of(net.balancer_of(&accepted)));
        sockets::exchange(client, &mut accepted);
    }
}

/// The option of `linux/in6.h` that reports the flow label with a name.
const IPV6_FLOWINFO_SEND: libc::c_int = 33;

/// A listener whose sockets inherit a flow label.
fn listener_with_flow_label(flow: u32) -> Listener {
    let target = Listener::new(Family::DualStack, 9000);
    let socket = sockets::socket(target.family);
    let fd = socket.as_raw_fd();
    sys::set_option(fd, libc::IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1).expect("a flag");
    let address = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 9000, flow, 0);
    socket.connect(&address.into()).expect("it connects");
    sys::disconnect(fd).expect("AF_UNSPEC");
    Listener::from(socket, target.family, PORT)
}

/// The name of `address` with the flow label `flow`.
fn name_with_flow_label(address: SocketAddr, flow: u32) -> Name {
    match address {
        SocketAddr::V6(v6) => Name::of(SocketAddrV6::new(*v6.ip(), v6.port(), flow, 0).into()),
        SocketAddr::V4(_) => panic!("{address} cannot have a flow label"),
    }
}

fn flow_label_is_reported_as_without_the_module() {
    let flow = 0x1_2345_u32.to_be();
    let net = Net::new();
    let listener = net.server.enter(|| listener_with_flow_label(flow));
    module::load();
    let pairs = pairs(&net, &listener);
    for (client, accepted) in &pairs {
        let address = listener.family.form(client.address);
        assert_eq!(accepted.peer(), name_with_flow_label(address, flow));
    }
    module::unload();
    for (_, accepted) in &pairs {
        let address = net.balancer_of(accepted);
        assert_eq!(accepted.peer(), name_with_flow_label(address, flow));
    }
}

fn second_load_is_refused_and_the_first_goes_on() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let before = pairs(&net, &listener);
    assert_eq!(module::insert(""), Err(Errno::EEXIST));
    all_show_their_clients(&before);
    all_show_their_clients(&pairs(&net, &listener));
    drop(before);
    net.wait_for_no_records();
    module::unload();
}

/// The end of a signed module (`MODULE_SIG_STRING` of `include/linux/module_signature.h`).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The size of `struct module_signature`, which stands in front of [`SIGNED`]. Its last 4 bytes
/// are the length of the signature in front of it.
const SIGNATURE: usize = 12;

/// Returns the module without its signature, if it has one.
fn without_signature(module: &[u8]) -> &[u8] {
    let Some(signed) = module.strip_suffix(SIGNED) else {
        return module;
    };
    let length = signed.last_chunk().expect("struct module_signature");
    let length = u32::from_be_bytes(*length) as usize;
    &signed[..signed.len() - SIGNATURE - length]
}

/// `module.sig_enforce`, which only kernels with CONFIG_MODULE_SIG have.
fn signatures_are_demanded() -> bool {
    fs::read_to_string("/sys/module/module/parameters/sig_enforce")
        .is_ok_and(|value| value.trim() == "Y")
}

fn module_without_a_signature_is_refused_if_the_kernel_demands_one() {
    const UNSIGNED: &str = "/tmp/unsigned.ko";
    let module = fs::read(module::PATH).expect("the module");
    fs::write(UNSIGNED, without_signature(&module)).expect("a file");
    let loaded = module::insert_file(UNSIGNED, "");
    if signatures_are_demanded() {
        assert_eq!(loaded, Err(Errno::EKEYREJECTED));
        assert!(module.ends_with(SIGNED), "the harness signs the module");
        module::load();
    } else {
        assert_eq!(loaded, Ok(()));
    }
    module::unload();
}

fn log_tells_of_each_load_and_unload_once() {
    let mut log = KernelLog::from_now();
    for _ in 0..3 {
        module::load();
        module::unload();
        let lines = log.new_lines();
        let count = |text| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(count("TOA: toa loaded"), 1, "{lines:?}");
        assert_eq!(count("TOA: toa unloaded"), 1, "{lines:?}");
    }
}

fn unload_removes_the_statistics() {
    let net = Net::new();
    module::load();
    assert!(stats::text(&net.server).is_some());
    module::unload();
    assert_eq!(stats::text(&net.server), None);
}

fn full_table_leaves_later_connections_to_the_balancer() {
    let net = Net::new();
    let listener = net.listen(Family::V4);
    // A namespace of root may hold a quarter of the records.
    module::load_with("max_records=32");
    let before = net.stats();
    let mut pairs: Vec<_> = (0..20).map(|_| net.pair(&listener, Way::V4)).collect();
    all_show_their_clients(&pairs[..8]);
    all_show_the_balancer(&net, &pairs[8..]);
    let after = net.stats();
    assert_eq!(
        after.get("record_table_full") - before.get("record_table_full"),
        12
    );
    assert_eq!(after.get("records_live"), 8);
    all_work(&mut pairs);
    pairs.clear();
    net.wait_for_no_records();
    let pair = net.pair(&listener, Way::V4);
    all_show_their_clients(&[pair]);
    net.wait_for_no_records();
    module::unload();
}
