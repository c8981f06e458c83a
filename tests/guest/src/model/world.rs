// SPDX-License-Identifier: GPL-2.0

//! The executor: takes a script's steps on real sockets behind the test balancer, and compares the
//! kernel's answers and the module's counters with the model's after each step.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::mem;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use libc::c_int;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use socket2::SockRef;
use socket2::Socket;

use super::state::Address;
use super::state::Answer;
use super::state::Connection;
use super::state::Facts;
use super::state::Model;
use super::state::Question;
use super::state::Reply;
use super::state::Tcp;
use super::step::Asker;
use super::step::Direction;
use super::step::End;
use super::step::Options;
use super::step::Share;
use super::step::Side;
use super::step::Slot;
use super::step::Step;
use super::step::Trusted;
use super::step::Word;
use super::step::SLOTS;
use crate::balancer::toa_option;
use crate::balancer::Plan;
use crate::balancer::Service;
use crate::balancer::TOA_KIND;
use crate::cases::getsockopt;
use crate::cases::options::NAMED;
use crate::cases::options::OTHER;
use crate::module;
use crate::namespace::policy_path;
use crate::namespace::write_policy_here;
use crate::net;
use crate::net::Net;
use crate::net::Way;
use crate::net::Wiring;
use crate::net::LOCAL;
use crate::net::PORT;
use crate::proc_tcp;
use crate::sockets;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats::Stats;
use crate::sys;
use crate::sys::bpf;
use crate::sys::handing;
use crate::sys::Call;
use crate::sys::Name;
use crate::sys::Place;
use crate::wait::BOUND;

/// The time in which the host must reach the model's state after a step.
const SETTLED: Duration = Duration::from_secs(5);

/// The pause between two looks at the host's state.
const PAUSE: Duration = Duration::from_micros(500);

/// The first port of the virtual servers, of which each has its own options.
const VIRTUAL_PORT: u16 = 9000;

/// The port of the listener to which sockets connect again.
const TARGET_PORT: u16 = 9900;

/// Hosts that are no balancers.
const OTHERS: &str = "192.0.2.7,2001:db8:9::7";

/// The kind of [`Options::OtherKind`].
const OTHER_KIND: u8 = 253;

/// Options of `linux/tcp.h`.
const TCP_SAVE_SYN: c_int = 27;
const TCP_SAVED_SYN: c_int = 28;
const TCP_REPAIR_ON: c_int = 1;
const TCP_REPAIR_OFF_NO_WP: c_int = -1;

/// The place of `tcpi_unacked` in `struct tcp_info`, which has the length of a listener's queue too.
const UNACKED: usize = 24;

/// The bytes of `struct tcp_info` up to the end of `tcpi_unacked`.
const TCP_INFO_ROOM: i32 = 28;

/// The setting by which handshakes use SYN cookies: 1 for a full queue (the default), 2 for all.
const SYN_COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// The states of a socket that has sent a FIN without an acknowledgement: `TCP_FIN_WAIT1`,
/// `TCP_LAST_ACK` and `TCP_CLOSING` of `include/net/tcp_states.h`.
const FIN_IS_UNACKNOWLEDGED: [u8; 3] = [4, 9, 11];

type Outcome = Result<(), String>;

/// A difference between the host and the model.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The steps of the script up to the one with the difference.
    pub steps: usize,
    pub reason: String,
}

/// The server's address of a connection through the balancer.
fn own_address(connection: &Connection) -> SocketAddr {
    let port = server_port(connection.family);
    SocketAddr::new(connection.way.real_server(), port)
}

/// The place of a value among its kind.
fn place<T: Word>(value: T) -> usize {
    let mut words = T::WORDS.iter();
    words.position(|(other, _)| *other == value).unwrap_or(0)
}

fn server_port(family: Family) -> u16 {
    PORT + place(family) as u16
}

fn virtual_port(family: Family, options: Options) -> u16 {
    VIRTUAL_PORT + 10 * place(options) as u16 + place(family) as u16
}

fn plan(options: Options) -> Plan {
    let loopback = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), NAMED.port());
    match options {
        Options::Good => Plan::dpvs(),
        Options::None => Plan::none(),
        Options::Malformed => Plan::inserting(&[TOA_KIND, 4, 0, 80]),
        Options::Impossible => Plan::inserting(&toa_option(TOA_KIND, loopback)),
        Options::Ipv4 => Plan::inserting(&toa_option(TOA_KIND, NAMED)),
        Options::Two => {
            let two = [NAMED, OTHER].map(|named| toa_option(TOA_KIND, named));
            Plan::inserting(&two.concat())
        }
        Options::OtherKind => Plan::inserting(&toa_option(OTHER_KIND, NAMED)),
    }
}

