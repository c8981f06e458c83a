// SPDX-License-Identifier: GPL-2.0

//! Every way to ask for a peer, in every process that may hold the socket. Also sockets and answers
//! without a client.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use nix::errno::Errno;
use nix::poll::PollFlags;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::balancer::Plan;
use crate::module;
use crate::namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::net::ROWS_WITH_CLIENT;
use crate::runner::cases;
use crate::runner::skip;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::bpf;
use crate::sys::compat;
use crate::sys::compat::Convention;
use crate::sys::handing;
use crate::sys::uring::Outcome;
use crate::sys::uring::Ring;
use crate::sys::Call;
use crate::sys::Name;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    so_peername_fills_the_room_it_is_given,
    so_peername_of_a_closed_connection_still_shows_the_client,
    io_uring_accept_shows_the_client,
    io_uring_multishot_accept_shows_each_client,
    io_uring_getpeername_shows_the_client,
    io_uring_getsockname_shows_the_servers_own_name,
    io_uring_so_peername_shows_the_client,
    io_uring_getpeername_has_the_errors_of_getpeername,
    another_thread_sees_the_client_while_one_receives,
    duplicate_descriptor_shows_the_client_after_the_first_is_closed,
    child_of_fork_sees_the_client,
    program_started_on_the_connection_sees_the_client,
    descriptor_sent_to_another_namespace_shows_the_client,
    every_half_closed_state_shows_the_client,
    programs_of_32_bits_see_the_client,
    programs_of_32_bits_get_a_short_names_start,
    receiving_tells_no_sender_on_a_connection,
    raw_sockets_are_unaffected,
    ping_sockets_are_unaffected,
    sctp_sockets_are_unaffected,
    kernel_tls_connection_shows_the_client,
    socket_in_a_sockmap_shows_the_client,
    cgroups_getpeername_program_is_run_for_sockets_without_a_client_only,
];

pub const UNLOADED: &[Case] = cases![Unloaded:
    kernel_tls_connection_outlives_the_module,
];

/// Calls `job` with a connection of each row and the name of its client.
#[track_caller]
fn with_rows(net: &Net, mut job: impl FnMut(&mut Client, &mut Accepted, Name)) {
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        let (mut client, mut accepted) = net.pair(&listener, way);
        let expected = family.name(client.address);
        assert_eq!(accepted.name, expected, "{family:?} {way:?}");
        job(&mut client, &mut accepted, expected);
    }
}

fn so_peername_fills_the_room_it_is_given() {
    let net = Net::new();
    with_rows(&net, |client, accepted, whole| {
        let fd = accepted.stream.as_raw_fd();
        // A name that is cut within the port could end in any byte.
        let rooms = (0..=whole.length()).filter(|room| !(3..=4).contains(room));
        for room in rooms {
            let form = accepted.family.form(client.address);
            let start = Name::cut(form, room as usize).said_to_be(room);
            assert_eq!(sys::so_peername(fd, room), Ok(start), "{room} bytes");
        }
        for room in [whole.length() + 1, 128, -1, i32::MIN] {
            let told = sys::so_peername(fd, room);
            assert_eq!(told, Err(Errno::EINVAL), "{room} bytes");
        }
    });
}

/// SO_PEERNAME also returns the peer of a closed connection.
fn so_peername_of_a_closed_connection_still_shows_the_client() {
    let net = Net::new();
    with_rows(&net, |client, accepted, whole| {
        let fd = accepted.stream.as_raw_fd();
        reset(client, accepted);
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
        assert_eq!(sys::so_peername(fd, whole.length()), Ok(whole));
    });
    net.wait_for_no_records();
}

