// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa why`: the reason for which a server sees the balancer. The questions are those of
//! `doc/operating.md`, in their order.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::WhyArguments;
use crate::connections;
use crate::connections::Connection;
use crate::failure;
use crate::failure::Failure;
use crate::failure::Result;
use crate::host::Host;
use crate::module;
use crate::netstat;
use crate::output;
use crate::output::Side;
use crate::output::Table;
use crate::policy::Policy;
use crate::sockets;
use crate::sockets::Process;
use crate::sockets::Socket;
use crate::stats;
use crate::stats::Outcome;
use crate::stats::Stats;
use crate::Context;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The module is not loaded.
    NotLoaded,
    /// The module has the client, and the program can see it.
    Recorded,
    /// The module has an IPv6 client, and the socket is of AF_INET.
    Nat64,
    /// The connection is older than the module.
    OlderThanTheModule,
    /// The policy disables toa.
    Disabled,
    /// The policy does not trust the balancer's address.
    Untrusted,
    /// The connection has no record. The rows name the reason.
    NoRecord,
    /// There is no such connection in this network namespace.
    NoConnection,
    /// No program listens on the port in this network namespace.
    NoListener,
    /// The port got no connection while the command waited.
    NoneArrived,
    /// Connections arrived. The rows name their outcomes.
    Arrived,
}

/// The output of `toa why --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The answer.
    answer: Answer,
    /// The connection that was asked for.
    connection: Option<Subject>,
    /// The reason in words, and what to do.
    text: Vec<String>,
    /// The outcomes of connections in the network namespace.
    rows: Vec<Row>,
    /// The seconds in which the rows grew. Without them, the rows count since the load.
    seconds: Option<f64>,
}

/// A connection.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Subject {
    /// The server's end.
    server: SocketAddr,
    /// The other end, as the kernel sees it.
    peer: SocketAddr,
    /// The client, if the module has one.
    client: Option<SocketAddr>,
    /// The process that holds the socket.
    process: Option<Process>,
}

/// A row of `/proc/net/toa_stats`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The row.
    row: String,
    /// The connections that it counts.
    count: u64,
    /// The outcome: the segment that completed the handshake.
    meaning: String,
    /// The advice.
    remedy: String,
}

/// The subject of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    End(SocketAddr),
    Port(u16),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self::Port(port));
        }
        let end: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is neither ADDRESS:PORT nor :PORT: IPv6 is written as [ADDRESS]:PORT")
        })?;
        Ok(Self::End(SocketAddr::new(
            end.ip().to_canonical(),
            end.port(),
        )))
    }
}

/// Runs the command.
///
/// # Errors
///
/// A wrong argument, a missing right, or files with a content that nothing writes.
pub fn run(context: &Context, arguments: &WhyArguments) -> Result<failure::Status> {
    let asked: Asked = arguments.end.parse().map_err(Failure::usage)?;
    let netns = arguments.place.netns.as_deref();
    let interval = Duration::from_secs_f64(arguments.interval);
    let explanation = context.within(netns, || explain(&context.host, asked, interval))?;
    if context.json {
        output::print_json(&explanation)?;
    } else {
        output::print(&screen(&explanation, output::width()))?;
    }
    Ok(match explanation.answer {
        Answer::Recorded => failure::Status::Success,
        Answer::NotLoaded => failure::Status::NotLoaded,
        Answer::Arrived if explanation.rows.iter().all(|row| row.row == stats::TAKEN) => {
            failure::Status::Success
        }
        _ => failure::Status::Problem,
    })
}

/// The files of the network namespace at one time.
struct Snapshot {
    stats: Stats,
    /// None without the right to read them, or with an older module.
    connections: Option<Vec<Connection>>,
    sockets: Vec<Socket>,
}

impl Snapshot {
    fn read(host: &Host) -> Result<Self> {
        Ok(Self {
            stats: Stats::read(host)?,
            connections: match connections::read(host) {
                Ok(connections) => Some(connections),
                Err(failure) => {
                    output::remark(&failure.text);
                    None
                }
            },
            sockets: sockets::read(host)?,
        })
    }

    /// Returns the recorded connection with that end.
    fn record(&self, end: SocketAddr) -> Option<Connection> {
        let mut all = self.connections.iter().flatten();
        let is = |row: &&Connection| row.client == end || row.balancer == end;
        all.find(is).copied()
    }

    /// Returns the connected socket with these ends, or with that peer.
    fn socket(&self, peer: SocketAddr, local: Option<SocketAddr>) -> Option<Socket> {
        let is = |socket: &&Socket| {
            socket.state != sockets::LISTEN
                && socket.peer == peer
                && local.is_none_or(|local| socket.local == local)
        };
        self.sockets.iter().find(is).copied()
    }

