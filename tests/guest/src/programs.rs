// SPDX-License-Identifier: GPL-2.0

//! Server programs of the distribution, each a row of a [`table`]: its start, its
//! request, and the place where it reports its client.

pub mod proxies;
pub mod table;

use std::fs;
use std::fs::File;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::net::Net;
use crate::net::Way;
use crate::proc_tcp;
use crate::proc_tcp::LISTEN;
use crate::process::Process;
use crate::servers::Directory;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::wait;

/// Time limit until a program listens: some read hundreds of megabytes, and
/// processors are emulated.
const START: Duration = Duration::from_secs(60);

/// The file in a program's directory with its standard output and standard error.
const OUTPUT: &str = "output";

/// A server program.
pub struct Program {
    /// The program's listening sockets.
    pub listens: &'static [(Family, u16)],
    /// The form in which the program writes the IPv4 client of a dual-stack socket.
    pub mapped: Mapped,
    /// Writes the program's configuration into a directory. Returns the command that
    /// starts the program there in the foreground.
    pub command: fn(&Path) -> Command,
    /// The text that the program also prints when it is ready; most are when they listen.
    pub ready: &'static str,
    /// The signal that ends the program in order.
    pub ending: Signal,
    /// Makes a request; returns the answer.
    pub ask: fn(&mut TcpStream) -> String,
    pub says: Says,
    /// Finds the client in the answer or in the log line.
    pub client: fn(&str) -> Option<Seen>,
}

/// The form in which a program writes an IPv4-mapped address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// The mapped address, ::ffff:a.b.c.d.
    AsItIs,
    /// The IPv4 address, a.b.c.d.
    AsIpv4,
}

/// The place where a program reports its client.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    InAnswer,
    /// A file of the program's directory, in the line of each request, which contains
    /// that text.
    InLog(&'static str, &'static str),
}

/// The client that a program reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub address: IpAddr,
    /// The client's port, which not all programs report.
    pub port: Option<u16>,
}

impl Seen {
    /// Parses `ADDRESS`, `ADDRESS PORT` or `ADDRESS:PORT`, the latter with brackets for
    /// IPv6.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Some(Self {
                address: both.ip(),
                port: Some(both.port()),
            });
        }
        let (address, port) = match text.split_once(' ') {
            Some((address, port)) => (address, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let address = address.parse().ok()?;
        Some(Self { address, port })
    }
}

/// A request on one path to one socket.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub family: Family,
    pub way: Way,
    port: u16,
}

/// The result of a request.
#[derive(Debug)]
pub struct Visited {
    pub client: SocketAddr,
    pub seen: Seen,
}

impl Program {
    /// Returns the ports that the balancer has to serve.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.listens.iter().map(|&(_, port)| port).collect();
        ports.dedup();
        ports
    }

    /// Returns all visits: each path to each of the program's sockets.
    pub fn visits(&self) -> Vec<Visit> {
        let of = |&(family, port): &(Family, u16)| {
            let ways: &[Way] = match family {
                Family::V4 => &[Way::V4, Way::Nat64],
                Family::V6Only => &[Way::V6],
                Family::DualStack => &Way::ALL,
            };
            ways.iter().map(move |&way| Visit { family, way, port })
        };
        self.listens.iter().flat_map(of).collect()
    }

    /// Returns the client that the program must see with the module. None is the balancer:
    /// an IPv6 address does not fit into the name of an AF_INET socket.
    pub fn expected(&self, visit: Visit, client: SocketAddr) -> Option<SocketAddr> {
        match (visit.family, visit.way) {
            (Family::V4, Way::Nat64) => None,
            _ if self.mapped == Mapped::AsIpv4 => Some(client),
            _ => Some(visit.family.form(client)),
        }
    }
}

/// A program that runs on the server's host.
pub struct Running<'a> {
    program: &'a Program,
    net: &'a Net,
    // The process ends before its directory is removed.
    process: Process,
    directory: Directory,
}

impl<'a> Running<'a> {
    /// Starts the program; returns when it listens.
    #[track_caller]
    pub fn start(program: &'a Program, net: &'a Net) -> Self {
        let directory = Directory::new(&net.server, "program");
        let output = File::create(directory.0.join(OUTPUT)).expect("a file for its output");
        let errors = output.try_clone().expect("the same file");
        let mut command = (program.command)(&directory.0);
        command
            .current_dir(&directory.0)
            .stdout(output)
            .stderr(errors);
        let process = Process::start_in(&net.server, &mut command, program.ending);
        let mut running = Self {
            program,
            net,
            process,
            directory,
        };
        running.wait_until_ready();
        running
    }

    /// Waits until the program is ready; panics if it ends or exceeds its time.
    #[track_caller]
    fn wait_until_ready(&mut self) {
        let end = Instant::now() + START;
        while let Err(missing) = wait::try_until(|| self.is_ready_or_has_ended()) {
            assert!(Instant::now() < end, "{missing}");
        }
        self.is_ready()
            .unwrap_or_else(|missing| panic!("the program has ended: {missing}"));
    }

    fn is_ready_or_has_ended(&mut self) -> Result<(), String> {
        match self.process.child().try_wait() {
            Ok(None) => self.is_ready(),
            _ => Ok(()),
        }
    }

    fn is_ready(&self) -> Result<(), String> {
        let output = self.read(OUTPUT);
        if let Some(missing) = self.missing_listener() {
            return Err(format!("no socket listens on {missing:?}: {output}"));
        }
        if !output.contains(self.program.ready) {
            return Err(format!("the program is not ready: {output}"));
        }
        Ok(())
    }

    fn missing_listener(&self) -> Option<(Family, u16)> {
        let rows = proc_tcp::rows(&self.net.server);
        let listens = |&&(family, port): &&(Family, u16)| {
            rows.iter().any(|row| {
                let of_family = row.local.is_ipv6() == (family != Family::V4);
                row.state == LISTEN && of_family && row.local.port() == port
            })
        };
        let missing = self.program.listens.iter().find(|at| !listens(at));
        missing.copied()
    }

    /// Makes a request, and returns the client that the program reports.
    #[track_caller]
    pub fn receive(&self, visit: Visit) -> Visited {
        let before = self.log_lines().len();
        let Client {
            mut stream,
            address,
        } = self.net.connect_to_port(visit.way, visit.port);
        let answer = (self.program.ask)(&mut stream);
        drop(stream);
        let output = match self.program.says {
            Says::InAnswer => answer,
            Says::InLog(..) => self.log_line(before),
        };
        let seen = (self.program.client)(&output);
        let seen = seen.unwrap_or_else(|| panic!("{visit:?}: no client in {output:?}"));
        Visited {
            client: address,
            seen,
        }
    }

    /// Waits for the log line of a request.
    #[track_caller]
    fn log_line(&self, number: usize) -> String {
        wait::until("a line in the log", || {
            let mut lines = self.log_lines();
            if lines.len() <= number {
                return Err(format!("the program printed: {}", self.read(OUTPUT)));
            }
            Ok(lines.remove(number))
        })
    }

    /// Returns the log lines of all requests so far.
    fn log_lines(&self) -> Vec<String> {
        let Says::InLog(file, mark) = self.program.says else {
            return Vec::new();
        };
        self.read(file)
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n') && line.contains(mark))
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Reads a file of the program's directory.
    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.0.join(file)).unwrap_or_default()
    }
}
