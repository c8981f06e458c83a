// SPDX-License-Identifier: GPL-2.0

//! The connections, found from both sides.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::flow::Flow;
use crate::options::Options;
use crate::packet::Packet;

/// Which side a segment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// One connection of a client, and the balancer's own to the server.
#[derive(Clone, Debug)]
pub struct Session {
    /// As the client sends: client to virtual server.
    pub client: Flow,
    /// As the balancer sends: local address to real server.
    pub server: Flow,
    /// Index of the service.
    pub service: usize,
    /// What is inserted for this client.
    pub inserted: Options,
    /// Added to the client's sequence numbers.
    pub shift: u32,
    /// The server's first sequence number + 1, once it is known.
    pub expected_ack: Option<u32>,
    /// Bare ACKs of the client are still being lost.
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

    /// Follows the end of the connection; whether this segment was the end.
    fn ends_with(&mut self, packet: &Packet<'_>, side: Side) -> bool {
        self.finished[side as usize] |= packet.tcp.fin;
        let ended = packet.tcp.rst || self.finished == [true; 2];
        let now = ended && !self.closed;
        self.closed |= ended;
        now
    }
}

/// The table. A closed session stays for a while, so that late segments still pass
/// and its local port is not used again at once; open ones stay for good.
#[derive(Debug)]
pub struct Sessions {
    all: Slab<Session>,
    by_client: FxHashMap<Flow, usize>,
    by_server: FxHashMap<Flow, usize>,
    grace: Duration,
    /// Closed sessions and when they go, the first one first.
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

    /// The session of a segment of the client. A SYN is not of a closed session: the
    /// client uses its port again.
    pub fn of_client(&self, flow: &Flow, opens: bool) -> Option<usize> {
        let id = *self.by_client.get(flow)?;
        (!opens || !self.all[id].closed).then_some(id)
    }

    /// The session of a segment of the server.
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

    /// To be told of each segment that passes.
    pub fn observe(&mut self, id: usize, packet: &Packet<'_>, side: Side, now: Instant) {
        if self.all[id].ends_with(packet, side) {
            self.closed.push_back((now + self.grace, id));
        }
    }

    /// Forgets the sessions that were closed long enough.
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