    /// The peers of connections to a local port.
    fn peers(&self, port: u16) -> HashSet<SocketAddr> {
        let connected = self
            .sockets
            .iter()
            .filter(|socket| socket.local.port() == port && socket.state != sockets::LISTEN);
        connected.map(|socket| socket.peer).collect()
    }
}

fn explain(host: &Host, asked: Asked, interval: Duration) -> Result<Explanation> {
    if module::running(host).is_none() {
        return Ok(Explanation::new(
            Answer::NotLoaded,
            "the module toa is not loaded, so each peer is the balancer: run modprobe toa",
        ));
    }
    let before = Snapshot::read(host)?;
    let policy = Policy::read(host)?;
    match asked {
        Asked::End(end) => {
            let explanation = explain_end(host, end, &before, policy.as_ref());
            if explanation.answer == Answer::NoRecord || explanation.answer == Answer::NoConnection
            {
                return explanation.with_rows(host, &before, interval);
            }
            Ok(explanation)
        }
        Asked::Port(port) => explain_port(host, port, before, policy.as_ref(), interval),
    }
}

fn explain_end(
    host: &Host,
    end: SocketAddr,
    now: &Snapshot,
    policy: Option<&Policy>,
) -> Explanation {
    if let Some(record) = now.record(end) {
        let socket = now.socket(record.balancer, Some(record.server));
        let subject = Subject {
            server: record.server,
            peer: record.balancer,
            client: Some(record.client),
            process: socket.and_then(|socket| holder(host, &socket)),
        };
        return recorded(record, socket).about(subject);
    }
    let Some(socket) = now.socket(end, None) else {
        let mut explanation = Explanation::new(
            Answer::NoConnection,
            format!(
                "no connection of this network namespace has the end {end}: it has ended, or it is of another \
                 namespace (toa list --all-netns, then toa why --netns NAME)"
            ),
        );
        if now.connections.is_none() {
            explanation
                .text
                .push("clients cannot be looked up without the list of connections".to_owned());
        }
        return explanation;
    };
    let process = holder(host, &socket);
    let subject = Subject {
        server: socket.local,
        peer: socket.peer,
        client: None,
        process: process.clone(),
    };
    if now.connections.is_none() {
        return Explanation::new(
            Answer::NoRecord,
            "the connection exists, and its record cannot be looked up",
        )
        .about(subject);
    }
    without_record(host, &socket, process, now, policy).about(subject)
}

/// Explains a connection whose client the module has.
fn recorded(record: Connection, socket: Option<Socket>) -> Explanation {
    let is_af_inet = socket.is_some_and(|socket| !socket.is_ipv6);
    if record.client.is_ipv6() && is_af_inet {
        return Explanation::new(
            Answer::Nat64,
            "the module has the client, whose IPv6 address does not fit an AF_INET socket (NAT64): let the \
             server listen on [::], or see doc/nat64.md",
        );
    }
    let mut explanation = Explanation::new(
        Answer::Recorded,
        "the module has the client, and getpeername returns it to programs",
    );
    explanation.text.push(
        "a server that logs another address took it from the PROXY protocol or a header, uses true MPTCP, or \
         asks in a kernel thread, such as nfsd"
            .to_owned(),
    );
    explanation
}

/// Explains a connection that has no record.
fn without_record(
    host: &Host,
    socket: &Socket,
    process: Option<Process>,
    now: &Snapshot,
    policy: Option<&Policy>,
) -> Explanation {
    let counts_all = now.stats.get(stats::TAKEN).is_some();
    if counts_all && now.stats.outcomes().all(|(_, count)| count == 0) {
        return Explanation::new(
            Answer::OlderThanTheModule,
            "the module has counted no connection of this network namespace, so this one is older than the \
             module, or TCP Fast Open made it: it shows the balancer until it ends",
        );
    }
    if let Some(policy) = policy {
        if !policy.is_enabled() {
            return Explanation::new(
                Answer::Disabled,
                "the policy disables toa in this network namespace: run toa policy set enabled=1",
            );
        }
        let peer = socket.peer.ip();
        if !policy.trusted().contains(peer) {
            return Explanation::new(
                Answer::Untrusted,
                format!(
                    "{peer} is not in the trusted set: if it is a balancer, run toa policy set trusted+={peer}"
                ),
            );
        }
    }
    let age = process.and_then(|process| Some((started(host, process.pid)?, loaded_at(host)?)));
    let mut explanation = match age {
        Some((started, loaded)) if started > loaded => Explanation::new(
            Answer::NoRecord,
            "the module has no client for this connection, which is newer than the module",
        ),
        Some(_) => Explanation::new(
            Answer::NoRecord,
            "the module has no client for this connection. If it is older than the module, it shows the \
             balancer until it ends",
        ),
        None => Explanation::new(
            Answer::NoRecord,
            "the module has no client for this connection. If it is older than the module, it shows the \
             balancer until it ends: compare ps -o lstart with dmesg -T | grep TOA",
        ),
    };
    explanation
        .text
        .extend(fast_opened(netstat::fast_opens(host)));
    explanation
}

