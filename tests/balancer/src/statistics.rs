// SPDX-License-Identifier: GPL-2.0

//! What the balancer counts.

use std::fmt;

/// One number for each thing that happens; printed as one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sessions made.
    pub connections: u64,
    /// Segments passed on.
    pub from_client: u64,
    pub from_server: u64,
    /// Segments that got the plan.
    pub option_inserted: u64,
    /// Segments whose header had no room for it at first.
    pub no_room: u64,
    /// Segments that were too long with it at first.
    pub mtu_excess: u64,
    /// Of those two, the ones whose own options were cut so that it fitted …
    pub pruned: u64,
    /// … and the ones that went without.
    pub forwarded_without: u64,
    /// Dropped: bare ACKs that a service was to lose, and what --drop has.
    pub lost: u64,
    /// Dropped: segments of no session.
    pub unknown: u64,
    /// Dropped: SYNs to no service.
    pub no_service: u64,
    /// Dropped: SYNs for which no local address and port was free.
    pub no_local_port: u64,
    /// Dropped: other protocols.
    pub not_tcp: u64,
    /// Dropped: not well formed, or more than this balancer understands.
    pub malformed: u64,
    /// The device refused the packet.
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
