// SPDX-License-Identifier: GPL-2.0

//! The records: the client behind each socket, and the counts of these records.

use crate::{
    counts::{
        excess,
        give_one_back,
        take_one,
        Count, //
    },
    endpoint::{
        Connection,
        Endpoint,
        Tuple, //
    },
    linux::{
        callbacks::{
            Form,
            Unsure, //
        },
        log::{
            self,
            log, //
        },
        memory,
        node::Words,
        random,
        rcu,
        rcu_static::RcuStatic,
        sock_table::SockTable, //
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
    tag::{
        self,
        Tag, //
    }, //
};
use core::net::Ipv6Addr;
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// The table, from before the first hook is set until after the last is gone.
pub(crate) static RECORDS: RcuStatic<Records> = RcuStatic::empty();

/// The record of a socket, in five words.
struct Record {
    /// The client from the option: 16 bytes and 2.
    client: Endpoint,
    /// The connection that carried the option, by its tag: 16 bytes. A socket can be disconnected and
    /// reused.
    tag: Tag,
    /// The number of the socket's namespace, which the socket holds: 4 bytes.
    namespace: u32,
}

impl From<&Record> for Words {
    #[inline(always)]
    fn from(record: &Record) -> Self {
        // In the order of memory: no byte moves.
        let address = u128::from_ne_bytes(record.client.address().octets());
        let [first, second] = record.tag;
        [
            first,
            second,
            address as u64,
            (address >> u64::BITS) as u64,
            u64::from(record.client.port()) | u64::from(record.namespace) << 32,
        ]
    }
}

impl From<&Words> for Record {
    #[inline(always)]
    fn from(&[first, second, low, high, rest]: &Words) -> Self {
        let address = u128::from(low) | u128::from(high) << u64::BITS;
        Self {
            client: Endpoint::new(Ipv6Addr::from(address.to_ne_bytes()), rest as u16),
            tag: [first, second],
            namespace: (rest >> 32) as u32,
        }
    }
}

/// The most bytes that a record costs: its slot in the slab, and the buckets for it, of which there are
/// less than two.
const MAX_RECORD_SIZE: u64 = 64 + 2 * 8;

/// The most records of a machine by default: 64 MiB of buckets, on a machine with 40 GiB or more.
const MOST_BY_DEFAULT: u64 = 1 << 23;

/// The result of a look-up.
pub(crate) struct Found {
    /// The client from the option.
    pub(crate) client: Endpoint,
    /// Whether the option came with the connection that the socket has now.
    pub(crate) is_current: bool,
    /// That connection.
    pub(crate) connection: Tuple,
}

/// Returns the number of buckets, the same at each call. 0 without a table.
pub(crate) fn buckets(rcu: &rcu::Guard) -> usize {
    RECORDS.get(rcu).map_or(0, Records::buckets)
}

/// Calls `f` with the connection and the client of each record of a bucket that is of the namespace with
/// that number: see [`SockTable::for_each`]. Process context.
pub(crate) fn for_each_in_bucket(
    bucket: usize,
    namespace: u32,
    rcu: &rcu::Guard,
    mut f: impl FnMut(Connection, Endpoint),
) {
    let Some(records) = RECORDS.get(rcu) else {
        return;
    };
    records.table.for_each(bucket, rcu, |entry| {
        let record = Record::from(entry.words);
        if record.namespace != namespace {
            return;
        }
        let tuple = tag::tuple_of(record.tag).or_else(|| {
            // A hash: the socket has the addresses, unless it died.
            let tuple = entry.tuple()?;
            (records.key.tag(&tuple) == record.tag).then_some(tuple)
        });
        if let Some(tuple) = tuple {
            f(tuple.into(), record.client);
        }
    });
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
    table: SockTable<Namespace>,
    /// The key of the tags.
    key: tag::Key,
    shares: Shares,
    /// Records of all namespaces.
    live: Count,
    /// Records of all namespaces but the first.
    others: Count,
    /// Records of all namespaces of [`Owner::Foreign`].
    foreign: Count,
}

impl Records {
    /// Makes an empty table, of one bucket for each record. May sleep.
    ///
    /// `max_records` caps the records; 0 lets them take 1/64 of the memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(max_records: u32) -> Result<Self> {
        let memory = memory::total_bytes();
        let max = match max_records {
            0 => (memory / 64 / MAX_RECORD_SIZE).min(MOST_BY_DEFAULT),
            max => max.into(),
        };
        Ok(Self {
            table: SockTable::new(usize::try_from(max).unwrap_or(usize::MAX), locks())?,
            key: tag::Key::new(random::words()),
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
        for number in 1..=COUNT {
            let record = Record {
                client: Endpoint::from_v4(Ipv4Addr::from_bits(number), 1),
                tag: [number.into(), 0],
                namespace: 0,
            };
            // No socket lies in the lower half of the address space.
            let key = (number as usize).wrapping_mul(SOCKET);
            self.table.insert_foreign(key, (&record).into())?;
        }
        Ok(())
    }

    /// Returns false if `sk` has no record, in most cases: see [`SockTable::may_contain`]. Any context.
    #[inline(always)]
    pub(crate) fn may_have(&self, sk: &Sock) -> bool {
        self.table.may_contain(sk)
    }

    /// Returns the client of the connection that `sk` has now, or `None` if there is no record, in most cases.
    /// In all others [`Records::find`] finds out more. `form` is that of the socket's names. Any context.
    #[inline(always)]
    pub(crate) fn find_at_once(
        &self,
        sk: &Sock,
        form: Form,
        rcu: &rcu::Guard,
    ) -> Result<Option<Endpoint>, Unsure> {
        let Some(words) = self.table.get_at_once(sk, rcu).map_err(|_| Unsure)? else {
            return Ok(None);
        };
        let record = Record::from(&words);
        let tuple = match form {
            // A socket of AF_INET, so that its family need not be read.
            Form::V4 => sk.tuple_v4(),
            Form::V6 => sk.tuple(),
        };
        if self.key.tag(&tuple) != record.tag {
            return Err(Unsure);
        }
        Ok(Some(record.client))
    }

    /// Returns the record of `sk`. Any context.
    #[inline(always)]
    pub(crate) fn find(&self, sk: &Sock, rcu: &rcu::Guard) -> Option<Found> {
        let record = Record::from(&self.table.get(sk, rcu)?);
        let connection = sk.tuple();
        Some(Found {
            client: record.client,
            is_current: self.key.tag(&connection) == record.tag,
            connection,
        })
    }

    /// Records that `client` is behind `sk`, whose connection is `tuple`, and whose namespace is `net` with
    /// the data `namespace`: the first one if `FIRST`. Softirq;
    /// the socket is locked.
    #[inline(always)]
    pub(crate) fn record<const FIRST: bool>(
        &self,
        sk: &Sock,
        tuple: impl FnOnce() -> Tuple,
        client: Endpoint,
        net: &Net,
        namespace: &Namespace,
    ) -> Outcome {
        let stats = &namespace.stats;
        let taken = if FIRST {
            self.take_for_first(namespace)
        } else {
            self.take(namespace)
        };
        if let Err(bound) = taken {
            self.log_full(bound, net, namespace);
            return Outcome::RecordTableFull;
        }
        // A socket is recorded once, when it is made, and its record goes before the socket.
        if cfg!(debug_assertions) && self.table.get(sk, &rcu::read_lock()).is_some() {
            log!(ERR, "BUG: a new socket has a record\n");
        }
        // Built when there is a node, so that less is live when there is none at hand.
        let words = || {
            Words::from(&Record {
                client,
                tag: self.key.tag(&tuple()),
                namespace: net.number(),
            })
        };
        match self.table.insert(sk, words) {
            Ok(()) => {
                count_ipv6(stats, Counter::Ip6AddressAlloc, client);
                Outcome::OptionTaken
            }
            Err(_) => {
                self.give_back(namespace);
                Outcome::RecordAllocFailed
            }
        }
    }

    /// Prepares for the end of the calls of [`Records::forget`] for sockets that die. May sleep.
    pub(crate) fn unwatch(&self) {
        self.table.unwatch();
    }

    /// Removes the record of `sk`, whose connection ends. Softirq or process context.
    ///
    /// Nothing else adds a record of this socket now: the softirq that creates the socket records it, before
    /// the socket can be disconnected or die. The socket's lock orders the two.
    #[inline(always)]
    pub(crate) fn forget(&self, sk: &Sock) {
        if self.may_have(sk) {
            self.forget_recorded(sk);
        }
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
    #[inline(always)]
    fn full_share(&self, namespace: &Namespace) -> Option<i64> {
        let share = namespace.share.load();
        // The first share: the count of all is the bound.
        if share >= self.shares.all {
            return None;
        }
        let held = excess(&self.live, &self.others);
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
    fn forget_recorded(&self, sk: &Sock) {
        let Some(words) = self.table.remove(sk) else {
            return;
        };
        let record = Record::from(&words);
        // A socket with a record has a namespace, and never loses it: `record` was called with it.
        if let Some(net) = sk.net() {
            self.removed(&record, net.data());
        }
    }

    /// Counts a record that left the table.
    fn removed(&self, record: &Record, namespace: &Namespace) {
        self.give_back(namespace);
        namespace.stats.record_gone();
        count_ipv6(&namespace.stats, Counter::Ip6AddressFree, record.client);
    }

    /// Counts a record of `namespace` that is to be made. The error is the bound that is reached.
    fn take(&self, namespace: &Namespace) -> Result<(), i64> {
        match namespace.owner {
            Owner::First => self.take_for_first(namespace),
            _ => self.with_bounds(namespace, take_one),
        }
    }

    /// Does the same for the first namespace.
    #[inline(always)]
    fn take_for_first(&self, namespace: &Namespace) -> Result<(), i64> {
        match self.full_share(namespace) {
            Some(share) => Err(share),
            None => take_one(&[(&self.live, self.shares.all)]),
        }
    }

    /// Counts a record that is gone.
    #[inline(always)]
    fn give_back(&self, namespace: &Namespace) {
        match namespace.owner {
            Owner::First => give_one_back(&[(&self.live, self.shares.all)]),
            _ => self.give_back_in_bounds(namespace),
        }
    }

    /// Does as [`Records::give_back`] for any namespace. Out of line, so that the first one's code is short.
    #[inline(never)]
    fn give_back_in_bounds(&self, namespace: &Namespace) {
        self.with_bounds(namespace, give_one_back);
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

/// Returns a number of locks at which CPUs rarely meet.
fn locks() -> usize {
    (nr_cpu_ids() as usize).saturating_mul(64)
}
