// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa verify`: TOA connections through the module that runs, in a network namespace for this purpose.
//!
//! The process leaves the host's network for a new namespace. There it is a server and its balancer: a
//! TUN device carries handmade segments to the kernel. The module sees them as it sees the host's. First
//! the namespace has a policy that believes any host, then it follows the host's policy. The kernel
//! removes the namespace with the process.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use etherparse::IpSlice;
use etherparse::PacketBuilder;
use etherparse::TcpSlice;
use nix::sched::unshare;
use nix::sched::CloneFlags;
use nix::unistd::getegid;
use nix::unistd::geteuid;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::VerifyArguments;
use crate::failure;
use crate::failure::Failure;
use crate::failure::Result;
use crate::module;
use crate::output;
use crate::output::Side;
use crate::output::Table;
use crate::policy::Assignment;
use crate::policy::Policy;
use crate::policy::Setting;
use crate::policy::Trusted;
use crate::stats;
use crate::stats::Stats;
use crate::tun;
use crate::tun::Tun;
use crate::Context;

/// The device.
const DEVICE: &str = "toa-verify";

/// The server's addresses and port. RFC 2544 and RFC 5180 reserve the prefixes for tests.
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);
const PORT: u16 = 8080;

/// The balancer's addresses, unless the host's policy trusts others.
const SENDER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const SENDER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 2);

/// The clients in the options, of the prefixes for documentation (RFC 5737, RFC 3849).
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
const CLIENT_PORT: u16 = 50412;

/// The option's kind in a policy by default.
const KIND: u8 = 254;

/// The longest wait for the kernel's next step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The wait before a segment is sent again.
const RETRY: Duration = Duration::from_millis(200);

/// The output of `toa verify --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verification {
    /// Whether all tests passed.
    passed: bool,
    /// The tests.
    tests: Vec<Test>,
}

/// A connection through the module.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Test {
    /// The traffic, and the policy that decided.
    name: String,
    /// Whether the server saw the client.
    passed: bool,
    /// The result in words.
    result: String,
}

/// The traffic of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    V4,
    V6,
    Nat64,
}

impl Way {
    const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Nat64];

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Nat64 => "NAT64",
        }
    }

    fn sender(self) -> IpAddr {
        match self {
            Self::V4 | Self::Nat64 => SENDER_V4.into(),
            Self::V6 => SENDER_V6.into(),
        }
    }

    fn client(self) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => CLIENT_V4.into(),
            Self::V6 | Self::Nat64 => CLIENT_V6.into(),
        };
        SocketAddr::new(address, CLIENT_PORT)
    }
}

/// Runs the command.
///
/// # Errors
///
/// The module is not loaded, or the namespace cannot be made.
pub fn run(context: &Context, arguments: &VerifyArguments) -> Result<failure::Status> {
    let host = &context.host;
    if host.is_copy() {
        return Err(Failure::usage(
            "a copy of files has no module to verify: leave out --sysroot",
        ));
    }
    if module::running(host).is_none() {
        return Err(Failure::not_loaded());
    }
    let policy = Policy::read(host)?;
    leave_the_network()?;
    let mut bench = Bench::new()?;
    let mut tests = Vec::new();
    if policy.is_some() {
        believe_any_host()?;
    }
    for way in Way::ALL {
        if way == Way::V4 || bench.has_ipv6 {
            let name = format!("{}, any host trusted", way.name());
            tests.push(bench.test(context, name, way.sender(), way.client())?);
        }
    }
    if let Some(policy) = &policy {
        let sender = arguments.sender.map_or_else(
            || likely_sender(&policy.trusted()),
            |sender| sender.to_canonical(),
        );
        if sender.is_ipv4() || bench.has_ipv6 {
            follow_the_host()?;
            let name = format!("the host's policy, sender {sender}");
            let way = if sender.is_ipv4() { Way::V4 } else { Way::V6 };
            tests.push(bench.test(context, name, sender, way.client())?);
        }
    }
    let verification = Verification {
        passed: tests.iter().all(|test| test.passed),
        tests,
    };
    if context.json {
        output::print_json(&verification)?;
    } else {
        output::print(&screen(&verification, output::width()))?;
    }
    Ok(if verification.passed {
        failure::Status::Success
    } else {
        failure::Status::Problem
    })
}