/// Makes the hosts, and a balancer with a virtual server for each listener, way and options.
pub fn net() -> Net {
    let mut services = Vec::new();
    for (family, way) in net::ROWS {
        for &(options, _) in Options::WORDS {
            let port = virtual_port(family, options);
            services.push(Service {
                virtual_server: SocketAddr::new(way.virtual_server(), port),
                real_server: SocketAddr::new(way.real_server(), server_port(family)),
                plan: plan(options),
            });
        }
    }
    Net::with_services(&services, true, Wiring::default())
}

/// The sockets and addresses of a connection.
#[derive(Debug)]
struct Ends {
    /// The peer's socket, until a step closes it.
    far: Option<TcpStream>,
    /// The server's descriptors.
    server: Vec<TcpStream>,
    client: SocketAddr,
    /// The balancer's address, from the SYN.
    balancer: Option<SocketAddr>,
    /// The other listener, after the socket has connected to it.
    target: Option<SocketAddr>,
}

impl Ends {
    /// The server's last descriptor.
    fn server(&self) -> &TcpStream {
        self.server.last().expect("it is accepted")
    }

    fn fd(&self) -> RawFd {
        self.server().as_raw_fd()
    }

    /// The address of the model's answer.
    fn resolve(&self, address: Address) -> SocketAddr {
        match address {
            Address::Client => self.client,
            Address::Named => NAMED,
            Address::Second => OTHER,
            Address::Balancer => self.balancer.expect("it is accepted"),
            Address::Target => self.target.expect("it is connected again"),
        }
    }

    /// Closes all sockets by resets.
    fn reset(self) {
        let all = self.far.into_iter().chain(self.server);
        all.for_each(|stream| sockets::reset_at_end(&stream));
    }
}

/// The server's host with its sockets. All calls are in a thread of its namespace.
pub struct World<'a> {
    net: &'a Net,
    facts: Facts,
    listeners: Vec<Listener>,
    targets: [Listener; 2],
    ends: [Option<Ends>; SLOTS as usize],
    /// Peers of sockets that the server has closed in this step.
    leaving: Vec<TcpStream>,
    /// Peers of disconnected sockets. Their segments would reach a restored connection, so they are
    /// closed when the script is over.
    left: Vec<TcpStream>,
    sockmap: OwnedFd,
    /// The sockmap runs the program as long as it is loaded.
    _program: OwnedFd,
    unix: (UnixStream, UnixStream),
    share: String,
    before: Stats,
}

impl<'a> World<'a> {
    /// Makes the server's listeners. The module is loaded.
    pub fn new(net: &'a Net) -> Self {
        let pass = [bpf::set_register(0, 1), bpf::EXIT];
        let program = bpf::load(bpf::Kind::SkMsg, &pass).expect("a program");
        let sockmap = bpf::sockmap(SLOTS.into()).expect("a sockmap");
        bpf::attach_to_sockmap(&sockmap, bpf::Kind::SkMsg, &program).expect("it is attached");
        let share = fs::read_to_string(policy_path("max_records")).expect("the share");
        let targets = [Family::V4, Family::V6Only].map(|family| Listener::new(family, TARGET_PORT));
        Self {
            net,
            facts: facts(&targets[0]),
            listeners: listeners(),
            targets,
            ends: [const { None }; SLOTS as usize],
            leaving: Vec::new(),
            left: Vec::new(),
            sockmap,
            _program: program,
            unix: UnixStream::pair().expect("two sockets"),
            share,
            before: Stats::read_here().expect("the module is loaded"),
        }
    }

    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Runs a script from its begin, and restores the state before it. The model skips the steps that
    /// it does not permit.
    pub fn run(&mut self, steps: &[Step]) -> Result<(), Finding> {
        self.before = Stats::read_here().expect("the module is loaded");
        let mut model = Model::new(self.facts);
        for (number, &step) in (1..).zip(steps) {
            if model.permits(step) {
                self.take(&mut model, step).map_err(|reason| Finding {
                    steps: number,
                    reason: format!("{step}: {reason}"),
                })?;
            }
        }
        self.clean(&model).map_err(|reason| Finding {
            steps: steps.len(),
            reason: format!("after the script: {reason}"),
        })
    }

