// SPDX-License-Identifier: GPL-2.0

//! The options 4096 and 4097 of getsockopt: the client and the balancer, even if a socket's name
//! has no room for the client.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;

use libc::c_int;
use libc::IPPROTO_IP;
use libc::IPPROTO_IPV6;
use nix::errno::Errno;
use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;

use super::load::load_and_unload_by;
use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::TOA_KIND;
use crate::held_load::HeldLoad;
use crate::kmsg::KernelLog;
use crate::ktap::note;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::compat;
use crate::sys::compat::Convention;
use crate::sys::Name;
use crate::sys::Place;
use crate::sys::SleepyPage;
use crate::test_module::TestModule;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    client_and_balancer_are_told_for_every_kind_of_socket,
    ipv4_option_in_ipv6_traffic_leaves_no_client_to_ask_for,
    answer_is_told_to_32_bit_callers,
    answer_is_told_to_nobody,
    longer_buffers_are_left_alone_behind_the_answer,
    tcp_fallback_of_an_mptcp_listener_is_told_its_client,
    errors_are_those_of_the_table,
    questions_are_counted_as_those_of_getpeername,
    other_options_are_as_without_the_module,
];

pub const UNLOADED: &[Case] = cases![Unloaded:
    options_are_unknown_without_the_module,
    unload_is_refused_while_an_answer_is_written,
    load_is_refused_while_another_module_has_the_option,
    failed_load_waits_for_a_process_in_getsockopt_and_logs_that,
    options_can_be_asked_for_while_the_module_comes_and_goes,
];

/// DPVS's `TOA_SO_GET_LOOKUP`.
pub const CLIENT: c_int = 4096;
/// The sender's address.
pub const BALANCER: c_int = 4097;
const OPTIONS: [c_int; 2] = [CLIENT, BALANCER];

/// DPVS's `struct toa_nat64_peer`.
pub const LENGTH: i32 = 20;

/// The bytes of an answer: the address (IPv4 in mapped form), the port in network order, and two
/// bytes of padding.
pub fn answer(address: SocketAddr) -> Name {
    let ip = match address.ip() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        std::net::IpAddr::V6(v6) => v6,
    };
    let port = address.port().to_be_bytes();
    Name::exactly(&[&ip.octets()[..], &port, &[0, 0]].concat())
}

/// The levels at which a socket of the family has the options.
pub fn levels(family: Family) -> &'static [c_int] {
    match family {
        Family::V4 => &[IPPROTO_IP],
        Family::V6Only | Family::DualStack => &[IPPROTO_IP, IPPROTO_IPV6],
    }
}

/// All rows of the design's table.
const ROWS: [(Family, Way); 6] = [
    (Family::V4, Way::Nat64),
    (Family::V4, Way::V4),
    (Family::V6Only, Way::V6),
    (Family::DualStack, Way::V4),
    (Family::DualStack, Way::V6),
    (Family::DualStack, Way::Nat64),
];

#[track_caller]
fn assert_told(accepted: &Accepted, client: SocketAddr, balancer: SocketAddr) {
    let fd = accepted.stream.as_raw_fd();
    for &level in levels(accepted.family) {
        for (option, expected) in [(CLIENT, client), (BALANCER, balancer)] {
            let told = sys::get_option(fd, level, option, Place::Room(LENGTH));
            assert_eq!(told, Ok(answer(expected)), "{option} at {level}");
        }
    }
}

fn client_and_balancer_are_told_for_every_kind_of_socket() {
    let net = Net::new();
    for (family, way) in ROWS {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, way);
        assert_told(&accepted, client.address, net.balancer_of(&accepted));
        let local = SocketAddr::new(way.real_server(), PORT);
        assert_eq!(accepted.local(), family.name(local), "{family:?} {way:?}");
    }
}

fn ipv4_option_in_ipv6_traffic_leaves_no_client_to_ask_for() {
    let named = SocketAddr::new(Ipv4Addr::new(203, 0, 113, 9).into(), 4660);
    let net = Net::with(&Plan::inserting(&toa_option(TOA_KIND, named)));
    let listener = net.listen(Family::V6Only);
    let (_client, accepted) = net.pair(&listener, Way::V6);
    assert!(net.balancer_of(&accepted).is_ipv6());
    let fd = accepted.stream.as_raw_fd();
    for level in [IPPROTO_IP, IPPROTO_IPV6] {
        for option in OPTIONS {
            let told = sys::get_option(fd, level, option, Place::Room(LENGTH));
            assert_eq!(told, Err(Errno::EINVAL), "{option} at {level}");
        }
    }
}

