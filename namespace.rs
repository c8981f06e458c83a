// SPDX-License-Identifier: GPL-2.0

//! The state that toa keeps in each network namespace: its counters, its count of records, and
//! the file that shows the counters.

use crate::{
    linux::pernet::{
        self,
        net_id,
        PerNet,
        Show, //
    },
    linux::sock,
    shares::Owner,
    stats::Stats, //
};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::{
    atomic::Atomic,
    rcu, //
};

/// One network namespace. The fields are dropped in their order, after [`StatsFile`].
pub(crate) struct Namespace {
    /// The counters.
    pub(crate) stats: Stats,
    /// The owner, which decides the namespace's share of the records.
    pub(crate) owner: Owner,
    /// The records that the namespace holds, counted for [`Owner::Host`] only.
    pub(crate) held: Atomic<i64>,
}

/// A socket whose namespace has a [`Namespace`].
pub(crate) type Sock = sock::Sock<Namespace>;

/// A network namespace that has a [`Namespace`].
pub(crate) type Net = pernet::Net<Namespace>;

net_id!(Namespace);

impl PerNet for Namespace {
    type File = StatsFile;

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
        })
    }
}

/// `/proc/net/toa_stats`.
pub(crate) struct StatsFile;

impl Show for StatsFile {
    type PerNet = Namespace;

    const NAME: &'static CStr = c"toa_stats";

    fn show(net: &Net, seq: &SeqFile) {
        let namespace = net.data(&rcu::read_lock());
        namespace.stats.show(seq);
    }
}
