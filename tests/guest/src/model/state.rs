// SPDX-License-Identifier: GPL-2.0

//! The model: the state of the server's sockets and of the module, as far as answers and counters
//! depend on it. Pure: the host tests run it without a kernel.

use nix::errno::Errno;

use super::step::Direction;
use super::step::End;
use super::step::Options;
use super::step::Share;
use super::step::Side;
use super::step::Slot;
use super::step::Step;
use super::step::Trusted;
use super::step::SLOTS;
use crate::net::Way;
use crate::sockets::Family;
use crate::stats::ROWS;

/// The kernel's properties on which answers depend.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The kernel has TLS.
    pub tls: bool,
    /// The kernel refuses to disconnect a socket with TLS (`tls_disconnect`).
    pub tls_stays_connected: bool,
}

/// The states of the server's end between two steps (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcp {
    Established = 1,
    FinWait2 = 5,
    Close = 7,
    CloseWait = 8,
}

/// An address that an answer shows. The executor has the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The client's own.
    Client,
    /// The IPv4 client of the first option, or of the only one.
    Named,
    /// The IPv4 client of the second option.
    Second,
    /// The balancer's, from which the server receives the connection.
    Balancer,
    /// The listener to which the socket has connected again.
    Target,
}

/// A way to ask for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    GetPeerName,
    /// `getsockopt(SO_PEERNAME)`.
    SoPeerName,
    /// toa's option 4096.
    Client,
    /// toa's option 4097.
    Balancer,
}

impl Question {
    pub const ALL: [Self; 4] = [
        Self::GetPeerName,
        Self::SoPeerName,
        Self::Client,
        Self::Balancer,
    ];
}

/// The answer to a question.
pub type Answer = Result<Address, Errno>;

/// The direct result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Refused,
    /// The answer of a step that asks.
    Answer(Answer),
}

/// The peer's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Far {
    /// The process has the socket.
    is_open: bool,
    reads: bool,
    writes: bool,
}

impl Far {
    const OPEN: Self = Self {
        is_open: true,
        reads: true,
        writes: true,
    };
    const CLOSED: Self = Self {
        is_open: false,
        reads: false,
        writes: false,
    };
}

/// A connection of the server, in a listener's queue or accepted.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub family: Family,
    pub way: Way,
    pub is_accepted: bool,
    pub tcp: Tcp,
    /// The socket's family is AF_INET6.
    pub is_inet6: bool,
    /// The last connection's segments are IPv4.
    pub is_ipv4_traffic: bool,
    /// The kernel's own peer: none after a disconnect.
    peer: Option<Address>,
    /// The client in the module's record.
    record: Option<Address>,
    far: Far,
    reads: bool,
    writes: bool,
    descriptors: u8,
    has_tls: bool,
    is_in_sockmap: bool,
    /// The socket was in the sockmap at some time. The kernel keeps its `sk_psock` after a disconnect,
    /// and refuses to add the socket again (EBUSY), also without toa.
    was_in_sockmap: bool,
    is_repaired: bool,
    /// TCP_REPAIR was set at some time: the socket does not share its port any more.
    was_repaired: bool,
    /// TCP_REPAIR made the connection: its peer has none.
    is_restored: bool,
    /// The socket is bound to its address, also after a disconnect.
    is_bound: bool,
    /// The handshake used a SYN cookie, so the kernel has no SYN to show the balancer by.
    pub is_of_cookie: bool,
    /// The kernel keeps the connection through the balancer in TIME_WAIT.
    is_in_time_wait: bool,
}

impl Connection {
    fn new(family: Family, way: Way) -> Self {
        Self {
            family,
            way,
            is_accepted: false,
            tcp: Tcp::Established,
            is_inet6: family != Family::V4,
            is_ipv4_traffic: way != Way::V6,
            peer: Some(Address::Balancer),
            record: None,
            far: Far::OPEN,
            reads: true,
            writes: true,
            descriptors: 1,
            has_tls: false,
            is_in_sockmap: false,
            was_in_sockmap: false,
            is_repaired: false,
            was_repaired: false,
            is_restored: false,
            is_bound: false,
            is_of_cookie: false,
            is_in_time_wait: false,
        }
    }

