// SPDX-License-Identifier: GPL-2.0

//! Connections to a server during its whole boot, from a balancer and from a host that forges
//! clients. The server is the machine's first network namespace. The other two hosts are namespaces
//! with a link to it each.

use std::cell::Cell;
use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::panic::catch_unwind;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use nix::time::clock_gettime;
use nix::time::ClockId;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::namespace::Namespace;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::sockets::Family;
use crate::sockets::Listener;

/// The file that `tests/upgrade-test.sh` writes to the server's disk.
const MARK: &str = "/opt/toa-test/expect";

/// The ports from which a host connects in turn.
const FIRST_PORT: u16 = 1024;

/// The address of the server's end of each link. udev changes one that the kernel chose, and the other
/// end then sends to the old one (`MACAddressPolicy=` of systemd.link(5)).
const MAC: &str = "02:00:00:00:00:01";

/// A host whose segments carry options.
struct Host {
    name: &'static str,
    client: HandmadeClient,
    /// The client in the options.
    named: SocketAddr,
    port: Cell<u16>,
    _namespace: Namespace,
}

impl Host {
    /// Makes a host with a link to the server, whose ends have the two addresses.
    fn new(
        server: &Namespace,
        name: &'static str,
        address: [u8; 4],
        link: [&str; 2],
        named: [u8; 4],
    ) -> Self {
        let namespace = Namespace::new(name);
        let address = Ipv4Addr::from(address);
        let [near, far] = link;
        server.ip(&format!(
            "link add {name} address {MAC} type veth peer name server netns {}\n\
             addr add {near}/31 dev {name}\n\
             link set {name} up\n\
             route add {address} via {far}\n",
            namespace.name()
        ));
        namespace.ip(&format!(
            "addr add {far}/31 dev server\n\
             link set server up\n\
             route add {SERVER_V4} via {near}\n"
        ));
        Self {
            name,
            client: HandmadeClient::behind(&namespace, address.into(), SERVER_V4.into()),
            named: SocketAddr::new(IpAddr::from(named), 4660),
            port: Cell::new(FIRST_PORT),
            _namespace: namespace,
        }
    }

    /// Makes a connection. Returns a line about it: when it began and ended, in microseconds of the
    /// monotonic clock, the host, and the peers of accept and getpeername.
    fn connect(&self, listener: &Listener) -> String {
        let port = self.port.get();
        self.port.set(port.checked_add(1).unwrap_or(FIRST_PORT));
        let began = now();
        let (mut connection, _) = self.client.connect(port, &[]);
        connection.send(&toa_option(TOA_KIND, self.named), &[]);
        let accepted = listener.accept().ending_by_reset();
        let peers = [accepted.name.address(), accepted.peer().address()];
        let [accept, getpeername] = peers.map(|peer| peer.expect("an address").ip());
        let ended = now().as_micros();
        let began = began.as_micros();
        format!("{began} {ended} {} {accept} {getpeername}", self.name)
    }
}

fn now() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock"))
}

/// Checks that this is the server of `tests/upgrade-test.sh`, whose network the traffic changes.
pub fn check_machine() -> Result<(), String> {
    if fs::exists(MARK).unwrap_or(false) {
        return Ok(());
    }
    Err(format!(
        "{MARK} is missing: run make upgrade-test, whose server gets this traffic"
    ))
}

/// Makes connections until SIGTERM. Returns whether all worked.
pub fn run() -> bool {
    // The panic's message is on the standard error output.
    catch_unwind(make_connections).is_ok()
}

fn make_connections() {
    let ending = SigSet::from(Signal::SIGTERM);
    ending.thread_block().expect("it is a signal");
    let ending = SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK).expect("a descriptor");
    let server = Namespace::first();
    server.ip(&format!("addr add {SERVER_V4}/32 dev lo"));
    let listener = server.enter(|| Listener::new(Family::V4, PORT));
    let hosts = [
        Host::new(
            &server,
            "balancer",
            [10, 0, 1, 1],
            ["10.0.2.0", "10.0.2.1"],
            [203, 0, 113, 7],
        ),
        Host::new(
            &server,
            "forger",
            [192, 0, 2, 7],
            ["10.0.2.2", "10.0.2.3"],
            [203, 0, 113, 66],
        ),
    ];
    let mut output = io::stdout().lock();
    let mut first = true;
    while ending.read_signal().expect("the descriptor").is_none() {
        for host in &hosts {
            writeln!(output, "{}", host.connect(&listener)).expect("the output takes a line");
        }
        if first {
            notify_of_start();
            first = false;
        }
    }
}

/// Notifies systemd that connections are made (sd_notify(3)).
fn notify_of_start() {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to(b"READY=1", path).expect("systemd receives");
}
