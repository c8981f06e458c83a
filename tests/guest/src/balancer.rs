// SPDX-License-Identifier: GPL-2.0

//! The FullNAT test balancer, as a process between two namespaces.

use std::io::BufRead;
use std::io::BufReader;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::process;
use crate::process::Process;

const PROGRAM: &str = "/toa/bin/toa-balancer";

/// The balancer's interfaces on the two hosts.
pub const CLIENT_SIDE: &str = "tclient";
pub const SERVER_SIDE: &str = "tserver";

/// The option kind that DPVS and most other balancers use.
pub const TOA_KIND: u8 = 254;

/// A virtual server, the real one behind it, and the plan for its connections.
#[derive(Clone, Debug)]
pub struct Service {
    pub virtual_server: SocketAddr,
    pub real_server: SocketAddr,
    pub plan: Plan,
}

/// The bytes that the balancer inserts, and the client's segments that get them.
#[derive(Clone, Debug)]
pub struct Plan(String);

impl Plan {
    /// Inserts as DPVS does: the client's address, until the server's first data is
    /// acknowledged.
    pub fn dpvs() -> Self {
        Self("toa".to_owned())
    }

    /// Inserts nothing, as a plain FullNAT balancer.
    pub fn none() -> Self {
        Self("none".to_owned())
    }

    /// Inserts these bytes, padded with NOP, in the segments that DPVS chooses.
    pub fn inserting(options: &[u8]) -> Self {
        let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
        Self(options.iter().fold("hex:".to_owned(), hex))
    }

    /// Restricts the plan to segments without data.
    pub fn on_acks_only(self) -> Self {
        Self(self.0 + ",segments=ack-only")
    }

    /// Restricts the plan to segments with data.
    pub fn on_data_only(self) -> Self {
        Self(self.0 + ",segments=data-only")
    }

    /// Restricts the plan to the SYN.
    pub fn on_syn_only(self) -> Self {
        Self(self.0 + ",segments=syn")
    }

    /// Drops the handshake's ACK.
    pub fn losing_the_ack(self) -> Self {
        Self(self.0 + ",lose=ack")
    }

    /// Keeps the SYN-ACK's MSS, as if nothing were inserted.
    pub fn keeping_the_mss(self) -> Self {
        Self(self.0 + ",mss=keep")
    }
}

/// Returns the option that carries `client`: kind, length, port, address.
pub fn toa_option(kind: u8, client: SocketAddr) -> Vec<u8> {
    let address = match client.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut option = vec![kind, 4 + address.len() as u8];
    option.extend(client.port().to_be_bytes());
    option.extend(address);
    option
}

/// A balancer process, which runs until the value is dropped.
#[derive(Debug)]
pub struct Balancer {
    process: Process,
    /// The pipe must stay open: the balancer prints its counters at its end.
    output: BufReader<ChildStdout>,
}

impl Balancer {
    /// Starts the balancer; returns when packets can flow.
    #[track_caller]
    pub fn start(
        client: &Namespace,
        server: &Namespace,
        local: &[&str],
        services: &[Service],
        arguments: &[&str],
    ) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--client-ns", client.name(), "--server-ns", server.name()])
            .args(["--client-dev", CLIENT_SIDE, "--server-dev", SERVER_SIDE])
            .args(local.iter().flat_map(|prefix| ["--lip", prefix]))
            .args(arguments)
            .stdout(Stdio::piped());
        for service in services {
            let Service {
                virtual_server,
                real_server,
                plan,
            } = service;
            let service = format!("vip={virtual_server},rs={real_server},plan={}", plan.0);
            command.args(["--service", &service]);
        }
        let mut process = Process::start(&mut command, Signal::SIGTERM);
        let output = process.child().stdout.take().expect("it is piped");
        Self {
            output: process::wait_for_line(output, "ready"),
            process,
        }
    }

    /// Ends the balancer; returns its counters.
    #[track_caller]
    pub fn finish(&mut self) -> Counts {
        let pid = Pid::from_raw(self.process.child().id() as i32);
        kill(pid, Signal::SIGTERM).expect("the balancer runs");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line of counts");
        Counts(line)
    }
}

/// A balancer's counters: a line of JSON, all of whose values are numbers.
#[derive(Debug)]
pub struct Counts(String);

impl Counts {
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        let key = format!("\"{name}\":");
        let value = self.0.split_once(&key).map(|(_, rest)| rest);
        let digits = value.and_then(|rest| rest.split([',', '}']).next());
        digits
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_layout_of_dpvs() {
        let client = "203.0.113.7:258".parse().expect("an address");
        assert_eq!(toa_option(TOA_KIND, client), [254, 8, 1, 2, 203, 0, 113, 7]);
        let client = "[2001:db8:7::7]:258".parse().expect("an address");
        assert_eq!(toa_option(TOA_KIND, client).len(), 20);
    }

    #[test]
    fn plans_are_written_as_the_balancer_reads_them() {
        let plan = Plan::inserting(&[254, 2]).on_data_only().losing_the_ack();
        assert_eq!(plan.0, "hex:fe02,segments=data-only,lose=ack");
    }

    #[test]
    fn counts_are_read() {
        let counts = Counts("{\"no_room\":2,\"pruned\":13}\n".to_owned());
        assert_eq!((counts.get("no_room"), counts.get("pruned")), (2, 13));
    }
}
