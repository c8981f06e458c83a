// SPDX-License-Identifier: GPL-2.0

//! Tests of the program between two namespaces, with the kernel's TCP at both ends.
//! They need root, /dev/net/tun and iproute2:
//!
//! ```sh
//! cargo test --release --test netns -- --ignored
//! ```

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::panic::resume_unwind;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::sched::setns;
use nix::sched::CloneFlags;
use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const BOUND: Duration = Duration::from_secs(10);

/// One host, a network namespace.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("toabal-{role}{number}-{}", std::process::id());
        let namespace = Self { name };
        run(&["netns", "add", &namespace.name]);
        namespace.ip("link set lo up");
        namespace
    }

    fn ip(&self, command: &str) {
        let mut args = vec!["-n", &self.name];
        args.extend(command.split(' '));
        run(&args);
    }

    fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file =
                    File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
                setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter");
                job()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn run(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("ip starts");
    assert!(status.success(), "ip {args:?}");
}

/// The running program.
struct Balancer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Balancer {
    fn start(client: &Namespace, server: &Namespace, more: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_toa-balancer"))
            .args(["--client-ns", &client.name, "--server-ns", &server.name])
            .args(["--lip", "10.9.0.0/24", "--lip", "fd00:9::/112"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut balancer = Self {
            child,
            output: BufReader::new(stdout),
        };
        assert_eq!(balancer.line(), "ready\n");
        balancer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the program writes a line");
        line
    }

    /// Ends the program and returns its line of counters.
    fn stop(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the program runs");
        let counted = self.line();
        assert!(self.child.wait().expect("the program ends").success());
        counted
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both hosts and the balancer. The field order is the teardown order.
struct Net {
    balancer: Option<Balancer>,
    client: Namespace,
    server: Namespace,
}

const WAYS: [(&str, &str, &str); 3] = [
    ("198.51.100.1:80", "10.0.0.1:8080", "203.0.113.7"),
    ("[2001:db8:100::1]:80", "[fd00::1]:8080", "2001:db8:7::7"),
    ("[2001:db8:164::1]:80", "10.0.0.1:8080", "2001:db8:7::7"),
];

impl Net {
    fn new(rest: &str) -> Self {
        let (client, server) = (Namespace::new("c"), Namespace::new("s"));
        client.ip("addr add 203.0.113.7/32 dev lo");
        client.ip("addr add 2001:db8:7::7/128 dev lo nodad");
        server.ip("addr add 10.0.0.1/32 dev lo");
        server.ip("addr add fd00::1/128 dev lo nodad");
        let services = WAYS
            .iter()
            .flat_map(|(vip, rs, _)| ["--service".into(), format!("vip={vip},rs={rs}{rest}")]);
        let services: Vec<String> = services.collect();
        let balancer = Balancer::start(&client, &server, &services);
        Self {
            balancer: Some(balancer),
            client,
            server,
        }
    }

    fn listen(&self, address: &str) -> TcpListener {
        self.server
            .enter(|| TcpListener::bind(address).expect("the address is free"))
    }

    /// Connects, and returns both ends and the server's peer.
    fn pair(&self, listener: &TcpListener, vip: &str) -> (TcpStream, TcpStream, SocketAddr) {
        let vip: SocketAddr = vip.parse().expect("valid address");
        let client = self
            .client
            .enter(|| TcpStream::connect_timeout(&vip, BOUND).expect("the client connects"));
        let (server, peer) = listener.accept().expect("the server accepts");
        for end in [&client, &server] {
            end.set_read_timeout(Some(BOUND))
                .expect("the option is set");
            end.set_nodelay(true).expect("the option is set");
        }
        (client, server, peer)
    }

    fn stop(&mut self) -> String {
        let balancer = self.balancer.take().expect("the balancer runs");
        balancer.stop(Signal::SIGTERM)
    }
}

fn is_local(peer: SocketAddr) -> bool {
    match peer.ip() {
        IpAddr::V4(ip) => ip.octets()[..3] == [10, 9, 0] && peer.port() > 1024,
        IpAddr::V6(ip) => ip.segments()[..7] == [0xfd00, 9, 0, 0, 0, 0, 0] && peer.port() > 1024,
    }
}

/// Returns the value of a row in the line of JSON.
fn counted(line: &str, row: &str) -> u64 {
    let (_, after) = line
        .split_once(&format!("\"{row}\":"))
        .expect("the row exists");
    let digits = after.split([',', '}']).next().expect("the row has a value");
    digits.parse().expect("the value is a number")
}

/// Checks that megabytes pass from one end to the other, to the last byte.
fn send_all(mut from: TcpStream, mut to: TcpStream) {
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let received = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut received = Vec::new();
            to.read_to_end(&mut received).expect("the socket reads");
            received
        });
        from.write_all(&sent).expect("the socket writes");
        from.shutdown(Shutdown::Write).expect("the socket is open");
        reader.join().expect("the reader ends")
    });
    assert!(sent == received, "{} bytes arrived", received.len());
}