/// Names TCP Fast Open as a reason, if such connections exist: no row counts them.
fn fast_opened(connections: Option<u64>) -> Option<String> {
    let count = connections.filter(|count| *count > 0)?;
    Some(format!(
        "TCP Fast Open made {count} connections of this network namespace, whose clients the module never gets. \
         If this is one, it shows the balancer until it ends"
    ))
}

fn explain_port(
    host: &Host,
    port: u16,
    before: Snapshot,
    policy: Option<&Policy>,
    interval: Duration,
) -> Result<Explanation> {
    let listens = before
        .sockets
        .iter()
        .any(|socket| socket.state == sockets::LISTEN && socket.local.port() == port);
    if !listens {
        return Ok(Explanation::new(
            Answer::NoListener,
            format!(
                "no program listens on port {port} in this network namespace: find it with ss -ltn, or name \
                 its namespace with --netns"
            ),
        ));
    }
    thread::sleep(interval);
    let after = Snapshot::read(host)?;
    let old = before.peers(port);
    let arrived = after.peers(port).difference(&old).count();
    let rows = grown(&before.stats, &after.stats);
    let seconds = Some(interval.as_secs_f64());
    if rows.is_empty() {
        let mut explanation = Explanation::new(
            Answer::NoneArrived,
            format!(
                "no connection of this network namespace completed in {} s: ask again with --interval 10, while \
                 clients connect",
                interval.as_secs_f64()
            ),
        );
        if arrived > 0 {
            explanation.text.push(format!(
                "{arrived} connections of port {port} did not pass the module: TCP Fast Open makes such ones"
            ));
        }
        explanation.seconds = seconds;
        return Ok(explanation);
    }
    let mut explanation = Explanation::new(
        Answer::Arrived,
        format!(
            "port {port} has {arrived} new connections. The rows count all ports of the network namespace:"
        ),
    );
    if policy.is_some_and(|policy| !policy.is_enabled()) {
        explanation.answer = Answer::Disabled;
    }
    explanation.rows = rows;
    explanation.seconds = seconds;
    Ok(explanation)
}

impl Explanation {
    fn new(answer: Answer, text: impl Into<String>) -> Self {
        Self {
            answer,
            connection: None,
            text: vec![text.into()],
            rows: Vec::new(),
            seconds: None,
        }
    }

    fn about(mut self, subject: Subject) -> Self {
        self.connection = Some(subject);
        self
    }

    /// Adds the rows that grow within the interval, or else those that count since the load.
    fn with_rows(mut self, host: &Host, before: &Snapshot, interval: Duration) -> Result<Self> {
        thread::sleep(interval);
        let after = Stats::read(host)?;
        self.rows = grown(&before.stats, &after);
        self.seconds = Some(interval.as_secs_f64());
        if self.rows.is_empty() {
            self.seconds = None;
            self.rows = after
                .outcomes()
                .filter(|(_, count)| *count > 0)
                .map(|(outcome, count)| Row::new(outcome, count))
                .collect();
        }
        // The likely reason comes first, and connections with a client last.
        self.rows
            .sort_by_key(|row| (row.row == stats::TAKEN, std::cmp::Reverse(row.count)));
        Ok(self)
    }
}

impl Row {
    fn new(outcome: &Outcome, count: u64) -> Self {
        Self {
            row: outcome.row.to_owned(),
            count,
            meaning: outcome.meaning.to_owned(),
            remedy: outcome.remedy.to_owned(),
        }
    }
}

/// The outcomes that grew.
fn grown(before: &Stats, after: &Stats) -> Vec<Row> {
    let growth = after.since(before);
    let grown = after.outcomes().filter_map(|(outcome, _)| {
        let count = *growth.get(outcome.row)?;
        (count > 0).then(|| Row::new(outcome, count))
    });
    grown.collect()
}

fn holder(host: &Host, socket: &Socket) -> Option<Process> {
    if socket.inode == 0 {
        return None;
    }
    sockets::holders(host).of(socket.inode).cloned()
}

/// Returns the time after the boot at which a process began (proc_pid_stat(5), field 22), in hundredths of a
/// second.
fn started(host: &Host, pid: u32) -> Option<u64> {
    start_time(&host.read(&format!("/proc/{pid}/stat")).ok()??)
}