fn screen(verification: &Verification, width: Option<usize>) -> String {
    let mut table = Table::new(&[Side::Left; 3]);
    for test in &verification.tests {
        let passed = if test.passed { "passed" } else { "FAILED" };
        table.row([passed, &test.name, &test.result]);
    }
    let mut out = String::new();
    table.write(&mut out, width);
    let failed = verification
        .tests
        .iter()
        .filter(|test| !test.passed)
        .count();
    let _ = writeln!(
        out,
        "{} of {} connections showed their client",
        verification.tests.len() - failed,
        verification.tests.len()
    );
    out
}

/// Moves this process to a new network namespace. Without root it gets a user namespace too.
fn leave_the_network() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
            Failure::new(
                failure::Status::NotPermitted,
                format!("making a network namespace: {error}: run it with CAP_SYS_ADMIN, outside of containers"),
            )
        });
    }
    let map = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .and_then(|()| map("setgroups", "deny".to_owned()))
        .and_then(|()| map("uid_map", format!("0 {user} 1")))
        .and_then(|()| map("gid_map", format!("0 {group} 1")))
        .map_err(|error| {
            Failure::new(
                failure::Status::NotPermitted,
                format!("making a user namespace: {error}: run sudo toa verify"),
            )
        })
}

/// Sets the module's default policy in the new namespace.
fn believe_any_host() -> Result<()> {
    for (setting, value) in [
        (Setting::Enabled, "1"),
        (Setting::Trusted, ""),
        (Setting::Kinds, "254"),
        (Setting::Pick, "first"),
        (Setting::Nat46, "0"),
        (Setting::OwnAddresses, "0"),
    ] {
        assign(setting, value)?;
    }
    Ok(())
}

/// Makes the new namespace follow the one in which it was made.
fn follow_the_host() -> Result<()> {
    assign(
        Setting::Inherited,
        "enabled trusted kinds pick nat46 own_addresses",
    )
}

fn assign(setting: Setting, value: &str) -> Result<()> {
    Assignment::new(setting, value)
        .map_err(Failure::failed)?
        .write()
}

/// Returns an address of the trusted set, or one of a balancer for tests.
fn likely_sender(trusted: &Trusted) -> IpAddr {
    let test = IpAddr::from(SENDER_V4);
    let Trusted::Prefixes(prefixes) = trusted else {
        return test;
    };
    if trusted.contains(test) {
        return test;
    }
    let first = prefixes.first().and_then(|prefix| prefix.hosts().next());
    first.unwrap_or(test)
}

/// The server and its balancer.
struct Bench {
    tun: Tun,
    listener: TcpListener,
    has_ipv6: bool,
    next_port: u16,
}