fn answer_is_told_to_32_bit_callers() {
    let net = Net::new();
    for (family, way) in ROWS {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, way);
        let fd = accepted.stream.as_raw_fd();
        for convention in [Convention::Socketcall, Convention::Direct] {
            for &level in levels(family) {
                let ask = |option, room| compat::get_option(convention, fd, level, option, room);
                assert_eq!(ask(CLIENT, LENGTH), Ok(answer(client.address)));
                let balancer = answer(net.balancer_of(&accepted));
                assert_eq!(ask(BALANCER, LENGTH), Ok(balancer));
                assert_eq!(ask(CLIENT, LENGTH - 1), Err(Errno::EINVAL));
            }
        }
    }
}

fn answer_is_told_to_nobody() {
    let net = Net::new();
    let listener = net.listen(Family::V4);
    let (client, accepted) = net.pair(&listener, Way::Nat64);
    let balancer = net.balancer_of(&accepted);
    sys::as_nobody(|| {
        let forbidden = fs::File::open("/etc/shadow").map(|_| ());
        let forbidden = forbidden.expect_err("an unprivileged user may not");
        assert_eq!(forbidden.kind(), std::io::ErrorKind::PermissionDenied);
        assert_told(&accepted, client.address, balancer);
    });
}

fn longer_buffers_are_left_alone_behind_the_answer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (client, accepted) = net.pair(&listener, Way::Nat64);
    let fd = accepted.stream.as_raw_fd();
    for room in [LENGTH, LENGTH + 1, 24, 128] {
        // The module writes 20 bytes and reports the length 20.
        let told = sys::get_option(fd, IPPROTO_IP, CLIENT, Place::Room(room));
        assert_eq!(told, Ok(answer(client.address)), "{room} bytes");
    }
}

fn tcp_fallback_of_an_mptcp_listener_is_told_its_client() {
    sockets::need_mptcp();
    let net = Net::new();
    let listener = net.server.enter(|| {
        let socket = sockets::socket_of(Family::V4, Protocol::MPTCP);
        Listener::from(socket, Family::V4, PORT)
    });
    let (client, accepted) = net.pair(&listener, Way::Nat64);
    assert_told(&accepted, client.address, net.balancer_of(&accepted));

    let mut client = net.connect_by(Protocol::MPTCP, Way::Nat64, PORT);
    let mut accepted = listener.accept();
    let protocol = SockRef::from(&accepted.stream).protocol();
    assert_eq!(protocol.expect("SO_PROTOCOL"), Some(Protocol::MPTCP));
    for option in OPTIONS {
        let fd = accepted.stream.as_raw_fd();
        let told = sys::get_option(fd, IPPROTO_IP, option, Place::Room(LENGTH));
        assert_eq!(told, Err(Errno::EOPNOTSUPP), "an MPTCP socket");
    }
    sockets::exchange(&mut client, &mut accepted);
    sockets::finish(&mut client, &mut accepted);
}

/// The table of doc/nat64.md, row by row: the answer to both options, and DPVS's answer to option
/// 4096 of IPPROTO_IP. DPVS's answer is from its source (`inet64_getname_toa` of `kmod/toa/toa.c`).
struct Table {
    rows: Vec<String>,
}

/// The outcome of a question: 0 and a name, or an error.
type Told = Result<Name, Errno>;

