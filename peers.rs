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
    published::Published,
    sock::Sock, //
};
use core::mem::size_of;
use kernel::cpu::{
    nr_cpu_ids,
    CpuId, //
};
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
    /// The CPU that counts this record as live: 2 bytes. CONFIG_NR_CPUS is 8192 at the most.
    cpu: u16,
}

/// What a connection may cost, besides the buckets.
const MAX_RECORD_SIZE: usize = 96;

const _: () = assert!(size_of::<Node<Record>>() <= MAX_RECORD_SIZE);

impl Record {
    /// The CPU that counts this record as live.
    pub(crate) fn cpu(&self) -> Option<CpuId> {
        CpuId::from_u32(self.cpu.into())
    }
}

/// Why there is no record.
pub(crate) enum NotRecorded {
    /// There are as many as there may be.
    Full,
    /// There is no memory.
    NoMemory,
}

/// Finds what is recorded of `sk`. Any context.
pub(crate) fn find<'rcu>(sk: &Sock, rcu: &'rcu rcu::Guard) -> Option<&'rcu Record> {
    PEERS.get(rcu)?.table.get(sk.id(), rcu)
}

/// The table of records.
pub(crate) struct Peers {
    table: HashTable<Record>,
    live: Atomic<i64>,
    max: i64,
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
            live: Atomic::new(0),
            max: i64::try_from(max).unwrap_or(i64::MAX),
        })
    }

    /// The most records that there may be.
    pub(crate) fn max(&self) -> i64 {
        self.max
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Records that `client` is behind `sk`, counted by `cpu`. Softirq; the socket is locked.
    ///
    /// Returns the record that the socket had before: there should be none.
    pub(crate) fn record(
        &self,
        sk: &Sock,
        client: Endpoint,
        cpu: CpuId,
    ) -> Result<Option<Record>, NotRecorded> {
        if self.live.fetch_add(1, Relaxed) >= self.max {
            self.live.fetch_sub(1, Relaxed);
            return Err(NotRecorded::Full);
        }
        let record = Record {
            client,
            connection: sk.connection(),
            cpu: cpu.as_u32() as u16,
        };
        match self.table.insert(sk.id(), record) {
            Ok(old) => {
                self.live.fetch_sub(i64::from(old.is_some()), Relaxed);
                Ok(old)
            }
            Err(_) => {
                self.live.fetch_sub(1, Relaxed);
                Err(NotRecorded::NoMemory)
            }
        }
    }

    /// Forgets `sk`, whose connection ends, and returns what was recorded of it. Any context.
    pub(crate) fn forget(&self, sk: &Sock) -> Option<Record> {
        let record = self.table.remove(sk.id())?;
        self.live.fetch_sub(1, Relaxed);
        Some(record)
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
