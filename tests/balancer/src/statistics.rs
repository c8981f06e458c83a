// SPDX-License-Identifier: GPL-2.0

//! The balancer's counters.

use std::fmt;

/// One counter for each event, printed as one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sessions made.
    pub connections: u64,
    /// Segments passed on.
    pub from_client: u64,
    pub from_server: u64,
    /// Segments that got the plan.
    pub option_inserted: u64,
    /// Segments whose header at first had no room for the plan.
    pub no_room: u64,
    /// Segments that were at first too long with the plan.
    pub mtu_excess: u64,
    /// Segments of these two kinds that fitted after their own options were cut.
    pub pruned: u64,
    /// Segments of these two kinds that were forwarded without the plan.
    pub forwarded_without: u64,
    /// Dropped: bare ACKs for `lose=ack`, and the share of --drop.
    pub lost: u64,
    /// Dropped: segments of no session.
    pub unknown: u64,
    /// Dropped: SYNs to no service.
    pub no_service: u64,
    /// Dropped: SYNs without a free local address and port.
    pub no_local_port: u64,
    /// Dropped: other protocols.
    pub not_tcp: u64,
    /// Dropped: malformed packets, and forms that this balancer does not support.
    pub malformed: u64,
    /// Packets that the device refused.
    pub write_failed: u64,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("connections", self.connections),
            ("from_client", self.from_client),
            ("from_server", self.from_server),
            ("option_inserted", self.option_inserted),
            ("no_room", self.no_room),
            ("mtu_excess", self.mtu_excess),
            ("pruned", self.pruned),
            ("forwarded_without", self.forwarded_without),
            ("lost", self.lost),
            ("unknown", self.unknown),
            ("no_service", self.no_service),
            ("no_local_port", self.no_local_port),
            ("not_tcp", self.not_tcp),
            ("malformed", self.malformed),
            ("write_failed", self.write_failed),
        ];
        let pairs = rows.map(|(name, count)| format!("\"{name}\":{count}"));
        write!(f, "{{{}}}", pairs.join(","))
    }
}