    /// Takes a step, and compares the host's state with the model's.
    fn take(&mut self, model: &mut Model, step: Step) -> Outcome {
        let waiting = match step {
            Step::Accept { family } => model.next_of(family),
            _ => None,
        };
        let reply = model.apply(step);
        self.perform(model, step, reply, waiting)?;
        self.wait_for_states(model)?;
        let accepted: Vec<Slot> = model.accepted().map(|(slot, _)| slot).collect();
        for slot in accepted {
            for question in Question::ALL {
                let expected = model.ask(slot, question);
                let connection = model.get(slot).expect("it is accepted");
                self.ask(slot, connection, question, expected)?;
            }
            let connection = model.get(slot).expect("it is accepted");
            self.check_own_name(slot, connection)?;
        }
        self.wait_for_counters(model)?;
        let leaving = mem::take(&mut self.leaving);
        leaving.iter().for_each(sockets::reset_at_end);
        Ok(())
    }

    fn at(&mut self, slot: Slot) -> &mut Ends {
        let ends = self.ends[slot.index()].as_mut();
        ends.expect("the model has the connection")
    }

    fn get(&self, slot: Slot) -> &Ends {
        let ends = self.ends[slot.index()].as_ref();
        ends.expect("the model has the connection")
    }

    /// Takes a step on the host, and compares its result. The model has taken the step.
    fn perform(
        &mut self,
        model: &Model,
        step: Step,
        reply: Reply,
        waiting: Option<Slot>,
    ) -> Outcome {
        match step {
            Step::Connect {
                slot,
                family,
                way,
                options,
            } => self.connect(slot, family, way, options),
            Step::Accept { family } => {
                let slot = waiting.expect("the model has accepted it");
                let connection = model.get(slot).expect("it is accepted");
                self.accept(family, slot, connection, reply)
            }
            Step::Relisten { family } => {
                self.relisten(family)?;
                for slot in Slot::all().filter(|slot| model.get(*slot).is_none()) {
                    self.leave(slot);
                }
                Ok(())
            }
            Step::Shutdown {
                slot,
                side,
                direction,
            } => {
                self.shut_down(slot, side, direction, reply)?;
                self.wait_for_acknowledgement_of_fin(model, slot)
            }
            Step::Exchange { slot } => {
                self.exchange(slot)?;
                self.wait_for_acknowledgement_of_data(model, slot)
            }
            Step::Close {
                slot,
                side: Side::Server,
                end,
            } => {
                self.close(slot, model.get(slot).is_none(), end);
                Ok(())
            }
            Step::Close {
                slot,
                side: Side::Client,
                end,
            } => {
                let far = self.at(slot).far.take().ok_or("the client is closed")?;
                if end == End::Rst {
                    sockets::reset_at_end(&far);
                }
                drop(far);
                self.wait_for_acknowledgement_of_fin(model, slot)
            }
            Step::Disconnect { slot } => {
                compare(reply, &sys::disconnect(self.get(slot).fd()))?;
                if reply == Reply::Done {
                    let far = self.at(slot).far.take();
                    self.left.extend(far);
                    self.at(slot).target = None;
                }
                Ok(())
            }
            Step::Reconnect { slot } => {
                let connection = model.get(slot).expect("it is connected");
                self.reconnect(slot, connection)
            }
            Step::Restore { slot } => {
                let connection = model.get(slot).expect("it is connected");
                self.restore(slot, connection)
            }
            Step::Duplicate { slot } => {
                let again = self.get(slot).server().try_clone();
                let again = again.map_err(|error| format!("dup: {error}"))?;
                self.at(slot).server.push(again);
                Ok(())
            }
            Step::Pass { slot } => self.pass(slot),
            Step::Ask { slot, asker } => {
                let fd = self.get(slot).fd();
                let found = match asker {
                    Asker::Child => handing::peer_in_child(fd),
                    Asker::Thread => thread::scope(|scope| {
                        let asker = scope.spawn(|| peer(fd));
                        asker.join().expect("it does not panic")
                    }),
                };
                let connection = model.get(slot).expect("it is accepted");
                self.compare_name(slot, connection, reply, found)
            }
            Step::AddrForm { .. }
            | Step::Tls { .. }
            | Step::Sockmap { .. }
            | Step::Repair { .. }
            | Step::Kill { .. } => self.change(step, reply),
            _ => self.administer(step),
        }
    }