fn in_words(told: &Told) -> String {
    match told {
        Ok(_) => "0".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

impl Table {
    /// Asks for both options at all levels, and checks that all answers are equal.
    #[track_caller]
    fn row(
        &mut self,
        situation: &str,
        dpvs: &str,
        family: Family,
        fd: RawFd,
        place: Place,
        expected: Result<(), Errno>,
    ) {
        for &level in levels(family) {
            for option in OPTIONS {
                let outcome = sys::get_option(fd, level, option, place);
                let found = outcome.as_ref().map(|_| ()).map_err(|error| *error);
                assert_eq!(
                    found, expected,
                    "{situation}: {option} at {level}: {outcome:?}"
                );
            }
        }
        self.said(situation, &in_words(&expected.map(|()| Name::none())), dpvs);
    }

    fn said(&mut self, situation: &str, outcome: &str, dpvs: &str) {
        let row = format!("| {situation} | {outcome} | {dpvs} |");
        if !self.rows.contains(&row) {
            self.rows.push(row);
        }
    }
}

const PAGE: &str = include_str!("../../../../doc/nat64.md");

fn errors_are_those_of_the_table() {
    let net = Net::new();
    let mut table = Table { rows: Vec::new() };
    for (family, way) in ROWS {
        row_of_connection(&net, &mut table, family, way);
    }
    for (family, way) in ROWS {
        rows_of_buffers(&net, &mut table, family, way);
    }
    for family in [Family::V4, Family::V6Only, Family::DualStack] {
        rows_of_states(&net, &mut table, family);
    }
    rows_of_others(&net, &mut table);
    for row in &table.rows {
        note(row);
    }
    fs::write("/toa/out/errno-table.md", table.rows.join("\n") + "\n").expect("/toa/out");
    let documented: Vec<&str> = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| situation |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(
        table.rows, documented,
        "found, and documented in doc/nat64.md"
    );
}

fn row_of_connection(net: &Net, table: &mut Table, family: Family, way: Way) {
    let listener = net.listen(family);
    let (_client, accepted) = net.pair(&listener, way);
    let (situation, dpvs) = match (family, way) {
        (Family::V4, Way::Nat64) => ("AF_INET, an IPv6 client (NAT64)", "0"),
        (Family::V4, _) => ("AF_INET, an IPv4 client", "EFAULT"),
        (Family::V6Only | Family::DualStack, _) => ("AF_INET6, any client", "EFAULT"),
    };
    let fd = accepted.stream.as_raw_fd();
    let place = Place::Room(LENGTH);
    table.row(situation, dpvs, family, fd, place, Ok(()));
}

fn rows_of_buffers(net: &Net, table: &mut Table, family: Family, way: Way) {
    let listener = net.listen(family);
    let (_client, accepted) = net.pair(&listener, way);
    let fd = accepted.stream.as_raw_fd();
    let mut row = |situation, place, expected: Errno| {
        let dpvs = format!("{expected:?}");
        table.row(situation, &dpvs, family, fd, place, Err(expected));
    };
    for room in [0, 1, 16, 18, 19] {
        row(
            "room for less than 20 bytes",
            Place::Room(room),
            Errno::EINVAL,
        );
    }
    row("a negative length", Place::Room(-1), Errno::EINVAL);
    row("the null pointer", Place::Null(LENGTH), Errno::EINVAL);
    let nowhere = Place::Nowhere(LENGTH);
    row(
        "a pointer to no memory, for the answer or its length",
        nowhere,
        Errno::EFAULT,
    );
    row(
        "a pointer to no memory, for the answer or its length",
        Place::NoLength,
        Errno::EFAULT,
    );
}

/// Makes a connection without an option: the server's host connects to itself.
fn without_client(net: &Net, family: Family) -> (Listener, Socket) {
    net.server.enter(|| {
        let listener = Listener::new(family, 9000);
        let target = SocketAddr::new(SERVER_V4.into(), 9000);
        let socket = sockets::socket(if family == Family::V6Only {
            Family::V6Only
        } else {
            Family::V4
        });
        let target = match family {
            Family::V6Only => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 9000),
            _ => target,
        };
        socket.connect(&target.into()).expect("it connects");
        (listener, socket)
    })
}

fn rows_of_states(net: &Net, table: &mut Table, family: Family) {
    let way = match family {
        Family::V6Only => Way::V6,
        Family::V4 | Family::DualStack => Way::Nat64,
    };
    let place = Place::Room(LENGTH);
    let mut row = |situation, dpvs, fd, expected| {
        table.row(situation, dpvs, family, fd, place, expected);
    };
    let (listener, socket) = without_client(net, family);
    let accepted = listener.accept();
    let fd = accepted.stream.as_raw_fd();
    row("no client is known", "EINVAL", fd, Err(Errno::EINVAL));
    drop((listener, socket, accepted));

    let situation = "not connected: new, listening, disconnected, closed by both ends, reset";
    let mut not_connected = |fd| row(situation, "ENOTCONN", fd, Err(Errno::ENOTCONN));
    let fresh = net.server.enter(|| sockets::socket(family));
    not_connected(fresh.as_raw_fd());
    let listener = net.listen(family);
    not_connected(listener.socket.as_raw_fd());

    let (_client, accepted) = net.pair(&listener, way);
    let fd = accepted.stream.as_raw_fd();
    sys::disconnect(fd).expect("AF_UNSPEC");
    not_connected(fd);

    let (mut client, mut accepted) = net.pair(&listener, way);
    sockets::finish(&mut client, &mut accepted);
    wait::until("the server's socket is closed", || {
        let outcome = sys::get_option(accepted.stream.as_raw_fd(), IPPROTO_IP, CLIENT, place);
        let closed = outcome == Err(Errno::ENOTCONN);
        closed.then_some(()).ok_or_else(|| format!("{outcome:?}"))
    });
    not_connected(accepted.stream.as_raw_fd());

    let (client, mut accepted) = net.pair(&listener, way);
    SockRef::from(&client.stream)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("SO_LINGER");
    drop(client);
    accepted.stream.read(&mut [0]).expect_err("a reset");
    not_connected(accepted.stream.as_raw_fd());

    // The socket is disconnected, and connected to another peer.
    let (_client, accepted) = net.pair(&listener, way);
    drop(listener);
    let fd = accepted.stream.as_raw_fd();
    sys::disconnect(fd).expect("AF_UNSPEC");
    let (other, target) = net.server.enter(|| {
        let target = match family {
            Family::V6Only => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 9001),
            _ => SocketAddr::new(SERVER_V4.into(), 9001),
        };
        (Listener::new(family, 9001), family.form(target))
    });
    SockRef::from(&accepted.stream)
        .connect(&target.into())
        .expect("it connects again");
    drop(other.accept());
    row(
        "connected again, to another peer",
        "0, and the old client",
        fd,
        Err(Errno::EINVAL),
    );
}