/// Resets the connection at the client, and waits for the reset at the server.
#[track_caller]
fn reset(client: &mut Client, accepted: &mut Accepted) {
    sys::disconnect(client.stream.as_raw_fd()).expect("AF_UNSPEC");
    let error = std::io::Read::read(&mut accepted.stream, &mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

fn io_uring_accept_shows_the_client() {
    let net = Net::new();
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        let ring = Ring::new();
        ring.accept(listener.socket.as_raw_fd(), false);
        let client = net.connect(way);
        let (socket, more) = ring.accepted();
        assert!(!more, "one shot");
        let expected = family.name(client.address);
        assert_eq!(ring.name(), expected, "accept: {family:?} {way:?}");
        let told = sockets::name(Call::GetPeerName, &socket);
        assert_eq!(told, expected, "getpeername: {family:?} {way:?}");
    }
}

fn io_uring_multishot_accept_shows_each_client() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let ring = ring_with_multishot();
    ring.accept(listener.socket.as_raw_fd(), true);
    let mut open = Vec::new();
    for way in Way::ALL.into_iter().cycle().take(9) {
        let client = net.connect(way);
        let (socket, more) = ring.accepted();
        assert!(more, "multishot");
        let expected = listener.family.name(client.address);
        assert_eq!(ring.name(), expected, "accept: {way:?}");
        assert_eq!(sockets::name(Call::GetPeerName, &socket), expected);
        open.push((client, socket));
    }
}

/// The errors of a request that the kernel's io_uring lacks: EINVAL until 5.18.
const LACKING: [Result<i32, Errno>; 2] = [Err(Errno::EOPNOTSUPP), Err(Errno::EINVAL)];

/// A ring for multishot requests. Skips the case if the kernel's io_uring has none of accept.
fn ring_with_multishot() -> Ring {
    let ring = Ring::new();
    let file = File::open("/dev/null").expect("a file that is no socket");
    ring.accept(file.as_raw_fd(), true);
    if ring.outcome().result == Err(Errno::EINVAL) {
        skip("io_uring of this kernel has no multishot accept");
    }
    ring
}

/// A ring for names. Skips the case if the kernel's io_uring has no getsockname.
fn ring_with_names() -> Ring {
    let ring = Ring::new();
    let socket = sockets::socket_of(Family::V4, Protocol::TCP);
    if LACKING.contains(&ring.name_of(socket.as_raw_fd(), false, 128).result) {
        skip("io_uring of this kernel has no getsockname");
    }
    ring
}

/// A ring for socket options. Skips the case if the kernel's io_uring has no getsockopt.
fn ring_with_options() -> Ring {
    let ring = Ring::new();
    let socket = sockets::socket_of(Family::V4, Protocol::TCP);
    if LACKING.contains(&ring.so_peername(socket.as_raw_fd(), 128).result) {
        skip("io_uring of this kernel has no getsockopt");
    }
    ring
}

fn io_uring_getpeername_shows_the_client() {
    let net = Net::new();
    let ring = ring_with_names();
    with_rows(&net, |client, accepted, whole| {
        let fd = accepted.stream.as_raw_fd();
        for room in [128, 28, 16, 8, 0] {
            let form = accepted.family.form(client.address);
            assert_eq!(ring.name_of(fd, true, room).result, Ok(0));
            assert_eq!(ring.name(), Name::cut(form, room as usize), "{room} bytes");
        }
        assert_eq!(accepted.peer(), whole);
    });
}

fn io_uring_getsockname_shows_the_servers_own_name() {
    let net = Net::new();
    let ring = ring_with_names();
    with_rows(&net, |_, accepted, _| {
        let fd = accepted.stream.as_raw_fd();
        assert_eq!(ring.name_of(fd, false, 128).result, Ok(0));
        assert_eq!(ring.name(), accepted.local());
        let port = accepted.local().address().map(|address| address.port());
        assert_eq!(port, Some(PORT));
    });
}

fn io_uring_so_peername_shows_the_client() {
    let net = Net::new();
    let ring = ring_with_options();
    with_rows(&net, |_, accepted, whole| {
        let length = whole.length();
        let outcome = ring.so_peername(accepted.stream.as_raw_fd(), length);
        assert_eq!(outcome.result, Ok(length));
        assert_eq!(ring.name(), whole);
    });
}

