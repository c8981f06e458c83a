// SPDX-License-Identifier: GPL-2.0

//! The state that toa keeps in each network namespace: its counters, its policy, and its count of
//! records. Two files show the counters and the records.

use crate::{
    connections::ConnectionsFile,
    counts::Count,
    linux::{
        family::Guard,
        parameter::parameter,
        pernet::{
            self,
            net_id,
            PerNet, //
        },
        proc_net::Text,
        read_once::ReadOnce,
        sock, //
    },
    policy::Policy,
    records,
    shares::Owner,
    stats::Stats, //
};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::atomic::Atomic;

/// One network namespace. The fields are dropped in their order, after [`StatsFile`] and
/// [`ConnectionsFile`].
pub(crate) struct Namespace {
    /// The counters.
    pub(crate) stats: Stats,
    /// The owner, which decides the namespace's share of the records.
    pub(crate) owner: Owner,
    /// The records that the namespace holds, counted for all but the first one.
    pub(crate) held: Count,
    /// The number of log lines about a full share: one at most.
    pub(crate) full_lines: Atomic<u32>,
    /// The most records that the namespace may hold.
    pub(crate) share: ReadOnce<i64>,
    /// The decisions on options.
    pub(crate) policy: Policy,
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
        // The others follow the first one.
        let waits = owner == Owner::First
            && parameter(crate::module_parameters::wait_for_policy.value()) != 0;
        Ok(Self {
            stats: Stats::new()?,
            owner,
            held: Count::new(0),
            full_lines: Atomic::new(0),
            share: ReadOnce::new(records::first_share(owner)),
            policy: Policy::new(!waits)?,
        })
    }

    fn adopt(&self, parent: &Self, guard: &Guard<'_, Self>) {
        self.policy.adopt(&parent.policy, guard);
        // A container that made this namespace has no larger share by it.
        if parent.owner == Owner::Foreign {
            let shares = [parent, self].map(|namespace| namespace.share.load());
            self.share.store(shares[0].min(shares[1]));
        }
    }

    fn lose(&self, parent: &Self, guard: &Guard<'_, Self>) {
        self.policy.lose(&parent.policy, guard);
    }
}

/// `/proc/net/toa_stats`.
pub(crate) struct StatsFile;

impl Text for StatsFile {
    type PerNet = Namespace;

    const NAME: &'static CStr = c"toa_stats";
    const MODE: u16 = 0o444;

    fn show(net: &Net, seq: &SeqFile) {
        let namespace = net.data();
        namespace.stats.show(seq);
    }
}