fn rows_of_others(net: &Net, table: &mut Table) {
    let place = Place::Room(LENGTH);
    net.server.enter(|| {
        for (family, address) in [(Family::V4, "127.0.0.1:0"), (Family::V6Only, "[::1]:0")] {
            let udp = UdpSocket::bind(address).expect("a socket");
            udp.connect(udp.local_addr().expect("it is bound"))
                .expect("UDP connects");
            let situation = "a UDP socket, or another that is not TCP";
            let expected = Err(Errno::ENOPROTOOPT);
            table.row(
                situation,
                "EINVAL",
                family,
                udp.as_raw_fd(),
                place,
                expected,
            );
            let raw = Socket::new(family.domain(), Type::RAW, Some(Protocol::TCP));
            let raw = raw.expect("root may");
            let level = levels(family)[levels(family).len() - 1];
            for option in OPTIONS {
                let told = sys::get_option(raw.as_raw_fd(), level, option, place);
                assert_eq!(told, Err(Errno::ENOPROTOOPT), "a raw socket");
            }
        }
    });
    let mptcp = sockets::has_mptcp()
        .then(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("MPTCP"));
    let (unix, _other) = UnixStream::pair().expect("two sockets");
    let mptcp = mptcp.iter().map(AsRawFd::as_raw_fd);
    for fd in mptcp.chain([unix.as_raw_fd()]) {
        let situation = "a true MPTCP connection, a UNIX socket";
        let expected = Err(Errno::EOPNOTSUPP);
        table.row(situation, "EOPNOTSUPP", Family::V4, fd, place, expected);
    }
}