    fn connect(&mut self, slot: Slot, family: Family, way: Way, options: Options) -> Outcome {
        let port = virtual_port(family, options);
        let target = SocketAddr::new(way.virtual_server(), port);
        let source = SocketAddr::new(way.client(), 0);
        let client = self.net.client.enter(|| Client::connect(source, target));
        let client = client.map_err(|error| format!("connect to {target}: {error}"))?;
        self.ends[slot.index()] = Some(Ends {
            far: Some(client.stream),
            server: Vec::new(),
            client: client.address,
            balancer: None,
            target: None,
        });
        Ok(())
    }

    fn accept(
        &mut self,
        family: Family,
        slot: Slot,
        connection: &Connection,
        reply: Reply,
    ) -> Outcome {
        let listener = self.listeners[place(family)].socket.as_raw_fd();
        let answer = sys::ask(Call::Accept4, listener, Place::AMPLE)
            .map_err(|error| format!("accept: {error:?}"))?;
        let stream = stream(answer.socket);
        let fd = stream.as_raw_fd();
        self.at(slot).server.push(stream);
        let syn = sys::get_option(fd, libc::IPPROTO_TCP, TCP_SAVED_SYN, Place::AMPLE);
        let syn = syn.map_err(|error| format!("TCP_SAVED_SYN: {error:?}"))?;
        // SYN cookies save no SYN.
        let source = source_of(syn.bytes()).or_else(|| self.source_in_table(slot));
        let source = source.ok_or("the socket is not in /proc/net/tcp")?;
        self.at(slot).balancer = Some(source);
        self.compare_name(slot, connection, reply, Ok(answer.name))
    }

    /// The peer in `/proc/net/tcp`, where sockets stay until their connection ends.
    fn source_in_table(&self, slot: Slot) -> Option<SocketAddr> {
        let inode = fstat(self.get(slot).server()).ok()?.st_ino;
        let rows = proc_tcp::rows(&self.net.server);
        let remote = rows.iter().find(|row| row.inode == inode)?.remote;
        Some(SocketAddr::new(remote.ip().to_canonical(), remote.port()))
    }

    fn relisten(&mut self, family: Family) -> Outcome {
        let place = place(family);
        drop(self.listeners.remove(place));
        let (new, outcome) = match listener(family) {
            Ok(new) => (new, Ok(())),
            Err(error) => {
                // For the scripts after this one.
                self.end_all();
                let new = listener(family).expect("the port is free without connections");
                (new, Err(format!("another listener: {error}")))
            }
        };
        self.listeners.insert(place, new);
        outcome
    }

    /// Removes a connection whose server's end is closed. Its peer is closed when the host has
    /// reached the model's state.
    fn leave(&mut self, slot: Slot) {
        if let Some(ends) = self.ends[slot.index()].take() {
            self.leaving.extend(ends.far);
        }
    }

    fn shut_down(&mut self, slot: Slot, side: Side, direction: Direction, reply: Reply) -> Outcome {
        let how = match direction {
            Direction::Read => Shutdown::Read,
            Direction::Write => Shutdown::Write,
            Direction::Both => Shutdown::Both,
        };
        match side {
            Side::Server => compare(reply, &self.get(slot).server().shutdown(how)),
            Side::Client => {
                // ENOTCONN if the server's reset has arrived.
                let far = self.get(slot).far.as_ref().ok_or("the client is closed")?;
                let _ = far.shutdown(how);
                Ok(())
            }
        }
    }

    /// Waits until the server has acknowledged the client's FIN, if a SYN cookie made the connection.
    /// The server delays that (`tcp_fin` in `net/ipv4/tcp_input.c`), and a socket in TCP_REPAIR can go
    /// before it, without a segment. The client would then send its FIN again, whose acknowledgement
    /// is still a valid cookie: the listener would make a connection of it.
    fn wait_for_acknowledgement_of_fin(&self, model: &Model, slot: Slot) -> Outcome {
        if !model.get(slot).is_some_and(|c| c.is_of_cookie) {
            return Ok(());
        }
        let client = self.get(slot).client;
        settle(|| {
            let rows = proc_tcp::rows(&self.net.client);
            let waiting = rows
                .iter()
                .find(|row| row.local == client && FIN_IS_UNACKNOWLEDGED.contains(&row.state));
            match waiting {
                None => Ok(()),
                Some(row) => Err(format!("the client's FIN is not acknowledged: {row:?}").into()),
            }
        })
    }

