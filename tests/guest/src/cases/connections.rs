// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/toa`: a row for each live connection that carries a client's address.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::stat::fstat;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::cases::impossible_clients::Stage;
use crate::cases::options::NAMED;
use crate::connections_file;
use crate::connections_file::Row;
use crate::connections_file::PATH;
use crate::handmade::HandmadeClient;
use crate::ktap::note;
use crate::module;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::CLIENT_V6;
use crate::net::PORT;
use crate::net::ROWS_WITH_CLIENT;
use crate::proc_tcp;
use crate::process;
use crate::process::Process;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::test_module::TestModule;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    connections_of_each_socket_family_have_a_row_with_their_ends_and_client,
    row_is_written_in_these_words,
    connection_has_its_row_before_it_is_accepted_and_until_it_ends,
    connection_without_a_client_has_no_row,
    connections_are_those_of_the_namespace,
    connections_are_readable_by_root_of_the_namespace_alone,
    unprivileged_process_gets_eacces_for_the_connections,
    root_of_a_container_reads_its_own_connections,
    reads_of_any_size_give_the_same_rows,
    rows_stay_exact_while_other_connections_come_and_go,
    open_connections_file_keeps_its_namespace_and_no_longer,
];

pub const UNLOADED: &[Case] = cases![Unloaded:
    million_rows_stay_exact_while_others_come_and_go,
];

/// The address in the form of the file, which has IPv4 addresses of AF_INET6 sockets as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The row that a connection must have.
#[track_caller]
fn row_of(net: &Net, client: &Client, accepted: &Accepted) -> Row {
    let local = accepted.local().address().expect("an address");
    Row {
        local: canonical(local),
        balancer: canonical(net.balancer_of(accepted)),
        client: client.address,
    }
}

fn connections_of_each_socket_family_have_a_row_with_their_ends_and_client() {
    let net = Net::new();
    // An AF_INET socket cannot show an IPv6 client, and the file does.
    let all = ROWS_WITH_CLIENT
        .into_iter()
        .chain([(Family::V4, Way::Nat64)]);
    for (family, way) in all {
        let listener = net.listen(family);
        let (client, accepted) = net.pair(&listener, way);
        let expected = row_of(&net, &client, &accepted);
        let rows = connections_file::rows(&net.server);
        assert_eq!(rows, [expected], "{family:?} {way:?}");
        assert_eq!(connections_file::rows(&net.client), [], "the client's");
        drop((client, accepted));
        net.wait_for_no_records();
        assert_eq!(connections_file::rows(&net.server), []);
    }
}

fn row_is_written_in_these_words() {
    const NO_ROWS: &str = "local balancer client\n";
    for (ipv6, named, row) in [
        (
            false,
            NAMED,
            "10.0.0.1:8080 192.0.2.7:4000 203.0.113.9:4660\n",
        ),
        (
            false,
            SocketAddr::new(CLIENT_V6.into(), 4660),
            "10.0.0.1:8080 192.0.2.7:4000 [2001:db8:7::7]:4660\n",
        ),
        (
            true,
            SocketAddr::new(CLIENT_V6.into(), 4660),
            "[fd00::1]:8080 [2001:db8:9::7]:4000 [2001:db8:7::7]:4660\n",
        ),
    ] {
        let stage = Stage::new(Family::DualStack, ipv6);
        assert_eq!(connections_file::text(&stage.net.server), NO_ROWS);
        let (_connection, _) = stage.connect(named);
        let accepted = stage.listener.accept().ending_by_reset();
        let text = connections_file::text(&stage.net.server);
        assert_eq!(text, format!("{NO_ROWS}{row}"));
        drop(accepted);
        stage.net.wait_for_no_records();
    }
}