fn io_uring_getpeername_has_the_errors_of_getpeername() {
    let net = Net::new();
    let ring = ring_with_names();
    with_rows(&net, |_, accepted, _| {
        let fd = accepted.stream.as_raw_fd();
        let error = |error| Outcome {
            result: Err(error),
            more: false,
        };
        assert_eq!(ring.name_of(fd, true, -1), error(Errno::EINVAL));
        sys::disconnect(fd).expect("AF_UNSPEC");
        assert_eq!(ring.name_of(fd, true, 128), error(Errno::ENOTCONN));
        assert_eq!(ring.name(), Name::none().said_to_be(128));
    });
}

fn another_thread_sees_the_client_while_one_receives() {
    let net = Net::new();
    with_rows(&net, |client, accepted, whole| {
        let again = accepted.stream.try_clone().expect("dup");
        thread::scope(|scope| {
            let reader = scope.spawn(|| accepted.read_all());
            for _ in 0..100 {
                assert_eq!(sockets::name(Call::GetPeerName, &again), whole);
            }
            client.stream.write_all(b"end").expect("the client sends");
            client.stream.shutdown(Shutdown::Write).expect("a FIN");
            assert_eq!(reader.join().expect("it reads"), b"end");
        });
    });
}

fn duplicate_descriptor_shows_the_client_after_the_first_is_closed() {
    let net = Net::new();
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, way);
        let again = accepted.stream.try_clone().expect("dup");
        drop(accepted);
        let told = sockets::name(Call::GetPeerName, &again);
        assert_eq!(told, family.name(client.address), "{family:?} {way:?}");
    }
}

fn child_of_fork_sees_the_client() {
    let net = Net::new();
    with_rows(&net, |_, accepted, whole| {
        let told = handing::peer_in_child(accepted.stream.as_raw_fd());
        assert_eq!(told, Ok(whole.clone()));
        assert_eq!(accepted.peer(), whole, "the child has ended");
    });
}

/// The program's input is the connection, as with inetd.
fn program_started_on_the_connection_sees_the_client() {
    let net = Net::new();
    let program = "import socket; print(socket.socket(fileno=0).getpeername()[:2])";
    with_rows(&net, |_, accepted, whole| {
        let input = accepted.stream.try_clone().expect("dup");
        let output = Command::new("python3")
            .args(["-c", program])
            .stdin(Stdio::from(OwnedFd::from(input)))
            .output()
            .expect("python3 ends");
        let client = whole.address().expect("an address");
        let expected = format!("('{}', {})\n", client.ip(), client.port());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    });
}

/// The namespace of the socket counts the question, not the namespace of the process that asks.
fn descriptor_sent_to_another_namespace_shows_the_client() {
    let net = Net::new();
    let (sender, receiver) = UnixStream::pair().expect("two sockets");
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, way);
        let before = (net.stats(), crate::stats::Stats::read(&net.client));
        handing::send(&sender, accepted.stream.as_raw_fd()).expect("it is sent");
        drop(accepted);
        let told = net.client.enter(|| {
            let socket = handing::receive(&receiver).expect("it is received");
            sockets::name(Call::GetPeerName, &socket)
        });
        assert_eq!(told, family.name(client.address), "{family:?} {way:?}");
        let after = (net.stats(), crate::stats::Stats::read(&net.client));
        let asked = after.0.get("getname_toa_ok") - before.0.get("getname_toa_ok");
        assert_eq!(asked, 1, "in the server's namespace");
        assert_eq!(after.1.since(&before.1), [], "in the client's");
    }
}

fn every_half_closed_state_shows_the_client() {
    let net = Net::new();
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        with_rows(&net, |client, accepted, whole| {
            accepted.stream.shutdown(how).expect("shutdown");
            assert_eq!(accepted.peer(), whole, "{how:?}");
            if how != Shutdown::Read {
                assert_eq!(sockets::read_all(&mut client.stream), b"");
            }
            assert_eq!(accepted.peer(), whole, "{how:?}, asked again");
            let length = whole.length();
            let fd = accepted.stream.as_raw_fd();
            assert_eq!(sys::so_peername(fd, length), Ok(whole), "{how:?}");
        });
    }
}