/// Parses the file. The name in it may have any characters.
pub fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Returns the time after the boot at which the module was loaded, in hundredths of a second. It is in the
/// kernel's log.
fn loaded_at(host: &Host) -> Option<u64> {
    if host.is_copy() {
        return None;
    }
    let mut log = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok()?;
    let mut found = None;
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => return found,
            Ok(length) => {
                let line = String::from_utf8_lossy(&record[..length]);
                found = load_line(&line).or(found);
            }
            // A record was overwritten before it was read.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
            Err(_) => return found,
        }
    }
}

/// Reads the time of a line in `/dev/kmsg` that the module logs when it is loaded.
pub fn load_line(line: &str) -> Option<u64> {
    let (head, text) = line.split_once(';')?;
    let microseconds: u64 = head.split(',').nth(2)?.parse().ok()?;
    text.starts_with("TOA: toa loaded")
        .then_some(microseconds / 10_000)
}

fn screen(explanation: &Explanation, width: Option<usize>) -> String {
    let mut out = String::new();
    let wrapped = |text: &str| output::wrap(text, width.unwrap_or(usize::MAX)).join("\n");
    if let Some(subject) = &explanation.connection {
        let mut line = format!("{} -> {}", subject.peer, subject.server);
        if let Some(client) = subject.client {
            let _ = write!(line, ", client {client}");
        }
        if let Some(process) = &subject.process {
            let _ = write!(line, ", {} ({})", process.command, process.pid);
        }
        let _ = writeln!(out, "{}", wrapped(&line));
    }
    for text in &explanation.text {
        let _ = writeln!(out, "{}", wrapped(text));
    }
    if explanation.rows.is_empty() {
        return out;
    }
    let _ = match explanation.seconds {
        Some(seconds) => writeln!(out, "\nin the last {seconds} s:"),
        None => writeln!(out, "\nsince the load:"),
    };
    let mut table = Table::new(&[Side::Left, Side::Right, Side::Left]).indented(2);
    for row in &explanation.rows {
        table.row([row.row.clone(), row.count.to_string(), row.meaning.clone()]);
        table.row([String::new(), String::new(), row.remedy.clone()]);
    }
    table.write(&mut out, width);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_ports_are_read() {
        let end = |text: &str| Asked::End(text.parse().expect("an end"));
        for (text, expected) in [
            ("10.0.1.1:1027", end("10.0.1.1:1027")),
            ("[fd00::1]:80", end("[fd00::1]:80")),
            ("[::ffff:10.0.1.1]:80", end("10.0.1.1:80")),
            (":8080", Asked::Port(8080)),
            ("8080", Asked::Port(8080)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "10.0.1.1", "fd00::1", "localhost:80", ":65536"] {
            assert!(text.parse::<Asked>().is_err(), "{text}");
        }
    }

    #[test]
    fn start_time_is_behind_a_name_of_any_characters() {
        let fields = "S 1 100 100 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9";
        for name in ["nginx", "a b", "a) 1 (b", ")", ""] {
            let stat = format!("100 ({name}) {fields}\n");
            assert_eq!(start_time(&stat), Some(4711), "{name}");
        }
        assert_eq!(start_time("100 (nginx) S"), None);
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn load_line_has_its_time() {
        let line = "6,339,5140900,-;TOA: toa loaded, version 0.1.0, IPv4 and IPv6\n";
        assert_eq!(load_line(line), Some(514));
        assert_eq!(load_line("6,339,5140900,-;TOA: toa unloaded\n"), None);
        assert_eq!(load_line("garbage"), None);
    }

    #[test]
    fn fast_open_is_a_reason_if_it_made_connections() {
        assert_eq!(fast_opened(None), None);
        assert_eq!(fast_opened(Some(0)), None);
        let text = fast_opened(Some(2)).expect("a reason");
        assert!(
            text.starts_with("TCP Fast Open made 2 connections"),
            "{text}"
        );
    }

    #[test]
    fn ipv6_client_of_an_ipv4_socket_is_nat64() {
        let connection = |client: &str| Connection {
            client: client.parse().expect("an end"),
            balancer: "10.0.1.1:1027".parse().expect("an end"),
            server: "10.0.0.1:80".parse().expect("an end"),
        };
        let socket = |is_ipv6| {
            Some(Socket {
                local: "10.0.0.1:80".parse().expect("an end"),
                peer: "10.0.1.1:1027".parse().expect("an end"),
                state: 1,
                inode: 1,
                is_ipv6,
            })
        };
        let of = |client, is_ipv6| recorded(connection(client), socket(is_ipv6)).answer;
        assert_eq!(of("[2001:db8::7]:4321", false), Answer::Nat64);
        assert_eq!(of("[2001:db8::7]:4321", true), Answer::Recorded);
        assert_eq!(of("203.0.113.7:4321", false), Answer::Recorded);
    }
}