fn connection_has_its_row_before_it_is_accepted_and_until_it_ends() {
    Stage::each(|stage| {
        let named = SocketAddr::new(CLIENT_V6.into(), 4660);
        let (mut connection, _) = stage.connect(named);
        stage.listener.wait();
        let rows = || connections_file::rows(&stage.net.server);
        let clients = || rows().iter().map(|row| row.client).collect::<Vec<_>>();
        assert_eq!(clients(), [named], "before accept");
        let accepted = stage.listener.accept().ending_by_reset();
        assert_eq!(clients(), [named], "after accept");
        // The client ends its direction.
        connection.send_with(|tcp| tcp.fin = true, &[], &[]);
        assert_eq!({ accepted }.read_all(), b"");
        stage.net.wait_for_no_records();
        assert_eq!(rows(), [], "after the end");
        let (_connection, _) = stage.connect(named);
        let accepted = stage.listener.accept().ending_by_reset();
        assert_eq!(clients(), [named]);
        sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
        assert_eq!(rows(), [], "after a disconnect");
    });
}

fn connection_without_a_client_has_no_row() {
    Stage::each(|stage| {
        for options in [
            &[][..],
            &toa_option(253, NAMED),
            &toa_option(TOA_KIND, "127.0.0.1:80".parse().expect("an address")),
            &[TOA_KIND, 4, 0, 80],
        ] {
            let (mut connection, _) = stage.client.connect(stage.next_port(), &[]);
            connection.send(options, &[]);
            let accepted = stage.listener.accept().ending_by_reset();
            assert_eq!(connections_file::rows(&stage.net.server), []);
            drop(accepted);
        }
    });
}

fn connections_are_those_of_the_namespace() {
    let (one, other) = (Net::new(), Net::new());
    let listeners = [&one, &other].map(|net| net.listen(Family::DualStack));
    let pairs = [&one, &other, &one].map(|net| {
        let listener = &listeners[usize::from(std::ptr::eq(net, &other))];
        let (client, accepted) = net.pair(listener, Way::V6);
        (row_of(net, &client, &accepted), client, accepted)
    });
    let mut of_one = [pairs[0].0, pairs[2].0];
    of_one.sort_unstable();
    assert_eq!(connections_file::rows(&one.server), of_one);
    assert_eq!(connections_file::rows(&other.server), [pairs[1].0]);
    assert_eq!(connections_file::rows(&Namespace::first()), []);
}

/// Mode, owner and group of the connections of that namespace.
#[track_caller]
fn access(namespace: &Namespace) -> [u32; 3] {
    let metadata = namespace.enter(|| fs::metadata(PATH));
    let metadata = metadata.expect("the module is loaded");
    [metadata.mode() & 0o7777, metadata.uid(), metadata.gid()]
}

fn connections_are_readable_by_root_of_the_namespace_alone() {
    assert_eq!(access(&Namespace::first()), [0o440, 0, 0]);
    assert_eq!(access(&Namespace::new("container")), [0o440, 0, 0]);
    let mut shell = container_root();
    let output = shell.child().stdout.take().expect("it is piped");
    process::wait_for_line(output, "ready");
    let container = Namespace::of_process("container", shell.child().id());
    assert_eq!(access(&container), [0o440, 65534, 65534]);
    // Root was not mapped yet when the network namespace was made: both were made by one call.
    let cell = Namespace::unprivileged("cell");
    assert_eq!(access(&cell), [0o440, 0, 0]);
}

