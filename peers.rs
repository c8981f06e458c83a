// SPDX-License-Identifier: GPL-2.0

//! The records: which client is behind which socket.

use crate::{
    endpoint::{
        Connection,
        Endpoint, //
    },
    hash_table::{
        HashTable,
        Node, //
    },
    memory,
    percpu::PossibleCpu,
    published::Published,
    shares::{
        Owner,
        Shares, //
    },
    sock::Sock, //
};
use core::mem::size_of;
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;
use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    rcu, //
};

/// The records, from before the first hook is set until after the last is gone.
pub(crate) static PEERS: Published<Peers> = Published::empty();

/// What is known of a socket. 56 bytes, and 88 with the 32 of [`Node`]: its link (8), the socket's
/// address (8) and the head by which it is freed (16). kmalloc takes that from its slab of 96.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// Whom the balancer named: 18 bytes.
    pub(crate) client: Endpoint,
    /// The connection that it was said of: 36 bytes. A socket can be disconnected and reused.
    pub(crate) connection: Connection,
    /// The CPU that counts this record as live: 2 bytes.
    pub(crate) cpu: PossibleCpu,
}

/// What a connection may cost, besides the buckets.
const MAX_RECORD_SIZE: usize = 96;

const _: () = assert!(size_of::<Node<Record>>() <= MAX_RECORD_SIZE);

/// Why there is no record.
pub(crate) enum NotRecorded {
    /// The namespace's share of the records is full.
    Full,
    /// There is no memory.
    NoMemory,
}

/// Finds what is recorded of `sk`. Any context.
pub(crate) fn find<'rcu>(sk: &Sock, rcu: &'rcu rcu::Guard) -> Option<&'rcu Record> {
    PEERS.get(rcu)?.table.get(sk.id(), rcu)
}

/// The account of one network namespace.
pub(crate) struct Account {
    owner: Owner,
    /// Records that the namespace holds, kept for [`Owner::Host`] only.
    held: Count,
}

impl Account {
    /// An account without records.
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            owner,
            held: Count::new(0),
        }
    }
}

/// A number of records.
type Count = Atomic<i64>;

/// The table of records.
pub(crate) struct Peers {
    table: HashTable<Record>,
    shares: Shares,
    /// Records of all namespaces.
    live: Count,
    /// Records of all namespaces but the first.
    others: Count,
    /// Records of all namespaces of [`Owner::Foreign`].
    foreign: Count,
}

impl Peers {
    /// Makes an empty table, sized from the machine's memory as the kernel sizes its own. May
    /// sleep.
    ///
    /// `max_records` caps the records; 0 lets them take 1/64 of the memory.
    pub(crate) fn new(max_records: u32) -> Result<Self> {
        let memory = memory::total_bytes();
        let max = match max_records {
            0 => memory / 64 / MAX_RECORD_SIZE as u64,
            max => max.into(),
        };
        Ok(Self {
            table: HashTable::new(buckets(memory), locks())?,
            shares: Shares::of(i64::try_from(max).unwrap_or(i64::MAX)),
            live: Count::new(0),
            others: Count::new(0),
            foreign: Count::new(0),
        })
    }

    /// The most records that each group of namespaces may hold.
    pub(crate) fn shares(&self) -> Shares {
        self.shares
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Records that `client` is behind `sk`, counted by `cpu` and in the account of the socket's
    /// namespace. Softirq; the socket is locked.
    ///
    /// Returns the record that the socket had before: there should be none.
    pub(crate) fn record(
        &self,
        sk: &Sock,
        client: Endpoint,
        cpu: PossibleCpu,
        account: &Account,
    ) -> Result<Option<Record>, NotRecorded> {
        if !self.with_bounds(account, take_one) {
            return Err(NotRecorded::Full);
        }
        let record = Record {
            client,
            connection: sk.connection(),
            cpu,
        };
        match self.table.insert(sk.id(), record) {
            Ok(old) => {
                if old.is_some() {
                    self.with_bounds(account, give_one_back);
                }
                Ok(old)
            }
            Err(_) => {
                self.with_bounds(account, give_one_back);
                Err(NotRecorded::NoMemory)
            }
        }
    }

    /// Removes the record of `sk`, whose connection ends, and returns it. Any context.
    ///
    /// The caller gives it back to the account of the socket's namespace ([`Peers::give_back`]).
    pub(crate) fn forget(&self, sk: &Sock) -> Option<Record> {
        self.table.remove(sk.id())
    }

    /// Gives a forgotten record back to the account of its socket's namespace. Any context.
    pub(crate) fn give_back(&self, account: &Account) {
        self.with_bounds(account, give_one_back);
    }

    /// Calls `f` with the counts that a record of this namespace is in, each with its bound: the
    /// narrowest first, so that a full namespace never touches a count of the others.
    fn with_bounds<R>(&self, account: &Account, f: impl FnOnce(&[(&Count, i64)]) -> R) -> R {
        let all = (&self.live, self.shares.all);
        let others = (&self.others, self.shares.others);
        match account.owner {
            Owner::First => f(&[all]),
            Owner::Host => f(&[(&account.held, self.shares.each), others, all]),
            Owner::Foreign => f(&[(&self.foreign, self.shares.foreign), others, all]),
        }
    }
}

/// Adds one to all counts, or to none if one of them has reached its bound.
fn take_one(counts: &[(&Count, i64)]) -> bool {
    for (taken, &(count, bound)) in counts.iter().enumerate() {
        if count.fetch_add(1, Relaxed) >= bound {
            count.fetch_sub(1, Relaxed);
            give_one_back(counts.get(..taken).unwrap_or_default());
            return false;
        }
    }
    true
}

fn give_one_back(counts: &[(&Count, i64)]) {
    for (count, _) in counts {
        count.fetch_sub(1, Relaxed);
    }
}

/// A bucket for each 128 KiB of memory, as `tcp_init` has for established connections, within
/// what makes sense on the smallest and on the largest machines: 2 KiB to 4 MiB of buckets.
fn buckets(memory: u64) -> usize {
    usize::try_from(memory >> 17)
        .unwrap_or(usize::MAX)
        .clamp(1 << 8, 1 << 19)
}

/// Enough that CPUs rarely meet.
fn locks() -> usize {
    (nr_cpu_ids() as usize).saturating_mul(64)
}