    /// Waits until the client has acknowledged the server's data, if a SYN cookie made the connection.
    /// The client delays that. If the server's end is gone by then, the listener gets the segment,
    /// and takes its acknowledgement for a cookie: `check_tcp_syn_cookie` compares it with the sequence
    /// number, and both have grown by one byte.
    fn wait_for_acknowledgement_of_data(&self, model: &Model, slot: Slot) -> Outcome {
        if !model.get(slot).is_some_and(|c| c.is_of_cookie) {
            return Ok(());
        }
        settle(|| match tcp_info(self.get(slot).fd())?.1 {
            0 => Ok(()),
            unacknowledged => Err(format!("{unacknowledged} segments are not acknowledged").into()),
        })
    }

    fn exchange(&mut self, slot: Slot) -> Outcome {
        let ends = self.at(slot);
        let server = ends.server.last().ok_or("no server")?;
        let far = ends.far.as_ref().ok_or("no client")?;
        for (mut from, mut to, byte) in [(far, server, b"?"), (server, far, b"!")] {
            let mut found = [0];
            let sent = from.write_all(byte);
            sent.map_err(|error| format!("send: {error}"))?;
            let received = to.read_exact(&mut found);
            received.map_err(|error| format!("receive: {error}"))?;
            if found != *byte {
                return Err(format!("received {found:?} in place of {byte:?}"));
            }
        }
        Ok(())
    }

    fn close(&mut self, slot: Slot, is_last: bool, end: End) {
        let stream = self.at(slot).server.pop().expect("it is accepted");
        if is_last {
            if end == End::Rst {
                sockets::reset_at_end(&stream);
            }
            drop(stream);
            self.leave(slot);
        }
    }

    fn reconnect(&mut self, slot: Slot, connection: &Connection) -> Outcome {
        let (ip, listener): (IpAddr, _) = match connection.is_ipv4_traffic {
            true => (Ipv4Addr::LOCALHOST.into(), &self.targets[0]),
            false => (Ipv6Addr::LOCALHOST.into(), &self.targets[1]),
        };
        let target = SocketAddr::new(ip, TARGET_PORT);
        let form = form_of(connection).form(target);
        let connected = SockRef::from(self.get(slot).server()).connect(&form.into());
        connected.map_err(|error| format!("connect to {form}: {error}"))?;
        listener.wait();
        // Without room for a name the kernel does not ask for it.
        let answer = sys::ask(Call::Accept4, listener.socket.as_raw_fd(), Place::Null(0))
            .map_err(|error| format!("accept of the other listener: {error:?}"))?;
        let ends = self.at(slot);
        ends.far = Some(stream(answer.socket));
        ends.target = Some(target);
        Ok(())
    }

    fn restore(&self, slot: Slot, connection: &Connection) -> Outcome {
        let ends = self.get(slot);
        let socket = SockRef::from(ends.server());
        let own = form_of(connection).form(own_address(connection));
        let bound = socket.bind(&own.into());
        bound.map_err(|error| format!("bind to {own}: {error}"))?;
        let target = form_of(connection).form(ends.resolve(Address::Balancer));
        let connected = socket.connect(&target.into());
        connected.map_err(|error| format!("connect to {target}: {error}"))
    }

    fn pass(&mut self, slot: Slot) -> Outcome {
        let stream = self.at(slot).server.pop().ok_or("no server")?;
        handing::send(&self.unix.0, stream.as_raw_fd())
            .map_err(|error| format!("sendmsg: {error:?}"))?;
        drop(stream);
        let received = handing::receive(&self.unix.1);
        let received = received.map_err(|error| format!("recvmsg: {error:?}"))?;
        self.at(slot).server.push(TcpStream::from(received));
        Ok(())
    }

