// SPDX-License-Identifier: GPL-2.0

//! The state that toa keeps in each network namespace: its counters and its count of records. Two
//! files show the counters and the records.

use crate::{
    connections::ConnectionsFile,
    linux::{
        pernet::{
            self,
            net_id,
            PerNet, //
        },
        proc_net::Text,
        sock, //
    },
    shares::Owner,
    stats::Stats, //
};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::{
    atomic::Atomic,
    rcu, //
};

/// One network namespace. The fields are dropped in their order, after [`StatsFile`] and
/// [`ConnectionsFile`].
pub(crate) struct Namespace {
    /// The counters.
    pub(crate) stats: Stats,
    /// The owner, which decides the namespace's share of the records.
    pub(crate) owner: Owner,
    /// The records that the namespace holds, counted for [`Owner::Host`] only.
    pub(crate) held: Atomic<i64>,
    /// The number of log lines about a full share: one at most.
    pub(crate) full_lines: Atomic<u32>,
}

/// A socket whose namespace has a [`Namespace`].
pub(crate) type Sock = sock::Sock<Namespace>;

/// A network namespace that has a [`Namespace`].
pub(crate) type Net = pernet::Net<Namespace>;

net_id!(Namespace);

impl PerNet for Namespace {
    type Text = StatsFile;
    type Table = ConnectionsFile;

    fn new(net: &pernet::Net<()>) -> Result<Self> {
        let owner = if net.is_first() {
            Owner::First
        } else if net.is_of_host() {
            Owner::Host
        } else {
            Owner::Foreign
        };
        Ok(Self {
            stats: Stats::new()?,
            owner,
            held: Atomic::new(0),
            full_lines: Atomic::new(0),
        })
    }
}

/// `/proc/net/toa_stats`.
pub(crate) struct StatsFile;

impl Text for StatsFile {
    type PerNet = Namespace;

    const NAME: &'static CStr = c"toa_stats";
    const MODE: u16 = 0o444;

    fn show(net: &Net, seq: &SeqFile) {
        let namespace = net.data(&rcu::read_lock());
        namespace.stats.show(seq);
    }
}