impl Bench {
    /// Makes the device, its addresses and the listener in the process' network namespace.
    fn new() -> Result<Self> {
        let tun = Tun::create(DEVICE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::failed(format!("{}: {error}: run modprobe tun", tun::DEVICE))
            }
            io::ErrorKind::PermissionDenied => Failure::new(
                failure::Status::NotPermitted,
                format!("{}: {error}: run sudo toa verify", tun::DEVICE),
            ),
            _ => Failure::failed(format!("making the device {DEVICE}: {error}")),
        })?;
        let has_ipv6 = fs::exists("/proc/sys/net/ipv6").unwrap_or(false);
        let mut commands = format!(
            "link set lo up\naddr add {SERVER_V4}/32 dev {DEVICE}\nlink set {DEVICE} up\n\
             route add default dev {DEVICE}\n"
        );
        if has_ipv6 {
            let _ = write!(
                commands,
                "addr add {SERVER_V6}/128 dev {DEVICE} nodad\nroute add ::/0 dev {DEVICE}\n"
            );
        }
        ip(&commands)?;
        let address: IpAddr = if has_ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let listener = TcpListener::bind((address, PORT))
            .map_err(|error| Failure::failed(format!("listening on port {PORT}: {error}")))?;
        Ok(Self {
            tun,
            listener,
            has_ipv6,
            next_port: 1024,
        })
    }

    /// Makes a connection whose option names `client`, and compares the peer that the server sees.
    fn test(
        &mut self,
        context: &Context,
        name: String,
        sender: IpAddr,
        client: SocketAddr,
    ) -> Result<Test> {
        self.next_port += 1;
        let balancer = SocketAddr::new(sender, self.next_port);
        let before = Stats::read(&context.host)?;
        let seen = self
            .connect(balancer, client)
            .map_err(|error| Failure::failed(format!("sending segments: {error}")))?;
        let after = Stats::read(&context.host)?;
        let (passed, result) = match seen {
            Err(step) => (false, step.to_owned()),
            Ok(seen) if seen == client => (true, format!("the server sees {client}")),
            Ok(seen) => (false, missed(seen, &before, &after)),
        };
        Ok(Test {
            name,
            passed,
            result,
        })
    }

    /// Makes a connection. Returns the peer that the server sees, or the step that did not happen.
    fn connect(
        &self,
        balancer: SocketAddr,
        client: SocketAddr,
    ) -> io::Result<std::result::Result<SocketAddr, &'static str>> {
        let deadline = Instant::now() + PATIENCE;
        let segments = Segments { balancer };
        let answer = until(deadline, |next| {
            self.tun.send(&segments.syn())?;
            self.tun.receive(next, |packet| segments.answer(packet))
        })?;
        let Some(sequence) = answer else {
            return Ok(Err("the kernel does not answer the SYN"));
        };
        let ack = segments.ack(sequence, &option(client));
        let accepted = until(deadline, |next| {
            self.tun.send(&ack)?;
            Ok(tun::is_ready(&self.listener, next)?.then_some(()))
        })?;
        if accepted.is_none() {
            return Ok(Err("the kernel does not complete the handshake"));
        }
        let (_, peer) = self.listener.accept()?;
        Ok(Ok(SocketAddr::new(peer.ip().to_canonical(), peer.port())))
    }
}

/// Calls `step` until it has a result, with the time to wait until. As TCP sends a segment again, so that
/// one which the kernel drops does no harm: it makes an address' route in a work item, and has none for
/// the address before (`addrconf_dad_work`).
fn until<T>(
    deadline: Instant,
    mut step: impl FnMut(Instant) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    loop {
        let next = deadline.min(Instant::now() + RETRY);
        let result = step(next)?;
        if result.is_some() || next == deadline {
            return Ok(result);
        }
    }
}

/// The result of a connection that does not show its client.
fn missed(seen: SocketAddr, before: &Stats, after: &Stats) -> String {
    let growth = after.since(before);
    let counted = after.outcomes().find(|(outcome, _)| {
        outcome.row != stats::TAKEN && growth.get(outcome.row).is_some_and(|count| *count > 0)
    });
    match counted {
        Some((outcome, _)) => format!(
            "the server sees the balancer {seen}, counted as {}: {}",
            outcome.row, outcome.remedy
        ),
        None => format!(
            "the server sees the balancer {seen}, and no row of /proc/net/toa_stats counts the connection: \
             run toa doctor"
        ),
    }
}

/// The option with a client: kind, length, port and address.
fn option(client: SocketAddr) -> Vec<u8> {
    let address = match client.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = u8::try_from(address.len() + 4).unwrap_or_default();
    [&[KIND, length], &client.port().to_be_bytes()[..], &address].concat()
}

