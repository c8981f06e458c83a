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
        node::Words,
        pernet,
        rcu,
        rcu_static::{
            Assignment,
            RcuStatic, //
        },
        store::Store,
        task, //
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
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

static RECORDS: RcuStatic<Records> = RcuStatic::empty();

/// Tries to add a record while the table's worker makes room for it, with a tick of sleep between two.
const TRIES: usize = 1000;

/// The locks of a machine with one processor.
const LOCKS: usize = 64;

/// The records that come and go which exist at the same time.
const YOUNG: usize = 1000;

/// The records of another namespace: as many as this part of those that stay.
const FOREIGN: usize = 10;

/// A namespace that does not exist.
const NO_NAMESPACE: u32 = 1;

struct Records {
    table: Store,
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

/// Calls `f` with the connection and the client of each record of a bucket and a namespace.
pub(crate) fn for_each_in_bucket(
    bucket: usize,
    namespace: u32,
    rcu: &rcu::Guard,
    mut f: impl FnMut(Connection, Endpoint),
) {
    let Some(records) = RECORDS.get(rcu) else {
        return;
    };
    records.table.for_each(bucket, rcu, |_, &words| {
        let [number, of, ..] = words;
        if of == namespace.into() {
            let number = number as u32;
            f(connection_of(number), client_of(number));
        }
    });
}

fn client_of(number: u32) -> Endpoint {
    match number % 2 {
        0 => Endpoint::from_v4(Ipv4Addr::from_bits((11 << 24) | number), 4660),
        _ => {
            let prefix = 0x2001_0db8_u128 << 96;
            Endpoint::new(Ipv6Addr::from_bits(prefix | u128::from(number)), 4660)
        }
    }
}

fn connection_of(number: u32) -> Connection {
    Connection {
        local: Endpoint::from_v4(Ipv4Addr::new(10, 0, 0, 1), 8080),
        peer: Endpoint::from_v4(Ipv4Addr::new(10, 0, 1, 1), number as u16),
    }
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
            table: Store::new(count as usize, LOCKS)?,
            count: count as usize,
            churned: Atomic::new(0),
        };
        let here = first_namespace();
        for number in 0..records.count {
            if number % YOUNG == 0 {
                task::yield_processor();
            }
            records.add_in_time(number, here)?;
        }
        for number in 0..records.count / FOREIGN {
            // Behind all numbers of the churn.
            let number = number.wrapping_add(records.count.wrapping_mul(2));
            records.add_in_time(number, NO_NAMESPACE)?;
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
    /// Adds a record as [`Records::add`] does, and waits if no idle one is left. May sleep.
    fn add_in_time(&self, number: usize, namespace: u32) -> Result {
        for _ in 0..TRIES {
            if self.add(number, namespace).is_ok() {
                return Ok(());
            }
            // SAFETY: Process context that may sleep.
            unsafe { c::schedule_timeout_idle(1) };
        }
        self.add(number, namespace)
    }

    /// Adds a record whose client has that number. Any context.
    fn add(&self, number: usize, namespace: u32) -> Result {
        let words: Words = [number as u64, namespace.into(), 0, 0, 0];
        self.table.insert(key(number), || words)
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
            task::yield_processor();
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