    /// Changes the kind or the state of a socket.
    fn change(&self, step: Step, reply: Reply) -> Outcome {
        match step {
            Step::AddrForm { slot } => {
                let (fd, to) = (self.get(slot).fd(), libc::AF_INET);
                let changed = sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM, to);
                compare(reply, &changed)
            }
            Step::Tls { slot } => compare(reply, &set_tls(self.get(slot).fd())),
            Step::Sockmap { slot } => {
                let fd = self.get(slot).fd();
                let added = bpf::add_to_sockmap(&self.sockmap, slot.0.into(), fd);
                compare(reply, &added)
            }
            Step::Repair { slot, on } => {
                let value = if on {
                    TCP_REPAIR_ON
                } else {
                    TCP_REPAIR_OFF_NO_WP
                };
                let fd = self.get(slot).fd();
                let set = sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, value);
                compare(reply, &set)
            }
            Step::Kill { slot } => self.kill(slot),
            _ => Err("no change of a socket".to_owned()),
        }
    }

    /// Aborts a connection by `ss -K` (SOCK_DESTROY of `linux/sock_diag.h`).
    fn kill(&self, slot: Slot) -> Outcome {
        let ends = self.get(slot);
        let local = sockets::name(Call::GetSockName, ends.server());
        let local = local.address().ok_or("the socket has no address")?;
        let peer = ends.target.or(ends.balancer).ok_or("no peer")?;
        let status = Command::new("ss")
            .args(["-K", "-t", "-n", "state", "connected"])
            .args(["sport", "=", &format!(":{}", local.port())])
            .args(["and", "dst", &peer.to_string()])
            .output()
            .map_err(|error| format!("ss: {error}"))?;
        match status.status.success() {
            true => Ok(()),
            false => Err(format!("ss -K: {status:?}")),
        }
    }

    /// Changes the policy, or loads or unloads the module.
    fn administer(&mut self, step: Step) -> Outcome {
        let policy = |file: &str, value: &str| {
            write_policy_here(file, format!("{value}\n"))
                .map_err(|error| format!("net.toa.{file}={value}: {error:?}"))
        };
        match step {
            Step::Enabled { on } => policy("enabled", on.word()),
            Step::Nat46 { on } => policy("nat46", on.word()),
            Step::Trust { hosts } => match hosts {
                Trusted::All => policy("trusted", ""),
                Trusted::Balancer => policy("trusted", &LOCAL.join(",")),
                Trusted::Others => policy("trusted", OTHERS),
            },
            Step::PickLast { on } => policy("pick", if on { "last" } else { "first" }),
            Step::OtherKind { on } => {
                let kind = if on { OTHER_KIND } else { TOA_KIND };
                policy("kinds", &kind.to_string())
            }
            Step::MaxRecords { share } => match share {
                Share::Default => policy("max_records", self.share.trim()),
                _ => policy("max_records", share.word()),
            },
            Step::Cookies { on } => {
                let value = if on { "2" } else { "1" };
                fs::write(SYN_COOKIES, value).map_err(|error| format!("{SYN_COOKIES}: {error}"))
            }
            Step::Load {} => {
                module::insert("").map_err(|error| format!("insmod: {error:?}"))?;
                self.before = Stats::zero();
                Ok(())
            }
            Step::Unload {} => module::remove().map_err(|error| format!("rmmod: {error:?}")),
            _ => Err("no step of an administrator".to_owned()),
        }
    }

    /// Asks for an address, and compares the answer.
    fn ask(
        &self,
        slot: Slot,
        connection: &Connection,
        question: Question,
        expected: Answer,
    ) -> Outcome {
        let fd = self.get(slot).fd();
        let reply = Reply::Answer(expected);
        match question {
            Question::GetPeerName => self.compare_name(slot, connection, reply, peer(fd)),
            Question::SoPeerName => {
                let room = if connection.is_inet6 { 28 } else { 16 };
                self.compare_name(slot, connection, reply, sys::so_peername(fd, room))
            }
            Question::Client | Question::Balancer => {
                // AF_INET6 sockets have both levels.
                let levels = getsockopt::levels(form_of(connection));
                let (option, level) = match question {
                    Question::Balancer => (getsockopt::BALANCER, levels[levels.len() - 1]),
                    _ => (getsockopt::CLIENT, levels[0]),
                };
                let room = Place::Room(getsockopt::LENGTH);
                let found = sys::get_option(fd, level, option, room);
                let ends = self.get(slot);
                let expected = expected.map(|a| getsockopt::answer(ends.resolve(a)));
                same(&format!("{slot:?}: option {option}"), expected, found)
            }
        }
    }

    fn compare_name(
        &self,
        slot: Slot,
        connection: &Connection,
        reply: Reply,
        found: Result<Name, Errno>,
    ) -> Outcome {
        let Reply::Answer(expected) = reply else {
            return Err("the model has no answer".to_owned());
        };
        let ends = self.get(slot);
        let name = |address| form_of(connection).name(ends.resolve(address));
        same(&format!("{slot:?}: peer"), expected.map(name), found)
    }

    /// Checks getsockname of a connection through the balancer.
    fn check_own_name(&self, slot: Slot, connection: &Connection) -> Outcome {
        let ends = self.get(slot);
        if !connection.has_peer() || ends.target.is_some() {
            return Ok(());
        }
        let own = own_address(connection);
        let found = sys::ask(Call::GetSockName, ends.fd(), Place::AMPLE);
        let expected = Ok(form_of(connection).name(own));
        same(
            &format!("{slot:?}: getsockname"),
            expected,
            found.map(|a| a.name),
        )
    }

    /// Waits until the TCP states are the model's: segments are on their way.
    fn wait_for_states(&self, model: &Model) -> Outcome {
        settle(|| {
            for (slot, connection) in model.accepted() {
                let found = tcp_info(self.get(slot).fd())?.0;
                if found != connection.tcp as u8 {
                    let expected = connection.tcp;
                    return Err(format!("{slot:?}: TCP state {found}, not {expected:?}").into());
                }
                let far = self.get(slot).far.as_ref();
                if let Some(far) = far.filter(|_| connection.is_over_for_peer()) {
                    let found = tcp_info(far.as_raw_fd())?.0;
                    if found != Tcp::Close as u8 {
                        return Err(format!("{slot:?}: TCP state {found} of the peer").into());
                    }
                }
            }
            for listener in &self.listeners {
                let found = tcp_info(listener.socket.as_raw_fd())?.1;
                let expected = model.waiting(listener.family);
                if found as usize != expected {
                    let family = listener.family;
                    let reason = format!("{found} of {expected} wait for accept of {family:?}");
                    return Err(reason.into());
                }
            }
            Ok(())
        })
    }

    /// Waits until the counters are the model's: sockets die after their last segment.
    fn wait_for_counters(&self, model: &Model) -> Outcome {
        settle(|| match (model.counters(), Stats::read_here()) {
            (None, None) => Ok(()),
            (Some(expected), Some(found)) => {
                let found = found.since(&self.before);
                if found == expected.rows() {
                    return Ok(());
                }
                let is_late = found.iter().all(|&(row, number)| {
                    // A gauge, and counters that never decrease.
                    row == "records_live" || number <= expected.get(row)
                });
                let expected = expected.rows();
                Err(Unsettled {
                    is_final: !is_late,
                    reason: format!("counters {found:?}\n  expected {expected:?}"),
                })
            }
            (_, found) => {
                let is_loaded = found.is_some();
                Err(format!("the module is loaded: {is_loaded}").into())
            }
        })
    }

    /// Ends all connections, and restores the module's state at the begin of scripts. No record may
    /// be left.
    fn clean(&mut self, model: &Model) -> Outcome {
        self.end_all();
        for &(family, _) in Family::WORDS {
            if model.waiting(family) > 0 {
                self.relisten(family)?;
            }
        }
        self.administer(Step::Cookies { on: false })?;
        if model.counters().is_none() {
            return self.administer(Step::Load {});
        }
        self.reset_policy()?;
        settle(|| {
            let stats = Stats::read_here().ok_or("the module is not loaded".to_owned())?;
            let made_less_removed = stats.get("ip6_address_alloc") - stats.get("ip6_address_free");
            match (stats.get("records_live"), made_less_removed) {
                (0, 0) => Ok(()),
                (live, ipv6) => {
                    Err(format!("{live} records are left, {ipv6} of IPv6 clients").into())
                }
            }
        })
    }

    fn end_all(&mut self) {
        self.leaving.clear();
        self.left.iter().for_each(sockets::reset_at_end);
        self.left.clear();
        self.ends
            .iter_mut()
            .filter_map(Option::take)
            .for_each(Ends::reset);
    }

    fn reset_policy(&mut self) -> Outcome {
        self.administer(Step::Enabled { on: true })?;
        self.administer(Step::Nat46 { on: false })?;
        self.administer(Step::PickLast { on: false })?;
        self.administer(Step::OtherKind { on: false })?;
        self.administer(Step::Trust {
            hosts: Trusted::All,
        })?;
        let share = Share::Default;
        self.administer(Step::MaxRecords { share })
    }

    /// Restores the state at the begin of scripts after a finding. Reloads the module if it has a
    /// record that nothing removes.
    pub fn recover(&mut self) {
        self.end_all();
        self.listeners.clear();
        self.listeners = listeners();
        if self.clean(&Model::new(self.facts)).is_err() {
            let _ = module::remove();
            module::load();
        }
    }
}