/// The balancer's segments of a connection.
struct Segments {
    balancer: SocketAddr,
}

/// The sequence number of the balancer's SYN, and its window.
const SEQUENCE: u32 = 1000;
const WINDOW: u16 = 64000;

/// The hop limit.
const HOPS: u8 = 64;

impl Segments {
    fn builder(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        match self.balancer.ip() {
            IpAddr::V4(from) => PacketBuilder::ipv4(from.octets(), SERVER_V4.octets(), HOPS),
            IpAddr::V6(from) => PacketBuilder::ipv6(from.octets(), SERVER_V6.octets(), HOPS),
        }
    }

    fn syn(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        let segment = self
            .builder()
            .tcp(self.balancer.port(), PORT, SEQUENCE, WINDOW)
            .syn();
        segment
            .write(&mut packet, &[])
            .expect("a vector takes all bytes, and the segment is short");
        packet
    }

    /// The segment that completes the handshake.
    fn ack(&self, server_sequence: u32, options: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let segment = self
            .builder()
            .tcp(self.balancer.port(), PORT, SEQUENCE + 1, WINDOW)
            .ack(server_sequence.wrapping_add(1))
            .options_raw(options)
            .expect("an option has 20 bytes at most");
        segment
            .write(&mut packet, &[])
            .expect("a vector takes all bytes, and the segment is short");
        packet
    }

    /// Returns the server's sequence number if the packet is its SYN-ACK for this connection.
    fn answer(&self, packet: &[u8]) -> Option<u32> {
        let ip = IpSlice::from_slice(packet).ok()?;
        let tcp = TcpSlice::from_slice(ip.payload().payload).ok()?;
        let answers = tcp.syn() && tcp.ack() && tcp.destination_port() == self.balancer.port();
        answers.then(|| tcp.sequence_number())
    }
}

/// Runs commands of `ip` in this network namespace.
fn ip(commands: &str) -> Result<()> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::failed("the command ip is missing: run apt install iproute2")
        }
        _ => Failure::failed(format!("ip: {error}")),
    };
    let mut child = module::tool("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first = complaint.lines().next().unwrap_or_default();
    Err(Failure::failed(format!("ip: {}", output::printable(first))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_has_port_and_address() {
        let v4 = option("203.0.113.7:4660".parse().expect("an end"));
        assert_eq!(v4, [254, 8, 0x12, 0x34, 203, 0, 113, 7]);
        let v6 = option("[2001:db8::7]:4660".parse().expect("an end"));
        assert_eq!((v6.len(), v6[1]), (20, 20));
    }

    #[test]
    fn likely_sender_is_trusted_if_any_host_is() {
        for (trusted, sender) in [
            ("", "198.18.0.2"),
            ("none", "198.18.0.2"),
            ("0.0.0.0/0", "198.18.0.2"),
            ("10.0.1.0/28", "10.0.1.1"),
            ("10.0.1.9", "10.0.1.9"),
            ("fd00:0:0:1::7", "fd00:0:0:1::7"),
        ] {
            let trusted = Trusted::parse(trusted).expect("a set");
            assert_eq!(likely_sender(&trusted).to_string(), sender);
        }
    }

    #[test]
    fn answers_are_those_of_the_connection() {
        let segments = Segments {
            balancer: "198.18.0.2:1025".parse().expect("an end"),
        };
        let mut packet = Vec::new();
        PacketBuilder::ipv4(SERVER_V4.octets(), SENDER_V4.octets(), HOPS)
            .tcp(PORT, 1025, 77, WINDOW)
            .syn()
            .ack(SEQUENCE + 1)
            .write(&mut packet, &[])
            .expect("a packet");
        assert_eq!(segments.answer(&packet), Some(77));
        assert_eq!(segments.answer(&segments.syn()), None);
        assert_eq!(segments.answer(&packet[..30]), None);
    }
}