    /// Whether the peer's process has a socket whose connection is over.
    pub fn is_over_for_peer(&self) -> bool {
        self.tcp == Tcp::Close && self.far.is_open
    }

    /// Whether the kernel has a peer for the socket.
    pub fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether both ends can send and receive.
    fn is_whole(&self) -> bool {
        self.tcp == Tcp::Established && self.reads && self.writes && self.far == Far::OPEN
    }

    fn is_plain(&self) -> bool {
        !self.has_tls && !self.is_in_sockmap && !self.is_repaired
    }

    /// Ends the connection, and keeps the socket with its addresses.
    fn end(&mut self) {
        self.tcp = Tcp::Close;
        // `sock_map_unhash`
        self.is_in_sockmap = false;
    }

    /// Moves to the state after a FIN of one end, and its acknowledgement.
    fn after_fin_of(&mut self, side: Side) {
        match (self.tcp, side) {
            (Tcp::Established, Side::Server) => self.tcp = Tcp::FinWait2,
            (Tcp::Established, Side::Client) => self.tcp = Tcp::CloseWait,
            (Tcp::CloseWait, Side::Server) => self.end(),
            (Tcp::FinWait2, Side::Client) => {
                self.is_in_time_wait |= self.peer == Some(Address::Balancer);
                self.end();
            }
            _ => {}
        }
    }
}

/// The values of `net.toa.*` in the server's namespace.
#[derive(Clone, Copy, Debug)]
struct Policy {
    enabled: bool,
    trusted: Trusted,
    nat46: bool,
    picks_last: bool,
    other_kind: bool,
    share: Share,
}

impl Policy {
    const DEFAULT: Self = Self {
        enabled: true,
        trusted: Trusted::All,
        nat46: false,
        picks_last: false,
        other_kind: false,
        share: Share::Default,
    };
}

/// The counters of `toa_stats` in the server's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters([i64; ROWS.len()]);

impl Counters {
    fn add(&mut self, row: &str, number: i64) {
        let place = ROWS.iter().position(|other| *other == row);
        self.0[place.expect("a row")] += number;
    }

    /// The rows that are not 0, as [`crate::stats::Stats::since`] returns them.
    pub fn rows(&self) -> Vec<(&'static str, i64)> {
        let rows = ROWS.into_iter().zip(self.0);
        rows.filter(|(_, number)| *number != 0).collect()
    }

    pub fn get(&self, row: &str) -> i64 {
        let mut rows = ROWS.iter().zip(self.0);
        rows.find(|(other, _)| **other == row).expect("a row").1
    }
}

/// The state of the server's host.
#[derive(Clone, Debug)]
pub struct Model {
    facts: Facts,
    is_loaded: bool,
    policy: Policy,
    /// All handshakes use SYN cookies.
    has_cookies: bool,
    connections: [Option<Connection>; SLOTS as usize],
    /// The connections in the listeners' queues, oldest first.
    queue: Vec<Slot>,
    counters: Counters,
}

impl Model {
    /// The state at the begin of each script: the module is loaded, with the default policy.
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            is_loaded: true,
            policy: Policy::DEFAULT,
            has_cookies: false,
            connections: [None; SLOTS as usize],
            queue: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The counters since the last load, or since the script's begin.
    pub fn counters(&self) -> Option<&Counters> {
        self.is_loaded.then_some(&self.counters)
    }

    pub fn get(&self, slot: Slot) -> Option<&Connection> {
        self.connections[slot.index()].as_ref()
    }

    /// The accepted connections.
    pub fn accepted(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        Slot::all().filter_map(|slot| {
            let connection = self.get(slot)?;
            connection.is_accepted.then_some((slot, connection))
        })
    }

    /// The length of a listener's queue.
    pub fn waiting(&self, family: Family) -> usize {
        self.queue_of(family).count()
    }

    /// The connection that the listener accepts next.
    pub fn next_of(&self, family: Family) -> Option<Slot> {
        self.queue_of(family).next()
    }