#[test]
#[ignore = "needs root, /dev/net/tun and iproute2: run with --ignored"]
fn each_way_carries_data_both_ways_from_a_local_address() {
    let mut net = Net::new("");
    for (vip, rs, client) in WAYS {
        let listener = net.listen(rs);
        let (near, far, peer) = net.pair(&listener, vip);
        assert!(is_local(peer), "{vip}: {peer}");
        let local = near.local_addr().expect("the socket is connected");
        assert_eq!(local.ip().to_string(), client);
        let copy = |stream: &TcpStream| stream.try_clone().expect("the socket is cloned");
        send_all(copy(&near), copy(&far));
        send_all(far, near);
    }
    let line = net.stop();
    assert_eq!(counted(&line, "connections"), 3, "{line}");
    assert!(counted(&line, "option_inserted") >= 6, "{line}");
    for row in ["no_room", "mtu_excess", "malformed", "write_failed"] {
        assert_eq!(counted(&line, row), 0, "{line}");
    }
}

#[test]
#[ignore = "needs root, /dev/net/tun and iproute2: run with --ignored"]
fn mtu_excess_does_no_harm() {
    let mut net = Net::new(",mss=keep");
    for (vip, rs, _) in WAYS {
        let listener = net.listen(rs);
        let (near, far, _) = net.pair(&listener, vip);
        send_all(near, far);
    }
    let line = net.stop();
    let excess = counted(&line, "mtu_excess");
    assert!(excess > 0, "{line}");
    assert_eq!(counted(&line, "forwarded_without"), excess, "{line}");
}

#[test]
#[ignore = "needs root, /dev/net/tun and iproute2: run with --ignored"]
fn malformed_options_do_no_harm() {
    for plan in [
        "hex:fe01",
        "hex:4d00",
        "hex:fe28ffff",
        "nop+nop+nop+hex:fe",
        "toa+toa",
    ] {
        let net = Net::new(&format!(",plan={plan}"));
        for (vip, rs, _) in WAYS {
            let listener = net.listen(rs);
            let (near, far, _) = net.pair(&listener, vip);
            send_all(near, far);
        }
    }
}

#[test]
#[ignore = "needs root, /dev/net/tun and iproute2: run with --ignored"]
fn lost_ack_is_made_up_for_by_data() {
    let mut net = Net::new(",lose=ack");
    let (vip, rs, _) = WAYS[0];
    let listener = net.listen(rs);
    let vip: SocketAddr = vip.parse().expect("valid address");
    let mut near = net
        .client
        .enter(|| TcpStream::connect_timeout(&vip, BOUND).expect("the client connects"));
    near.write_all(b"?").expect("the socket writes");
    let (mut far, _) = listener.accept().expect("the server accepts");
    let mut byte = [0];
    far.read_exact(&mut byte).expect("the socket reads");
    assert_eq!(&byte, b"?");
    assert!(counted(&net.stop(), "lost") >= 1);
}

#[test]
#[ignore = "needs root, /dev/net/tun and iproute2: run with --ignored"]
fn ten_thousand_connections() {
    const CONNECTIONS: usize = 10_000;
    let mut net = Net::new("");
    let (vip, rs, _) = WAYS[0];
    let listener = net.listen(rs);
    let vip: SocketAddr = vip.parse().expect("valid address");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let (mut far, peer) = listener.accept().expect("the server accepts");
                assert!(is_local(peer), "{peer}");
                let mut byte = [0];
                far.read_exact(&mut byte).expect("the socket reads");
                far.write_all(&byte).expect("the socket writes");
            }
        });
        net.client.enter(|| {
            for number in 0..CONNECTIONS {
                let mut near =
                    TcpStream::connect_timeout(&vip, BOUND).expect("the client connects");
                near.set_read_timeout(Some(BOUND))
                    .expect("the option is set");
                near.write_all(&[number as u8]).expect("the socket writes");
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).expect("the socket reads");
                assert_eq!(answer, [number as u8]);
            }
        });
    });
    let line = net.stop();
    assert_eq!(counted(&line, "connections"), CONNECTIONS as u64, "{line}");
    assert!(
        counted(&line, "option_inserted") >= 2 * CONNECTIONS as u64,
        "{line}"
    );
    assert_eq!(counted(&line, "unknown"), 0, "{line}");
}

/// Starts the program with bad arguments; returns its exit code and error text.
fn complaint(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_toa-balancer"))
        .args(args)
        .output()
        .expect("the program starts");
    assert!(output.stdout.is_empty());
    let errors = String::from_utf8(output.stderr).expect("stderr is text");
    (output.status.code(), errors)
}

#[test]
fn bad_arguments_are_explained() {
    let namespaces = ["--client-ns", "toabal-none", "--server-ns", "toabal-none"];
    let with = |rest: &[&'static str]| complaint(&[&namespaces[..], rest].concat());
    let service = "vip=198.51.100.1:80,rs=10.0.0.1:80";
    let (status, output) = with(&["--lip", "10.9.0.0/24", "--service", service]);
    assert_eq!(status, Some(1));
    assert!(
        output.starts_with("toa-balancer: namespace /run/netns/toabal-none: "),
        "{output}"
    );
    assert_eq!(output.lines().count(), 1);
    let (status, output) = with(&["--lip", "fd00:9::/112", "--service", service]);
    assert_eq!(status, Some(1));
    assert!(output.contains("rs=10.0.0.1:80 needs a --lip"), "{output}");
    let (status, output) = with(&["--lip", "10.9.0.0/24", "--service", "vip=198.51.100.1:80"]);
    assert_eq!(status, Some(2));
    assert!(output.contains("one rs=ADDR:PORT"), "{output}");
}