fn questions_are_counted_as_those_of_getpeername() {
    let net = Net::new();
    let listener = net.listen(Family::V4);
    let (_client, accepted) = net.pair(&listener, Way::Nat64);
    let fd = accepted.stream.as_raw_fd();
    let before = net.stats();
    for option in OPTIONS {
        sys::get_option(fd, IPPROTO_IP, option, Place::Room(LENGTH)).expect("a client");
        let short = sys::get_option(fd, IPPROTO_IP, option, Place::Room(0));
        assert_eq!(short, Err(Errno::EINVAL));
    }
    let (listener, _socket) = without_client(&net, Family::V4);
    let other = listener.accept();
    let between = net.stats();
    let unknown = sys::get_option(other.stream.as_raw_fd(), IPPROTO_IP, CLIENT, Place::AMPLE);
    assert_eq!(unknown, Err(Errno::EINVAL));
    let after = net.stats();
    assert_eq!(
        between.get("getname_toa_ok") - before.get("getname_toa_ok"),
        2
    );
    let empty = |stats: &crate::stats::Stats| stats.get("getname_toa_empty");
    assert_eq!(empty(&after) - empty(&between), 1);
    assert_eq!(after.get("getname_toa_ok"), between.get("getname_toa_ok"));
}

fn other_options_are_as_without_the_module() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (_client, accepted) = net.pair(&listener, Way::V6);
    let fd = accepted.stream.as_raw_fd();
    for level in [IPPROTO_IP, IPPROTO_IPV6] {
        for option in [CLIENT - 1, BALANCER + 1] {
            let told = sys::get_option(fd, level, option, Place::AMPLE);
            assert_eq!(told, Err(Errno::ENOPROTOOPT), "{option} at {level}");
        }
        for option in OPTIONS {
            let set = sys::set_option(fd, level, option, 1).expect_err("nothing to set");
            assert_eq!(set.raw_os_error(), Some(libc::ENOPROTOOPT), "{option}");
        }
    }
    let ipv4 = net.server.enter(|| sockets::socket(Family::V4));
    for option in OPTIONS {
        let told = sys::get_option(ipv4.as_raw_fd(), IPPROTO_IPV6, option, Place::AMPLE);
        assert_eq!(told, Err(Errno::EOPNOTSUPP), "IPPROTO_IPV6 of AF_INET");
    }
}

fn options_are_unknown_without_the_module() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (_client, accepted) = net.pair(&listener, Way::Nat64);
    let assert_unknown = || {
        for level in [IPPROTO_IP, IPPROTO_IPV6] {
            for option in OPTIONS {
                let fd = accepted.stream.as_raw_fd();
                let told = sys::get_option(fd, level, option, Place::Room(LENGTH));
                assert_eq!(told, Err(Errno::ENOPROTOOPT), "{option} at {level}");
            }
        }
    };
    assert_unknown();
    module::load();
    let fd = accepted.stream.as_raw_fd();
    let told = sys::get_option(fd, IPPROTO_IP, CLIENT, Place::Room(LENGTH));
    assert_eq!(told, Err(Errno::EINVAL), "it is older than the module");
    module::unload();
    assert_unknown();
}

/// The kernel counts the processes in the answering function.
fn unload_is_refused_while_an_answer_is_written() {
    let net = Net::new();
    let listener = net.listen(Family::V4);
    module::load();
    let (_client, accepted) = net.pair(&listener, Way::Nat64);
    let page = Arc::new(SleepyPage::new().expect("userfaultfd"));
    let asker = thread::spawn({
        let page = Arc::clone(&page);
        let stream = accepted.stream.try_clone().expect("a descriptor");
        move || page.get_option(stream.as_raw_fd(), IPPROTO_IP, CLIENT)
    });
    page.wait_until_touched();
    let refused = module::remove();
    page.release();
    let told = asker.join().expect("it does not panic");
    assert_eq!(refused, Err(Errno::EWOULDBLOCK));
    assert_eq!(told, Ok(LENGTH));
    drop(accepted);
    net.wait_for_no_records();
    module::unload();
}