    fn queue_of(&self, family: Family) -> impl Iterator<Item = Slot> + '_ {
        let of_family = move |slot: &Slot| self.get(*slot).is_some_and(|c| c.family == family);
        self.queue.iter().copied().filter(of_family)
    }

    /// Whether the step means something in this state. Scripts skip other steps, so that a script
    /// stays valid if the shrinking removes lines.
    pub fn permits(&self, step: Step) -> bool {
        let accepted = |slot| self.get(slot).filter(|connection| connection.is_accepted);
        let is = |slot, test: fn(&Connection) -> bool| accepted(slot).is_some_and(test);
        match step {
            Step::Connect { slot, .. } => self.get(slot).is_none(),
            Step::Accept { family } => self.next_of(family).is_some(),
            Step::Relisten { family } => {
                let mut all = self.connections.iter().flatten();
                !all.any(|c| c.family == family && c.was_repaired)
            }
            Step::Shutdown { slot, side, .. } => match side {
                Side::Server => is(slot, |c| !c.is_repaired),
                Side::Client => self.get(slot).is_some_and(|c| c.far.is_open),
            },
            Step::Exchange { slot } => is(slot, |c| c.is_whole() && !c.is_repaired),
            Step::Close { slot, side, end } => match side {
                Side::Server => is(slot, |_| true),
                Side::Client => self.get(slot).is_some_and(|c| {
                    let stays_in_table = c.is_accepted || !c.is_of_cookie || end == End::Fin;
                    c.far.is_open && stays_in_table
                }),
            },
            Step::Disconnect { slot } | Step::Pass { slot } | Step::Ask { slot, .. } => {
                is(slot, |_| true)
            }
            Step::Reconnect { slot } => is(slot, |c| !c.has_peer() && !c.is_repaired && !c.has_tls),
            Step::Restore { slot } => is(slot, |c| {
                let is_free = !c.is_bound && !c.is_in_time_wait;
                !c.has_peer() && c.is_repaired && !c.has_tls && is_free
            }),
            Step::Duplicate { slot } => is(slot, |c| c.descriptors < 3),
            Step::AddrForm { slot } => is(slot, |c| c.is_in_sockmap == c.was_in_sockmap),
            Step::Tls { slot } => {
                self.facts.tls && is(slot, |c| !c.was_in_sockmap && !c.is_repaired)
            }
            Step::Sockmap { slot } => {
                is(slot, |c| c.is_whole() && c.is_plain() && !c.was_in_sockmap)
            }
            Step::Repair { slot, on } => match on {
                true => is(slot, Connection::is_plain),
                false => is(slot, |c| c.is_repaired && !c.is_restored),
            },
            Step::Kill { slot } => is(slot, |c| c.tcp != Tcp::Close),
            Step::Enabled { .. }
            | Step::Trust { .. }
            | Step::Nat46 { .. }
            | Step::PickLast { .. }
            | Step::OtherKind { .. }
            | Step::MaxRecords { .. }
            | Step::Unload {} => self.is_loaded,
            Step::Load {} => !self.is_loaded,
            Step::Cookies { .. } => true,
        }
    }

    /// Takes a step that the state permits, and returns its direct result.
    pub fn apply(&mut self, step: Step) -> Reply {
        match step {
            Step::Connect {
                slot,
                family,
                way,
                options,
            } => self.connect(slot, Connection::new(family, way), options),
            Step::Accept { family } => return self.accept(family),
            Step::Relisten { family } => {
                let closed: Vec<Slot> = self.queue_of(family).collect();
                self.queue.retain(|slot| !closed.contains(slot));
                closed.into_iter().for_each(|slot| self.remove(slot));
            }
            Step::Shutdown {
                slot,
                side,
                direction,
            } => return self.shut_down(slot, side, direction),
            Step::Exchange { .. } | Step::Pass { .. } => {}
            Step::Cookies { on } => self.has_cookies = on,
            Step::Close {
                slot,
                side: Side::Server,
                ..
            } => {
                let connection = self.at(slot);
                connection.descriptors -= 1;
                if connection.descriptors == 0 {
                    self.remove(slot);
                }
            }
            Step::Close {
                slot,
                side: Side::Client,
                end,
            } => {
                let connection = self.at(slot);
                match end {
                    End::Fin if connection.far.writes => connection.after_fin_of(Side::Client),
                    End::Fin => {}
                    End::Rst => connection.end(),
                }
                connection.far = Far::CLOSED;
            }
            Step::Disconnect { slot } => return self.disconnect(slot),
            Step::Reconnect { slot } => self.reconnect(slot),
            Step::Restore { slot } => {
                let connection = self.at(slot);
                connection.tcp = Tcp::Established;
                connection.peer = Some(Address::Balancer);
                connection.is_restored = true;
                connection.is_bound = true;
            }
            Step::Duplicate { slot } => self.at(slot).descriptors += 1,
            Step::Ask { slot, .. } => {
                return Reply::Answer(self.ask(slot, Question::GetPeerName));
            }
            Step::AddrForm { slot } => {
                let connection = self.at(slot);
                // `do_ipv6_setsockopt`: EBUSY, ENOTCONN and EADDRNOTAVAIL.
                let is_possible = connection.is_inet6
                    && !connection.has_tls
                    && !connection.is_in_sockmap
                    && connection.tcp == Tcp::Established
                    && connection.is_ipv4_traffic;
                if !is_possible {
                    return Reply::Refused;
                }
                connection.is_inet6 = false;
            }
            Step::Tls { slot } => {
                let connection = self.at(slot);
                // `tls_init`: ENOTCONN. `__tcp_set_ulp`: EEXIST.
                if connection.has_tls || connection.tcp != Tcp::Established {
                    return Reply::Refused;
                }
                connection.has_tls = true;
            }
            Step::Sockmap { slot } => {
                let connection = self.at(slot);
                connection.is_in_sockmap = true;
                connection.was_in_sockmap = true;
            }
            Step::Repair { slot, on } => {
                let connection = self.at(slot);
                connection.is_repaired = on;
                connection.was_repaired = true;
            }
            Step::Kill { slot } => self.at(slot).end(),
            Step::Enabled { on } => self.policy.enabled = on,
            Step::Trust { hosts } => self.policy.trusted = hosts,
            Step::Nat46 { on } => self.policy.nat46 = on,
            Step::PickLast { on } => self.policy.picks_last = on,
            Step::OtherKind { on } => self.policy.other_kind = on,
            Step::MaxRecords { share } => self.policy.share = share,
            Step::Load {} => {
                self.is_loaded = true;
                self.policy = Policy::DEFAULT;
                self.counters = Counters::default();
            }
            Step::Unload {} => {
                self.is_loaded = false;
                let connections = self.connections.iter_mut().flatten();
                connections.for_each(|connection| connection.record = None);
            }
        }
        Reply::Done
    }

    /// Asks for an address of an accepted connection.
    pub fn ask(&mut self, slot: Slot, question: Question) -> Answer {
        let connection = *self.at(slot);
        match question {
            Question::GetPeerName => self.name(&connection, true),
            Question::SoPeerName => self.name(&connection, false),
            Question::Client | Question::Balancer => self.option(&connection, question),
        }
    }

    /// Answers by `inet_getname` or `inet6_getname`, or by the module in their place.
    fn name(&mut self, connection: &Connection, strict: bool) -> Answer {
        let is_over = strict && connection.tcp == Tcp::Close;
        let kernels = connection.peer.filter(|_| !is_over).ok_or(Errno::ENOTCONN);
        let Some(client) = connection.record else {
            self.count("getname_toa_empty");
            return kernels;
        };
        if !connection.is_inet6 && is_ipv6(connection, client) {
            self.count("getname_toa_bypass");
            return kernels;
        }
        kernels.map(|_| {
            self.count("getname_toa_ok");
            client
        })
    }

    /// Answers by toa's getsockopt.
    fn option(&mut self, connection: &Connection, question: Question) -> Answer {
        if !self.is_loaded {
            return Err(Errno::ENOPROTOOPT);
        }
        if !connection.has_peer() || connection.tcp == Tcp::Close {
            return Err(Errno::ENOTCONN);
        }
        let Some(client) = connection.record else {
            self.count("getname_toa_empty");
            return Err(Errno::EINVAL);
        };
        self.count("getname_toa_ok");
        Ok(match question {
            Question::Balancer => Address::Balancer,
            _ => client,
        })
    }

    fn connect(&mut self, slot: Slot, mut connection: Connection, options: Options) {
        if options == Options::Two && self.policy.enabled && !self.policy.other_kind {
            self.count("duplicate");
        }
        let made = self.claim(&connection, options);
        self.count_outcome(made.err().unwrap_or("option_taken"));
        if let Some(client) = made.ok().filter(|_| self.is_loaded) {
            connection.record = Some(client);
            self.count("records_live");
            if is_ipv6(&connection, client) {
                self.count("ip6_address_alloc");
            }
        }
        connection.is_of_cookie = self.has_cookies;
        self.connections[slot.index()] = Some(connection);
        self.queue.push(slot);
    }

    /// Returns the client that the module records for a new connection, or the row of outcomes with
    /// the reason why there is none.
    fn claim(&self, connection: &Connection, options: Options) -> Result<Address, &'static str> {
        let policy = &self.policy;
        if !policy.enabled {
            return Err("disabled");
        }
        let client = match (options, policy.other_kind) {
            (Options::None, _) | (Options::Malformed, true) => return Err("no_option"),
            (Options::Malformed, false) => return Err("malformed"),
            (Options::OtherKind, true) | (Options::Ipv4, false) => Some(Address::Named),
            (Options::Two, false) if policy.picks_last => Some(Address::Second),
            (Options::Two, false) => Some(Address::Named),
            (Options::Good, false) => Some(Address::Client),
            (Options::Impossible, false) => None,
            (Options::OtherKind, false) | (_, true) => return Err("kind_not_configured"),
        };
        if policy.trusted == Trusted::Others {
            return Err("untrusted");
        }
        let client = client.ok_or("impossible_client")?;
        let is_foreign = !connection.is_ipv4_traffic && !is_ipv6(connection, client);
        if is_foreign && !policy.nat46 {
            return Err("foreign_length");
        }
        let share = match policy.share {
            Share::None => 0,
            Share::One => 1,
            Share::Two => 2,
            Share::Default => i64::MAX,
        };
        match self.live() < share {
            true => Ok(client),
            false => Err("record_table_full"),
        }
    }

    /// The records that the module has.
    fn live(&self) -> i64 {
        let connections = self.connections.iter().flatten();
        connections.filter(|c| c.record.is_some()).count() as i64
    }

    fn accept(&mut self, family: Family) -> Reply {
        let slot = self.next_of(family).expect("a connection");
        self.queue.retain(|other| *other != slot);
        self.at(slot).is_accepted = true;
        let connection = *self.at(slot);
        Reply::Answer(self.name(&connection, false))
    }

    fn shut_down(&mut self, slot: Slot, side: Side, direction: Direction) -> Reply {
        let connection = self.at(slot);
        let (reads, writes) = match direction {
            Direction::Read => (false, true),
            Direction::Write => (true, false),
            Direction::Both => (false, false),
        };
        if side == Side::Client {
            if !writes && connection.far.writes {
                connection.after_fin_of(Side::Client);
            }
            connection.far.reads &= reads;
            connection.far.writes &= writes;
            return Reply::Done;
        }
        connection.reads &= reads;
        connection.writes &= writes;
        // `inet_shutdown`: ENOTCONN.
        if connection.tcp == Tcp::Close {
            return Reply::Refused;
        }
        if !writes {
            connection.after_fin_of(Side::Server);
        }
        Reply::Done
    }

    fn disconnect(&mut self, slot: Slot) -> Reply {
        let stays_connected = self.facts.tls_stays_connected;
        let connection = self.at(slot);
        if connection.has_tls && stays_connected {
            return Reply::Refused;
        }
        connection.end();
        connection.peer = None;
        connection.is_restored = false;
        connection.far = Far::CLOSED;
        connection.reads = true;
        connection.writes = true;
        self.forget(slot);
        Reply::Done
    }

    fn reconnect(&mut self, slot: Slot) {
        let connection = self.at(slot);
        connection.tcp = Tcp::Established;
        connection.peer = Some(Address::Target);
        connection.far = Far::OPEN;
        // The other listener's child.
        self.count_outcome(match self.policy.enabled {
            true => "no_option",
            false => "disabled",
        });
    }

    /// Removes a connection whose server's end is closed.
    fn remove(&mut self, slot: Slot) {
        self.forget(slot);
        self.connections[slot.index()] = None;
    }

    /// Removes the record.
    fn forget(&mut self, slot: Slot) {
        let connection = *self.at(slot);
        self.at(slot).record = None;
        if let Some(client) = connection.record {
            self.counters.add("records_live", -1);
            if is_ipv6(&connection, client) {
                self.count("ip6_address_free");
            }
        }
    }

    fn at(&mut self, slot: Slot) -> &mut Connection {
        let connection = self.connections[slot.index()].as_mut();
        connection.expect("the step is permitted")
    }

    fn count(&mut self, row: &str) {
        if self.is_loaded {
            self.counters.add(row, 1);
        }
    }

    fn count_outcome(&mut self, outcome: &str) {
        self.count(match outcome {
            "option_taken" | "record_table_full" => "syn_recv_sock_toa",
            _ => "syn_recv_sock_no_toa",
        });
        self.count(outcome);
    }
}

