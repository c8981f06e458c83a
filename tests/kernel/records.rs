// SPDX-License-Identifier: GPL-2.0

//! A table of records without sockets, for toa's `/proc/net/toa` ([`crate::connections`]): many that
//! stay, others that come and go, and some of another namespace.

use crate::{
    endpoint::{
        Connection,
        Endpoint, //
    },
    kthread::{
        self,
        Thread, //
    },
    linux::{
        c,
        hash_table::HashTable,
        pernet,
        rcu_static::{
            Assignment,
            RcuStatic, //
        }, //
    },
    namespace::Namespace, //
};
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};
use core::ptr;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    rcu, //
};

static RECORDS: RcuStatic<Records> = RcuStatic::empty();

/// The buckets of a machine with 2 GiB of memory.
const BUCKETS: usize = 16_384;

/// The locks of a machine with one processor.
const LOCKS: usize = 64;

/// The records that come and go which exist at the same time.
const YOUNG: usize = 1000;

/// The records of another namespace: as many as this part of those that stay.
const FOREIGN: usize = 10;

/// A namespace that does not exist.
const NO_NAMESPACE: u32 = 1;

/// The part of toa's record that the file shows.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) client: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) namespace: u32,
}

struct Records {
    table: HashTable<Record>,
    /// The records that stay.
    count: usize,
    churned: Atomic<u64>,
}

/// Returns the number of buckets. 0 without a table.
pub(crate) fn buckets(rcu: &rcu::Guard) -> usize {
    RECORDS
        .get(rcu)
        .map_or(0, |records| records.table.buckets())
}

/// Returns the records of a bucket.
pub(crate) fn in_bucket(index: usize, rcu: &rcu::Guard) -> impl Iterator<Item = &Record> + use<'_> {
    let records = RECORDS.get(rcu).into_iter();
    records.flat_map(move |records| records.table.bucket_values(index, rcu))
}

/// Returns the number of records that came and went.
pub(crate) fn churned(rcu: &rcu::Guard) -> u64 {
    RECORDS
        .get(rcu)
        .map_or(0, |records| records.churned.load(Relaxed))
}

/// The table with its files. The fields are dropped in their order.
pub(crate) struct Filled {
    _churn: Thread,
    _files: pernet::Registration<Namespace>,
    _records: Assignment<Records>,
}

impl Filled {
    /// Fills a table with `count` records that stay, and lets others come and go. May sleep.
    pub(crate) fn new(count: u32) -> Result<Self> {
        let records = Records {
            table: HashTable::new(BUCKETS, LOCKS)?,
            count: count as usize,
            churned: Atomic::new(0),
        };
        let here = first_namespace();
        for number in 0..records.count {
            if number % YOUNG == 0 {
                yield_processor();
            }
            records.add(number, here)?;
        }
        for number in 0..records.count / FOREIGN {
            // Behind all numbers of the churn.
            let number = number.wrapping_add(records.count.wrapping_mul(2));
            records.add(number, NO_NAMESPACE)?;
        }
        let records = RECORDS.assign(KBox::new(records, GFP_KERNEL)?);
        let files = pernet::Registration::register()?;
        // SAFETY: The thread takes no data, and runs until it is stopped.
        let churn = unsafe { Thread::start(churn, ptr::null_mut())? };
        Ok(Self {
            _churn: churn,
            _files: files,
            _records: records,
        })
    }
}

impl Records {
    /// Adds a record whose client has that number. Any context.
    fn add(&self, number: usize, namespace: u32) -> Result {
        let client = number as u32;
        let client = match number % 2 {
            0 => Endpoint::from_v4(Ipv4Addr::from_bits((11 << 24) | client), 4660),
            _ => {
                let prefix = 0x2001_0db8_u128 << 96;
                Endpoint::new(Ipv6Addr::from_bits(prefix | u128::from(client)), 4660)
            }
        };
        let record = Record {
            client,
            connection: Connection {
                local: Endpoint::from_v4(Ipv4Addr::new(10, 0, 0, 1), 8080),
                peer: Endpoint::from_v4(Ipv4Addr::new(10, 0, 1, 1), number as u16),
            },
            namespace,
        };
        self.table.insert(key(number), record).map(|_| ())
    }
}

/// The key of a record, like the address of a socket.
fn key(number: usize) -> usize {
    number.wrapping_add(1) << 11
}

/// The number of the first network namespace.
fn first_namespace() -> u32 {
    // SAFETY: The namespace is there as long as the kernel.
    unsafe { pernet::Net::<()>::from_raw((&raw const c::init_net).cast()) }.number()
}

fn yield_processor() {
    // SAFETY: The callers run in process context, and may sleep.
    unsafe { c::schedule() };
}

/// Adds and removes records until the thread is stopped.
///
/// # Safety
///
/// Called by a [`Thread`] that ends before the table goes.
unsafe extern "C" fn churn(_data: *mut c_void) -> c_int {
    let here = first_namespace();
    let mut turn = 0_usize;
    while !kthread::should_stop() {
        if turn % 64 == 0 {
            yield_processor();
        }
        let rcu = rcu::read_lock();
        let Some(records) = RECORDS.get(&rcu) else {
            return 0;
        };
        let number = |turn: usize| {
            let behind = turn.checked_rem(records.count).unwrap_or(0);
            records.count.wrapping_add(behind)
        };
        if records.add(number(turn), here).is_ok() {
            records.churned.add(1, Relaxed);
        }
        if let Some(old) = turn.checked_sub(YOUNG) {
            records.table.remove(key(number(old)));
        }
        turn = turn.wrapping_add(1);
    }
    0
}