fn programs_of_32_bits_see_the_client() {
    let net = Net::new();
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        for convention in [Convention::Socketcall, Convention::Direct] {
            for call in [Call::Accept, Call::Accept4] {
                let client = net.connect(way);
                let expected = family.name(client.address);
                listener.wait();
                let fd = listener.socket.as_raw_fd();
                let what = format!("{family:?} {way:?} {convention:?} {call:?}");
                let answer = compat::ask(convention, call, fd, 128).expect("it accepts");
                assert_eq!(answer.name, expected, "{what}");
                let socket = answer.socket.expect("accept gives a socket");
                let asked = |call| compat::ask(convention, call, socket.as_raw_fd(), 128);
                let told = asked(Call::GetPeerName).expect("it has a peer").name;
                assert_eq!(told, expected, "{what}, getpeername");
                let told = asked(Call::GetSockName).expect("it has a name").name;
                let own = sockets::name(Call::GetSockName, &socket);
                assert_eq!(told, own, "{what}, getsockname");
            }
        }
    }
}

fn programs_of_32_bits_get_a_short_names_start() {
    let net = Net::new();
    with_rows(&net, |client, accepted, _| {
        let fd = accepted.stream.as_raw_fd();
        let form = accepted.family.form(client.address);
        for convention in [Convention::Socketcall, Convention::Direct] {
            for room in [0, 2, 8, 15] {
                let told = compat::ask(convention, Call::GetPeerName, fd, room);
                let told = told.expect("a short buffer is no error").name;
                assert_eq!(told, Name::cut(form, room as usize), "{room} bytes");
            }
            let error = compat::ask(convention, Call::GetPeerName, fd, -1).err();
            assert_eq!(error, Some(Errno::EINVAL));
        }
    });
}

/// recvfrom and recvmsg return an empty name for the sender on a connection.
fn receiving_tells_no_sender_on_a_connection() {
    let net = Net::new();
    with_rows(&net, |client, accepted, whole| {
        let fd = accepted.stream.as_raw_fd();
        for receive in [sys::receive_from, sys::receive_message] {
            client.stream.write_all(b"data").expect("the client sends");
            wait::ready(&accepted.stream, PollFlags::POLLIN, "data");
            let mut buffer = [0; 8];
            assert_eq!(receive(fd, &mut buffer), Ok((4, Name::none())));
            assert_eq!(&buffer, b"data\0\0\0\0");
        }
        assert_eq!(accepted.peer(), whole);
    });
}

/// Connects a socket of that kind to its own host. The socket must show its target, and no counter
/// may change.
#[track_caller]
fn shows_its_target(net: &Net, domain: Domain, kind: Type, protocol: Protocol) {
    let before = net.stats();
    let local: SocketAddr = match domain {
        Domain::IPV4 => "127.0.0.1:0",
        _ => "[::1]:0",
    }
    .parse()
    .expect("an address");
    let socket = Socket::new(domain, kind, Some(protocol)).expect("a socket");
    assert_eq!(sockets::peer_error(&socket), Errno::ENOTCONN);
    // getpeername fails without a port, even for protocols that have no ports.
    let target = SocketAddr::new(local.ip(), 1234);
    socket.connect(&target.into()).expect("it connects");
    assert_eq!(
        sockets::name(Call::GetPeerName, &socket),
        Name::of(target),
        "{domain:?} {kind:?} {protocol:?}"
    );
    assert_eq!(net.stats().since(&before), []);
}

fn raw_sockets_are_unaffected() {
    let net = Net::new();
    net.server.enter(|| {
        for domain in [Domain::IPV4, Domain::IPV6] {
            // Raw sockets of protocol TCP are not TCP sockets either.
            for protocol in [Protocol::TCP, Protocol::from(253)] {
                shows_its_target(&net, domain, Type::RAW, protocol);
            }
        }
    });
}