fn unprivileged_process_gets_eacces_for_the_connections() {
    let net = Net::new();
    for namespace in [&Namespace::first(), &net.server] {
        let output = namespace.enter(|| {
            Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .args(["cat", "/proc/self/net/toa"])
                .stdin(Stdio::null())
                .output()
                .expect("setpriv starts")
        });
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains("Permission denied"), "{complaint}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
}

/// A shell as root of a container that an unprivileged user makes, as container runtimes do: root is
/// mapped before the network namespace is made. It runs the commands that it reads.
fn container_root() -> Process {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["unshare", "--user", "--map-root-user"])
        .args(["unshare", "--net", "sh", "-c", "echo ready; exec sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    Process::start_reading(&mut command, Signal::SIGKILL)
}

fn root_of_a_container_reads_its_own_connections() {
    let mut shell = container_root();
    let output = shell.child().stdout.take().expect("it is piped");
    let mut output = process::wait_for_line(output, "ready");
    let cell = Namespace::of_process("cell", shell.child().id());
    let client = HandmadeClient::new(&cell);
    cell.ip(&format!("addr add 10.0.0.1 dev {}", client.device()));
    let listener = cell.enter(|| Listener::new(Family::V4, PORT));
    let (mut connection, _) = client.connect(4000, &[]);
    connection.send(&toa_option(TOA_KIND, NAMED), &[]);
    let accepted = listener.accept().ending_by_reset();
    let mut input = shell.child().stdin.take().expect("it is piped");
    let asked = b"cat /proc/net/toa; echo end $?; stat -c '%a %u %g' /proc/net/toa; exit\n";
    input.write_all(asked).expect("the shell reads");
    let mut printed = String::new();
    output.read_to_string(&mut printed).expect("text");
    let (file, rest) = printed.split_once("end ").expect("cat ends");
    assert_eq!(rest, "0\n440 0 0\n");
    let rows = connections_file::parse(file);
    assert!(
        matches!(rows[..], [row] if row.client == NAMED && row.balancer == client.address(4000)),
        "{printed}"
    );
    drop((accepted, listener));
}

/// Reads the whole file with that many bytes at once.
#[track_caller]
fn read_by(file: &mut File, size: usize) -> String {
    let mut text = Vec::new();
    let mut buffer = vec![0; size];
    loop {
        match file.read(&mut buffer).expect("it is read") {
            0 => return String::from_utf8(text).expect("text"),
            length => text.extend(&buffer[..length]),
        }
    }
}

/// Makes connections each way, which stay open.
#[track_caller]
fn pairs(net: &Net, listener: &Listener, count: usize) -> Vec<(Client, Accepted)> {
    let ways = Way::ALL.into_iter().cycle();
    ways.take(count)
        .map(|way| net.pair(listener, way))
        .collect()
}

#[track_caller]
fn rows_of(net: &Net, pairs: &[(Client, Accepted)]) -> Vec<Row> {
    let sockets: BTreeMap<u64, SocketAddr> = proc_tcp::rows(&net.server)
        .iter()
        .map(|row| (row.inode, row.remote))
        .collect();
    let mut rows: Vec<_> = pairs
        .iter()
        .map(|(client, accepted)| {
            let inode = fstat(&accepted.stream).expect("an inode").st_ino;
            Row {
                local: canonical(accepted.local().address().expect("an address")),
                balancer: canonical(sockets[&inode]),
                client: client.address,
            }
        })
        .collect();
    rows.sort_unstable();
    rows
}

fn reads_of_any_size_give_the_same_rows() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let pairs = pairs(&net, &listener, 60);
    let whole = connections_file::text(&net.server);
    assert_eq!(connections_file::parse(&whole), rows_of(&net, &pairs));
    net.server.enter(|| {
        for size in [1, 7, 64, 4096, 65536] {
            let mut file = File::open(PATH).expect("it opens");
            assert_eq!(read_by(&mut file, size), whole, "{size} bytes at once");
        }
    });
}

/// The connections that stay, and the time in which others come and go.
const STABLE: usize = 600;
const CHURN: Duration = Duration::from_secs(6);

fn rows_stay_exact_while_other_connections_come_and_go() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let stable = pairs(&net, &listener, STABLE);
    let expected = rows_of(&net, &stable);
    let stop = AtomicBool::new(false);
    let came = AtomicUsize::new(0);
    let mut reads = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut young = VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                young.extend(pairs(&net, &listener, 3));
                came.fetch_add(3, Ordering::Relaxed);
                if young.len() > 30 {
                    young.drain(..15).for_each(|(client, accepted)| {
                        drop(accepted.ending_by_reset());
                        drop(client);
                    });
                }
            }
        });
        let end = Instant::now() + CHURN;
        while Instant::now() < end || reads < 3 {
            // Few bytes at once: the others come and go between two reads of a pass.
            let size = [50, 300, 4096][reads % 3];
            let text = net.server.enter(|| {
                let mut file = File::open(PATH).expect("it opens");
                read_by(&mut file, size)
            });
            let mut seen = connections_file::parse(&text);
            seen.retain(|row| expected.binary_search(row).is_ok());
            // Let the other thread end before the panic.
            if seen != expected {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(seen == expected, "pass {reads}: {} rows", seen.len());
            reads += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let came = came.load(Ordering::Relaxed);
    note(&format!(
        "{reads} passes while {came} connections came and went"
    ));
    assert!(came > 30, "{came}");
    // A debug kernel ends this many connections in order in more than the time of a wait.
    for (client, accepted) in stable {
        drop(accepted.ending_by_reset());
        drop(client);
    }
}

/// The file refers to the namespace as other files of `/proc/net` do. With the file the namespace ends,
/// and so does a device in it, whose other end is elsewhere.
fn open_connections_file_keeps_its_namespace_and_no_longer() {
    let outside = Namespace::new("outside");
    let namespace = Namespace::new("ending");
    outside.ip(&format!(
        "link add stays type veth peer name ends netns {}",
        namespace.name()
    ));
    let exists = || has_device(&outside, "stays");
    let mut file = namespace.enter(|| File::open(PATH).expect("it opens"));
    assert_eq!(connections_file::parse(&read_by(&mut file, 10)), []);
    drop(namespace);
    assert!(exists(), "the file keeps the namespace");
    drop(file);
    wait::until("the namespace ends", || match exists() {
        false => Ok(()),
        true => Err("its device is there".to_owned()),
    });
    // A read of a file whose namespace has no other reference.
    let namespace = Namespace::new("ending");
    let mut file = namespace.enter(|| File::open(PATH).expect("it opens"));
    drop(namespace);
    assert_eq!(connections_file::parse(&read_by(&mut file, 4096)), []);
    module::unload();
    let error = file.read(&mut [0]).expect_err("the file is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    drop(file);
    module::load();
}

/// Whether the namespace has the device.
fn has_device(namespace: &Namespace, name: &str) -> bool {
    let devices = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let devices = devices.expect("the list of devices");
    devices
        .lines()
        .any(|line| line.trim_start().starts_with(&format!("{name}:")))
}

/// The rows of the test module's table.
const MILLION: usize = 1_000_000;

/// The number in the client of a row of the test module's table.
#[track_caller]
pub fn number(client: SocketAddr) -> usize {
    match client {
        SocketAddr::V4(client) => {
            let [_, a, b, c] = client.ip().octets();
            u32::from_be_bytes([0, a, b, c]) as usize
        }
        SocketAddr::V6(client) => {
            let [.., high, low] = client.ip().segments();
            (usize::from(high) << 16) | usize::from(low)
        }
    }
}

/// The records that the test module has added and removed beside those that stay.
pub fn churned() -> u64 {
    let text = fs::read_to_string("/proc/net/toa_stats").expect("the test module is loaded");
    text.trim().parse().expect("a number")
}

/// The walk, the file and the table are those of toa, in the test module: a million connections do not
/// fit in the machine.
fn million_rows_stay_exact_while_others_come_and_go() {
    let filled = Instant::now();
    let _module = TestModule::load(&format!("fill={MILLION}")).expect("it loads");
    note(&format!(
        "filled in {:.1} s",
        filled.elapsed().as_secs_f32()
    ));
    let other = Namespace::new("other");
    assert_eq!(connections_file::rows(&other).len(), 0, "of another one");
    let before = churned();
    let mut file = BufReader::new(File::open(PATH).expect("it opens"));
    let mut seen = vec![0_u8; MILLION];
    let (mut line, mut rows, mut others) = (String::new(), 0_usize, 0_usize);
    file.read_line(&mut line).expect("the columns");
    loop {
        line.clear();
        if file.read_line(&mut line).expect("a row") == 0 {
            break;
        }
        match seen.get_mut(number(connections_file::row(&line).client)) {
            Some(times) => *times = times.saturating_add(1),
            None => others += 1,
        }
        rows += 1;
        // The harness stops a machine that prints nothing for two minutes.
        if rows % (MILLION / 10) == 0 {
            note(&format!("{rows} rows"));
        }
    }
    let churn = churned() - before;
    note(&format!("{others} of other records, of which {churn} came"));
    let not_once = seen.iter().position(|&times| times != 1);
    assert_eq!(not_once, None, "the first record without exactly one row");
    assert!(churn > 1000, "{churn}");
}