/// Whether an address is IPv6.
fn is_ipv6(connection: &Connection, address: Address) -> bool {
    match address {
        Address::Client => connection.way.client().is_ipv6(),
        Address::Named | Address::Second => false,
        Address::Balancer | Address::Target => !connection.is_ipv4_traffic,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::step;
    use super::*;
    use crate::stats::OUTCOMES;

    /// Checks what holds in each state of the model.
    fn check(model: &Model, children: i64) {
        let all = || model.connections.iter().flatten();
        let live = || all().filter(|c| c.record.is_some());
        let waiting = all().filter(|c| !c.is_accepted).count();
        assert_eq!(waiting, model.queue.len());
        for connection in all() {
            assert!(connection.has_peer() || connection.tcp == Tcp::Close);
            assert!(connection.has_peer() || connection.record.is_none());
            assert_ne!(
                (connection.peer, connection.record.is_some()),
                (Some(Address::Target), true)
            );
        }
        let Some(counters) = model.counters() else {
            assert_eq!(live().count(), 0);
            return;
        };
        let get = |row| counters.get(row);
        assert_eq!(get("records_live"), live().count() as i64);
        let ipv6 = live().filter(|c| c.record.is_some_and(|r| is_ipv6(c, r)));
        let made_less_removed = get("ip6_address_alloc") - get("ip6_address_free");
        assert_eq!(made_less_removed, ipv6.count() as i64);
        let outcomes: i64 = OUTCOMES.iter().map(|row| get(row)).sum();
        assert_eq!(outcomes, children);
        let of_dpvs = get("syn_recv_sock_toa") + get("syn_recv_sock_no_toa");
        assert_eq!(of_dpvs, children);
    }

    proptest! {
        #[test]
        fn counters_add_up_in_each_state(
            steps in vec(step::any(), 0..300),
            tls_stays_connected in proptest::bool::ANY,
        ) {
            let mut model = Model::new(Facts { tls: true, tls_stays_connected });
            let mut children = 0;
            for step in steps {
                if !model.permits(step) {
                    continue;
                }
                model.apply(step);
                children += match step {
                    Step::Connect { .. } | Step::Reconnect { .. } => 1,
                    Step::Load {} => -children,
                    _ => 0,
                };
                let accepted: Vec<Slot> = model.accepted().map(|(slot, _)| slot).collect();
                for slot in accepted {
                    for question in Question::ALL {
                        let answer = model.ask(slot, question);
                        let has_peer = model.get(slot).is_some_and(Connection::has_peer);
                        prop_assert!(has_peer || answer.is_err(), "{question:?}");
                    }
                }
                check(&model, children);
            }
        }
    }
}