fn ping_sockets_are_unaffected() {
    let net = Net::new();
    net.server.sysctl("ipv4/ping_group_range", "0 0");
    net.server.enter(|| {
        shows_its_target(&net, Domain::IPV4, Type::DGRAM, Protocol::ICMPV4);
        shows_its_target(&net, Domain::IPV6, Type::DGRAM, Protocol::ICMPV6);
    });
}

fn sctp_sockets_are_unaffected() {
    namespace::run(Command::new("modprobe").arg("sctp"));
    let net = Net::new();
    let before = net.stats();
    net.server.enter(|| {
        for (domain, local) in [(Domain::IPV4, "127.0.0.1:0"), (Domain::IPV6, "[::1]:0")] {
            let local: SocketAddr = local.parse().expect("an address");
            let new = || Socket::new(domain, Type::STREAM, Some(Protocol::SCTP));
            let (listener, client) = (new().expect("SCTP"), new().expect("SCTP"));
            listener.bind(&local.into()).expect("the address is here");
            listener.listen(1).expect("it listens");
            client
                .connect(&listener.local_addr().expect("it is bound"))
                .expect("it connects");
            let (accepted, from) = listener.accept().expect("it accepts");
            let port = |address: socket2::SockAddr| address.as_socket().map(|a| a.port());
            let client_port = port(client.local_addr().expect("it is bound"));
            let target = listener.local_addr().expect("it is bound").as_socket();
            assert_eq!(port(from), client_port);
            let told = sockets::name(Call::GetPeerName, &accepted).address();
            let expected = client_port.map(|port| SocketAddr::new(local.ip(), port));
            assert_eq!(told, expected);
            let told = sockets::name(Call::GetPeerName, &client).address();
            assert_eq!(told, target);
        }
    });
    assert_eq!(net.stats().since(&before), []);
}

/// `SOL_TLS`, and the directions of `include/uapi/linux/tls.h`.
const TLS: i32 = 282;
const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;

/// Lets the kernel encrypt the data that a socket sends, and decrypt the data that it receives. The
/// keys are the same both ways, since the traffic is the tests' own.
#[track_caller]
fn start_tls(stream: &TcpStream) {
    let fd = stream.as_raw_fd();
    sys::set_option_bytes(fd, libc::SOL_TCP, libc::TCP_ULP, b"tls").expect("TCP_ULP");
    // TLS 1.3 with AES-GCM of 128 bits, 8 bytes of IV, the key, 4 of salt, and
    // the number of the first record.
    let versions = [0x0304_u16.to_ne_bytes(), 51_u16.to_ne_bytes()].concat();
    let keys = [&versions[..], &[7; 8], &[8; 16], &[9; 4], &[0; 8]].concat();
    for direction in [TLS_TX, TLS_RX] {
        sys::set_option_bytes(fd, TLS, direction, &keys).expect("TLS keys");
    }
}

#[track_caller]
fn start_tls_on(client: &Client, accepted: &Accepted) {
    start_tls(&client.stream);
    start_tls(&accepted.stream);
}

/// Loads the kernel's TLS. Skips the case if the kernel has none.
fn load_tls() {
    let loaded = Command::new("modprobe").arg("tls").status();
    if !loaded.expect("modprobe runs").success() {
        skip("the kernel has no module tls");
    }
}

fn kernel_tls_connection_shows_the_client() {
    load_tls();
    let net = Net::new();
    with_rows(&net, |client, accepted, whole| {
        start_tls_on(client, accepted);
        assert_eq!(accepted.peer(), whole, "with keys");
        sockets::exchange(client, accepted);
        assert_eq!(accepted.peer(), whole, "after data");
        let fd = accepted.stream.as_raw_fd();
        assert_eq!(sys::so_peername(fd, whole.length()), Ok(whole));
    });
}