fn load_is_refused_while_another_module_has_the_option() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (_client, accepted) = net.pair(&listener, Way::Nat64);
    let ask = |level| {
        let fd = accepted.stream.as_raw_fd();
        sys::get_option(fd, level, CLIENT, Place::Room(LENGTH))
    };
    let holder = TestModule::load("hold=4096").expect("no module has it");
    let mut log = KernelLog::from_now();
    assert_eq!(module::insert(""), Err(Errno::EBUSY));
    let lines = log.new_lines();
    let said: Vec<&String> = lines.iter().filter(|l| l.starts_with("TOA: ")).collect();
    let expected = "TOA: not loaded: taking the options 4096 and 4097 of getsockopt \
                    (does another module have them?) failed (error -16)";
    assert!(matches!(said[..], [line] if line == expected), "{lines:?}");
    assert!(!module::is_loaded());
    assert_eq!(crate::stats::text(&net.server), None);
    assert_eq!(crate::tracing::hooked(), [""; 0]);
    // The load had registered the options of IPPROTO_IPV6, and has unregistered them.
    assert_eq!(ask(IPPROTO_IPV6), Err(Errno::ENOPROTOOPT));
    assert_eq!(ask(IPPROTO_IP), Err(Errno::EDOM));
    drop(holder);
    assert_eq!(ask(IPPROTO_IP), Err(Errno::ENOPROTOOPT));
    module::load();
    let refused = TestModule::load("hold=4096").expect_err("toa has it");
    assert_eq!(refused, Errno::EBUSY);
    assert_eq!(ask(IPPROTO_IP), Err(Errno::EINVAL));
    module::unload();
}

fn failed_load_waits_for_a_process_in_getsockopt_and_logs_that() {
    const WAITS: &str =
        "TOA: not loaded: the failed load waits for a process in getsockopt (to find \
                         it: grep -l nf_getsockopt /proc/[0-9]*/task/*/stack)";
    const FAILED: &str = "TOA: not loaded: taking the options 4096 and 4097 of getsockopt \
                          (does another module have them?) failed (error -16)";
    let net = Net::new();
    let mut log = KernelLog::from_now();
    let held = HeldLoad::begin();
    let mut logged: Vec<String> = Vec::new();
    wait::until("the load logs that it waits", || {
        logged.extend(
            log.new_lines()
                .into_iter()
                .filter(|l| l.starts_with("TOA: ")),
        );
        (logged.len() >= 2)
            .then_some(())
            .ok_or_else(|| format!("{logged:?}"))
    });
    let over = held.is_over();
    assert_eq!(held.finish(), Err(Errno::EBUSY));
    assert!(!over, "the load did not wait");
    logged.extend(
        log.new_lines()
            .into_iter()
            .filter(|l| l.starts_with("TOA: ")),
    );
    assert_eq!(logged, [FAILED, WAITS]);
    assert!(!module::is_loaded());
    assert_eq!(crate::stats::text(&net.server), None);
    assert_eq!(crate::tracing::hooked(), [""; 0]);
    module::load();
    let listener = net.listen(Family::V4);
    let (client, accepted) = net.pair(&listener, Way::V4);
    accepted.assert_shows(client.address);
    drop(accepted);
    net.wait_for_no_records();
    module::unload();
}

/// An unload is refused while a process is in the option, and is then repeated.
fn options_can_be_asked_for_while_the_module_comes_and_goes() {
    let net = Net::new();
    let listener = net.listen(Family::V4);
    let refused = AtomicUsize::new(0);
    let unload = || {
        wait::until("the module goes", || match module::remove() {
            Ok(()) => Ok(()),
            Err(Errno::EWOULDBLOCK) => {
                refused.fetch_add(1, Ordering::Relaxed);
                Err("a process is in the option".to_owned())
            }
            Err(error) => panic!("rmmod toa: {error}"),
        });
    };
    let told = [const { AtomicUsize::new(0) }; 3];
    let count = |outcome: usize| {
        told[outcome].fetch_add(1, Ordering::Relaxed);
    };
    load_and_unload_by(3, 10, unload, || {
        let (client, accepted) = net.pair(&listener, Way::Nat64);
        let fd = accepted.stream.as_raw_fd();
        let client = answer(client.address);
        for _ in 0..200 {
            match sys::get_option(fd, IPPROTO_IP, CLIENT, Place::Room(LENGTH)) {
                Ok(name) if name == client => count(0),
                Err(Errno::EINVAL) => count(1),
                Err(Errno::ENOPROTOOPT) => count(2),
                other => panic!("{other:?}"),
            }
        }
    });
    let counts = told.map(AtomicUsize::into_inner);
    note(&format!(
        "client, no client, no module: {counts:?}; {refused:?} unloads refused"
    ));
    assert!(counts[0] > 0 && counts[2] > 0);
}
