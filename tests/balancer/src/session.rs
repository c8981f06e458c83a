// SPDX-License-Identifier: GPL-2.0

//! The table of connections, looked up from both sides.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::flow::Flow;
use crate::options::Options;
use crate::packet::Packet;

/// The side that sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A client's connection and the balancer's connection to the server.
#[derive(Clone, Debug)]
pub struct Session {
    /// The flow as the client sends it: client to virtual server.
    pub client: Flow,
    /// The flow as the balancer sends it: local address to real server.
    pub server: Flow,
    /// Index of the service.
    pub service: usize,
    /// The bytes that are inserted for this client.
    pub inserted: Options,
    /// The number that is added to the client's sequence numbers.
    pub shift: u32,
    /// The server's first sequence number + 1, set by its SYN-ACK.
    pub expected_ack: Option<u32>,
    /// The client's bare ACKs are still dropped.
    pub losing_acks: bool,
    finished: [bool; 2],
    closed: bool,
}

impl Session {
    pub fn new(client: Flow, server: Flow, service: usize, inserted: Options, shift: u32) -> Self {
        Self {
            client,
            server,
            service,
            inserted,
            shift,
            expected_ack: None,
            losing_acks: false,
            finished: [false; 2],
            closed: false,
        }
    }

    /// Updates the closing state. Returns whether this segment closed the connection.
    fn ends_with(&mut self, packet: &Packet<'_>, side: Side) -> bool {
        self.finished[side as usize] |= packet.tcp.fin;
        let ended = packet.tcp.rst || self.finished == [true; 2];
        let now = ended && !self.closed;
        self.closed |= ended;
        now
    }
}

/// The table of sessions. A closed session stays for a while: late segments still pass,
/// and its local port is not reused at once. Open sessions never expire.
#[derive(Debug)]
pub struct Sessions {
    all: Slab<Session>,
    by_client: FxHashMap<Flow, usize>,
    by_server: FxHashMap<Flow, usize>,
    grace: Duration,
    /// Closed sessions and the times of their removal, in order.
    closed: VecDeque<(Instant, usize)>,
}

impl Sessions {
    pub fn new(grace: Duration) -> Self {
        Self {
            all: Slab::new(),
            by_client: FxHashMap::default(),
            by_server: FxHashMap::default(),
            grace,
            closed: VecDeque::new(),
        }
    }

    /// Returns the session of a client's segment. A SYN never belongs to a closed session:
    /// it shows that the client reuses its port.
    pub fn of_client(&self, flow: &Flow, opens: bool) -> Option<usize> {
        let id = *self.by_client.get(flow)?;
        (!opens || !self.all[id].closed).then_some(id)
    }

    /// Returns the session of a server's segment.
    pub fn of_server(&self, flow: Flow) -> Option<usize> {
        self.by_server.get(&flow.reversed()).copied()
    }

    pub fn is_taken(&self, server: &Flow) -> bool {
        self.by_server.contains_key(server)
    }

    pub fn insert(&mut self, session: Session) -> usize {
        let (client, server) = (session.client, session.server);
        let id = self.all.insert(session);
        self.by_client.insert(client, id);
        self.by_server.insert(server, id);
        id
    }

    pub fn get_mut(&mut self, id: usize) -> &mut Session {
        &mut self.all[id]
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Updates a session's state from a segment that passes.
    pub fn observe(&mut self, id: usize, packet: &Packet<'_>, side: Side, now: Instant) {
        if self.all[id].ends_with(packet, side) {
            self.closed.push_back((now + self.grace, id));
        }
    }

    /// Removes closed sessions whose time has run out.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(end, id)) = self.closed.front() {
            if end > now {
                break;
            }
            self.closed.pop_front();
            let session = self.all.remove(id);
            self.by_server.remove(&session.server);
            if self.by_client.get(&session.client) == Some(&id) {
                self.by_client.remove(&session.client);
            }
        }
    }
}