/// kTLS copies a socket's operations. Operations that a module had replaced would stay in the copy.
fn kernel_tls_connection_outlives_the_module() {
    load_tls();
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let mut old = Way::ALL.map(|way| net.pair(&listener, way));
    for (client, accepted) in &mut old {
        start_tls_on(client, accepted);
        sockets::exchange(client, accepted);
        let expected = accepted.family.name(client.address);
        assert_eq!(accepted.peer(), expected, "while it is loaded");
    }
    module::unload();
    let mut new = Way::ALL.map(|way| net.pair(&listener, way));
    for (client, accepted) in &mut new {
        start_tls_on(client, accepted);
    }
    for (client, accepted) in old.iter_mut().chain(&mut new) {
        let balancer = Name::of(net.balancer_of(accepted));
        assert_eq!(accepted.peer(), balancer, "when it is gone");
        sockets::exchange(client, accepted);
    }
}

/// Other TOA modules occupy a part of the socket that a sockmap needs (EBUSY).
fn socket_in_a_sockmap_shows_the_client() {
    let net = Net::new();
    let pass = [bpf::set_register(0, 1), bpf::EXIT];
    let program = bpf::load(bpf::Kind::SkMsg, &pass).expect("a program");
    let map = bpf::sockmap(1).expect("a sockmap");
    bpf::attach_to_sockmap(&map, bpf::Kind::SkMsg, &program).expect("it is attached");
    with_rows(&net, |client, accepted, whole| {
        let added = bpf::add_to_sockmap(&map, 0, accepted.stream.as_raw_fd());
        assert_eq!(added, Ok(()));
        assert_eq!(accepted.peer(), whole, "in the map");
        sockets::exchange(client, accepted);
        assert_eq!(accepted.peer(), whole, "after data");
    });
    net.wait_for_no_records();
}

/// A mounted cgroup file system.
struct Cgroup {
    root: std::path::PathBuf,
}

impl Cgroup {
    fn mount() -> Self {
        let root = std::env::temp_dir().join("toa-guest-cgroup");
        fs::create_dir_all(&root).expect("a directory");
        let mut mount = Command::new("mount");
        namespace::run(mount.args(["-t", "cgroup2", "none"]).arg(&root));
        Self { root }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        namespace::run(Command::new("umount").arg(&self.root));
    }
}

/// The port that the program answers.
const ANSWERED: u16 = 4711;

/// The offset of the port in `struct bpf_sock_addr`.
const USER_PORT: u16 = 24;

fn cgroups_getpeername_program_is_run_for_sockets_without_a_client_only() {
    let net = Net::new();
    let without = Net::with(&Plan::none());
    let cgroup = Cgroup::mount();
    let root = File::open(&cgroup.root).expect("the root of all cgroups");
    let answer = [
        bpf::set_register(2, u32::from(ANSWERED.to_be())),
        bpf::store_register_2(USER_PORT),
        bpf::set_register(0, 1),
        bpf::EXIT,
    ];
    let links = [bpf::Kind::GetPeerName4, bpf::Kind::GetPeerName6].map(|kind| {
        let program = bpf::load(kind, &answer).expect("a program");
        bpf::link_to_cgroup(root.as_fd(), kind, &program).expect("it is attached")
    });
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, way);
        let expected = family.name(client.address);
        assert_eq!(accepted.name, expected, "accept: {family:?} {way:?}");
        assert_eq!(accepted.peer(), expected, "getpeername: {family:?} {way:?}");

        let listener = without.listen(family);
        let (_client, accepted) = without.pair(&listener, way);
        let balancer = without.balancer_of(&accepted);
        let expected = Name::of(SocketAddr::new(balancer.ip(), ANSWERED));
        assert_eq!(
            accepted.name, expected,
            "accept without: {family:?} {way:?}"
        );
        assert_eq!(accepted.peer(), expected, "without: {family:?} {way:?}");
    }
    drop((links, root));
    let listener: Listener = without.listen(Family::DualStack);
    let (_client, accepted) = without.pair(&listener, Way::V4);
    let balancer = without.balancer_of(&accepted);
    assert_eq!(accepted.peer(), Name::of(balancer), "the program is gone");
}
