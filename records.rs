// SPDX-License-Identifier: GPL-2.0

//! The records: the client behind each socket, and the counts of these records.

use crate::{
    counts::{
        give_one_back,
        take_one,
        Count, //
    },
    endpoint::{
        Connection,
        Endpoint, //
    },
    linux::{
        hash_table::{
            HashTable,
            Node, //
        },
        log::{
            self,
            log, //
        },
        memory,
        percpu::PossibleCpu,
        rcu_static::RcuStatic, //
    },
    namespace::{
        Namespace,
        Net,
        Sock, //
    },
    shares::{
        Owner,
        Shares, //
    },
    stats::{
        Counter,
        Outcome,
        Stats, //
    },
};
use core::mem::size_of;
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;
use kernel::sync::{
    atomic::Relaxed,
    rcu, //
};

/// The table, from before the first hook is set until after the last is gone.
pub(crate) static RECORDS: RcuStatic<Records> = RcuStatic::empty();

/// The record of a socket. 60 bytes, and 96 with the 32 of [`Node`]: its link (8), the socket's
/// address (8) and the head by which it is freed (16). kmalloc takes that from its slab of 96.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// The client from the option: 18 bytes.
    pub(crate) client: Endpoint,
    /// The connection that carried the option: 36 bytes. A socket can be disconnected and reused.
    pub(crate) connection: Connection,
    /// The number of the socket's namespace, which the socket holds: 4 bytes.
    pub(crate) namespace: u32,
    /// The CPU whose counters have this record as live: 2 bytes.
    cpu: PossibleCpu,
}

/// The most bytes that a record may cost, besides the buckets.
const MAX_RECORD_SIZE: usize = 96;

const _: () = assert!(size_of::<Node<Record>>() <= MAX_RECORD_SIZE);

/// Returns the record of `sk`. Any context.
#[inline(always)]
pub(crate) fn find<'rcu>(sk: &Sock, rcu: &'rcu rcu::Guard) -> Option<&'rcu Record> {
    RECORDS.get(rcu)?.table.get(sk.id(), rcu)
}

/// Returns the number of buckets, the same at each call. 0 without a table.
pub(crate) fn buckets(rcu: &rcu::Guard) -> usize {
    RECORDS.get(rcu).map_or(0, Records::buckets)
}

/// Returns the records of a bucket, of all namespaces: see [`HashTable::bucket_values`].
pub(crate) fn in_bucket(index: usize, rcu: &rcu::Guard) -> impl Iterator<Item = &Record> + use<'_> {
    let records = RECORDS.get(rcu).into_iter();
    records.flat_map(move |records| records.table.bucket_values(index, rcu))
}

/// Records that `client` is behind `sk`, whose namespace is `net` with the data `namespace`. Softirq;
/// the socket is locked.
#[inline(never)]
pub(crate) fn record(
    sk: &Sock,
    client: &Endpoint,
    net: &Net,
    namespace: &Namespace,
    rcu: &rcu::Guard,
) -> Outcome {
    let Some(records) = RECORDS.get(rcu) else {
        return Outcome::RecordTableFull;
    };
    let stats = &namespace.stats;
    let taken = match records.full_share(namespace) {
        Some(share) => Err(share),
        None => records.with_bounds(namespace, take_one),
    };
    if let Err(bound) = taken {
        records.log_full(bound, net, namespace);
        return Outcome::RecordTableFull;
    }
    let cpu = stats.record_made();
    let record = Record {
        client: *client,
        connection: sk.connection(),
        namespace: net.number(),
        cpu,
    };
    match records.table.insert(sk.id(), record) {
        Ok(replaced) => {
            count_ipv6(stats, Counter::Ip6AddressAlloc, *client);
            // A socket is recorded once, so there should be none.
            if let Some(old) = replaced {
                records.removed(&old, namespace);
            }
            Outcome::OptionTaken
        }
        Err(_) => {
            records.with_bounds(namespace, give_one_back);
            stats.record_gone(cpu);
            Outcome::RecordAllocFailed
        }
    }
}

/// Removes the record of `sk`, whose connection ends. Softirq or process context.
#[inline(always)]
pub(crate) fn forget(sk: &Sock) {
    let rcu = rcu::read_lock();
    let Some(records) = RECORDS.get(&rcu) else {
        return;
    };
    // Nothing else adds a record of this socket now: the softirq that creates the socket records it,
    // before the socket can be disconnected or die. The socket's lock orders the two.
    if records.table.may_contain(sk.id()) {
        records.forget(sk, &rcu);
    }
}

/// Returns the share of a new namespace. The table must have been made.
pub(crate) fn first_share(owner: Owner) -> i64 {
    RECORDS
        .get(&rcu::read_lock())
        .map_or(0, |records| match owner {
            Owner::Host => records.shares.each,
            Owner::First | Owner::Foreign => records.largest_share(owner),
        })
}

/// Returns the largest share that a namespace can have.
pub(crate) fn largest_share(namespace: &Namespace) -> i64 {
    RECORDS
        .get(&rcu::read_lock())
        .map_or(0, |records| records.largest_share(namespace.owner))
}

/// The table of records.
pub(crate) struct Records {
    table: HashTable<Record>,
    shares: Shares,
    /// Records of all namespaces.
    live: Count,
    /// Records of all namespaces but the first.
    others: Count,
    /// Records of all namespaces of [`Owner::Foreign`].
    foreign: Count,
}

