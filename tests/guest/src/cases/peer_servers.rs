// SPDX-License-Identifier: GPL-2.0

//! The example servers of `peer/`, one in each language, and their exact logs of client and
//! balancer.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use socket2::Protocol;

use crate::balancer::Plan;
use crate::ktap::note;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::proc_tcp;
use crate::proc_tcp::LISTEN;
use crate::process::Process;
use crate::runner::cases;
use crate::runner::Case;
use crate::servers;
use crate::servers::Directory;
use crate::sockets;
use crate::wait;

pub const CASES: &[Case] = cases![Unloaded:
    rust_server_logs_client_and_balancer_with_the_module_and_the_balancer_without,
    c_server_logs_client_and_balancer_with_the_module_and_the_balancer_without,
    go_server_logs_client_and_balancer_with_the_module_and_the_balancer_without,
    python_server_logs_client_and_balancer_with_the_module_and_the_balancer_without,
];

pub const LOADED: &[Case] = cases![Loaded:
    servers_log_the_balancer_of_connections_without_the_option,
    go_server_logs_the_balancer_of_true_mptcp_connections,
];

const RUST: &[&str] = &["/toa/bin/peer-server-rust"];
const C: &[&str] = &["/toa/bin/peer-server-c"];
const GO: &[&str] = &["/toa/bin/peer-server-go"];
const PYTHON: &[&str] = &["python3", "/toa/bin/peer-server.py"];

/// The servers' addresses and ports, and the ways to each.
const LISTENS: [(&str, u16, &[Way]); 2] = [
    ("0.0.0.0", 8121, &[Way::V4, Way::Nat64]),
    ("::", 8122, &Way::ALL),
];

const PORTS: [u16; 2] = [LISTENS[0].1, LISTENS[1].1];

/// `TCP_TIME_WAIT` of `include/net/tcp_states.h`.
const TIME_WAIT: u8 = 6;

/// A server on one address.
struct Server<'a> {
    net: &'a Net,
    port: u16,
    ways: &'static [Way],
    log: PathBuf,
    /// The expected content of the log.
    expected: String,
    // The process ends before its directory is removed.
    _process: Process,
    _directory: Directory,
}

/// The origin of the client's address in a line.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Toa,
    Getpeername,
}

impl<'a> Server<'a> {
    /// Starts a server. The server's error messages go into the log as well, where none are
    /// expected.
    #[track_caller]
    fn start(net: &'a Net, program: &[&str], listen: (&str, u16, &'static [Way])) -> Self {
        let (address, port, ways) = listen;
        let directory = Directory::new(&net.server, &format!("peer-{port}"));
        let log = directory.0.join("log");
        let output = File::create(&log).expect("a file for its output");
        let errors = output.try_clone().expect("the same file");
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(address);
        command.arg(port.to_string()).stdout(output).stderr(errors);
        let process = Process::start_in(&net.server, &mut command, Signal::SIGTERM);
        servers::wait_for_listener(&net.server, port);
        Self {
            net,
            port,
            ways,
            log,
            expected: String::new(),
            _process: process,
            _directory: directory,
        }
    }

    /// Starts a server on an IPv4 and one on a dual-stack socket.
    #[track_caller]
    fn start_both(net: &'a Net, program: &[&str]) -> Vec<Self> {
        let start = |listen| Self::start(net, program, listen);
        LISTENS.into_iter().map(start).collect()
    }

    /// Visits the server, and checks that its answer is the line for its log.
    #[track_caller]
    fn visit(&mut self, protocol: Protocol, way: Way, origin: Origin) {
        let client = self.net.connect_by(protocol, way, self.port);
        let mut told = String::new();
        BufReader::new(&client.stream)
            .read_line(&mut told)
            .expect("a line comes");
        let expected = line(client.address, self.balancer(), origin);
        note(told.trim_end());
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        assert_eq!(told, expected, "{way:?} to port {}: {}", self.port, log());
        self.expected += &expected;
    }

    /// The remote end of the only connection that has not ended on both sides.
    #[track_caller]
    fn balancer(&self) -> SocketAddr {
        wait::until("one connection", || {
            let rows = proc_tcp::rows(&self.net.server);
            let mut open = rows.iter().filter(|row| {
                row.local.port() == self.port && row.state != LISTEN && row.state != TIME_WAIT
            });
            match (open.next(), open.next()) {
                (Some(row), None) => Ok(row.remote),
                _ => Err(format!("{rows:?}")),
            }
        })
    }
}

/// The line that the examples write.
fn line(client: SocketAddr, balancer: SocketAddr, origin: Origin) -> String {
    let [client, balancer] = [client, balancer]
        .map(|address| format!("{} port {}", address.ip().to_canonical(), address.port()));
    match origin {
        Origin::Toa => format!("client {client} by toa, balancer {balancer}\n"),
        Origin::Getpeername => format!("client {balancer} by getpeername\n"),
    }
}

fn visit_all(servers: &mut [Server<'_>], origin: Origin) {
    for server in servers {
        for &way in server.ways {
            server.visit(Protocol::TCP, way, origin);
        }
    }
}

#[track_caller]
fn assert_logs(servers: &[Server<'_>]) {
    for server in servers {
        let log = fs::read_to_string(&server.log).expect("its log");
        assert_eq!(log, server.expected, "the log of port {}", server.port);
    }
}

/// Makes the same visits without the module, with it, and without it again.
#[track_caller]
fn check(program: &[&str]) {
    let net = Net::with_ports(&Plan::dpvs(), &PORTS);
    let mut servers = Server::start_both(&net, program);
    visit_all(&mut servers, Origin::Getpeername);
    module::load();
    visit_all(&mut servers, Origin::Toa);
    net.wait_for_no_records();
    module::unload();
    visit_all(&mut servers, Origin::Getpeername);
    assert_logs(&servers);
}

fn rust_server_logs_client_and_balancer_with_the_module_and_the_balancer_without() {
    check(RUST);
}

fn c_server_logs_client_and_balancer_with_the_module_and_the_balancer_without() {
    check(C);
}

fn go_server_logs_client_and_balancer_with_the_module_and_the_balancer_without() {
    check(GO);
}

fn python_server_logs_client_and_balancer_with_the_module_and_the_balancer_without() {
    check(PYTHON);
}

fn servers_log_the_balancer_of_connections_without_the_option() {
    let net = Net::with_ports(&Plan::none(), &PORTS);
    for program in [RUST, C, GO, PYTHON] {
        let mut servers = Server::start_both(&net, program);
        visit_all(&mut servers, Origin::Getpeername);
        assert_logs(&servers);
    }
}

/// Go's listeners are MPTCP sockets, and so are these connections, for which the module has no
/// answer.
fn go_server_logs_the_balancer_of_true_mptcp_connections() {
    sockets::need_mptcp();
    let net = Net::with_ports(&Plan::dpvs(), &PORTS);
    let mut servers = Server::start_both(&net, GO);
    for server in &mut servers {
        for &way in server.ways {
            server.visit(Protocol::MPTCP, way, Origin::Getpeername);
        }
    }
    assert_logs(&servers);
}
