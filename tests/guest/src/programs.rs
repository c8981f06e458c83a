// SPDX-License-Identifier: GPL-2.0

//! Server programs as the distribution has them, each a row of a [`table`]: how it
//! is started, how it is asked, and where it says who its client is.

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

/// How long a program may take until it listens: some read hundreds of megabytes,
/// and processors are emulated.
const START: Duration = Duration::from_secs(60);

/// What a program writes to its standard output and error output, in its
/// directory.
const OUTPUT: &str = "output";

/// A server program.
pub struct Program {
    /// Its listening sockets.
    pub listens: &'static [(Family, u16)],
    /// How it writes the IPv4 client of a dual-stack socket.
    pub mapped: Mapped,
    /// Writes its configuration into a directory; gives the command to start it
    /// there, which stays in the foreground.
    pub command: fn(&Path) -> Command,
    /// What it also says when it is ready; most are when they listen.
    pub ready: &'static str,
    /// What ends it in order.
    pub ending: Signal,
    /// Makes a request; gives the answer.
    pub ask: fn(&mut TcpStream) -> String,
    pub says: Says,
    /// Finds the client there.
    pub client: fn(&str) -> Option<Seen>,
}

/// How a program writes an IPv4-mapped address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// ::ffff:a.b.c.d
    AsItIs,
    /// a.b.c.d
    AsIpv4,
}

/// Where a program says who its client is.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    InAnswer,
    /// In a file of its directory, in the line of each request, which has that
    /// text.
    InLog(&'static str, &'static str),
}

/// Whom a program takes for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub address: IpAddr,
    /// Not all programs tell it.
    pub port: Option<u16>,
}

impl Seen {
    /// `ADDRESS`, `ADDRESS PORT` or `ADDRESS:PORT`, the latter with brackets for
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

/// A request, by one way to one socket.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub family: Family,
    pub way: Way,
    port: u16,
}

/// What came of it.
#[derive(Debug)]
pub struct Visited {
    pub client: SocketAddr,
    pub seen: Seen,
}

impl Program {
    /// The ports that the balancer has to serve.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.listens.iter().map(|&(_, port)| port).collect();
        ports.dedup();
        ports
    }

    /// All ways to all its sockets.
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

    /// Whom it has to see with the module; None: the balancer, as an IPv6 address
    /// does not fit into the name of an AF_INET socket.
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
    // Ends before its directory goes.
    process: Process,
    directory: Directory,
}

impl<'a> Running<'a> {
    /// Starts it; it listens.
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

    /// As long as it lives, and not for ever.
    #[track_caller]
    fn wait_until_ready(&mut self) {
        let end = Instant::now() + START;
        while let Err(missing) = wait::try_until(|| self.is_ready_or_has_ended()) {
            assert!(Instant::now() < end, "{missing}");
        }
        self.is_ready()
            .unwrap_or_else(|missing| panic!("it has ended: {missing}"));
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
            return Err(format!("nobody listens on {missing:?}: {output}"));
        }
        if !output.contains(self.program.ready) {
            return Err(format!("it is not ready: {output}"));
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

    /// Makes a request, and finds out for whose the program takes it.
    #[track_caller]
    pub fn receive(&self, visit: Visit) -> Visited {
        let before = self.log_lines().len();
        let Client {
            mut stream,
            address,
        } = self.net.connect_to_port(visit.way, visit.port);
        let answer = (self.program.ask)(&mut stream);
        drop(stream);
        let said = match self.program.says {
            Says::InAnswer => answer,
            Says::InLog(..) => self.log_line(before),
        };
        let seen = (self.program.client)(&said);
        let seen = seen.unwrap_or_else(|| panic!("{visit:?}: no client in {said:?}"));
        Visited {
            client: address,
            seen,
        }
    }

    /// Waits for the line of a request.
    #[track_caller]
    fn log_line(&self, number: usize) -> String {
        wait::until("a line in the log", || {
            let mut lines = self.log_lines();
            if lines.len() <= number {
                return Err(format!("it says: {}", self.read(OUTPUT)));
            }
            Ok(lines.remove(number))
        })
    }

    /// The lines of all requests so far.
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

    /// A file of its directory.
    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.0.join(file)).unwrap_or_default()
    }
}