impl Records {
    /// Makes an empty table, sized from the machine's memory as the kernel sizes its own. May
    /// sleep.
    ///
    /// `max_records` caps the records; 0 lets them take 1/64 of the memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(max_records: u32) -> Result<Self> {
        let memory = memory::total_bytes();
        let max = match max_records {
            0 => memory / 64 / MAX_RECORD_SIZE as u64,
            max => max.into(),
        };
        Ok(Self {
            table: HashTable::new(buckets_for(memory), locks())?,
            shares: Shares::of(i64::try_from(max).unwrap_or(i64::MAX)),
            live: Count::new(0),
            others: Count::new(0),
            foreign: Count::new(0),
        })
    }

    /// Adds the records of `TOA_FILL=`, for `make bench`: outside all counts and shares, with keys that
    /// lie as far from each other as the kernel's TCP sockets, and that no socket has. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[cfg(toa_fill)]
    pub(crate) fn fill(&self) -> Result {
        use core::net::Ipv4Addr;
        const SOCKET: usize = 2432;
        const COUNT: u32 = {
            let (mut count, mut digits) = (0_u32, env!("TOA_FILL").as_bytes());
            while let [digit, rest @ ..] = digits {
                count = count * 10 + (*digit - b'0') as u32;
                digits = rest;
            }
            count
        };
        let end = |address: u32| Endpoint::from_v4(Ipv4Addr::from_bits(address), 1);
        for number in 1..=COUNT {
            let record = Record {
                client: end(number),
                connection: Connection {
                    local: end(number),
                    peer: end(number),
                },
                namespace: 0,
                cpu: PossibleCpu::current(),
            };
            // No socket lies in the lower half of the address space.
            let key = (number as usize).wrapping_mul(SOCKET);
            self.table.insert(key, record)?;
        }
        Ok(())
    }

    /// The most records that each group of namespaces may hold.
    pub(crate) fn shares(&self) -> Shares {
        self.shares
    }

    /// The most records that one namespace of an owner may hold.
    fn largest_share(&self, owner: Owner) -> i64 {
        match owner {
            Owner::First => self.shares.all,
            Owner::Host => self.shares.others,
            Owner::Foreign => self.shares.foreign,
        }
    }

    /// Returns the share of the first namespace if the namespace holds it. It is not counted by itself,
    /// so while it has all records that the others leave, nothing more than that is counted.
    fn full_share(&self, namespace: &Namespace) -> Option<i64> {
        if namespace.owner != Owner::First {
            return None;
        }
        let share = namespace.share.load();
        // The first share: the count of all is the bound.
        if share >= self.shares.all {
            return None;
        }
        let held = self
            .live
            .load(Relaxed)
            .saturating_sub(self.others.load(Relaxed));
        (held >= share).then_some(share)
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Logs that a share is full, once for each namespace, with the command that makes room. A share that
    /// was lowered can be raised to its first value. Hosts in the network can fill the shares of many
    /// namespaces, so a rate limits the lines. A line that the rate suppresses is printed for a later
    /// connection.
    #[cold]
    fn log_full(&self, bound: i64, net: &Net, namespace: &Namespace) {
        let lines = &namespace.full_lines;
        if lines.load(Relaxed) != 0 || !log::net_ratelimit() || lines.fetch_add(1, Relaxed) != 0 {
            return;
        }
        let number = net.number();
        let first = first_share(namespace.owner);
        let (command, more) = if bound < first {
            ("sysctl -w net.toa.max_records=", first)
        } else {
            let more = self.shares.all.saturating_mul(2).min(u32::MAX.into());
            ("rmmod toa && modprobe toa max_records=", more)
        };
        log!(
            WARNING,
            "all {bound} records of the share of network namespace {number} are taken: its further \
             connections show the balancer until others end. For more records, run: {command}{more}\n"
        );
    }

    #[inline(never)]
    fn forget(&self, sk: &Sock, rcu: &rcu::Guard) {
        let Some(record) = self.table.remove(sk.id()) else {
            return;
        };
        // A socket with a record has a namespace, and never loses it: `record` was called with it.
        if let Some(net) = sk.net() {
            self.removed(&record, net.data(rcu));
        }
    }

    /// Counts a record that left the table.
    fn removed(&self, record: &Record, namespace: &Namespace) {
        self.with_bounds(namespace, give_one_back);
        namespace.stats.record_gone(record.cpu);
        count_ipv6(&namespace.stats, Counter::Ip6AddressFree, record.client);
    }

    /// Calls `f` with the counts that a record of `namespace` is in, each with its bound: the
    /// narrowest first, so that a namespace whose share is full touches no count of the others.
    fn with_bounds<R>(&self, namespace: &Namespace, f: impl FnOnce(&[(&Count, i64)]) -> R) -> R {
        let all = (&self.live, self.shares.all);
        let others = (&self.others, self.shares.others);
        let held = (&namespace.held, namespace.share.load());
        match namespace.owner {
            Owner::First => f(&[all]),
            Owner::Host => f(&[held, others, all]),
            Owner::Foreign => f(&[held, (&self.foreign, self.shares.foreign), others, all]),
        }
    }
}

fn count_ipv6(stats: &Stats, counter: Counter, client: Endpoint) {
    if client.address_v4().is_none() {
        stats.inc(counter);
    }
}

/// Returns a bucket for each 128 KiB of memory, as `tcp_init` has for established connections,
/// within bounds for the smallest and the largest machines: 2 KiB to 4 MiB of buckets.
fn buckets_for(memory: u64) -> usize {
    usize::try_from(memory >> 17)
        .unwrap_or(usize::MAX)
        .clamp(1 << 8, 1 << 19)
}

/// Returns a number of locks at which CPUs rarely meet.
fn locks() -> usize {
    (nr_cpu_ids() as usize).saturating_mul(64)
}