/// Finds the kernel's properties, by a connection of the host to itself.
fn facts(target: &Listener) -> Facts {
    let tls = Command::new("modprobe").arg("tls").status();
    let tls = tls.expect("modprobe runs").success();
    let mut tls_stays_connected = false;
    if tls {
        let socket = sockets::socket(Family::V4);
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), TARGET_PORT);
        socket.connect(&address.into()).expect("it connects");
        set_tls(socket.as_raw_fd()).expect("TCP_ULP");
        tls_stays_connected = sys::disconnect(socket.as_raw_fd()).is_err();
        target.accept();
    }
    Facts {
        tls,
        tls_stays_connected,
    }
}

fn set_tls(fd: RawFd) -> std::io::Result<()> {
    sys::set_option_bytes(fd, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

fn listener(family: Family) -> io::Result<Listener> {
    let listener = Listener::try_from(sockets::socket(family), family, server_port(family))?;
    let fd = listener.socket.as_raw_fd();
    sys::set_option(fd, libc::IPPROTO_TCP, TCP_SAVE_SYN, 1)?;
    Ok(listener)
}

fn listeners() -> Vec<Listener> {
    let families = Family::WORDS.iter();
    families
        .map(|(family, _)| listener(*family).expect("a listener"))
        .collect()
}

/// A new socket of accept, whose calls never block for long.
fn stream(socket: Option<OwnedFd>) -> TcpStream {
    let socket = Socket::from(socket.expect("accept returns a socket"));
    socket.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
    socket.set_write_timeout(Some(BOUND)).expect("SO_SNDTIMEO");
    TcpStream::from(socket)
}

/// The source in the headers of a SYN (TCP_SAVED_SYN).
fn source_of(headers: &[u8]) -> Option<SocketAddr> {
    let first = *headers.first()?;
    let (ip, tcp): (IpAddr, usize) = match first >> 4 {
        4 => {
            let source: [u8; 4] = headers.get(12..16)?.try_into().ok()?;
            (source.into(), 4 * usize::from(first & 15))
        }
        _ => {
            let source: [u8; 16] = headers.get(8..24)?.try_into().ok()?;
            (source.into(), 40)
        }
    };
    let port = headers.get(tcp..tcp + 2)?.try_into().ok()?;
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// The family whose names have the socket's form.
fn form_of(connection: &Connection) -> Family {
    match connection.is_inet6 {
        true => Family::DualStack,
        false => Family::V4,
    }
}

fn peer(fd: RawFd) -> Result<Name, Errno> {
    sys::ask(Call::GetPeerName, fd, Place::AMPLE).map(|answer| answer.name)
}

/// The state, and the length of a listener's queue, or the number of a connection's segments that are
/// not acknowledged.
fn tcp_info(fd: RawFd) -> Result<(u8, u32), String> {
    let room = Place::Room(TCP_INFO_ROOM);
    let info = sys::get_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, room);
    let info = info.map_err(|error| format!("TCP_INFO: {error:?}"))?;
    let unacked = info.bytes().get(UNACKED..).and_then(<[u8]>::first_chunk);
    let unacked = unacked.ok_or("TCP_INFO is too short")?;
    Ok((info.bytes()[0], u32::from_ne_bytes(*unacked)))
}

/// A difference that may end by itself.
struct Unsettled {
    is_final: bool,
    reason: String,
}

impl From<String> for Unsettled {
    fn from(reason: String) -> Self {
        let is_final = false;
        Self { is_final, reason }
    }
}

/// Looks at the host's state until it is good.
fn settle(mut state: impl FnMut() -> Result<(), Unsettled>) -> Outcome {
    let end = Instant::now() + SETTLED;
    loop {
        match state() {
            Ok(()) => return Ok(()),
            Err(found) if found.is_final || Instant::now() > end => return Err(found.reason),
            Err(_) => thread::park_timeout(PAUSE),
        }
    }
}

/// Compares the success of a call with the model's.
fn compare<T: Debug, E: Debug>(reply: Reply, found: &Result<T, E>) -> Outcome {
    match (reply, found) {
        (Reply::Done, Ok(_)) | (Reply::Refused, Err(_)) => Ok(()),
        _ => Err(format!("{found:?}, expected {reply:?}")),
    }
}

/// Compares an answer with the model's.
fn same(what: &str, expected: Result<Name, Errno>, found: Result<Name, Errno>) -> Outcome {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}\n  expected {expected:?}")),
    }
}
